//! A QCOW2 that may need another file.

use std::io::Read;

use flate2::{Decompress, FlushDecompress};

use super::{Bytes, ChainError, File, Opened, Parent, Run, RunKind};
use crate::qcow2::{Backing, COMPRESSED, Header, OFFSET, ZERO};
use crate::{Format, ImageError, LARGEST_HEAD, up_to};

/// L2 tables that are kept; a disk is read front to back.
const TABLES: usize = 4;

pub(super) fn open(source: Bytes) -> Result<Opened, ImageError> {
    let head = up_to(&*source, 0, LARGEST_HEAD)?;
    let (header, backing) = Header::parse_chained(&head)?;
    let parent = backing.map(|Backing { name, format }| Parent {
        names: vec![name],
        format: format.as_deref().and_then(|format| match format {
            "qcow2" => Some(Format::Qcow2),
            "raw" => Some(Format::Raw),
            _ => None,
        }),
        id: None,
    });
    header.check_l1(&*source)?;
    let mut bytes = vec![0; usize::try_from(header.l1_length()).unwrap_or(0)];
    source.read_at(header.l1_offset(), &mut bytes)?;
    let file =
        Qcow2File { header, l1: entries(&bytes), tables: Vec::new(), decompressed: None, source };
    Ok(Opened { file: Box::new(file), parent, id: None, geometry: None })
}

fn entries(bytes: &[u8]) -> Vec<u64> {
    let (entries, _rest) = bytes.as_chunks::<8>();
    entries.iter().map(|entry| u64::from_be_bytes(*entry)).collect()
}

#[derive(Debug)]
struct Qcow2File {
    header: Header,
    l1: Vec<u64>,
    /// By index in L1, the one used last at the end.
    tables: Vec<(usize, Vec<u64>)>,
    /// Entry and content.
    decompressed: Option<(u64, Vec<u8>)>,
    source: Bytes,
}

/// Where a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cluster {
    Absent,
    Zero,
    At(u64),
    Compressed(u64),
}

impl Qcow2File {
    fn table(&mut self, index: usize) -> Result<Option<&[u64]>, ImageError> {
        let offset = self.l1.get(index).copied().unwrap_or(0) & OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        if let Some(at) = self.tables.iter().position(|(other, _)| *other == index) {
            // Nearly always the last one already.
            if at + 1 < self.tables.len() {
                let table = self.tables.remove(at);
                self.tables.push(table);
            }
        } else {
            let mut bytes = vec![0; usize::try_from(self.header.cluster_size()).unwrap_or(0)];
            self.source.read_at(offset, &mut bytes)?;
            if self.tables.len() >= TABLES {
                self.tables.remove(0);
            }
            self.tables.push((index, entries(&bytes)));
        }
        Ok(self.tables.last().map(|(_, table)| table.as_slice()))
    }

    /// The cluster at an offset of the disk.
    fn cluster(&mut self, offset: u64) -> Result<Cluster, ImageError> {
        let size = self.header.cluster_size();
        let (cluster, per_table) = (offset / size, size / 8);
        let index = usize::try_from(cluster / per_table).unwrap_or(usize::MAX);
        let inner = usize::try_from(cluster % per_table).unwrap_or(usize::MAX);
        let is_old = self.header.version == 2;
        let Some(table) = self.table(index)? else { return Ok(Cluster::Absent) };
        let entry = table.get(inner).copied().unwrap_or(0);
        Ok(if entry & COMPRESSED != 0 {
            Cluster::Compressed(entry)
        } else if entry & ZERO != 0 && !is_old {
            Cluster::Zero
        } else {
            match entry & OFFSET {
                0 => Cluster::Absent,
                offset => Cluster::At(offset),
            }
        })
    }

