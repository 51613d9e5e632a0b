//! Going on with a download or an upload of an earlier run of this process: is what it left still
//! there?

use super::DownloadContext;
use super::digest::Expectation;
use super::error::IngestError;
use super::intake::Intake;
use super::write::Begun;
use crate::stores::{Opened, Part};
use disk_image::HEAD_LEN;

/// Read at once.
const BLOCK: u64 = 256 << 10;

/// The file to go on with, if its first `received` bytes have this digest. `id` is its note's.
pub(crate) async fn begun(
    id: &str,
    cx: &DownloadContext,
    intake: &Intake<'_>,
    (received, digest): (u64, &str),
    hashes: &[Expectation],
) -> Result<Option<(Box<dyn Part>, Begun)>, IngestError> {
    let Some((part, file)) = intake.left(0, received).await? else {
        tracing::info!(id, "nothing is left of what was received, it begins again");
        return Ok(None);
    };
    let begun = read(cx, intake, &*file, received, hashes).await?;
    if begun.digests.so_far().is_none_or(|found| found.to_string() != digest) {
        tracing::warn!(id, "what is left of what was received is damaged, it begins again");
        return Ok(None);
    }
    Ok(Some((part, begun)))
}

/// Reads the first bytes of a file into the digests.
async fn read(
    cx: &DownloadContext,
    intake: &Intake<'_>,
    file: &dyn Opened,
    length: u64,
    hashes: &[Expectation],
) -> Result<Begun, IngestError> {
    let mut digests = intake.digests(hashes);
    let mut head = Vec::new();
    let mut at = 0;
    while at < length {
        let end = at.saturating_add(BLOCK).min(length);
        let bytes = intake.store().run("read a file", file.read(at..end)).await?;
        if at == 0 {
            head = bytes.get(..HEAD_LEN).unwrap_or(&bytes).to_vec();
        }
        let digest = move || {
            digests.update(&bytes);
            digests
        };
        digests = cx.tasks.blocking("digest a file", digest).await?;
        at = end;
    }
    Ok(Begun { length, head, digests })
}
