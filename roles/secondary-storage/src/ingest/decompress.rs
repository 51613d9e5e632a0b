//! Taking an image out of the wrapper it was downloaded in.
//!
//! What wraps it is told by its bytes. The function blocks and runs on the ingest's own thread.

use std::io::{Cursor, Error, ErrorKind, Read};

use super::error::IngestError;
use crate::format::{HEAD_LEN, Kind};

/// Largest piece that is handed on at once.
pub const BLOCK: usize = 256 * 1024;

/// Readers mark a failure of their own with this, to tell it from a decompressor's complaint.
#[derive(Debug, thiserror::Error)]
#[error("the source ended early")]
pub struct InputBroken;

/// Reads `from` to its end and gives the image inside to `out`, block by block.
pub fn decompress(
    mut from: impl Read,
    out: &mut dyn FnMut(&[u8]) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    let mut start = Vec::new();
    fill(&mut from, &mut start, HEAD_LEN).map_err(|error| broken(&error))?;
    let wrapper = Kind::of(&start);
    let from_start = Read::chain(Cursor::new(start), &mut from);
    match wrapper {
        Kind::Gzip => copy(flate2::read::MultiGzDecoder::new(from_start), out, wrapper)?,
        Kind::Bzip2 => copy(bzip2::read::MultiBzDecoder::new(from_start), out, wrapper)?,
        _ => copy(from_start, out, wrapper)?,
    }
    // A decompressor may stop before the end of its input; the digest covers all of it.
    std::io::copy(&mut from, &mut std::io::sink()).map_err(|error| broken(&error))?;
    Ok(())
}

/// The other side gave up: it knows why, this error is replaced by its own.
fn broken(error: &Error) -> IngestError {
    tracing::debug!(%error, "the download's source ended");
    IngestError::Aborted
}

/// Reads until `target` holds `length` bytes or the source ends.
fn fill(source: &mut impl Read, target: &mut Vec<u8>, length: usize) -> std::io::Result<()> {
    source.take(length as u64).read_to_end(target).map(|_read| ())
}

fn copy(
    mut from: impl Read,
    out: &mut dyn FnMut(&[u8]) -> Result<(), IngestError>,
    wrapper: Kind,
) -> Result<(), IngestError> {
    let mut block = vec![0_u8; BLOCK];
    loop {
        let read = match from.read(&mut block) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<InputBroken>()) => {
                return Err(broken(&error));
            }
            Err(error) => {
                let reason = error.to_string();
                return Err(IngestError::Decompress { kind: wrapper, reason });
            }
        };
        out(block.get(..read).unwrap_or_default())?;
    }
}
