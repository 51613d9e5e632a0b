//! The handshake towards the VM: we are the client.
//!
//! Any 3.x server will do. The whole list of security types is read before one is chosen, and
//! nothing the server declares makes us wait for, or keep, more than a bounded number of bytes.
//!
//! Encryption may begin in the middle (VeNCrypt): the handshake then says [`Next::StartTls`], the
//! caller puts TLS around its connection, says [`ClientHandshake::tls_started`], and the exchange
//! goes on inside.

use std::fmt;

use zeroize::Zeroizing;

use crate::init::{FIXED_LENGTH, ServerInit};
use crate::input::Input;
use crate::security::{CHALLENGE_LENGTH, RESULT_OK, SecurityType, vnc_response};
use crate::vencrypt::{VencryptNegotiation, VencryptType};
use crate::version::{VERSION_LENGTH, Version};

/// Longest part of a reason that is waited for and kept.
const REASON_LIMIT: usize = 1024;
/// Longest desktop name accepted.
const NAME_LIMIT: u32 = 4096;
/// ClientInit with the shared flag: other viewers stay connected.
const SHARED: u8 = 1;

/// Why the server's screen cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    #[error("the peer does not speak RFB")]
    NotRfb,
    #[error("the VNC server refused: {0}")]
    Refused(String),
    #[error("the VNC server offers no usable security ({})", list(.0))]
    NoUsableSecurity(Vec<SecurityType>),
    #[error("the VNC server offers no usable encryption ({})", list(.0))]
    NoUsableEncryption(Vec<VencryptType>),
    #[error("the VNC server speaks VeNCrypt {0}.{1}, which is too old")]
    VencryptVersion(u8, u8),
    /// Whoever is in the middle could have put it there.
    #[error("the VNC server sent {0} bytes in clear where encryption starts")]
    ClearText(usize),
    #[error("the VNC server did not accept the password{}", suffix(.0))]
    WrongPassword(String),
    #[error("the VNC server's desktop name has {0} bytes")]
    NameTooLong(u32),
    #[error("the VNC server closed the connection while {0}")]
    Ended(Phase),
}

fn list(types: &[impl fmt::Display]) -> String {
    let names: Vec<String> = types.iter().take(16).map(ToString::to_string).collect();
    if names.is_empty() { "it offers nothing".to_owned() } else { names.join(", ") }
}

fn suffix(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Version,
    SecurityTypes,
    Vencrypt,
    Tls,
    Challenge,
    SecurityResult,
    Reason(Cause),
    ServerInit,
    Done,
}

/// What a reason is the reason of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Connection,
    Password,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Version => "its version was awaited",
            Self::SecurityTypes => "its security types were awaited",
            Self::Vencrypt => "the kind of encryption was being agreed on",
            Self::Tls => "encryption was being started",
            Self::Challenge => "its challenge was awaited",
            Self::SecurityResult => "its answer to the password was awaited",
            Self::Reason(_) => "its reason was awaited",
            Self::ServerInit => "its screen's size was awaited",
            Self::Done => "the picture was awaited",
        })
    }
}

/// What the caller does next, after it sent [`ClientHandshake::take_output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Read from the server, and give the bytes to [`ClientHandshake::receive`].
    Receive,
    /// Shake hands for TLS as the client on this connection; then [`ClientHandshake::tls_started`].
    StartTls,
    /// Nothing: [`ClientHandshake::finish`].
    Finish,
}

/// The client's side of the handshake. Feed it with [`ClientHandshake::receive`], send what
/// [`ClientHandshake::take_output`] gives, do what [`ClientHandshake::next`] says.
pub struct ClientHandshake {
    phase: Phase,
    version: Version,
    chosen: SecurityType,
    /// `None` = the caller cannot encrypt.
    vencrypt: Option<VencryptNegotiation>,
    /// The server would do without encryption.
    offers_clear: bool,
    /// Chosen inside VeNCrypt.
    sub_type: Option<VencryptType>,
    password: Zeroizing<String>,
    input: Input,
    output: Vec<u8>,
    init: Option<ServerInit>,
}

