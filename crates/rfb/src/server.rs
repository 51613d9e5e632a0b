//! The handshake towards a viewer: we are the server.
//!
//! It starts before it is known whether the viewer may see anything: the version is exchanged at
//! once, and the answer to "which security?" waits for the decision. A refusal takes the place of
//! that answer, with a reason that viewers show to their users.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::init::ServerInit;
use crate::input::Input;
use crate::security::{CHALLENGE_LENGTH, RESULT_FAILED, RESULT_OK, SecurityType, vnc_response};
use crate::version::{VERSION_LENGTH, Version};

/// Most bytes a viewer may send ahead of our answers.
const AHEAD_LIMIT: usize = 64 * 1024;

/// How the viewer proves itself.
pub enum ServerSecurity {
    /// It did already, or need not.
    None,
    /// VNC authentication. The challenge must be random and used once.
    VncAuth { password: Zeroizing<String>, challenge: [u8; CHALLENGE_LENGTH] },
}

impl fmt::Debug for ServerSecurity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::VncAuth { .. } => "VncAuth",
        })
    }
}

/// What a viewer did wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerHandshakeError {
    #[error("the viewer does not speak RFB")]
    NotRfb,
    #[error("the viewer chose security {0}, which was not offered")]
    NotOffered(SecurityType),
    #[error("the viewer gave a wrong password")]
    WrongPassword,
    #[error("the viewer sent more than {AHEAD_LIMIT} bytes ahead of the handshake")]
    TooMuchAhead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Version,
    /// Version known, decision not.
    Decision,
    Choice,
    Response,
    ClientInit,
    Done,
    /// A refusal is in the output; nothing further is read.
    Refused,
}

/// Whether the viewer may see the screen.
enum Decision {
    Admitted(ServerInit),
    Refused(String),
}

/// The server's side of the handshake.
///
/// [`ServerHandshake::receive`] takes the viewer's bytes, [`ServerHandshake::take_output`] gives
/// ours; [`ServerHandshake::admit`] or [`ServerHandshake::refuse`] is called once, at any time.
pub struct ServerHandshake {
    phase: Phase,
    version: Version,
    security: ServerSecurity,
    decision: Option<Decision>,
    input: Input,
    output: Vec<u8>,
}

impl fmt::Debug for ServerHandshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandshake").field("phase", &self.phase).finish_non_exhaustive()
    }
}

impl ServerHandshake {
    /// Announces `highest`; the viewer may choose a lower version.
    pub fn new(security: ServerSecurity, highest: Version) -> Self {
        Self {
            phase: Phase::Version,
            version: highest,
            security,
            decision: None,
            input: Input::default(),
            output: highest.message().to_vec(),
        }
    }

    /// The viewer may see this screen. A second decision is ignored.
    pub fn admit(&mut self, init: ServerInit) -> Result<(), ServerHandshakeError> {
        self.decision.get_or_insert(Decision::Admitted(init));
        self.run()
    }

    /// The viewer may not, for this reason. A second decision is ignored.
    pub fn refuse(&mut self, reason: &str) -> Result<(), ServerHandshakeError> {
        self.decision.get_or_insert_with(|| Decision::Refused(reason.to_owned()));
        self.run()
    }

