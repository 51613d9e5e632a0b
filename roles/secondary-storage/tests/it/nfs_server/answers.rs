//! The procedures themselves, on a directory.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nfs3::xdr::{Decoder, Encoder};

use super::{Endless, MOUNT, NFS, Shared, State, number_of};

type Status = u32;
const NOT_FOUND: Status = 2;
const NOT_DIRECTORY: Status = 20;
const STALE: Status = 70;
const NOT_SUPPORTED: Status = 10004;

fn status_of(error: &std::io::Error) -> Status {
    match error.kind() {
        ErrorKind::NotFound => NOT_FOUND,
        ErrorKind::PermissionDenied => 13,
        ErrorKind::AlreadyExists => 17,
        ErrorKind::NotADirectory => NOT_DIRECTORY,
        ErrorKind::IsADirectory => 21,
        ErrorKind::DirectoryNotEmpty => 66,
        _ => 5,
    }
}

impl Shared {
    fn handle(state: &mut State, path: &Path, out: &mut Encoder) {
        let number = number_of(path).unwrap_or(0);
        state.paths.insert(number, path.to_owned());
        let mut bytes = state.generation.to_be_bytes().to_vec();
        bytes.extend_from_slice(&number.to_be_bytes());
        out.opaque(&bytes);
    }

    /// The path of a handle that is still good.
    fn path(state: &State, input: &mut Decoder) -> Result<PathBuf, Status> {
        let bytes = input.opaque("handle", 64).unwrap();
        let (generation, number) = bytes.split_at(4);
        let number = u64::from_be_bytes(number.try_into().unwrap());
        let path = state.paths.get(&number).ok_or(STALE)?;
        if generation != state.generation.to_be_bytes() || number_of(path) != Some(number) {
            return Err(STALE);
        }
        Ok(path.clone())
    }

