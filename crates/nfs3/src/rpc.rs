//! Remote procedure calls, version 2.

use bytes::Bytes;

use crate::xdr::{Decoder, Encoder, Malformed};

/// A program of a server, in the version that is spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    pub name: &'static str,
    pub number: u32,
    pub version: u32,
}

/// A call and how its reply is read.
pub trait Procedure {
    const PROGRAM: Program;
    const NUMBER: u32;
    /// For errors and logs.
    const NAME: &'static str;
    type Reply;

    /// Writes the arguments.
    fn encode(&self, out: &mut Encoder);

    /// Bytes that the arguments end with, their number is written already: they are sent as they are
    /// and filled up.
    fn payload(&self) -> Option<&Bytes> {
        None
    }

    /// Reads the results.
    fn decode(reply: &mut Decoder) -> Result<Self::Reply, Malformed>;
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    None,
    /// AUTH_SYS: the server believes it.
    System {
        host: String,
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
}

/// AUTH_SYS carries at most so many further groups.
pub const MAX_GROUPS: usize = 16;
/// Longest name of a calling host.
const MAX_HOST: usize = 255;
const CALL: u32 = 0;
const REPLY: u32 = 1;
const RPC_VERSION: u32 = 2;
const AUTH_NONE: u32 = 0;
/// The flavour that [`Credential::System`] has.
pub const AUTH_SYS: u32 = 1;
/// Longest body of a verifier (RFC 5531 section 8.2).
const MAX_AUTH: u32 = 400;

impl Credential {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Self::None => {
                out.u32(AUTH_NONE).u32(0);
            }
            Self::System { host, uid, gid, groups } => {
                let mut body = Encoder::default();
                let host = host.as_bytes();
                let groups = groups.get(..MAX_GROUPS).unwrap_or(groups);
                body.u32(0).opaque(host.get(..MAX_HOST).unwrap_or(host)).u32(*uid).u32(*gid);
                body.length(groups.len());
                for group in groups {
                    body.u32(*group);
                }
                out.u32(AUTH_SYS).opaque(&body.finish());
            }
        }
        // The verifier.
        out.u32(AUTH_NONE).u32(0);
    }
}

/// The message of a call, without its record's header, [`Procedure::payload`] and what fills it up.
pub fn call<P: Procedure>(xid: u32, credential: &Credential, procedure: &P) -> Bytes {
    let mut out = Encoder::default();
    let Program { number, version, .. } = P::PROGRAM;
    out.u32(xid).u32(CALL).u32(RPC_VERSION).u32(number).u32(version).u32(P::NUMBER);
    credential.encode(&mut out);
    procedure.encode(&mut out);
    out.finish()
}

/// Why a server did not execute a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("the server does not offer {} (program {})", .0.name, .0.number)]
    NoProgram(Program),
    #[error("the server offers versions {low} to {high} of {}, not {}", program.name, program.version)]
    Version { program: Program, low: u32, high: u32 },
    #[error("the server does not know the procedure")]
    NoProcedure,
    #[error("the server cannot read the arguments")]
    Arguments,
    #[error("the server has a fault")]
    System,
    #[error("the server speaks versions {low} to {high} of RPC, not {RPC_VERSION}")]
    RpcVersion { low: u32, high: u32 },
    #[error("the server refuses the credential ({})", reason(*.0))]
    Credential(u32),
}

const fn reason(stat: u32) -> &'static str {
    match stat {
        1 => "bad credential",
        2 => "rejected credential",
        3 | 4 => "bad verifier",
        5 => "too weak: it wants Kerberos or a source port below 1024",
        13 => "no Kerberos credential",
        _ => "authentication failed",
    }
}

/// The call that a reply answers. A message that is no reply is malformed.
pub fn reply_xid(message: &Bytes) -> Result<u32, Malformed> {
    let mut input = Decoder::new(message.clone());
    let xid = input.u32()?;
    match input.u32()? {
        REPLY => Ok(xid),
        value => Err(Malformed::Unknown { what: "reply", value }),
    }
}

/// The results in a reply.
pub fn results(message: Bytes, program: Program) -> Result<Result<Decoder, Rejected>, Malformed> {
    let mut input = Decoder::new(message);
    let _xid = input.u32()?;
    let _reply = input.u32()?;
    match input.u32()? {
        0 => {}
        1 => {
            return Ok(Err(match input.u32()? {
                0 => Rejected::RpcVersion { low: input.u32()?, high: input.u32()? },
                1 => Rejected::Credential(input.u32()?),
                value => return Err(Malformed::Unknown { what: "rejection", value }),
            }));
        }
        value => return Err(Malformed::Unknown { what: "state of a reply", value }),
    }
    let _flavour = input.u32()?;
    let _verifier = input.opaque("verifier", MAX_AUTH)?;
    Ok(match input.u32()? {
        0 => Ok(input),
        1 => Err(Rejected::NoProgram(program)),
        2 => Err(Rejected::Version { program, low: input.u32()?, high: input.u32()? }),
        3 => Err(Rejected::NoProcedure),
        4 => Err(Rejected::Arguments),
        5 => Err(Rejected::System),
        value => return Err(Malformed::Unknown { what: "outcome of a call", value }),
    })
}
