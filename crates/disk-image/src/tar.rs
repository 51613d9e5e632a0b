//! TAR, read header by header: ustar, old V7, GNU's long names and sizes, pax records.
//!
//! Where two readers of a file would find different members, somebody can be shown one file and
//! given another. So a header's checksum counts, a size in a pax record wins over the header's, and
//! records that move data for everything behind them are refused.

mod header;

use crate::{ImageError, PIECE, Source, up_to};
pub use header::is_header;
use header::{BLOCK, Header, Records};

/// Longest name or pax record that is read.
const MAX_RECORD: u64 = 256 * 1024;

/// Why a file is not a sound TAR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// No header where one must be.
    #[error("the header at byte {0} is damaged (wrong checksum)")]
    Checksum(u64),
    /// A number that is none.
    #[error("the header at byte {0} has no valid size")]
    Size(u64),
    /// A name or record that is too long or malformed.
    #[error("the record at byte {0} is not valid")]
    Record(u64),
    /// A pax record for all members behind it that changes where they are.
    #[error(
        "a global record at byte {0} gives all members a name or size: pack it again with tar --format=ustar"
    )]
    Global(u64),
    /// The end of the file lies within a member.
    #[error("it is cut short: {name:?} ends at byte {end}, the file at byte {length}")]
    CutShort {
        /// Name of the member.
        name: String,
        /// Where it would end.
        end: u64,
        /// Length of the file.
        length: u64,
    },
    /// A member's name leads out of the directory that it is unpacked in.
    #[error("the name {0:?} of a member leads elsewhere")]
    Name(String),
    /// There is nothing in it.
    #[error("it has no members")]
    Empty,
    /// More members than allowed.
    #[error("it has more than {0} members")]
    TooMany(u64),
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberKind {
    /// Its bytes follow the header.
    File,
    /// Its bytes follow, without the holes between them.
    Sparse,
    /// A directory.
    Directory,
    /// A hard or symbolic link.
    Link,
    /// A device or a pipe.
    Special,
    /// By its type byte.
    Other(u8),
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As it is in the file, whatever its character set.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// First byte of its content.
    pub offset: u64,
    /// Bytes of its content.
    pub size: u64,
}

impl Member {
    /// The name for people.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    fn leads_elsewhere(&self) -> bool {
        self.name.split(|byte| *byte == b'/').any(|part| part == b"..")
    }
}

/// Bytes of a source, read ahead in pieces.
struct Ahead<'a, S: ?Sized> {
    source: &'a S,
    start: u64,
    bytes: Vec<u8>,
}

impl<S: Source + ?Sized> Ahead<'_, S> {
    /// One block; shorter at the end.
    fn block(&mut self, offset: u64) -> std::io::Result<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + BLOCK > end {
            self.bytes = up_to(self.source, offset, usize::try_from(PIECE).unwrap_or(0))?;
            self.start = offset;
        }
        let at = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let rest = self.bytes.get(at..).unwrap_or_default();
        Ok(rest.get(..512).unwrap_or(rest))
    }
}

/// Calls `each` for every member, at most `limit` of them, until the end of the archive.
pub fn walk<S: Source + ?Sized>(
    source: &S,
    limit: u64,
    mut each: impl FnMut(Member) -> Result<(), ImageError>,
) -> Result<(), ImageError> {
    let length = source.length();
    let mut ahead = Ahead { source, start: 0, bytes: Vec::new() };
    let (mut at, mut members, mut records) = (0_u64, 0_u64, Records::default());
    loop {
        let block = ahead.block(at)?;
        // The end is two blocks of zeros; one, or none at all, is what some writers leave.
        if block.is_empty() || block.iter().all(|byte| *byte == 0) {
            break;
        }
        let header = Header::parse(block).ok_or(TarError::Checksum(at))?;
        let size = match (records.size, header.kind) {
            (Some(size), _) => size,
            (None, _) => header.size.ok_or(TarError::Size(at))?,
        };
        let size = if header.has_content() { size } else { 0 };
        let data = at + BLOCK;
        let end = data.saturating_add(size);
        if end > length {
            let name = String::from_utf8_lossy(&records.name_or(&header)).into_owned();
            return Err(TarError::CutShort { name, end, length }.into());
        }
        if header.is_record() {
            if size > MAX_RECORD {
                return Err(TarError::Record(at).into());
            }
            let bytes = up_to(source, data, usize::try_from(size).unwrap_or(0))?;
            records.take(header.kind, &bytes, at)?;
        } else {
            let (name, kind) = (records.name_or(&header), header.member_kind(records.is_sparse));
            let member = Member { name, kind, offset: data, size };
            if member.leads_elsewhere() {
                return Err(TarError::Name(member.shown()).into());
            }
            members += 1;
            if members > limit {
                return Err(TarError::TooMany(limit).into());
            }
            each(member)?;
            records = Records::default();
        }
        let extended = if header.is_extended_sparse(block_of(&mut ahead, at)?) {
            skip_extensions(&mut ahead, data)?
        } else {
            0
        };
        at = end.saturating_add(extended).next_multiple_of(BLOCK);
    }
    if members == 0 { Err(TarError::Empty.into()) } else { Ok(()) }
}

fn block_of<'b, S: Source + ?Sized>(
    ahead: &'b mut Ahead<'_, S>,
    at: u64,
) -> std::io::Result<&'b [u8]> {
    ahead.block(at)
}

/// Blocks with the rest of an old sparse member's map lie between its header and its data.
fn skip_extensions<S: Source + ?Sized>(
    ahead: &mut Ahead<'_, S>,
    start: u64,
) -> Result<u64, ImageError> {
    const MORE: usize = 504;
    let mut skipped = 0;
    loop {
        let block = ahead.block(start.saturating_add(skipped))?;
        let more = *block.get(MORE).ok_or(TarError::Record(start))?;
        skipped += BLOCK;
        if more == 0 {
            return Ok(skipped);
        }
    }
}

/// Members that are looked at in a TAR which is a template as it is.
const MAX_MEMBERS: u64 = 16 << 20;

/// Judges a complete TAR that is not unpacked here: links and devices belong to the system inside.
pub fn check<S: Source + ?Sized>(source: &S) -> Result<(), ImageError> {
    walk(source, MAX_MEMBERS, |_member| Ok(()))
}