    /// Directory of the handle, and the name after it.
    fn named(state: &State, input: &mut Decoder) -> Result<PathBuf, Status> {
        let directory = Self::path(state, input);
        let name = input.opaque("name", 255).unwrap();
        let directory = directory?;
        if !std::fs::symlink_metadata(&directory).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(NOT_DIRECTORY);
        }
        Ok(directory.join(std::ffi::OsStr::new(std::str::from_utf8(&name).unwrap())))
    }

    fn maybe_attributes(state: &State, path: &Path, out: &mut Encoder) {
        let there = !state.faults.bare && number_of(path).is_some();
        out.bool(there);
        if there {
            attributes(path, out);
        }
    }

    fn maybe_found(state: &mut State, path: &Path, out: &mut Encoder) {
        out.bool(!state.faults.bare);
        if !state.faults.bare {
            Self::handle(state, path, out);
        }
        Self::maybe_attributes(state, path, out);
    }

    pub(super) fn execute(
        &self,
        state: &mut State,
        program: u32,
        number: u32,
        input: &mut Decoder,
        out: &mut Encoder,
    ) {
        if program == MOUNT {
            let path = input.opaque("path", 1024).unwrap();
            let is_exported = state
                .faults
                .exports
                .as_ref()
                .is_none_or(|exports| exports.iter().any(|export| export.as_bytes() == path));
            let refused = (!is_exported).then_some(13);
            match refused.or(state.faults.refuse_mount) {
                Some(status) => {
                    out.u32(status);
                }
                None => {
                    out.u32(0);
                    Self::handle(state, &self.root, out);
                    let flavours = state.faults.flavours.clone().unwrap_or_else(|| vec![1]);
                    out.length(flavours.len());
                    for flavour in flavours {
                        out.u32(flavour);
                    }
                }
            }
            return;
        }
        assert_eq!(program, NFS);
        let mut results = Encoder::default();
        match Self::procedure(state, number, input, &mut results) {
            Ok(()) => {
                let results = results.finish();
                assert_eq!(results.len() % 4, 0);
                out.u32(0).fixed(&results);
            }
            Err(status) => {
                out.u32(status).bool(false).bool(false);
            }
        }
    }

    fn procedure(
        state: &mut State,
        number: u32,
        input: &mut Decoder,
        out: &mut Encoder,
    ) -> Result<(), Status> {
        let failed = |error: std::io::Error| status_of(&error);
        match number {
            1 => attributes(&Self::path(state, input)?, out),
            2 => {
                let path = Self::path(state, input)?;
                set_attributes(&path, input).map_err(failed)?;
                out.bool(false).bool(false);
            }
            3 => {
                let path = Self::named(state, input)?;
                number_of(&path).ok_or(NOT_FOUND)?;
                Self::handle(state, &path, out);
                Self::maybe_attributes(state, &path, out);
                out.bool(false);
            }
            4 => {
                let path = Self::path(state, input)?;
                let wanted = input.u32().unwrap();
                let writable = !std::fs::metadata(&path).unwrap().permissions().readonly();
                out.bool(false).u32(if writable { wanted } else { wanted & 3 });
            }
            6 => Self::read(state, input, out)?,
            7 => Self::write(state, input, out)?,
            8 => Self::create(state, input, out)?,
            9 | 12..=15 => Self::change(state, number, input, out)?,
            16 | 17 => Self::directory(state, number == 17, input, out)?,
            18 => {
                let path = Self::path(state, input)?;
                let space = nix::sys::statvfs::statvfs(&path).unwrap();
                let unit = space.fragment_size();
                let (total, free, available) = match state.faults.free {
                    Some(free) => (1 << 40, free, free),
                    None => (
                        space.blocks() * unit,
                        space.blocks_free() * unit,
                        space.blocks_available() * unit,
                    ),
                };
                out.bool(false).u64(total).u64(free);
                out.u64(available).u64(0).u64(0).u64(0).u32(0);
            }
            19 => {
                Self::path(state, input)?;
                let size = 128 << 10;
                out.bool(false).u32(size).u32(size).u32(1).u32(size).u32(size).u32(1).u32(8 << 10);
                out.u64(1 << 50).u32(0).u32(1).u32(0x1b);
            }
            21 => {
                let path = Self::path(state, input)?;
                state.unstable.remove(&number_of(&path).unwrap());
                out.bool(false).bool(false).u64(state.verifier);
            }
            _ => return Err(NOT_SUPPORTED),
        }
        Ok(())
    }

    fn create(state: &mut State, input: &mut Decoder, out: &mut Encoder) -> Result<(), Status> {
        let failed = |error: std::io::Error| status_of(&error);
        let path = Self::named(state, input)?;
        let how = input.u32().unwrap();
        if how == 2 {
            let number = input.u64().unwrap();
            let known = state.exclusive.get(&path).copied();
            if number_of(&path).is_some() && known != Some(number) {
                return Err(17);
            }
            File::create(&path).map_err(failed)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o0)).unwrap();
            state.exclusive.insert(path.clone(), number);
            Self::maybe_found(state, &path, out);
            out.bool(false).bool(false);
            return Ok(());
        }
        assert_eq!(how, 0, "unchecked");
        if std::fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(17);
        }
        File::create(&path).map_err(failed)?;
        set_attributes(&path, input).map_err(failed)?;
        Self::maybe_found(state, &path, out);
        out.bool(false).bool(false);
        Ok(())
    }

    /// What changes names.
    fn change(
        state: &mut State,
        number: u32,
        input: &mut Decoder,
        out: &mut Encoder,
    ) -> Result<(), Status> {
        let failed = |error: std::io::Error| status_of(&error);
        match number {
            9 => {
                let path = Self::named(state, input)?;
                std::fs::create_dir(&path).map_err(failed)?;
                set_attributes(&path, input).map_err(failed)?;
                Self::maybe_found(state, &path, out);
                out.bool(false).bool(false);
            }
            12 => {
                let path = Self::named(state, input)?;
                std::fs::remove_file(&path).map_err(failed)?;
                out.bool(false).bool(false);
            }
            13 => {
                let path = Self::named(state, input)?;
                std::fs::remove_dir(&path).map_err(failed)?;
                out.bool(false).bool(false);
            }
            14 => {
                let from = Self::named(state, input);
                let to = Self::named(state, input);
                let (from, to) = (from?, to?);
                std::fs::rename(&from, &to).map_err(failed)?;
                if let Some(number) = number_of(&to) {
                    state.paths.insert(number, to);
                }
                out.bool(false).bool(false).bool(false).bool(false);
            }
            15 => {
                let file = Self::path(state, input);
                let name = Self::named(state, input)?;
                std::fs::hard_link(file?, &name).map_err(failed)?;
                state.paths.insert(number_of(&name).unwrap(), name);
                out.bool(false).bool(false).bool(false);
            }
            _ => return Err(NOT_SUPPORTED),
        }
        Ok(())
    }

    fn read(state: &State, input: &mut Decoder, out: &mut Encoder) -> Result<(), Status> {
        let path = Self::path(state, input)?;
        let (offset, count) = (input.u64().unwrap(), input.u32().unwrap() as usize);
        let file = File::open(&path).map_err(|error| status_of(&error))?;
        let mut bytes = vec![0; count.min(state.faults.short.unwrap_or(usize::MAX))];
        let read = file.read_at(&mut bytes, offset).unwrap();
        bytes.truncate(read);
        let is_end = offset + read as u64 >= file.metadata().unwrap().len();
        Self::maybe_attributes(state, &path, out);
        out.length(read).bool(is_end).opaque(&bytes);
        Ok(())
    }

    fn write(state: &mut State, input: &mut Decoder, out: &mut Encoder) -> Result<(), Status> {
        let path = Self::path(state, input)?;
        let (offset, count) = (input.u64().unwrap(), input.u32().unwrap() as usize);
        let stability = input.u32().unwrap();
        let bytes = input.opaque("data", 1 << 20).unwrap();
        assert_eq!(bytes.len(), count);
        let count = count.min(state.faults.short.unwrap_or(usize::MAX));
        let file = OpenOptions::new().write(true).open(&path).map_err(|e| status_of(&e))?;
        file.write_all_at(&bytes[..count], offset).unwrap();
        if stability == 0 {
            let number = number_of(&path).unwrap();
            state.unstable.entry(number).or_default().push(offset..offset + count as u64);
        }
        out.bool(false).bool(false).length(count).u32(stability).u64(state.verifier);
        Ok(())
    }

    fn directory(
        state: &mut State,
        plus: bool,
        input: &mut Decoder,
        out: &mut Encoder,
    ) -> Result<(), Status> {
        let path = Self::path(state, input)?;
        let mut cookie = input.u64().unwrap();
        let _verifier = input.u64().unwrap();
        let names = std::fs::read_dir(&path).map_err(|error| status_of(&error))?;
        let mut names: Vec<String> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names.splice(0..0, [".".to_owned(), "..".to_owned()]);
        let mut verifier = u64::MAX;
        if cookie > 0 && state.faults.directory_changes > 0 {
            state.faults.directory_changes -= 1;
            verifier = state.faults.directory_changes as u64;
        }
        let last = names.len() as u64;
        let part = state.faults.part.unwrap_or(64);
        if state.faults.endless == Some(Endless::Circle) {
            cookie = 0;
        }
        names.drain(..names.len().min(cookie as usize));
        match state.faults.endless {
            Some(Endless::Names) => {
                names = (0..1000).map(|n| format!("name{}", cookie + n)).collect();
            }
            Some(Endless::Circle) => {}
            Some(Endless::Nothing) => names.clear(),
            None => names.truncate(part),
        }
        Self::maybe_attributes(state, &path, out);
        out.u64(verifier);
        let mut at = cookie;
        for name in names {
            at += 1;
            let entry = if name == "." || name == ".." { path.clone() } else { path.join(&name) };
            out.bool(true).u64(number_of(&entry).unwrap_or(9)).opaque(name.as_bytes()).u64(at);
            if plus {
                Self::maybe_attributes(state, &entry, out);
                let there = !state.faults.bare && number_of(&entry).is_some();
                out.bool(there);
                if there {
                    Self::handle(state, &entry, out);
                }
            }
        }
        out.bool(false).bool(at >= last && state.faults.endless.is_none());
        Ok(())
    }
}

