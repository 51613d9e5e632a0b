//! Config drives: `configdrive/<instance>.iso`, made by the server and sent in the command.
//!
//! A file is replaced by a rename: a host that attaches it meanwhile sees the old one or the new one.
//! The server replaces drives also of machines that run (before each migration), and on NFS a file
//! that is open elsewhere is gone with its last name. So the one that is replaced keeps a hidden name
//! until the next, or until the drive is deleted.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bedrock::Secret;
use bytes::Bytes;

use super::staging::Staging;
use super::{MoveError, Moves};
use crate::stores::{FileName, InstallPath, Store, Work};

/// The one directory that they are in.
const DIRECTORY: &str = "configdrive";
const EXTENSION: &str = ".iso";
/// Characters that are decoded at once.
const SLICE: usize = 1 << 20;

/// The place of a config drive, exactly `configdrive/NAME.iso`.
#[derive(Debug, Clone)]
pub struct DrivePath {
    directory: InstallPath,
    name: FileName,
}

impl DrivePath {
    /// As the command names it.
    pub fn parse(text: &str) -> Result<Self, MoveError> {
        let path: InstallPath = text.parse()?;
        let wrong = || {
            let form = format!("{DIRECTORY}/INSTANCE{EXTENSION}");
            MoveError::Refused(format!("{path} is not the place of a config drive ({form})"))
        };
        let (directory, name) = path.split().ok_or_else(wrong)?;
        let is_place = matches!(directory.parts(), [only] if only.as_str() == DIRECTORY);
        let is_name = name.as_str().len() > EXTENSION.len()
            && name.as_str().ends_with(EXTENSION)
            && !name.as_str().starts_with('.');
        if !is_place || !is_name {
            return Err(wrong());
        }
        Ok(Self { name: name.clone(), directory })
    }

    pub fn path(&self) -> InstallPath {
        self.directory.join(self.name.clone())
    }

    /// The name that a replaced drive keeps.
    fn former(&self) -> Result<FileName, MoveError> {
        Ok(format!(".quickcloud-former-{}", self.name).parse()?)
    }
}

impl Moves {
    /// Writes or replaces a config drive; gives its length.
    pub async fn write_drive(
        &self,
        store: &Arc<Store>,
        drive: &DrivePath,
        text: Secret<String>,
    ) -> Result<u64, MoveError> {
        let path = drive.path();
        let permit = self.enter(store, &path, None).await?;
        let target = vec![(drive.directory.clone(), drive.name.clone())];
        let staging = Staging::begin(self, store, None, target).await?;
        let written = permit.during(self.install_drive(&staging, drive, text)).await;
        staging.conclude(written, &permit).await
    }

    async fn install_drive(
        &self,
        staging: &Staging,
        drive: &DrivePath,
        text: Secret<String>,
    ) -> Result<u64, MoveError> {
        const NAME: &str = "write a config drive";
        let store = Arc::clone(staging.store());
        let mut part = staging.create(0).await?;
        let (mut slices, mut length) = (Slices::new(text), 0);
        loop {
            let decoded;
            (slices, decoded) = self
                .tasks
                .blocking("decode a config drive", move || {
                    let decoded = slices.next();
                    (slices, decoded)
                })
                .await?;
            let Some(bytes) = decoded? else { break };
            let count = bytes.len() as u64;
            store.run(NAME, part.write(length, bytes)).await?;
            length += count;
        }
        if length == 0 {
            return Err(MoveError::Refused(INVALID.to_owned()));
        }
        let file = store.run(NAME, part.finish()).await?;
        if file.length() != length {
            let (path, found) = (drive.path(), file.length());
            return Err(MoveError::Length { path, found, expected: length });
        }
        drop(file);
        let engine = store.engine();
        let (directory, name) = (drive.directory.clone(), drive.name.clone());
        let keeping = engine.keep(staging.work(), directory, name, drive.former()?);
        if let Err(error) = store.run("keep a config drive that is in use", keeping).await {
            // Only a machine that has it open at this moment would miss it.
            let error = bedrock::chain(&error);
            tracing::debug!(error, path = %drive.path(), "the former config drive is not kept");
        }
        Ok(length)
    }

