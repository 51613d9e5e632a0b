//! Why a console does not open, and why it ends: one list of words for people.
//!
//! The browser gets the sentence, the log and the counters get the label. No sentence names a
//! host of the cloud or anything else that the viewer should not know.

use std::time::Duration;

use rfb::HandshakeError;
use websocket::FrameError;

use crate::control::Advice;
use crate::dialler::ReplyError;
use crate::sessions::Ended;
use crate::upstream::UpstreamKind;

/// Why a console does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the console proxy has no key from the management server yet; try again in a moment")]
    NoKey,
    #[error("this console link is damaged or was issued with another key")]
    Token,
    #[error("this console link does not say where the virtual machine's screen is")]
    Incomplete,
    #[error("this console link was made for another client address")]
    SourceAddress,
    #[error("this console link lacks its extra security token, or it is wrong")]
    Extra,
    #[error("this console link was used already; open the console again")]
    Replay,
    #[error(
        "the screen of this virtual machine is on Hyper-V, which no browser can show: open {0} with a \
         Remote Desktop client that knows Hyper-V consoles"
    )]
    HyperV(String),
    #[error("too many consoles of this virtual machine are open")]
    TooMany,
    #[error("this console was closed too long ago; open the console again")]
    NotResumed,
    #[error("this console was ended by an operator")]
    Revoked,
    #[error(
        "the management server denied this console; the link may have expired, open the console again"
    )]
    Denied,
    #[error("the management server cannot be asked at the moment; try again")]
    ServerUnreachable,
    #[error("the management server did not answer; open the console again")]
    ServerSilent,
    /// Ended from outside while it was being opened.
    #[error("{}", End::from(*.0).close().1)]
    Ended(Ended),
    #[error("this recording cannot be shown: {0}")]
    Recording(String),
    #[error("the virtual machine's screen cannot be reached: {0}")]
    VncServer(#[source] VncServerError),
}

/// Why the VM's VNC server gave no picture.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VncServerError {
    #[error("{}", plain(.0))]
    Connect(#[source] std::io::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{}", plain(.0))]
    Io(#[source] std::io::Error),
    #[error("encryption cannot be started: {0}")]
    Tls(String, #[source] std::io::Error),
    #[error(
        "its host hung up after the TLS handshake: it does not accept the console proxy's certificate, \
         or wants one and the management server has issued none"
    )]
    HungUp,
    /// What is wrong with them is for the log alone.
    #[error("the console proxy's own certificate cannot be read")]
    Credentials(String),
    #[error("{0} is not supported")]
    Unsupported(UpstreamKind),
    #[error(transparent)]
    Tunnel(#[from] ReplyError),
    #[error("the ticket for its host is none")]
    Ticket,
    #[error("its host refused the ticket ({0})")]
    TicketRefused(u16),
    /// Encryption without certificates, and the same in clear: the latter is tried.
    #[error("its encryption shows no certificate")]
    OnlyClear,
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

impl VncServerError {
    /// Whether the screen may be at another place by now.
    pub(crate) const fn may_be_elsewhere(&self) -> bool {
        matches!(
            self,
            Self::Connect(_)
                | Self::Timeout(_)
                | Self::Io(_)
                | Self::Tunnel(_)
                | Self::Handshake(HandshakeError::Ended(_))
        )
    }

    /// Whether it may be over without anybody changing anything.
    const fn may_pass(&self) -> bool {
        self.may_be_elsewhere() || matches!(self, Self::Ticket | Self::TicketRefused(_))
    }
}

/// An I/O error without the operating system's number.
fn plain(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "connection reset".to_owned(),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => "no route to it".to_owned(),
        ErrorKind::TimedOut => "no answer".to_owned(),
        _ => "the connection failed".to_owned(),
    }
}

impl Refusal {
    /// For counters and the log.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::NoKey => "no_key",
            Self::Token => "token",
            Self::Incomplete => "incomplete",
            Self::SourceAddress => "source_address",
            Self::Extra => "extra",
            Self::Replay => "replay",
            Self::HyperV(_) => "hyper_v",
            Self::TooMany => "too_many",
            Self::NotResumed => "not_resumed",
            Self::Revoked => "revoked",
            Self::Denied => "denied",
            Self::ServerUnreachable => "server_unreachable",
            Self::ServerSilent => "server_silent",
            Self::Ended(ended) => match ended {
                Ended::Replaced => "replaced",
                Ended::Shutdown => "shutdown",
                Ended::Resumed => "resumed",
                Ended::Kicked => "kicked",
            },
            Self::Recording(_) => "recording",
            Self::VncServer(_) => "screen",
        }
    }

    /// What the user does about it.
    pub(crate) const fn advice(&self) -> Advice {
        match self {
            // The link was not used up.
            Self::NoKey | Self::ServerUnreachable | Self::TooMany => Advice::Retry,
            Self::HyperV(_) | Self::Revoked | Self::Recording(_) => Advice::Operator,
            Self::VncServer(error) if !error.may_pass() => Advice::Operator,
            _ => Advice::NewLink,
        }
    }
}