fn attributes(path: &Path, out: &mut Encoder) {
    let metadata = std::fs::symlink_metadata(path).unwrap();
    let file_type = metadata.file_type();
    out.u32(match () {
        () if file_type.is_file() => 1,
        () if file_type.is_dir() => 2,
        () if file_type.is_symlink() => 5,
        () if file_type.is_fifo() => 7,
        () => 6,
    });
    out.u32(metadata.mode() & 0o7777).u32(1).u32(metadata.uid()).u32(metadata.gid());
    out.u64(metadata.len()).u64(metadata.blocks() * 512).u64(0);
    out.u64(metadata.dev()).u64(metadata.ino());
    for _time in 0..3 {
        out.u32(u32::try_from(metadata.mtime()).unwrap()).u32(0);
    }
}

fn set_attributes(path: &Path, input: &mut Decoder) -> std::io::Result<()> {
    let mode = input.optional(Decoder::u32).unwrap();
    let _owner = (input.optional(Decoder::u32).unwrap(), input.optional(Decoder::u32).unwrap());
    let size = input.optional(Decoder::u64).unwrap();
    assert_eq!((input.u32().unwrap(), input.u32().unwrap()), (0, 0), "no times");
    if let Some(mode) = mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    if let Some(size) = size {
        OpenOptions::new().write(true).open(path)?.set_len(size)?;
    }
    Ok(())
}
