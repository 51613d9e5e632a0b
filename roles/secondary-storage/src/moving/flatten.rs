//! A snapshot that is the youngest of a chain of files, written out as one image.

use std::sync::Arc;

use disk_image::chain::{self, Chain, MAX_FILES, Opened as ChainFile, Parent, VhdIdentity};
use disk_image::{Format, ImageError};
use tokio::sync::mpsc;

use super::copy::{Original, Progress};
use super::image::Image;
use super::staging::Staging;
use super::{MoveError, Moves};
use crate::stores::{FileName, InstallPath, Opened, Part, Store};

/// Blocks that are made ahead of the writer.
const AHEAD: usize = 4;
const WRITE: &str = "write an image";
/// The year 2000, from which a VHD counts.
const VHD_EPOCH: u64 = 946_684_800;

/// The image being made, on its own thread.
enum Maker {
    Qcow2(chain::Qcow2Image),
    Vhd(chain::VhdImage),
}

impl Maker {
    fn length(&self) -> u64 {
        match self {
            Self::Qcow2(image) => image.length(),
            Self::Vhd(image) => image.length(),
        }
    }

    fn next_block(&mut self) -> Result<Option<Vec<u8>>, ImageError> {
        match self {
            Self::Qcow2(image) => image.next_block(),
            Self::Vhd(image) => image.next_block(),
        }
    }
}

impl Moves {
    /// Writes the disk that `original` and its parents make as the first file of a staging; `None` when
    /// it has no parent.
    pub(super) async fn flatten(
        &self,
        staging: &Staging,
        original: &Original,
        format: Format,
        progress: &Progress,
    ) -> Result<Option<Box<dyn Opened>>, MoveError> {
        if !matches!(format, Format::Qcow2 | Format::Vhd) {
            return Ok(None);
        }
        let youngest = self.open_file(original, move |source| chain::open(format, source)).await?;
        let Some(mut wanted) = youngest.parent else { return Ok(None) };
        let mut child = original.path().clone();
        let (geometry, mut files) = (youngest.geometry.unwrap_or(0), vec![youngest.file]);
        let mut parents = Vec::new();
        loop {
            if files.len() >= MAX_FILES {
                let text = format!("{} needs more than {MAX_FILES} files", original.path());
                return Err(MoveError::Refused(text));
            }
            let parent = find_parent(original.store(), &child, &wanted).await?;
            let open = move |source| chain::open_parent(&wanted, source);
            let opened = self.open_file(&parent, open).await.map_err(|error| match error {
                MoveError::Image(fault) => MoveError::Parent { path: parent.path().clone(), fault },
                other => other,
            })?;
            files.push(opened.file);
            child = parent.path().clone();
            parents.push(parent);
            match opened.parent {
                Some(next) => wanted = next,
                None => break,
            }
        }
        tracing::info!(snapshot = %original.path(), files = files.len(), "writing a chain out");
        let identity = self.identity(geometry);
        let begin = move || {
            let chain = Chain::new(files)?;
            Ok::<_, ImageError>(match format {
                Format::Vhd => Maker::Vhd(chain::vhd_of(chain, identity)?),
                _ => Maker::Qcow2(chain::qcow2_of(chain)?),
            })
        };
        let maker = self.tasks.blocking("read the tables of a chain", begin).await?;
        let maker = maker.map_err(MoveError::Image)?;
        let file = self.write_out(staging, maker, progress).await?;
        for parent in &parents {
            parent.verify().await?;
        }
        Ok(Some(file))
    }

    fn identity(&self, geometry: u32) -> VhdIdentity {
        let now = self.host.clock.unix_ms();
        let seconds = u64::try_from(now).unwrap_or(0) / 1000;
        let seconds = u32::try_from(seconds.saturating_sub(VHD_EPOCH)).unwrap_or(0);
        VhdIdentity { id: uuid::Uuid::new_v4().into_bytes(), seconds, geometry }
    }

    async fn open_file(
        &self,
        original: &Original,
        open: impl FnOnce(chain::Bytes) -> Result<ChainFile, ImageError> + Send + 'static,
    ) -> Result<ChainFile, MoveError> {
        let image = Image::new(Arc::clone(original.file()));
        let opening = move || open(Box::new(image));
        let opened = self.tasks.blocking("read the head of an image", opening).await?;
        opened.map_err(MoveError::Image)
    }