impl fmt::Debug for ClientHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientHandshake").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl ClientHandshake {
    /// `password` is used if the server wants VNC authentication; its first eight bytes count.
    pub fn new(password: &str) -> Self {
        Self {
            phase: Phase::Version,
            version: Version::V8,
            chosen: SecurityType::INVALID,
            vencrypt: None,
            offers_clear: false,
            sub_type: None,
            password: Zeroizing::new(password.to_owned()),
            input: Input::default(),
            output: Vec::new(),
            init: None,
        }
    }

    /// The same for a caller that can do [`Next::StartTls`]: encryption is chosen where the server
    /// offers it.
    pub fn with_tls(password: &str) -> Self {
        let vencrypt = Some(VencryptNegotiation::new(!password.is_empty()));
        Self { vencrypt, ..Self::new(password) }
    }

    /// Takes bytes from the server, in pieces of any size.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), HandshakeError> {
        self.input.push(bytes);
        while self.step()?.is_some() {}
        match (self.phase, self.input.len()) {
            (Phase::Tls, 1..) => Err(HandshakeError::ClearText(self.input.len())),
            _ => Ok(()),
        }
    }

    /// What to do after sending the output.
    pub fn next(&self) -> Next {
        match self.phase {
            Phase::Tls => Next::StartTls,
            Phase::Done => Next::Finish,
            _ => Next::Receive,
        }
    }

    /// TLS is there, as [`Next::StartTls`] asked: from now on bytes come from inside it.
    pub fn tls_started(&mut self) {
        if self.phase == Phase::Tls {
            self.phase = match self.sub_type {
                Some(VencryptType::X509_VNC) => Phase::Challenge,
                _ => Phase::SecurityResult,
            };
        }
    }

    /// Whether the server offered to do without encryption as well: where its encryption is of no
    /// use, it may be asked again by a client that has none.
    pub const fn offers_clear(&self) -> bool {
        self.offers_clear
    }

    /// The kind of encryption, for the log.
    pub const fn encryption(&self) -> Option<VencryptType> {
        self.sub_type
    }

    /// Bytes to send to the server now.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// The version spoken and the security type chosen, for the log.
    pub const fn outcome(&self) -> (Version, SecurityType) {
        (self.version, self.chosen)
    }

    /// The error for a server that closed the connection now.
    pub fn end_of_stream(&self) -> HandshakeError {
        let partial = || match self.phase {
            Phase::Reason(_) => self.input.peek_text(4, u32::MAX, self.input.len().checked_sub(4)?),
            _ => None,
        };
        match (self.phase, partial()) {
            (Phase::Reason(Cause::Password), reason) => {
                HandshakeError::WrongPassword(reason.unwrap_or_default())
            }
            (Phase::Reason(Cause::Connection), Some(reason)) if !reason.is_empty() => {
                HandshakeError::Refused(reason)
            }
            (phase, _) => HandshakeError::Ended(phase),
        }
    }

    /// The server's screen, and what it sent after ServerInit. `None` before the end.
    pub fn finish(self) -> Option<(ServerInit, Vec<u8>)> {
        Some((self.init?, self.input.into_rest()))
    }

    /// One step; `Ok(None)` when more bytes are needed.
    fn step(&mut self) -> Result<Option<()>, HandshakeError> {
        match self.phase {
            Phase::Version => self.version(),
            Phase::SecurityTypes if self.version == Version::V3 => self.security_type(),
            Phase::SecurityTypes => self.security_types(),
            Phase::Vencrypt => self.vencrypt(),
            Phase::Challenge => Ok(self.challenge()),
            Phase::SecurityResult => self.security_result(),
            Phase::Reason(cause) => self.reason(cause),
            Phase::ServerInit => self.server_init(),
            Phase::Tls | Phase::Done => Ok(None),
        }
    }

    fn version(&mut self) -> Result<Option<()>, HandshakeError> {
        // A peer of another protocol is told apart by its first bytes, not after a timeout.
        let seen = self.input.len().min(4);
        if self.input.peek_slice(seen) != b"RFB ".get(..seen) {
            return Err(HandshakeError::NotRfb);
        }
        let Some(message) = self.input.take::<VERSION_LENGTH>() else { return Ok(None) };
        self.version = Version::parse(message).ok_or(HandshakeError::NotRfb)?;
        self.output.extend_from_slice(self.version.message());
        self.phase = Phase::SecurityTypes;
        Ok(Some(()))
    }

    /// 3.3: the server decides.
    fn security_type(&mut self) -> Result<Option<()>, HandshakeError> {
        let Some(number) = self.input.take_u32() else { return Ok(None) };
        match number {
            0 => {
                self.phase = Phase::Reason(Cause::Connection);
                Ok(Some(()))
            }
            1 | 2 => {
                self.choose(if number == 1 { SecurityType::NONE } else { SecurityType::VNC_AUTH });
                Ok(Some(()))
            }
            other => {
                let number = u8::try_from(other).unwrap_or(u8::MAX);
                Err(HandshakeError::NoUsableSecurity(vec![SecurityType(number)]))
            }
        }
    }

    /// 3.7 and 3.8: the server lists, we choose.
    fn security_types(&mut self) -> Result<Option<()>, HandshakeError> {
        let Some([count]) = self.input.peek::<1>() else { return Ok(None) };
        let Some(bytes) = self.input.peek_slice(1 + usize::from(count)) else { return Ok(None) };
        let offered: Vec<SecurityType> = bytes.iter().skip(1).map(|n| SecurityType(*n)).collect();
        self.input.skip(1 + usize::from(count));
        if count == 0 {
            self.phase = Phase::Reason(Cause::Connection);
            return Ok(Some(()));
        }
        let with_password = [SecurityType::VNC_AUTH, SecurityType::NONE];
        let without = [SecurityType::NONE, SecurityType::VNC_AUTH];
        let clear = if self.password.is_empty() { without } else { with_password };
        self.offers_clear = with_password.iter().any(|clear| offered.contains(clear));
        let encrypted = self.vencrypt.is_some().then_some(SecurityType::VENCRYPT);
        match encrypted.into_iter().chain(clear).find(|wanted| offered.contains(wanted)) {
            Some(chosen) => {
                self.output.push(chosen.0);
                self.choose(chosen);
                Ok(Some(()))
            }
            None => Err(HandshakeError::NoUsableSecurity(offered)),
        }
    }

    fn choose(&mut self, chosen: SecurityType) {
        self.chosen = chosen;
        match (chosen, self.version) {
            (SecurityType::VENCRYPT, _) => self.phase = Phase::Vencrypt,
            (SecurityType::VNC_AUTH, _) => self.phase = Phase::Challenge,
            (_, Version::V8) => self.phase = Phase::SecurityResult,
            _ => self.accepted(),
        }
    }

    fn vencrypt(&mut self) -> Result<Option<()>, HandshakeError> {
        let Some(negotiation) = &mut self.vencrypt else { return Ok(None) };
        let agreed = negotiation.step(&mut self.input, &mut self.output)?;
        if agreed.is_some() {
            self.sub_type = agreed;
            self.phase = Phase::Tls;
        }
        Ok(agreed.map(drop))
    }

    fn challenge(&mut self) -> Option<()> {
        let challenge = self.input.take::<CHALLENGE_LENGTH>()?;
        self.output.extend_from_slice(&vnc_response(self.password.as_bytes(), &challenge));
        self.phase = Phase::SecurityResult;
        Some(())
    }

    fn security_result(&mut self) -> Result<Option<()>, HandshakeError> {
        let Some(result) = self.input.take_u32() else { return Ok(None) };
        if result == RESULT_OK {
            self.accepted();
            return Ok(Some(()));
        }
        let by_password =
            self.chosen == SecurityType::VNC_AUTH || self.sub_type == Some(VencryptType::X509_VNC);
        let cause = if by_password { Cause::Password } else { Cause::Connection };
        if self.version == Version::V8 {
            self.phase = Phase::Reason(cause);
            return Ok(Some(()));
        }
        Err(match cause {
            Cause::Password => HandshakeError::WrongPassword(String::new()),
            Cause::Connection => HandshakeError::Refused("no reason given".to_owned()),
        })
    }

    fn accepted(&mut self) {
        self.output.push(SHARED);
        self.phase = Phase::ServerInit;
    }

    fn reason(&mut self, cause: Cause) -> Result<Option<()>, HandshakeError> {
        let Some(length) = self.input.peek::<4>().map(u32::from_be_bytes) else { return Ok(None) };
        let Some(reason) = self.input.peek_text(4, length, REASON_LIMIT) else { return Ok(None) };
        Err(match cause {
            Cause::Password => HandshakeError::WrongPassword(reason),
            Cause::Connection if reason.is_empty() => {
                HandshakeError::Refused("no reason given".to_owned())
            }
            Cause::Connection => HandshakeError::Refused(reason),
        })
    }

    fn server_init(&mut self) -> Result<Option<()>, HandshakeError> {
        let Some(fixed) = self.input.peek::<FIXED_LENGTH>() else { return Ok(None) };
        let (mut init, name_length) = ServerInit::decode_fixed(&fixed);
        if name_length > NAME_LIMIT {
            return Err(HandshakeError::NameTooLong(name_length));
        }
        let length = FIXED_LENGTH + usize::try_from(name_length).unwrap_or_default();
        let Some(message) = self.input.peek_slice(length) else { return Ok(None) };
        init.name = message.iter().skip(FIXED_LENGTH).copied().collect();
        self.input.skip(length);
        self.init = Some(init);
        self.phase = Phase::Done;
        Ok(Some(()))
    }
}
