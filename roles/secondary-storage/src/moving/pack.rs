//! A VMware snapshot as one OVA: the description first, then the disks that it refers to.
//!
//! What VMware leaves on a store is a directory for each snapshot, with the description of a machine
//! and a file for each disk, packed by somebody already or not.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use disk_image::ovf::{MAX_LENGTH, Ovf};

use super::copy::{Original, Progress};
use super::staging::Staging;
use super::{MoveError, Moves};
use crate::stores::{FileName, Opened, Part, Store};

/// Of an archive: heads and contents begin at multiples of it.
const BLOCK: u64 = 512;
const WRITE: &str = "pack an OVA";
/// Written data is pushed to the disk in steps, so that the end needs no minutes of syncing.
const SYNC_EVERY: u64 = 256 << 20;

/// Whether a snapshot's file is a description that has to be packed.
pub(super) fn is_description(original: &Original) -> bool {
    original.path().parts().last().is_some_and(|name| name.as_str().ends_with(".ovf"))
}

impl Moves {
    /// Packs what a description refers to into the first file of a staging.
    pub(super) async fn pack(
        &self,
        staging: &Staging,
        description: &Original,
        progress: &Progress,
    ) -> Result<Box<dyn Opened>, MoveError> {
        let path = description.path();
        let refused = |text: String| MoveError::Refused(format!("{path} {text}"));
        if description.length() > MAX_LENGTH {
            return Err(refused(format!("has {} bytes", description.length())));
        }
        let store = description.store();
        let reading = description.file().read(0..description.length());
        let bytes = store.run("read a description", reading).await?;
        let ovf = Ovf::parse(&bytes).map_err(|error| refused(error.to_string()))?;
        let (directory, _) = path.split().ok_or_else(|| refused("is no file".to_owned()))?;
        let mut members = vec![Arc::new(Original::open(store, path).await?)];
        for file in &ovf.files {
            let name: FileName = file.href.parse()?;
            members.push(Arc::new(Original::open(store, &directory.join(name)).await?));
        }
        let total = members.iter().map(|member| member.length()).sum();
        progress.expect(total);
        let modified = self.host.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let part = staging.create(0).await?;
        let mut archive = Archive { store: staging.store(), part, length: 0, unsynced: 0 };
        for member in &members {
            archive.add(member, modified.as_secs(), progress).await?;
        }
        // Two empty blocks are the end.
        archive.write(vec![0; 2 * BLOCK as usize].into()).await?;
        let Archive { store, part, .. } = archive;
        let file = store.run(WRITE, part.finish()).await?;
        for member in &members {
            member.verify().await?;
        }
        Ok(file)
    }
}

/// The archive being written.
struct Archive<'a> {
    store: &'a Store,
    part: Box<dyn Part>,
    length: u64,
    unsynced: u64,
}

impl Archive<'_> {
    async fn add(
        &mut self,
        member: &Original,
        modified: u64,
        progress: &Progress,
    ) -> Result<(), MoveError> {
        let name = member.path().parts().last().map(ToString::to_string).unwrap_or_default();
        let head = head(&name, member.length(), modified).ok_or_else(|| {
            MoveError::Refused(format!("{name:?} is too long for the name of a file in an OVA"))
        })?;
        self.write(Bytes::copy_from_slice(&head)).await?;
        let (mut at, stride) = (0, member.file().stride().max(1));
        while at < member.length() {
            let end = at.saturating_add(stride).min(member.length());
            let reading = member.file().read(at..end);
            let block = member.store().run("read a disk", reading).await?;
            progress.add(block.len() as u64);
            self.write(block).await?;
            at = end;
        }
        let rest = usize::try_from(self.length.next_multiple_of(BLOCK) - self.length).unwrap_or(0);
        if rest > 0 {
            self.write(vec![0; rest].into()).await?;
        }
        Ok(())
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), MoveError> {
        let count = bytes.len() as u64;
        let writing = self.part.write(self.length, bytes);
        self.store.run(WRITE, writing).await?;
        self.length += count;
        self.unsynced += count;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            let syncing = self.part.sync();
            self.store.run(WRITE, syncing).await?;
        }
        Ok(())
    }
}

/// The head of a file in an archive (`ustar`); `None` when the name is too long for one.
fn head(name: &str, length: u64, modified: u64) -> Option<[u8; BLOCK as usize]> {
    const LARGEST_OCTAL: u64 = (1 << 33) - 1;
    let mut head = [0; BLOCK as usize];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = head.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    if name.len() > 100 {
        return None;
    }
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if length <= LARGEST_OCTAL {
        put(124, format!("{length:011o}\0").as_bytes());
    } else {
        // Longer than octal digits can say: as a number of twelve bytes, marked by its first bit.
        let mut wide = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        if let Some(last) = wide.last_chunk_mut::<8>() {
            *last = length.to_be_bytes();
        }
        put(124, &wide);
    }
    put(136, format!("{:011o}\0", modified.min(LARGEST_OCTAL)).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(place) = head.get_mut(148..156) {
        place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_say_lengths_of_any_size() {
        let small = head("a.ovf", 1000, 1_761_825_909).unwrap();
        assert_eq!(&small[..6], b"a.ovf\0");
        assert_eq!(&small[124..136], b"00000001750\0");
        assert_eq!(&small[257..265], b"ustar\x0000");
        let large = head("a.vmdk", 9 << 30, 0).unwrap();
        assert_eq!(&large[124..136], &[0x80, 0, 0, 0, 0, 0, 0, 2, 0x40, 0, 0, 0]);
        assert_eq!(head(&"x".repeat(101), 1, 0), None);
    }
}
