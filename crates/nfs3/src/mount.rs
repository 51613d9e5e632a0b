//! Getting the root of an export (program 100005, version 3).

use crate::rpc::{Procedure, Program};
use crate::types::Handle;
use crate::xdr::{Decoder, Encoder, Malformed};

pub const PROGRAM: Program = Program { name: "the mount service", number: 100_005, version: 3 };
/// Longest path of an export.
pub const MAX_PATH: usize = 1024;
/// A server knows a handful of ways to authenticate.
const MAX_FLAVOURS: u32 = 64;

/// The root of the export with this path.
#[derive(Debug, Clone)]
pub struct Mount(pub String);

/// An export that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    pub root: Handle,
    /// Numbers of the ways to authenticate that the server takes; empty: it does not say.
    pub flavours: Vec<u32>,
}

/// Why a server gives no root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MountStatus {
    #[error("not permitted")]
    NotPermitted,
    #[error("there is no such export or directory")]
    NotFound,
    #[error("access denied: this host is not in the export's list of clients")]
    Denied,
    #[error("it is not a directory")]
    NotDirectory,
    #[error("the path is not valid")]
    Invalid,
    #[error("the path is too long")]
    TooLong,
    #[error("the server has a fault (status {0})")]
    Fault(u32),
}

impl Procedure for Mount {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 1;
    const NAME: &'static str = "MNT";
    type Reply = Result<Mounted, MountStatus>;

    fn encode(&self, out: &mut Encoder) {
        out.opaque(self.0.as_bytes());
    }

    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed> {
        Ok(Err(match reply.u32()? {
            0 => {
                let root = Handle::decode(reply)?;
                let count = reply.u32()?;
                if count > MAX_FLAVOURS {
                    let limit = MAX_FLAVOURS;
                    return Err(Malformed::TooLong { what: "a list", length: count, limit });
                }
                let flavours = (0..count).map(|_each| reply.u32()).collect::<Result<_, _>>()?;
                return Ok(Ok(Mounted { root, flavours }));
            }
            1 => MountStatus::NotPermitted,
            2 => MountStatus::NotFound,
            13 => MountStatus::Denied,
            20 => MountStatus::NotDirectory,
            22 => MountStatus::Invalid,
            63 => MountStatus::TooLong,
            other => MountStatus::Fault(other),
        }))
    }
}
