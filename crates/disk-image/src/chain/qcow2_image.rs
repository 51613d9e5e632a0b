//! A chain as one QCOW2, made front to back.
//!
//! ```text
//! header │ refcount table │ refcount blocks │ L1 │ L2 tables │ data
//! ```

use std::ops::Range;

use super::{BLOCK, Chain, count};
use crate::ImageError;

const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Entries of 64 bits in a cluster.
const ENTRIES: u64 = CLUSTER / 8;
/// Counts of 16 bits in a cluster.
const COUNTS: u64 = CLUSTER / 2;
/// The cluster is used once.
const COPIED: u64 = 1 << 63;

/// Gives the bytes of the image, block after block.
#[derive(Debug)]
pub struct Qcow2Image {
    chain: Chain,
    /// Clusters of the disk that get data.
    data: Vec<Range<u64>>,
    layout: Layout,
    stage: Stage,
}

/// In clusters.
#[derive(Debug, Clone, Copy)]
struct Layout {
    refcount_table: u64,
    refcount_blocks: u64,
    l1: u64,
    l1_entries: u64,
    l2: u64,
    data: u64,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Header,
    RefcountTable(u64),
    RefcountBlock(u64),
    L1(u64),
    /// Index in L1.
    L2(u64),
    /// Nth stretch, and the cluster in it.
    Data(usize, u64),
    Over,
}

impl Layout {
    fn of(virtual_size: u64, data: &[Range<u64>]) -> Self {
        let l1_entries = virtual_size.div_ceil(CLUSTER * ENTRIES).max(1);
        let mut tables = 0;
        let mut next = 0;
        for range in data {
            let (first, last) = (range.start / ENTRIES, (range.end - 1) / ENTRIES);
            tables += (last + 1).saturating_sub(first.max(next));
            next = last + 1;
        }
        let l1 = (l1_entries * 8).div_ceil(CLUSTER);
        let rest = 1 + l1 + tables + count(data);
        let mut layout = Self {
            refcount_table: 1,
            refcount_blocks: 1,
            l1,
            l1_entries,
            l2: tables,
            data: count(data),
        };
        // What counts the clusters needs clusters itself.
        loop {
            let blocks = (rest + layout.refcount_table + layout.refcount_blocks).div_ceil(COUNTS);
            let table = blocks.div_ceil(ENTRIES);
            if (table, blocks) == (layout.refcount_table, layout.refcount_blocks) {
                return layout;
            }
            (layout.refcount_table, layout.refcount_blocks) = (table, blocks);
        }
    }

    const fn l1_at(&self) -> u64 {
        1 + self.refcount_table + self.refcount_blocks
    }

    const fn l2_at(&self) -> u64 {
        self.l1_at() + self.l1
    }

    const fn data_at(&self) -> u64 {
        self.l2_at() + self.l2
    }

    const fn clusters(&self) -> u64 {
        self.data_at() + self.data
    }
}

impl Qcow2Image {
    pub(super) fn new(mut chain: Chain) -> Result<Self, ImageError> {
        let data = chain.units(CLUSTER)?;
        let layout = Layout::of(chain.virtual_size(), &data);
        Ok(Self { chain, data, layout, stage: Stage::Header })
    }

