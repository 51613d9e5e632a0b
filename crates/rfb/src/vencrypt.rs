//! VeNCrypt (security type 19): which encryption, and what proves the client inside it.
//!
//! Version, list of sub-types, choice and the server's go-ahead travel in clear; then both sides
//! shake hands for TLS on the same connection, and everything after it, the security result
//! included, is inside. Only sub-types whose server shows a certificate are of use: the anonymous
//! ones keep out nobody who can be in the middle.

use std::fmt;

use crate::client::HandshakeError;
use crate::input::Input;

/// Version 0.2, the only one in use.
const VERSION: [u8; 2] = [0, 2];

/// A VeNCrypt sub-type as a number on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VencryptType(pub u32);

impl VencryptType {
    pub const X509_NONE: Self = Self(260);
    pub const X509_VNC: Self = Self(261);
}

impl fmt::Display for VencryptType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            256 => "Plain",
            257 => "TLSNone",
            258 => "TLSVnc",
            259 => "TLSPlain",
            260 => "X509None",
            261 => "X509Vnc",
            262 => "X509Plain",
            263 => "TLSSASL",
            264 => "X509SASL",
            number => return write!(f, "sub-type {number}"),
        })
    }
}

impl fmt::Debug for VencryptType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Version,
    VersionAnswer,
    SubTypes,
    GoAhead,
}

/// The exchange in clear, from the choice of type 19 to the moment TLS starts.
#[derive(Debug)]
pub(crate) struct VencryptNegotiation {
    phase: Phase,
    chosen: Option<VencryptType>,
    has_password: bool,
}

impl VencryptNegotiation {
    pub(crate) const fn new(has_password: bool) -> Self {
        Self { phase: Phase::Version, chosen: None, has_password }
    }

    /// Goes on as far as `input` reaches. `Some` with the sub-type once TLS has to start.
    pub(crate) fn step(
        &mut self,
        input: &mut Input,
        output: &mut Vec<u8>,
    ) -> Result<Option<VencryptType>, HandshakeError> {
        loop {
            let more = match self.phase {
                Phase::Version => self.version(input, output)?,
                Phase::VersionAnswer => self.version_answer(input)?,
                Phase::SubTypes => self.sub_types(input, output)?,
                Phase::GoAhead => return self.go_ahead(input),
            };
            if more.is_none() {
                return Ok(None);
            }
        }
    }

    fn version(
        &mut self,
        input: &mut Input,
        output: &mut Vec<u8>,
    ) -> Result<Option<()>, HandshakeError> {
        let Some(version) = input.take::<2>() else { return Ok(None) };
        if version < VERSION {
            let [major, minor] = version;
            return Err(HandshakeError::VencryptVersion(major, minor));
        }
        output.extend_from_slice(&VERSION);
        self.phase = Phase::VersionAnswer;
        Ok(Some(()))
    }

    fn version_answer(&mut self, input: &mut Input) -> Result<Option<()>, HandshakeError> {
        let Some([answer]) = input.take::<1>() else { return Ok(None) };
        if answer != 0 {
            return Err(HandshakeError::Refused("VeNCrypt version 0.2 is not accepted".to_owned()));
        }
        self.phase = Phase::SubTypes;
        Ok(Some(()))
    }

    fn sub_types(
        &mut self,
        input: &mut Input,
        output: &mut Vec<u8>,
    ) -> Result<Option<()>, HandshakeError> {
        let Some([count]) = input.peek::<1>() else { return Ok(None) };
        let length = 1 + 4 * usize::from(count);
        let Some(bytes) = input.peek_slice(length) else { return Ok(None) };
        let (numbers, _rest) = bytes.get(1..).unwrap_or_default().as_chunks::<4>();
        let offered: Vec<VencryptType> =
            numbers.iter().map(|number| VencryptType(u32::from_be_bytes(*number))).collect();
        input.skip(length);
        let (first, second) = if self.has_password {
            (VencryptType::X509_VNC, VencryptType::X509_NONE)
        } else {
            (VencryptType::X509_NONE, VencryptType::X509_VNC)
        };
        let Some(chosen) = [first, second].into_iter().find(|wanted| offered.contains(wanted))
        else {
            return Err(HandshakeError::NoUsableEncryption(offered));
        };
        output.extend_from_slice(&chosen.0.to_be_bytes());
        self.chosen = Some(chosen);
        self.phase = Phase::GoAhead;
        Ok(Some(()))
    }

    fn go_ahead(&self, input: &mut Input) -> Result<Option<VencryptType>, HandshakeError> {
        let Some([answer]) = input.take::<1>() else { return Ok(None) };
        match (answer, self.chosen) {
            (0, _) | (_, None) => {
                Err(HandshakeError::Refused("the VeNCrypt sub-type is not accepted".to_owned()))
            }
            (_, Some(chosen)) => Ok(Some(chosen)),
        }
    }
}