    fn decompress(&mut self, entry: u64) -> Result<&[u8], ImageError> {
        if self.decompressed.as_ref().is_none_or(|(other, _)| *other != entry) {
            let (offset, length) = self.header.compressed(entry);
            let length = length.min(self.source.length().saturating_sub(offset));
            let mut packed = vec![0; usize::try_from(length).unwrap_or(0)];
            self.source.read_at(offset, &mut packed)?;
            let mut content = vec![0; usize::try_from(self.header.cluster_size()).unwrap_or(0)];
            let whole = if self.header.is_zstd() {
                unpack_zstd(&packed, &mut content)
            } else {
                // Raw deflate; what follows it up to the sector's end is nothing.
                let mut inflater = Decompress::new(false);
                let done = inflater.decompress(&packed, &mut content, FlushDecompress::Finish);
                done.is_ok() && inflater.total_out() == content.len() as u64
            };
            if !whole {
                return Err(ChainError::Compressed(offset).into());
            }
            self.decompressed = Some((entry, content));
        }
        Ok(self.decompressed.as_ref().map(|(_, content)| content.as_slice()).unwrap_or_default())
    }
}

fn unpack_zstd(packed: &[u8], content: &mut [u8]) -> bool {
    let decoder = zstd::stream::read::Decoder::with_buffer(packed);
    decoder.is_ok_and(|decoder| decoder.single_frame().read_exact(content).is_ok())
}

impl File for Qcow2File {
    fn virtual_size(&self) -> u64 {
        self.header.virtual_size
    }

    fn check(&self) -> Result<(), ImageError> {
        self.header.check_tables(&*self.source)
    }

    fn run(&mut self, offset: u64, limit: u64) -> Result<Run, ImageError> {
        let size = self.header.cluster_size();
        let kind_of = |cluster| match cluster {
            Cluster::Absent => RunKind::Absent,
            Cluster::Zero => RunKind::Zero,
            Cluster::At(_) | Cluster::Compressed(_) => RunKind::Data,
        };
        let kind = kind_of(self.cluster(offset)?);
        let per_table = size.saturating_mul(size / 8);
        let mut length = size - offset % size;
        while length < limit {
            let at = offset + length;
            let index = usize::try_from(at / per_table).unwrap_or(usize::MAX);
            // A table that is not there is passed over as a whole.
            let is_missing = self.l1.get(index).copied().unwrap_or(0) & OFFSET == 0;
            if is_missing {
                if kind != RunKind::Absent {
                    break;
                }
                length += per_table - at % per_table;
            } else if kind_of(self.cluster(at)?) == kind {
                length += size;
            } else {
                break;
            }
        }
        Ok(Run { kind, length: length.min(limit) })
    }

    fn read(&mut self, offset: u64, target: &mut [u8]) -> Result<(), ImageError> {
        let size = self.header.cluster_size();
        let mut done = 0;
        while done < target.len() {
            let at = offset + done as u64;
            let inner = at % size;
            let left = target.len() - done;
            let first = usize::try_from(size - inner).unwrap_or(left).min(left);
            match self.cluster(at)? {
                Cluster::At(host) => {
                    // Clusters that follow each other are read at once.
                    let mut length = first;
                    while length < left
                        && self.cluster(at + length as u64)?
                            == Cluster::At(host - inner + (inner + length as u64))
                    {
                        length += usize::try_from(size).unwrap_or(left).min(left - length);
                    }
                    let piece = target.get_mut(done..done + length).unwrap_or_default();
                    self.read_host(host + inner, piece)?;
                    done += length;
                }
                Cluster::Compressed(entry) => {
                    let from = usize::try_from(inner).unwrap_or(0);
                    let content = self.decompress(entry)?;
                    let content = content.get(from..from + first).unwrap_or_default();
                    if let Some(piece) = target.get_mut(done..done + content.len()) {
                        piece.copy_from_slice(content);
                    }
                    done += first;
                }
                Cluster::Absent | Cluster::Zero => {
                    target.get_mut(done..done + first).unwrap_or_default().fill(0);
                    done += first;
                }
            }
        }
        Ok(())
    }
}

impl Qcow2File {
    /// The last cluster of a file may be short: QEMU writes no more of it than the disk has.
    fn read_host(&self, offset: u64, target: &mut [u8]) -> Result<(), ImageError> {
        let inside = self.source.length().saturating_sub(offset);
        let there = usize::try_from(inside).unwrap_or(target.len()).min(target.len());
        let (read, missing) = target.split_at_mut(there);
        if !read.is_empty() {
            self.source.read_at(offset, read)?;
        }
        missing.fill(0);
        Ok(())
    }
}