    /// Removes a config drive; `false` when there was none, which is no failure.
    pub async fn remove_drive(
        &self,
        store: &Arc<Store>,
        drive: &DrivePath,
    ) -> Result<bool, MoveError> {
        const NAME: &str = "delete a config drive";
        let path = drive.path();
        let _permit = self.enter(store, &path, None).await?;
        let work = Work::new();
        let former = drive.directory.join(drive.former()?);
        store.run(NAME, store.engine().remove_file(&work, former)).await?;
        Ok(store.run(NAME, store.engine().remove_file(&work, path)).await?)
    }
}

/// The original's words.
pub const INVALID: &str = "Invalid config drive ISO data";

/// Base64 that is decoded piece by piece. Line breaks in it are nothing.
struct Slices {
    text: Secret<String>,
    at: usize,
    /// Characters that make no group of four yet.
    rest: Vec<u8>,
    ended: bool,
}

impl Slices {
    const fn new(text: Secret<String>) -> Self {
        Self { text, at: 0, rest: Vec::new(), ended: false }
    }

    /// The next bytes; `None` at the end.
    fn next(&mut self) -> Result<Option<Bytes>, MoveError> {
        let all = self.text.reveal().as_bytes();
        loop {
            let begin = self.at;
            let slice = all.get(begin..).unwrap_or_default();
            let slice = slice.get(..SLICE).unwrap_or(slice);
            self.at += slice.len();
            let mut group = std::mem::take(&mut self.rest);
            group.extend(slice.iter().filter(|byte| !byte.is_ascii_whitespace()));
            let is_last = self.at >= all.len();
            if !is_last {
                let whole = group.len() - group.len() % 4;
                self.rest = group.split_off(whole);
            }
            if group.is_empty() {
                if is_last {
                    return Ok(None);
                }
                continue;
            }
            let wrong = |reason: String| {
                let end = self.at;
                MoveError::Refused(format!("{INVALID}: characters {begin} to {end}: {reason}"))
            };
            // Padding ends the text; a decoder of one slice cannot know.
            if self.ended {
                return Err(wrong("there is more after the padding".to_owned()));
            }
            self.ended = group.ends_with(b"=");
            let decoded = BASE64_STANDARD.decode(&group);
            return decoded
                .map(|bytes| Some(bytes.into()))
                .map_err(|error| wrong(error.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(text: &str) -> Result<Vec<u8>, String> {
        let mut slices = Slices::new(Secret::from(text));
        let mut all = Vec::new();
        while let Some(bytes) = slices.next().map_err(|error| error.to_string())? {
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    #[test]
    fn a_text_of_any_length_is_decoded_across_slices() {
        for length in [0, 1, 2, 3, 786_431, 786_432, 786_433, 2_000_003] {
            let bytes: Vec<u8> = (0..length).map(|n: usize| (n * 31 % 251) as u8).collect();
            let text = BASE64_STANDARD.encode(&bytes);
            assert_eq!(decode(&text).unwrap(), bytes, "{length}");
            let lines: Vec<&str> =
                text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
            assert_eq!(decode(&lines.join("\r\n")).unwrap(), bytes, "{length} in lines");
        }
    }

    #[test]
    fn what_is_no_base64_is_told_with_its_place() {
        let good = "A".repeat(SLICE);
        for (text, told) in [
            ("AAA".to_owned(), "characters 0 to 3"),
            ("A!AA".to_owned(), "characters 0 to 4"),
            (format!("{good}A?=="), "characters 1048576 to 1048580"),
            (format!("AA=={good}"), "Invalid"),
            (format!("{}=={good}", "A".repeat(SLICE - 2)), "after the padding"),
        ] {
            let error = decode(&text).unwrap_err();
            assert!(error.starts_with(INVALID) && error.contains(told), "{error}");
        }
    }

    #[test]
    fn only_isos_in_their_directory_are_config_drives() {
        let path = DrivePath::parse("configdrive/i-2-12-VM.iso").unwrap().path();
        assert_eq!(path.to_string(), "configdrive/i-2-12-VM.iso");
        for bad in [
            "",
            "configdrive",
            "configdrive/",
            "configdrive/.iso",
            "configdrive/a.img",
            "configdrive/.quickcloud.iso",
            "configdrive/a/b.iso",
            "configdrive/../template/a.iso",
            "template/a.iso",
            "a.iso",
        ] {
            assert!(DrivePath::parse(bad).is_err(), "{bad}");
        }
    }
}