/// Why an open console, or one that was opening, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The viewer closed its window.
    ViewerClosed,
    /// The viewer's connection broke.
    ViewerLost,
    /// The VM's screen closed the connection: powered off, migrated.
    ScreenClosed,
    ScreenLost,
    /// No sign of life from the viewer.
    Idle,
    /// Nothing was typed and nothing shown.
    Quiet,
    Replaced,
    /// Its viewer came back by another connection.
    Resumed,
    /// The VM is elsewhere, and the viewer may come back there.
    Moved,
    Kicked,
    Shutdown,
    TextFrame,
    BadFrame(FrameError),
    /// The viewer broke the RFB handshake or took too long.
    BadHandshake,
    Refused,
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Replaced => Self::Replaced,
            Ended::Shutdown => Self::Shutdown,
            Ended::Resumed => Self::Resumed,
            Ended::Kicked => Self::Kicked,
        }
    }
}

impl End {
    /// Close code, and the sentence that the page shows; at most 123 bytes.
    pub(crate) const fn close(self) -> (u16, &'static str) {
        match self {
            Self::ViewerClosed | Self::ViewerLost => (1000, ""),
            Self::ScreenClosed => {
                (1000, "the virtual machine closed its screen; it was stopped or moved")
            }
            Self::ScreenLost => (1011, "the connection to the virtual machine's screen was lost"),
            Self::Idle => (1008, "no sign of life from this viewer for too long"),
            Self::Quiet => (1008, "nothing was typed and nothing was shown for too long"),
            Self::Replaced => (1008, "the console was opened in another window"),
            Self::Resumed => (1008, "the console goes on in another window"),
            Self::Moved => (4000, "the virtual machine was moved"),
            Self::Kicked => (4001, "an operator ended this console"),
            Self::Shutdown => (1001, "the console proxy is being stopped"),
            Self::TextFrame => (1003, "text messages are not accepted"),
            Self::BadFrame(error @ FrameError::TooLong(_)) => {
                (error.code(), "a message was too big")
            }
            Self::BadFrame(error) => (error.code(), "a malformed WebSocket frame was received"),
            Self::BadHandshake => (1002, "the viewer did not complete the RFB handshake"),
            Self::Refused => (1008, "refused"),
        }
    }

    /// For counters and the log.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::ViewerClosed => "viewer_closed",
            Self::ViewerLost => "viewer_lost",
            Self::ScreenClosed => "screen_closed",
            Self::ScreenLost => "screen_lost",
            Self::Idle => "idle",
            Self::Quiet => "quiet",
            Self::Replaced => "replaced",
            Self::Resumed => "resumed",
            Self::Moved => "moved",
            Self::Kicked => "kicked",
            Self::Shutdown => "shutdown",
            Self::TextFrame => "text_frame",
            Self::BadFrame(FrameError::TooLong(_)) => "too_big",
            Self::BadFrame(_) => "bad_frame",
            Self::BadHandshake => "bad_handshake",
            Self::Refused => "refused",
        }
    }
}