    /// The image is made on a thread, a few blocks ahead of the writer.
    async fn write_out(
        &self,
        staging: &Staging,
        mut maker: Maker,
        progress: &Progress,
    ) -> Result<Box<dyn Opened>, MoveError> {
        let expected = maker.length();
        progress.expect(expected);
        let (blocks, queue) = mpsc::channel(AHEAD);
        let make = move || {
            while let Some(block) = maker.next_block()? {
                if blocks.blocking_send(block).is_err() {
                    // Nobody writes any more.
                    break;
                }
            }
            Ok::<_, ImageError>(())
        };
        let making = self.tasks.blocking("write a chain out", make);
        let part = staging.create(0).await?;
        let writing = write(staging.store(), part, queue, progress);
        let (made, written) = tokio::join!(making, writing);
        made?.map_err(MoveError::Image)?;
        let (part, found) = written?;
        if found != expected {
            let path = staging.files().first().map(super::staging::Staged::target);
            let path =
                path.ok_or_else(|| MoveError::Refused("nothing was to be made".to_owned()))?;
            return Err(MoveError::Length { path, found, expected });
        }
        Ok(staging.store().run(WRITE, part.finish()).await?)
    }
}

async fn write(
    store: &Store,
    mut part: Box<dyn Part>,
    mut queue: mpsc::Receiver<Vec<u8>>,
    progress: &Progress,
) -> Result<(Box<dyn Part>, u64), MoveError> {
    const SYNC_EVERY: u64 = 256 << 20;
    let mut length = 0;
    let mut unsynced = 0;
    while let Some(block) = queue.recv().await {
        let count = block.len() as u64;
        let writing = part.write(length, block.into());
        store.run(WRITE, writing).await?;
        progress.add(count);
        length += count;
        unsynced += count;
        if unsynced >= SYNC_EVERY {
            unsynced = 0;
            let syncing = part.sync();
            store.run(WRITE, syncing).await?;
        }
    }
    Ok((part, length))
}

/// The file that a child names. Hypervisor hosts mount the store somewhere of their own, so of an
/// absolute name only what follows the tree of snapshots counts. Nothing outside of the account's own
/// snapshots is ever read: the name stands in a file that others write.
async fn find_parent(
    store: &Arc<Store>,
    child: &InstallPath,
    wanted: &Parent,
) -> Result<Original, MoveError> {
    let mut tried = Vec::new();
    for name in &wanted.names {
        let Some(path) = place_of(child, name) else {
            tried.push(format!("{name:?}"));
            continue;
        };
        if let Some(found) = Original::find(store, &path).await? {
            return Ok(found);
        }
        tried.push(path.to_string());
    }
    let (store, tried) = (store.url(), tried.join(" or "));
    Err(MoveError::Refused(format!(
        "{child} needs its parent {tried}, which is not there among the snapshots of the account in store \
         {store}"
    )))
}

/// `snapshots`, then the account.
const OWNED: usize = 2;

fn place_of(child: &InstallPath, name: &str) -> Option<InstallPath> {
    let owned = child.prefix(OWNED)?;
    let tree = child.prefix(1)?.to_string();
    let path: InstallPath = if name.starts_with('/') {
        let marked = format!("/{tree}/");
        let at = name.rfind(&marked)?;
        name.get(at + 1..)?.parse().ok()?
    } else {
        let (directory, _) = child.split()?;
        let mut parts: Vec<FileName> = directory.parts().to_vec();
        for part in name.split('/').filter(|part| !part.is_empty() && *part != ".") {
            if part == ".." {
                parts.pop()?;
            } else {
                parts.push(part.parse().ok()?);
            }
        }
        let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
        parts.join("/").parse().ok()?
    };
    // The tree, the account, the volume, the file.
    let is_file = path.parts().len() > OWNED + 1;
    (path.parts().starts_with(owned.parts()) && is_file && path != *child).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_only_looked_for_among_the_snapshots_of_its_account() {
        let child: InstallPath = "snapshots/2/31/c".parse().unwrap();
        for (name, place) in [
            ("p", Some("snapshots/2/31/p")),
            ("./p", Some("snapshots/2/31/p")),
            ("../30/p", Some("snapshots/2/30/p")),
            ("/mnt/9f3a/snapshots/2/31/p", Some("snapshots/2/31/p")),
            ("/mnt/snapshots/1/snapshots/2/31/p", Some("snapshots/2/31/p")),
            ("c", None),
            ("../../3/31/p", None),
            ("/mnt/9f3a/snapshots/3/31/p", None),
            ("/etc/passwd", None),
            ("../../../../etc/passwd", None),
            ("../../../template/tmpl/1/3/t", None),
            ("/mnt/snapshots/2/31/../../3/31/p", None),
            ("", None),
        ] {
            let found = place_of(&child, name).map(|path| path.to_string());
            assert_eq!(found.as_deref(), place, "{name:?}");
        }
    }
}
