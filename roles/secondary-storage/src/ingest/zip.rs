//! A ZIP as a stream: the image is the one file in it that is an image of the wanted format; notes,
//! checksums and what file managers add are passed over.
//!
//! Entries are read by their own headers, and the directory at the end must name the same ones: an
//! archive that shows two readers different files is refused, and so is one that is cut short.

mod entry;

use std::io::{BufRead, Read};

use bytes::Bytes;
use disk_image::{Format, HEAD_LEN, Kind};

use super::decompress::{BLOCK, Beside, Out, failed};
use super::error::IngestError;
use super::members::{Peeked, ignore};
use entry::{Content, Counted, Entry};

const WHAT: &str = "Zip archive data";
const MAX_ENTRIES: usize = 1_000;
const LOCAL: &[u8] = b"PK\x03\x04";
const CENTRAL: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
/// Files that are named in a notice or an error.
const NAMED: usize = 5;

fn wrong(reason: impl Into<String>) -> IngestError {
    IngestError::Decompress { what: WHAT, reason: reason.into() }
}

/// Gives the image of `format` to `out`; says which other files there were.
pub(super) fn extract<R: BufRead>(
    from: Peeked<R>,
    format: Format,
    out: &mut Out<'_>,
) -> Result<Option<Beside>, IngestError> {
    let mut archive = Archive { format, image: None, names: Vec::new(), others: Vec::new() };
    let mut from = Some(Counted::new(from));
    let mut listed = 0;
    while let Some(mut input) = from.take() {
        let signature = entry::bytes::<4>(&mut input)?;
        match &signature[..] {
            LOCAL => from = Some(archive.entry(input, out)?),
            CENTRAL => {
                listed += 1;
                let name = entry::central(&mut input)?;
                if !archive.names.contains(&name) {
                    return Err(wrong(format!(
                        "its directory names {}, which is not there",
                        shown(&name)
                    )));
                }
                from = Some(input);
            }
            END_64 => {
                let length = u64::from_le_bytes(entry::bytes(&mut input)?);
                entry::skip(&mut input, length)?;
                from = Some(input);
            }
            LOCATOR_64 => {
                entry::skip(&mut input, 16)?;
                from = Some(input);
            }
            END => {
                if listed != archive.names.len() {
                    let there = archive.names.len();
                    return Err(wrong(format!(
                        "it has {there} files, its directory names {listed}"
                    )));
                }
                let fixed: [u8; 18] = entry::bytes(&mut input)?;
                let comment = u16::from_le_bytes([fixed[16], fixed[17]]);
                entry::skip(&mut input, u64::from(comment))?;
                // The digest covers all of a file.
                ignore(input).map_err(|error| failed(&error, WHAT))?;
            }
            _ => return Err(wrong("a header in it is damaged")),
        }
    }
    archive.end()
}

fn shown(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    format!("{:?}", name.chars().take(80).collect::<String>())
}

struct Archive {
    format: Format,
    image: Option<String>,
    names: Vec<Vec<u8>>,
    /// Other files and what they are.
    others: Vec<(String, Kind)>,
}

impl Archive {
    /// Reads one entry to its end.
    fn entry<R: BufRead>(
        &mut self,
        mut input: Counted<Peeked<R>>,
        out: &mut Out<'_>,
    ) -> Result<Counted<Peeked<R>>, IngestError> {
        let entry = Entry::read(&mut input)?;
        if self.names.len() >= MAX_ENTRIES {
            return Err(wrong(format!("it has more than {MAX_ENTRIES} files")));
        }
        self.names.push(entry.name.clone());
        let name = shown(&entry.name);
        let mut content = Content::begin(&entry, input, &name)?;
        let mut head = Vec::new();
        let reading = content.by_ref().take(HEAD_LEN as u64).read_to_end(&mut head);
        reading.map_err(|error| failed(&error, WHAT))?;
        let kind = Kind::of(&head);
        let is_image = !entry.is_directory() && !entry.is_litter() && self.format.admits(kind);
        if is_image && let Some(other) = &self.image {
            let format = self.format.name();
            return Err(wrong(format!(
                "{other} and {name} can both be the {format}: pack only one"
            )));
        }
        if is_image {
            self.image = Some(name.clone());
            out(head.into())?;
        } else if !entry.is_directory() && !entry.is_litter() {
            self.others.push((name.clone(), kind));
        }
        let mut block = vec![0_u8; BLOCK];
        loop {
            let read = match content.read(&mut block) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(&error, WHAT)),
            };
            if is_image {
                out(Bytes::copy_from_slice(block.get(..read).unwrap_or_default()))?;
            }
        }
        content.end(&entry, &name)
    }

    fn end(self) -> Result<Option<Beside>, IngestError> {
        let others = self.others.iter().take(NAMED);
        if self.image.is_none() {
            let found: Vec<String> =
                others.map(|(name, kind)| format!("{name} ({})", kind.name())).collect();
            let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
            let name = self.format.name();
            return Err(wrong(format!("none of its files is a {name}; found: {found}")));
        }
        let names: Vec<String> = others.map(|(name, _)| name.clone()).collect();
        Ok((!names.is_empty()).then_some(Beside::Files(names)))
    }
}
