//! Why a console does not open, and why it ends: one list of words for people.
//!
//! The browser gets the sentence, the log and the counters get the label. No sentence names a
//! host of the cloud or anything else that the viewer should not know.

use std::time::Duration;

use rfb::HandshakeError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

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
    #[error("this console proxy cannot open consoles by {0} yet")]
    Unsupported(UpstreamKind),
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
    #[error("encryption cannot be started: {}", plain(.0))]
    Tls(#[source] std::io::Error),
    #[error("{0} is not supported yet")]
    Unsupported(UpstreamKind),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
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
            Self::Unsupported(_) => "unsupported",
            Self::Denied => "denied",
            Self::ServerUnreachable => "server_unreachable",
            Self::ServerSilent => "server_silent",
            Self::Ended(ended) => match ended {
                Ended::Replaced => "replaced",
                Ended::Shutdown => "shutdown",
            },
            Self::VncServer(_) => "screen",
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
    /// Nobody touched keyboard or mouse.
    NoInput,
    Replaced,
    Shutdown,
    TextFrame,
    TooBig,
    BadFrame,
    /// The viewer broke the RFB handshake or took too long.
    BadHandshake,
    Refused,
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Replaced => Self::Replaced,
            Ended::Shutdown => Self::Shutdown,
        }
    }
}

impl End {
    /// Close code, and the sentence that the page shows; at most 123 bytes.
    pub(crate) const fn close(self) -> (CloseCode, &'static str) {
        match self {
            Self::ViewerClosed | Self::ViewerLost => (CloseCode::Normal, ""),
            Self::ScreenClosed => (
                CloseCode::Normal,
                "the virtual machine closed its screen; it was stopped or moved",
            ),
            Self::ScreenLost => {
                (CloseCode::Error, "the connection to the virtual machine's screen was lost")
            }
            Self::Idle => (CloseCode::Policy, "no sign of life from this viewer for too long"),
            Self::NoInput => (CloseCode::Policy, "nobody used keyboard or mouse for too long"),
            Self::Replaced => (CloseCode::Policy, "the console was opened in another window"),
            Self::Shutdown => (CloseCode::Away, "the console proxy is being stopped"),
            Self::TextFrame => (CloseCode::Unsupported, "text messages are not accepted"),
            Self::TooBig => (CloseCode::Size, "a message was too big"),
            Self::BadFrame => (CloseCode::Protocol, "a malformed WebSocket frame was received"),
            Self::BadHandshake => {
                (CloseCode::Protocol, "the viewer did not complete the RFB handshake")
            }
            Self::Refused => (CloseCode::Policy, "refused"),
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
            Self::NoInput => "no_input",
            Self::Replaced => "replaced",
            Self::Shutdown => "shutdown",
            Self::TextFrame => "text_frame",
            Self::TooBig => "too_big",
            Self::BadFrame => "bad_frame",
            Self::BadHandshake => "bad_handshake",
            Self::Refused => "refused",
        }
    }
}
