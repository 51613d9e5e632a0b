//! OVA: a TAR with the description of a machine, its disks, and mostly a manifest of digests.
//!
//! The members are unpacked beside the archive, so what they are and how they are called is judged
//! here: plain files in no directory, each name once, none that means something to the store. The
//! order does not matter, because the whole archive is there.

mod manifest;

use std::collections::BTreeSet;

use crate::ovf::{self, Ovf, OvfError};
use crate::tar::{self, Member, MemberKind};
use crate::vmdk::{self, VmdkError};
use crate::{ImageError, Kind, Notice, Source, up_to};
pub use manifest::Digest;

const MAX_MEMBERS: u64 = 1_000;
const MAX_NAME: usize = 200;
const MAX_MANIFEST: u64 = 1 << 20;
/// Names with a meaning in an object's directory.
const RESERVED: [&str; 3] = ["template.properties", "volume.properties", "snapshot.properties"];
const RESERVED_ENDS: [&str; 3] = [".ova", ".ova.meta", ".ovf.orig"];

/// Why a file is not an OVA that can be a template.
#[derive(Debug, thiserror::Error)]
pub enum OvaError {
    /// Not even a sound TAR.
    #[error(transparent)]
    Tar(#[from] tar::TarError),
    /// It begins like something else.
    #[error("it is something else: {}", .0.name())]
    Kind(Kind),
    /// A link, a device, a sparse file.
    #[error("its member {name:?} is {what}: pack plain files only")]
    Member {
        /// Name of the member.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// Not a name of a file beside the archive.
    #[error("its member {0:?} cannot be unpacked: give it a plain name, without directories")]
    Name(String),
    /// Which of the two counts?
    #[error("it has two members {0:?}")]
    Twice(String),
    /// No description.
    #[error("it has no .ovf: an OVA is a TAR of an OVF and its files")]
    NoOvf,
    /// Which of the two counts?
    #[error("it has two descriptions, {0:?} and {1:?}")]
    TwoOvfs(String, String),
    /// The description.
    #[error("its {name:?} {source}")]
    Ovf {
        /// Name of the member.
        name: String,
        /// What is wrong.
        source: OvfError,
    },
    /// The description refers to what is not there.
    #[error("its description refers to {0:?}, which is not in the archive")]
    Missing(String),
    /// There is nothing to start.
    #[error("its description has no disk")]
    NoDisk,
    /// A disk that is no VMDK.
    #[error("its disk {name:?} is not a VMDK but {}: export the machine again", kind.name())]
    NotVmdk {
        /// Name of the member.
        name: String,
        /// What it is.
        kind: Kind,
    },
    /// A disk that cannot be used.
    #[error("its disk {name:?} is not a valid VMDK: {source}")]
    Disk {
        /// Name of the member.
        name: String,
        /// What is wrong.
        source: VmdkError,
    },
    /// The manifest.
    #[error("its manifest {name:?} is not valid in line {line}: {reason}")]
    Manifest {
        /// Name of the member.
        name: String,
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The manifest is of other files.
    #[error("its manifest names {0:?}, which is not in the archive")]
    ManifestOf(String),
}

/// A member that is unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// A plain name.
    pub name: String,
    /// Where it begins in the archive.
    pub offset: u64,
    /// Its length.
    pub length: u64,
    /// What its bytes must give, when the manifest says so.
    pub digest: Option<Digest>,
}

/// A sound OVA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// What is unpacked, in the order of the archive.
    pub files: Vec<File>,
    /// Name of the description among them.
    pub ovf: String,
    /// Bytes of all disks.
    pub virtual_size: u64,
    /// Oddities.
    pub notices: Vec<Notice>,
}

/// A part of an image as an image.
struct Slice<'a, S: ?Sized> {
    source: &'a S,
    start: u64,
    length: u64,
}

impl<S: Source + ?Sized> Source for Slice<'_, S> {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        if offset.saturating_add(target.len() as u64) > self.length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.source.read_at(self.start + offset, target)
    }
}

