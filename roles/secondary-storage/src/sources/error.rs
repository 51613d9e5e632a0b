//! Why a source gives no bytes. The text reaches the user, so it says what to do.

use std::net::IpAddr;
use std::time::Duration;

/// `Display` is the text for the user, causes included (it goes into one field of an answer).
/// Where the original's text is known it is kept, blanks and all: people search for it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{url} is not a usable URL: {reason}")]
    Url { url: String, reason: &'static str },
    #[error("{0:?} is not supported; use http or https")]
    Scheme(String),
    #[error(
        "Illegal host specified in URL: {host} has {kind} address ({address}); the administrator can allow it in secstorage.allowed.internal.sites or in allowed_sources of the storage host"
    )]
    Address { host: String, kind: &'static str, address: IpAddr },
    #[error("cannot find the address of {host}: {reason}")]
    Resolve { host: String, reason: String },
    #[error("{0}")]
    Connect(String),
    #[error("cannot use the web proxy: {0}")]
    Proxy(String),
    #[error(" HTTP Server returned {0} (expected 200 OK) ")]
    Status(u16),
    #[error("Failed to download {url} due to redirection, response code: {status}")]
    RedirectNotFollowed { url: String, status: u16 },
    #[error("Circular redirect to '{0}'")]
    RedirectLoop(String),
    #[error("more than {0} redirects")]
    TooManyRedirects(usize),
    #[error(" Failed to receive length of download ")]
    NoLength,
    #[error("the connection broke after {received} bytes{}: {reason}", of(*expected))]
    Cut { received: u64, expected: Option<u64>, reason: String },
    #[error("nothing was received for {} seconds (after {received} bytes{})", waited.as_secs(), of(*expected))]
    Stalled { waited: Duration, received: u64, expected: Option<u64> },
    /// What was received so far cannot be continued; asking for all of it anew may help.
    #[error("{0}")]
    Restart(Box<SourceError>),
    #[error("the download ended unexpectedly, see the log of the storage host")]
    Internal,
}

fn of(expected: Option<u64>) -> String {
    expected.map(|total| format!(" of {total}")).unwrap_or_default()
}

impl SourceError {
    /// Another attempt may succeed without anybody changing anything.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Stalled { .. })
    }

    /// Whether the content should be asked for anew. Refused at the first try is an answer;
    /// refused later, the server is restarting.
    pub const fn can_begin_again(&self, had_begun: bool) -> bool {
        matches!(self, Self::Restart(_)) || (had_begun && matches!(self, Self::Connect(_)))
    }
}

/// The text of a failed connection: the operating system's words where there are some, as in the
/// original ("Connection refused"), else the innermost cause.
pub fn connect_text(error: &reqwest::Error) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut last = String::new();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            let text = io.to_string();
            return text.split(" (os error").next().unwrap_or_default().to_owned();
        }
        last = error.to_string();
        cause = error.source();
    }
    if error.is_timeout() { format!("connection timed out: {last}") } else { last }
}
