//! Attributes and content of one file.

use bytes::Bytes;

use super::{Found, PROGRAM};
use crate::rpc::{Procedure, Program};
use crate::status::Status;
use crate::types::{Attributes, Handle, skip_changes};
use crate::xdr::{Decoder, Encoder, Malformed};

/// `GETATTR`.
#[derive(Debug, Clone)]
pub struct GetAttributes(pub Handle);

impl Procedure for GetAttributes {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 1;
    const NAME: &'static str = "GETATTR";
    type Reply = Result<Attributes, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.0.encode(out);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        match Status::decode(reply)? {
            Ok(()) => Ok(Ok(Attributes::decode(reply)?)),
            Err(status) => Ok(Err(status)),
        }
    }
}

/// Permissions and size to set (`sattr3`); everything else stays.
pub(super) fn encode_attributes(out: &mut Encoder, mode: Option<u32>, size: Option<u64>) {
    out.bool(mode.is_some());
    if let Some(mode) = mode {
        out.u32(mode);
    }
    // Owner and group.
    out.bool(false).bool(false).bool(size.is_some());
    if let Some(size) = size {
        out.u64(size);
    }
    // Times of access and of change.
    out.u32(0).u32(0);
}

/// `SETATTR` of permissions or size; what is absent stays.
#[derive(Debug, Clone)]
pub struct SetAttributes {
    pub file: Handle,
    pub mode: Option<u32>,
    pub size: Option<u64>,
}

impl Procedure for SetAttributes {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 2;
    const NAME: &'static str = "SETATTR";
    type Reply = Result<(), Status>;

    fn encode(&self, out: &mut Encoder) {
        self.file.encode(out);
        encode_attributes(out, self.mode, self.size);
        // Whatever the file's time of change.
        out.bool(false);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        Status::decode(reply)
    }
}

/// `READ`.
#[derive(Debug, Clone)]
pub struct Read {
    pub file: Handle,
    pub offset: u64,
    pub count: u32,
}

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadData {
    pub bytes: Bytes,
    /// Nothing follows in the file.
    pub is_end: bool,
}

impl Procedure for Read {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 6;
    const NAME: &'static str = "READ";
    type Reply = Result<ReadData, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.file.encode(out);
        out.u64(self.offset).u32(self.count);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        if let Err(status) = Status::decode(reply)? {
            return Ok(Err(status));
        }
        let _attributes = Attributes::optional(reply)?;
        let count = reply.u32()?;
        let is_end = reply.bool()?;
        // Some servers say more in the one number than they send: the bytes are what counts.
        let bytes = reply.opaque("data", u32::MAX)?;
        if usize::try_from(count).is_ok_and(|count| count < bytes.len()) {
            return Err(Malformed::Contradiction("more data than was counted"));
        }
        Ok(Ok(ReadData { bytes, is_end }))
    }
}

/// How durable written bytes are (`stable_how`); ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stability {
    /// Until the server restarts; [`Commit`] makes them durable.
    Unstable,
    Data,
    File,
}

/// Changes when the server may have lost unstable bytes (`writeverf3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verifier(pub [u8; 8]);

/// `WRITE`.
#[derive(Debug, Clone)]
pub struct Write {
    pub file: Handle,
    pub offset: u64,
    pub stability: Stability,
    pub bytes: Bytes,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    pub count: u32,
    pub stability: Stability,
    pub verifier: Verifier,
}

impl Procedure for Write {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 7;
    const NAME: &'static str = "WRITE";
    type Reply = Result<Written, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.file.encode(out);
        let stability = match self.stability {
            Stability::Unstable => 0,
            Stability::Data => 1,
            Stability::File => 2,
        };
        out.u64(self.offset).length(self.bytes.len()).u32(stability).length(self.bytes.len());
    }

    fn payload(&self) -> Option<&Bytes> {
        Some(&self.bytes)
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        if let Err(status) = Status::decode(reply)? {
            return Ok(Err(status));
        }
        let _attributes = skip_changes(reply)?;
        let count = reply.u32()?;
        let stability = match reply.u32()? {
            0 => Stability::Unstable,
            1 => Stability::Data,
            2 => Stability::File,
            value => return Err(Malformed::Unknown { what: "stability", value }),
        };
        let verifier = Verifier(reply.fixed()?);
        Ok(Ok(Written { count, stability, verifier }))
    }
}

/// `CREATE` of a regular file, empty afterwards.
#[derive(Debug, Clone)]
pub struct Create {
    pub directory: Handle,
    pub name: Bytes,
    pub how: Creation,
}

/// What a file that exists means to its creation (`createhow3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Creation {
    /// It is emptied.
    Emptied { mode: u32 },
    /// It is refused, unless it was created with the same number: the call may be repeated. The
    /// permissions must be set afterwards.
    Exclusive([u8; 8]),
}

impl Procedure for Create {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 8;
    const NAME: &'static str = "CREATE";
    /// A server may keep the handle to itself: the file must be looked up then.
    type Reply = Result<Option<Found>, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.directory.encode(out);
        out.opaque(&self.name);
        match self.how {
            Creation::Emptied { mode } => {
                out.u32(0);
                encode_attributes(out, Some(mode), Some(0));
            }
            Creation::Exclusive(number) => {
                out.u32(2).fixed(&number);
            }
        }
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        match Status::decode(reply)? {
            Ok(()) => Ok(Ok(created(reply)?)),
            Err(status) => Ok(Err(status)),
        }
    }
}

/// The new object that `CREATE` and `MKDIR` give.
pub(super) fn created(reply: &mut Decoder) -> Result<Option<Found>, Malformed> {
    let handle = reply.optional(Handle::decode)?;
    let attributes = Attributes::optional(reply)?;
    Ok(handle.map(|handle| Found { handle, attributes }))
}

/// `COMMIT` of a whole file.
#[derive(Debug, Clone)]
pub struct Commit(pub Handle);

impl Procedure for Commit {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 21;
    const NAME: &'static str = "COMMIT";
    type Reply = Result<Verifier, Status>;

    fn encode(&self, out: &mut Encoder) {
        self.0.encode(out);
        out.u64(0).u32(0);
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        if let Err(status) = Status::decode(reply)? {
            return Ok(Err(status));
        }
        let _attributes = skip_changes(reply)?;
        Ok(Ok(Verifier(reply.fixed()?)))
    }
}
