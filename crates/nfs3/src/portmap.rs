//! Asking a server's port mapper (program 100000, version 2) for the port of a program.

use crate::rpc::{Procedure, Program};
use crate::xdr::{Decoder, Encoder, Malformed};

pub const PROGRAM: Program = Program { name: "the port mapper", number: 100_000, version: 2 };
/// Where every port mapper listens.
pub const PORT: u16 = 111;
const TCP: u32 = 6;

/// The TCP port of a program; `None` when it is not registered.
#[derive(Debug, Clone, Copy)]
pub struct GetPort(pub Program);

impl Procedure for GetPort {
    const PROGRAM: Program = PROGRAM;
    const NUMBER: u32 = 3;
    const NAME: &'static str = "GETPORT";
    type Reply = Option<u16>;

    fn encode(&self, out: &mut Encoder) {
        out.u32(self.0.number).u32(self.0.version).u32(TCP).u32(0);
    }

    fn decode(reply: &mut Decoder) -> Result<Option<u16>, Malformed> {
        let value = reply.u32()?;
        match u16::try_from(value) {
            Ok(0) => Ok(None),
            Ok(port) => Ok(Some(port)),
            Err(_) => Err(Malformed::Unknown { what: "port", value }),
        }
    }
}