    /// Takes bytes from the viewer, in pieces of any size.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), ServerHandshakeError> {
        if self.input.len().saturating_add(bytes.len()) > AHEAD_LIMIT {
            return Err(ServerHandshakeError::TooMuchAhead);
        }
        self.input.push(bytes);
        self.run()
    }

    /// Bytes to send to the viewer now, also after an error.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// The viewer is in; its further bytes are messages.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// The refusal was put into the output.
    pub fn is_refused(&self) -> bool {
        self.phase == Phase::Refused
    }

    /// The version the viewer chose, for the log.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// What the viewer sent after ClientInit.
    pub fn into_rest(self) -> Vec<u8> {
        self.input.into_rest()
    }

    fn run(&mut self) -> Result<(), ServerHandshakeError> {
        while self.step()?.is_some() {}
        Ok(())
    }

    fn step(&mut self) -> Result<Option<()>, ServerHandshakeError> {
        match self.phase {
            Phase::Version => self.version_reply(),
            Phase::Decision => Ok(self.announce()),
            Phase::Choice => self.choice(),
            Phase::Response => self.response(),
            Phase::ClientInit => Ok(self.client_init()),
            Phase::Done | Phase::Refused => Ok(None),
        }
    }

    fn version_reply(&mut self) -> Result<Option<()>, ServerHandshakeError> {
        let Some(message) = self.input.take::<VERSION_LENGTH>() else { return Ok(None) };
        let wanted = Version::parse(message).ok_or(ServerHandshakeError::NotRfb)?;
        self.version = self.version.min(wanted);
        self.phase = Phase::Decision;
        Ok(Some(()))
    }

    /// Answers "which security?" once the decision is known.
    fn announce(&mut self) -> Option<()> {
        match self.decision.as_ref()? {
            Decision::Refused(reason) => {
                let reason = reason.clone();
                if self.version == Version::V3 {
                    self.put_u32(0);
                } else {
                    self.output.push(0);
                }
                self.put_reason(&reason);
                self.phase = Phase::Refused;
            }
            Decision::Admitted(_) => {
                let offered = match self.security {
                    ServerSecurity::None => SecurityType::NONE,
                    ServerSecurity::VncAuth { .. } => SecurityType::VNC_AUTH,
                };
                if self.version == Version::V3 {
                    self.put_u32(u32::from(offered.0));
                    self.begin_security();
                } else {
                    self.output.extend_from_slice(&[1, offered.0]);
                    self.phase = Phase::Choice;
                }
            }
        }
        Some(())
    }

    fn choice(&mut self) -> Result<Option<()>, ServerHandshakeError> {
        let Some([choice]) = self.input.take::<1>() else { return Ok(None) };
        let offered = match self.security {
            ServerSecurity::None => SecurityType::NONE,
            ServerSecurity::VncAuth { .. } => SecurityType::VNC_AUTH,
        };
        if SecurityType(choice) != offered {
            self.fail("the security type chosen was not offered");
            return Err(ServerHandshakeError::NotOffered(SecurityType(choice)));
        }
        self.begin_security();
        Ok(Some(()))
    }

    fn begin_security(&mut self) {
        match &self.security {
            ServerSecurity::None => {
                if self.version == Version::V8 {
                    self.put_u32(RESULT_OK);
                }
                self.phase = Phase::ClientInit;
            }
            ServerSecurity::VncAuth { challenge, .. } => {
                self.output.extend_from_slice(challenge);
                self.phase = Phase::Response;
            }
        }
    }

    fn response(&mut self) -> Result<Option<()>, ServerHandshakeError> {
        let Some(response) = self.input.take::<CHALLENGE_LENGTH>() else { return Ok(None) };
        let right = match &self.security {
            ServerSecurity::None => true,
            ServerSecurity::VncAuth { password, challenge } => {
                vnc_response(password.as_bytes(), challenge).ct_eq(&response).into()
            }
        };
        if !right {
            self.fail("wrong password");
            return Err(ServerHandshakeError::WrongPassword);
        }
        self.put_u32(RESULT_OK);
        self.phase = Phase::ClientInit;
        Ok(Some(()))
    }

    fn client_init(&mut self) -> Option<()> {
        let Some(Decision::Admitted(init)) = &self.decision else { return None };
        // The shared flag: every viewer shares.
        self.input.take::<1>()?;
        self.output.extend_from_slice(&init.encode());
        self.phase = Phase::Done;
        Some(())
    }

    fn fail(&mut self, reason: &str) {
        self.put_u32(RESULT_FAILED);
        if self.version == Version::V8 {
            self.put_reason(reason);
        }
        self.phase = Phase::Refused;
    }

    fn put_u32(&mut self, value: u32) {
        self.output.extend_from_slice(&value.to_be_bytes());
    }

    fn put_reason(&mut self, reason: &str) {
        self.put_u32(u32::try_from(reason.len()).unwrap_or(u32::MAX));
        self.output.extend_from_slice(reason.as_bytes());
    }
}
