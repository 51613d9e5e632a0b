//! What several procedures share: handles, attributes, times.

use std::fmt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::xdr::{Decoder, Encoder, Malformed};

/// Longest handle.
const MAX_HANDLE: u32 = 64;
/// Longest name in a directory that any server has.
pub const MAX_NAME: u32 = 255;

/// The server's name for a file or directory. It stays the same whatever the file is called.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Handle(Bytes);

impl Handle {
    pub fn encode(&self, out: &mut Encoder) {
        out.opaque(&self.0);
    }

    pub fn decode(input: &mut Decoder) -> Result<Self, Malformed> {
        // Copied: a part of a reply would keep the whole reply.
        let bytes = input.opaque("a handle", MAX_HANDLE)?;
        if bytes.is_empty() {
            return Err(Malformed::Contradiction("a handle is empty"));
        }
        Ok(Self(Bytes::copy_from_slice(&bytes)))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle(")?;
        for byte in &self.0 {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    Regular,
    Directory,
    SymbolicLink,
    /// Devices, sockets, pipes.
    Special,
}

/// What is known about a file (`fattr3`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    pub file_type: FileType,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of its content.
    pub size: u64,
    /// Bytes that it occupies.
    pub used: u64,
    /// Which file system of the server it is on.
    pub fsid: u64,
    /// Number of the file on it.
    pub fileid: u64,
    pub modified: SystemTime,
}

impl Attributes {
    pub fn decode(input: &mut Decoder) -> Result<Self, Malformed> {
        let file_type = match input.u32()? {
            1 => FileType::Regular,
            2 => FileType::Directory,
            5 => FileType::SymbolicLink,
            3 | 4 | 6 | 7 => FileType::Special,
            value => return Err(Malformed::Unknown { what: "type of a file", value }),
        };
        let mode = input.u32()? & 0o7777;
        let _links = input.u32()?;
        let (uid, gid) = (input.u32()?, input.u32()?);
        let (size, used) = (input.u64()?, input.u64()?);
        let _device = input.u64()?;
        let (fsid, fileid) = (input.u64()?, input.u64()?);
        let _read = time(input)?;
        let modified = time(input)?;
        let _changed = time(input)?;
        Ok(Self { file_type, mode, uid, gid, size, used, fsid, fileid, modified })
    }

    /// Attributes that a server may leave out.
    pub fn optional(input: &mut Decoder) -> Result<Option<Self>, Malformed> {
        input.optional(Self::decode)
    }
}

/// A time that no clock shows is the beginning of time: it only orders and labels files.
fn time(input: &mut Decoder) -> Result<SystemTime, Malformed> {
    let (seconds, nanoseconds) = (input.u32()?, input.u32()?);
    let since = Duration::from_secs(seconds.into()) + Duration::from_nanos(nanoseconds.into());
    Ok(SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Skips the attributes of an object before and after a call (`wcc_data`).
pub(crate) fn skip_changes(input: &mut Decoder) -> Result<Option<Attributes>, Malformed> {
    let _before = input.optional(|input| Ok((input.u64()?, time(input)?, time(input)?)))?;
    Attributes::optional(input)
}