fn slice<'a, S: Source + ?Sized>(source: &'a S, file: &File) -> Slice<'a, S> {
    Slice { source, start: file.offset, length: file.length }
}

/// Judges a complete OVA.
pub fn check<S: Source + ?Sized>(source: &S) -> Result<Package, ImageError> {
    let kind = Kind::of(&up_to(source, 0, crate::HEAD_LEN)?);
    if kind != Kind::Tar {
        return Err(OvaError::Kind(kind).into());
    }
    let mut files: Vec<File> = Vec::new();
    tar::walk(source, MAX_MEMBERS, |member| {
        if let Some(file) = plain(&member)? {
            if files.iter().any(|other| other.name == file.name) {
                return Err(OvaError::Twice(file.name).into());
            }
            files.push(file);
        }
        Ok(())
    })
    .map_err(|error| match error {
        ImageError::Tar(error) => OvaError::Tar(error).into(),
        other => other,
    })?;
    let description = description(&files)?.clone();
    let ovf = read_ovf(source, &description)?;
    let mut notices = Vec::new();
    let used = used(&ovf, &description, &files, &mut notices)?;
    if let Some(manifest) = files.iter().find(|file| has_end(&file.name, ".mf")).cloned() {
        manifest::apply(source, &manifest, &mut files)?;
    }
    let virtual_size = check_disks(source, &ovf, &files, &mut notices)?;
    files.retain(|file| used.contains(&file.name));
    Ok(Package { files, ovf: description.name, virtual_size, notices })
}

/// Whether a text begins as a manifest does.
pub(crate) fn is_manifest(head: &[u8]) -> bool {
    manifest::is_manifest(head)
}

fn has_end(name: &str, end: &str) -> bool {
    let start = name.len().saturating_sub(end.len());
    name.as_bytes().get(start..).is_some_and(|found| found.eq_ignore_ascii_case(end.as_bytes()))
}

/// A member as a file to be unpacked; `None` for the directory that was packed.
fn plain(member: &Member) -> Result<Option<File>, OvaError> {
    let what = match member.kind {
        MemberKind::File => None,
        MemberKind::Directory if matches!(&*member.name, b"." | b"./") => return Ok(None),
        MemberKind::Directory => Some("a directory"),
        MemberKind::Link => Some("a link"),
        MemberKind::Special => Some("a device or a pipe"),
        MemberKind::Sparse => Some("a sparse file"),
        MemberKind::Other(_) => Some("of an unknown type"),
    };
    if let Some(what) = what {
        return Err(OvaError::Member { name: member.shown(), what });
    }
    let name = std::str::from_utf8(&member.name).ok();
    let name = name.map(|name| name.strip_prefix("./").unwrap_or(name));
    let name = name.filter(|name| is_plain_name(name));
    let name = name.ok_or_else(|| OvaError::Name(member.shown()))?.to_owned();
    Ok(Some(File { name, offset: member.offset, length: member.size, digest: None }))
}

/// A file name that means nothing to the store.
fn is_plain_name(name: &str) -> bool {
    let is_reserved = RESERVED.iter().any(|other| name.eq_ignore_ascii_case(other))
        || RESERVED_ENDS.iter().any(|end| has_end(name, end))
        || (name.starts_with("dnld") && name.contains("tmp_"));
    let is_odd = name.is_empty()
        || name.len() > MAX_NAME
        || name.starts_with(['.', '-'])
        || name.contains(['/', '\\'])
        || name.chars().any(char::is_control);
    !is_reserved && !is_odd
}

fn description(files: &[File]) -> Result<&File, OvaError> {
    let mut found = files.iter().filter(|file| has_end(&file.name, ".ovf"));
    match (found.next(), found.next()) {
        (None, _) => Err(OvaError::NoOvf),
        (Some(one), Some(two)) => Err(OvaError::TwoOvfs(one.name.clone(), two.name.clone())),
        (Some(one), None) => Ok(one),
    }
}