    /// Length of the whole image.
    pub const fn length(&self) -> u64 {
        self.layout.clusters() * CLUSTER
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the chain cannot be read.
    pub fn next_block(&mut self) -> Result<Option<Vec<u8>>, ImageError> {
        let Layout { refcount_table, refcount_blocks, l1, l1_entries, .. } = self.layout;
        loop {
            let (block, next) = match self.stage {
                Stage::Header => (Some(self.header()), Stage::RefcountTable(0)),
                Stage::RefcountTable(nth) if nth < refcount_table => {
                    let first = nth * ENTRIES;
                    let entry = |index| match first + index {
                        nth if nth < refcount_blocks => (1 + refcount_table + nth) * CLUSTER,
                        _ => 0,
                    };
                    (Some(table(entry)), Stage::RefcountTable(nth + 1))
                }
                Stage::RefcountTable(_) => (None, Stage::RefcountBlock(0)),
                Stage::RefcountBlock(nth) if nth < refcount_blocks => {
                    (Some(self.counts(nth)), Stage::RefcountBlock(nth + 1))
                }
                Stage::RefcountBlock(_) => (None, Stage::L1(0)),
                Stage::L1(nth) if nth < l1 => (Some(self.l1(nth)), Stage::L1(nth + 1)),
                Stage::L1(_) => (None, Stage::L2(0)),
                Stage::L2(index) if index < l1_entries => (self.l2(index), Stage::L2(index + 1)),
                Stage::L2(_) => (None, Stage::Data(0, 0)),
                Stage::Data(nth, within) => self.data(nth, within)?,
                Stage::Over => return Ok(None),
            };
            self.stage = next;
            if block.is_some() {
                return Ok(block);
            }
        }
    }

    fn header(&self) -> Vec<u8> {
        let layout = &self.layout;
        let mut out = Vec::new();
        out.extend_from_slice(b"QFI\xfb");
        out.extend_from_slice(&3_u32.to_be_bytes());
        out.extend_from_slice(&[0; 12]);
        out.extend_from_slice(&CLUSTER_BITS.to_be_bytes());
        out.extend_from_slice(&self.chain.virtual_size().to_be_bytes());
        out.extend_from_slice(&0_u32.to_be_bytes());
        out.extend_from_slice(&narrow(layout.l1_entries).to_be_bytes());
        out.extend_from_slice(&(layout.l1_at() * CLUSTER).to_be_bytes());
        out.extend_from_slice(&CLUSTER.to_be_bytes());
        out.extend_from_slice(&narrow(layout.refcount_table).to_be_bytes());
        // No snapshots, no features.
        out.extend_from_slice(&[0; 36]);
        // Counts of 2^4 bits, and the header's length.
        out.extend_from_slice(&4_u32.to_be_bytes());
        out.extend_from_slice(&104_u32.to_be_bytes());
        out.resize(usize::try_from(CLUSTER).unwrap_or(0), 0);
        out
    }

    fn counts(&self, nth: u64) -> Vec<u8> {
        let (first, all) = (nth * COUNTS, self.layout.clusters());
        (first..first + COUNTS).flat_map(|cluster| u16::from(cluster < all).to_be_bytes()).collect()
    }

    /// Whether any cluster below an entry of L1 has data.
    fn has_data(&self, index: u64) -> bool {
        let (start, end) = (index * ENTRIES, (index + 1) * ENTRIES);
        let at = self.data.partition_point(|range| range.end <= start);
        self.data.get(at).is_some_and(|range| range.start < end)
    }

    fn l1(&self, nth: u64) -> Vec<u8> {
        let first = nth * ENTRIES;
        // Tables before this cluster of L1.
        let mut before = (0..first).filter(|index| self.has_data(*index)).count() as u64;
        table(|index| {
            if first + index >= self.layout.l1_entries || !self.has_data(first + index) {
                return 0;
            }
            before += 1;
            COPIED | ((self.layout.l2_at() + before - 1) * CLUSTER)
        })
    }

    fn l2(&self, index: u64) -> Option<Vec<u8>> {
        if !self.has_data(index) {
            return None;
        }
        let start = index * ENTRIES;
        let mut at = self.data.partition_point(|range| range.end <= start);
        let before = self.data.get(..at).map_or(0, count);
        // Data clusters before the first one of this table.
        let inside = self.data.get(at).map_or(0, |range| start.saturating_sub(range.start));
        let mut data = self.layout.data_at() + before + inside;
        Some(table(|inner| {
            let cluster = start + inner;
            if self.data.get(at).is_some_and(|range| range.end <= cluster) {
                at += 1;
            }
            if !self.data.get(at).is_some_and(|range| range.contains(&cluster)) {
                return 0;
            }
            data += 1;
            COPIED | ((data - 1) * CLUSTER)
        }))
    }

    fn data(&mut self, nth: usize, within: u64) -> Result<(Option<Vec<u8>>, Stage), ImageError> {
        let Some(range) = self.data.get(nth) else { return Ok((None, Stage::Over)) };
        let first = range.start + within;
        if first >= range.end {
            return Ok((None, Stage::Data(nth + 1, 0)));
        }
        let clusters = (range.end - first).min(BLOCK / CLUSTER);
        let mut bytes = vec![0; usize::try_from(clusters * CLUSTER).unwrap_or(0)];
        self.chain.read(first * CLUSTER, &mut bytes)?;
        Ok((Some(bytes), Stage::Data(nth, within + clusters)))
    }
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A cluster of entries.
fn table(mut entry: impl FnMut(u64) -> u64) -> Vec<u8> {
    (0..ENTRIES).flat_map(|index| entry(index).to_be_bytes()).collect()
}
