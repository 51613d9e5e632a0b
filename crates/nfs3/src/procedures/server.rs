//! What a server says about an export.

use super::PROGRAM;
use crate::rpc::{Procedure, Program};
use crate::status::Status;
use crate::types::{Attributes, Handle};
use crate::xdr::{Decoder, Encoder, Malformed};

/// `FSSTAT`.
#[derive(Debug, Clone)]
pub struct FileSystemSpace(pub Handle);

/// Bytes of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    pub free: u64,
    /// To this caller.
    pub available: u64,
}

impl Procedure for FileSystemSpace {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 18;
    const NAME: &'static str = "FSSTAT";
    type Reply = Result<Space, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.0.encode(out);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        if let Err(status) = Status::decode(reply)? {
            return Ok(Err(status));
        }
        let _attributes = Attributes::optional(reply)?;
        Ok(Ok(Space { total: reply.u64()?, free: reply.u64()?, available: reply.u64()? }))
    }
}

/// `FSINFO`.
#[derive(Debug, Clone)]
pub struct FileSystemInfo(pub Handle);

/// Sizes that a server prefers and allows, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    pub read_max: u32,
    pub read_preferred: u32,
    pub write_max: u32,
    pub write_preferred: u32,
    pub directory_preferred: u32,
    pub largest_file: u64,
}

impl Procedure for FileSystemInfo {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 19;
    const NAME: &'static str = "FSINFO";
    type Reply = Result<Info, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.0.encode(out);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        if let Err(status) = Status::decode(reply)? {
            return Ok(Err(status));
        }
        let _attributes = Attributes::optional(reply)?;
        let (read_max, read_preferred) = (reply.u32()?, reply.u32()?);
        let _read_multiple = reply.u32()?;
        let (write_max, write_preferred) = (reply.u32()?, reply.u32()?);
        let _write_multiple = reply.u32()?;
        let directory_preferred = reply.u32()?;
        let largest_file = reply.u64()?;
        Ok(Ok(Info {
            read_max,
            read_preferred,
            write_max,
            write_preferred,
            directory_preferred,
            largest_file,
        }))
    }
}

/// `ACCESS`: which of these rights the caller has.
#[derive(Debug, Clone)]
pub struct Access {
    pub object: Handle,
    /// Bits of [`rights`].
    pub wanted: u32,
}

/// What a caller may do.
pub mod rights {
    pub const READ: u32 = 1;
    pub const LOOKUP: u32 = 2;
    pub const MODIFY: u32 = 4;
    pub const EXTEND: u32 = 8;
    pub const DELETE: u32 = 16;
}

impl Procedure for Access {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 4;
    const NAME: &'static str = "ACCESS";
    /// The rights among the wanted ones that the caller has.
    type Reply = Result<u32, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.object.encode(out);
        out.u32(self.wanted);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        if let Err(status) = Status::decode(reply)? {
            return Ok(Err(status));
        }
        let _attributes = Attributes::optional(reply)?;
        Ok(Ok(reply.u32()?))
    }
}