fn read_ovf<S: Source + ?Sized>(source: &S, file: &File) -> Result<Ovf, ImageError> {
    let wrong = |source| OvaError::Ovf { name: file.name.clone(), source };
    if file.length > ovf::MAX_LENGTH {
        return Err(wrong(OvfError::Length(file.length)).into());
    }
    let bytes = up_to(&slice(source, file), 0, usize::try_from(file.length).unwrap_or(0))?;
    Ok(Ovf::parse(&bytes).map_err(wrong)?)
}

/// Names of the members that are unpacked: the description, what it refers to, and the manifest
/// with its signature.
fn used(
    ovf: &Ovf,
    description: &File,
    files: &[File],
    notices: &mut Vec<Notice>,
) -> Result<BTreeSet<String>, OvaError> {
    let mut used = BTreeSet::from([description.name.clone()]);
    for reference in &ovf.files {
        let found = files.iter().find(|file| file.name == reference.href);
        let found = found.ok_or_else(|| OvaError::Missing(reference.href.clone()))?;
        if let Some(told) = reference.size.filter(|told| *told != found.length) {
            let (name, length) = (found.name.clone(), found.length);
            notices.push(Notice::MemberSize { name, told, length });
        }
        used.insert(found.name.clone());
    }
    for file in files.iter().filter(|file| !used.contains(&file.name)).collect::<Vec<_>>() {
        if has_end(&file.name, ".mf") || has_end(&file.name, ".cert") {
            used.insert(file.name.clone());
        } else {
            notices.push(Notice::UnusedMember(file.name.clone()));
        }
    }
    Ok(used)
}

/// Every disk is a VMDK in one file. The sum of what the machine sees, by its description and by
/// the disks themselves, whichever is more.
fn check_disks<S: Source + ?Sized>(
    source: &S,
    ovf: &Ovf,
    files: &[File],
    notices: &mut Vec<Notice>,
) -> Result<u64, ImageError> {
    if ovf.disks.is_empty() {
        return Err(OvaError::NoDisk.into());
    }
    let mut sum = 0_u64;
    for disk in &ovf.disks {
        let reference = ovf.file_of(disk);
        let file = reference.and_then(|file| files.iter().find(|other| other.name == file.href));
        let inside = match (file, reference) {
            (Some(file), Some(reference)) => {
                check_disk(source, file, reference.is_compressed, notices)?
            }
            _ => None,
        };
        if let (Some(inside), Some(told), Some(file)) = (inside, disk.capacity, file)
            && inside > told.saturating_add(GRAIN)
        {
            let name = file.name.clone();
            notices.push(Notice::DiskSize { name, told, inside });
        }
        sum = sum.saturating_add(disk.capacity.unwrap_or(0).max(inside.unwrap_or(0)));
    }
    Ok(sum)
}

/// A stream-optimized disk is rounded up to its grain.
const GRAIN: u64 = 64 * 1024;

/// The size of a disk; `None` when it is compressed.
fn check_disk<S: Source + ?Sized>(
    source: &S,
    file: &File,
    is_compressed: bool,
    notices: &mut Vec<Notice>,
) -> Result<Option<u64>, ImageError> {
    let disk = slice(source, file);
    let kind = Kind::of(&up_to(&disk, 0, crate::HEAD_LEN)?);
    if kind == Kind::Gzip && (is_compressed || has_end(&file.name, ".gz")) {
        notices.push(Notice::CompressedDisk(file.name.clone()));
        return Ok(None);
    }
    if !matches!(kind, Kind::Vmdk(_)) {
        return Err(OvaError::NotVmdk { name: file.name.clone(), kind }.into());
    }
    match vmdk::check(&disk) {
        Ok(found) => Ok(Some(found.virtual_size)),
        Err(ImageError::Vmdk(source)) => {
            Err(OvaError::Disk { name: file.name.clone(), source }.into())
        }
        Err(other) => Err(other),
    }
}
