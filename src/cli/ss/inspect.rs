//! `quickcloud ss inspect FILE`: what the storage role would say of an image, without a store.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use clap::Args;
use disk_image::{Format, HEAD_LEN, Inspection, Kind, Source, inspect as judge};
use serde_json::{Value, json};

use crate::cli::text::{plain, size};
use crate::exit::Outcome;
use crate::output::{complain_of, say};

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud ss inspect debian-12.qcow2
  quickcloud ss inspect appliance.ova --json
  quickcloud ss inspect disk.img --format RAW

Nothing is written and no process is asked. Exit codes: 0 the image would be installed, 1 it would be
refused or cannot be read.";

#[derive(Debug, Args)]
pub(in crate::cli) struct InspectOptions {
    /// The image
    file: PathBuf,
    /// Format that it is to be registered with; what it looks like by default
    #[arg(long, value_parser = Format::from_name)]
    format: Option<Format>,
    /// As a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, thiserror::Error)]
enum InspectError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not a file", .0.display())]
    NotAFile(PathBuf),
}

/// A file of this machine.
struct Image {
    file: File,
    length: u64,
}

impl Source for Image {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(target, offset)
    }
}

/// What was found of one file.
struct Found {
    kind: Kind,
    /// The format that it was judged as; none when it is not an image.
    format: Option<Format>,
    length: u64,
    outcome: Result<Inspection, String>,
}

pub(super) fn inspect(options: &InspectOptions) -> Outcome {
    let found = match look(options) {
        Ok(found) => found,
        Err(error) => {
            complain_of(&error);
            return Outcome::Failed;
        }
    };
    let text = if options.json { format!("{:#}\n", found.json()) } else { found.text() };
    match say(&text) {
        Outcome::Clean if found.outcome.is_err() => Outcome::Failed,
        outcome => outcome,
    }
}

fn look(options: &InspectOptions) -> Result<Found, InspectError> {
    let read = |source| InspectError::Read { path: options.file.clone(), source };
    let file = File::open(&options.file).map_err(read)?;
    let about = file.metadata().map_err(read)?;
    if !about.is_file() {
        return Err(InspectError::NotAFile(options.file.clone()));
    }
    let image = Image { file, length: about.len() };
    let mut head = vec![0; HEAD_LEN.min(usize::try_from(image.length).unwrap_or(HEAD_LEN))];
    image.read_at(0, &mut head).map_err(read)?;
    let kind = Kind::of(&head);
    let format = options.format.or_else(|| format_of(kind));
    let outcome = match format {
        Some(format) if format.admits(kind) => {
            judge(format, &image).map_err(|error| bedrock::chain(&error))
        }
        Some(format) => Err(format!("is not a valid {}: it is {}", format.name(), kind.name())),
        None if kind.is_wrapper() => Err(
            "is compressed: the role takes that off while it receives it; inspect the file inside"
                .to_owned(),
        ),
        None => Err(format!("is not an image but {}", kind.name())),
    };
    Ok(Found { kind, format, length: image.length, outcome })
}

/// What a file is registered as that looks like this.
const fn format_of(kind: Kind) -> Option<Format> {
    Some(match kind {
        Kind::Qcow2 => Format::Qcow2,
        Kind::Vhd => Format::Vhd,
        Kind::Vhdx => Format::Vhdx,
        Kind::Vmdk(_) => Format::Vmdk,
        Kind::Iso => Format::Iso,
        Kind::Tar => Format::Ova,
        Kind::BootSector | Kind::Data => Format::Raw,
        Kind::Gzip | Kind::Bzip2 | Kind::Xz | Kind::Zstd | Kind::Zip | Kind::Foreign(_) => {
            return None;
        }
    })
}

impl Found {
    fn text(&self) -> String {
        let format = self.format.map_or("-", Format::name);
        let mut out = format!("found    {}\nformat   {format}\n", self.kind.name());
        match &self.outcome {
            Err(reason) => {
                out.push_str(&format!(
                    "length   {}\nrefused  the file {}\n",
                    size(self.length),
                    plain(reason)
                ));
            }
            Ok(found) => {
                let virtual_size = found.sizes.virtual_size;
                out.push_str(&format!("length   {} ({})\n", size(self.length), self.length));
                out.push_str(&format!("virtual  {} ({virtual_size})\n", size(virtual_size)));
                for file in found.package.iter().flat_map(|package| &package.files) {
                    let name = plain(&file.name);
                    out.push_str(&format!("member   {name} {}\n", size(file.length)));
                }
                for notice in &found.notices {
                    out.push_str(&format!("notice   {}\n", plain(&notice.to_string())));
                }
                out.push_str("accepted\n");
            }
        }
        out
    }

    fn json(&self) -> Value {
        let mut value = json!({
            "found": self.kind.name(),
            "format": self.format.map(Format::name),
            "length": self.length,
            "accepted": self.outcome.is_ok(),
        });
        let more = match &self.outcome {
            Err(reason) => json!({ "reason": format!("the file {reason}") }),
            Ok(found) => {
                let files = found.package.iter().flat_map(|package| &package.files);
                let files: Vec<Value> =
                    files.map(|file| json!({ "name": file.name, "length": file.length })).collect();
                let notices: Vec<String> = found.notices.iter().map(ToString::to_string).collect();
                json!({
                    "virtual_size": found.sizes.virtual_size,
                    "files": files,
                    "notices": notices,
                })
            }
        };
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bytes: &[u8], format: Option<Format>) -> Found {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("image");
        std::fs::write(&file, bytes).unwrap();
        look(&InspectOptions { file, format, json: false }).unwrap()
    }

    #[test]
    fn an_image_is_described_and_a_refusal_says_why() {
        let disk = found(&[0; 4096], None);
        assert_eq!(
            disk.text(),
            "found    data\nformat   RAW\nlength   4.0KiB (4096)\nvirtual  4.0KiB (4096)\naccepted\n"
        );
        let value = disk.json();
        assert_eq!((&value["accepted"], &value["virtual_size"]), (&json!(true), &json!(4096)));
        let page = found(b"<html>not here</html>", None);
        assert!(page.text().ends_with("refused  the file is not an image but HTML document\n"));
        assert_eq!(page.json()["accepted"], false);
        let other = found(&[0; 4096], Some(Format::Qcow2));
        assert_eq!(other.outcome.unwrap_err(), "is not a valid QCOW2: it is data");
        let packed = found(b"\x1f\x8b\x08\0", None);
        assert!(packed.outcome.unwrap_err().starts_with("is compressed"));
    }

    #[test]
    fn what_is_not_a_file_is_said() {
        let options = |file: &str| InspectOptions { file: file.into(), format: None, json: false };
        assert_eq!(look(&options("/")).err().unwrap().to_string(), "/ is not a file");
        let missing = look(&options("/nowhere/x")).err().unwrap();
        assert_eq!(missing.to_string(), "cannot read /nowhere/x");
    }
}
