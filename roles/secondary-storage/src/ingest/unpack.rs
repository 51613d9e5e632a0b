//! One member of an archive on the store, as a file beside it; its digest is the manifest's.

use std::sync::Arc;

use super::digest::{Digester, Expectation};
use super::error::IngestError;
use crate::stores::{Opened, Part, Store};
use disk_image::ova;

/// Read and written at once.
const BLOCK: u64 = 256 << 10;

/// Copies a member into `part`; the next bytes are read while these are written.
pub(super) async fn unpack(
    store: &Store,
    archive: &Arc<dyn Opened>,
    file: &ova::File,
    mut part: Box<dyn Part>,
) -> Result<(), IngestError> {
    const NAME: &str = "unpack a file";
    let wrong = |text| IngestError::Manifest { name: file.name.clone(), text };
    let expectation = file.digest.as_ref().map(|digest| {
        let text = format!("{{{}}}{}", digest.algorithm, digest.hex);
        Expectation::parse(Some(&text)).map_err(|unknown| wrong(unknown.to_string()))
    });
    let expectation = expectation.transpose()?;
    let digester = expectation.as_ref().map(Digester::start).transpose();
    let digester = digester.map_err(IngestError::Thread)?;
    let queue = digester.as_ref().map(Digester::queue);
    let end = file.offset.saturating_add(file.length);
    let read = |at: u64| {
        let range = at..end.min(at.saturating_add(BLOCK));
        async move {
            if range.is_empty() {
                return Ok(None);
            }
            store.run(NAME, archive.read(range)).await.map(Some)
        }
    };
    let mut next = read(file.offset).await?;
    let mut written = 0_u64;
    while let Some(bytes) = next.take() {
        if let Some(queue) = &queue {
            queue.send(bytes.clone()).await.map_err(|_died| IngestError::Internal)?;
        }
        let length = bytes.len() as u64;
        let writing = store.run(NAME, part.write(written, bytes));
        let reading = read(file.offset + written + length);
        let ((), read) = tokio::try_join!(writing, reading)?;
        written += length;
        next = read;
    }
    drop(queue);
    store.run(NAME, part.finish()).await?;
    if let (Some(expectation), Some(digester)) = (expectation, digester) {
        let found = digester.finish().await.ok_or(IngestError::Internal)?;
        expectation.verify(&found).map_err(wrong)?;
    }
    Ok(())
}
