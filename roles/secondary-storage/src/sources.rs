//! Where the bytes of an object come from.
//!
//! A source announces what it knows of its content, then yields it chunk by chunk. Whatever a
//! source has to do to go on (asking again, ranges, other mirrors) is its own business: the
//! pipeline in [`crate::ingest`] sees bytes, an end, or an error, and knows no protocol.

pub mod error;
pub mod http;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use role::BoxFuture;

pub use error::SourceError;
pub use http::HttpSource;

/// Longest pause before another attempt.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(30);

/// One way to get the bytes of an object.
#[derive(Debug, Clone)]
pub enum Source {
    Http(HttpSource),
}

/// What a source says before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Announced {
    /// Length of the whole content, when it was told reliably: more or fewer bytes are an error.
    pub length: Option<u64>,
    /// A length that is only good for showing progress.
    pub hint: Option<u64>,
    /// What the source put around its content.
    pub coding: Coding,
}

/// A coding of the transfer, which is not part of the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coding {
    #[default]
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Identity => "content",
            Self::Gzip => "content coding gzip",
            Self::Deflate => "content coding deflate",
        }
    }
}

/// The content of a source, in order, from its first byte.
pub trait Chunks: fmt::Debug + Send {
    /// The next bytes; `None` after the last one. Continues over interruptions by itself.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>>;
}

/// How often and after which pauses something is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retries {
    pub count: u32,
    /// Before the first one; doubled each time.
    pub delay: Duration,
}

impl Retries {
    /// The pause after so many failures in a row.
    pub fn delay(&self, failures: u32) -> Duration {
        let factor = 1_u32 << failures.saturating_sub(1).min(10);
        self.delay.saturating_mul(factor).min(LONGEST_RETRY_DELAY)
    }
}

impl Source {
    /// Asks for the whole content.
    pub async fn open(&self) -> Result<(Announced, Box<dyn Chunks>), SourceError> {
        match self {
            Self::Http(http) => http.open().await,
        }
    }

    /// Host and port that the bytes come from.
    pub fn server(&self) -> String {
        match self {
            Self::Http(http) => http.url.server(),
        }
    }

    /// Whether the other one gives the same bytes in the same manner.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(one), Self::Http(other)) => one.is_same(other),
        }
    }
}

/// As a log or an answer may show it: without credentials and query.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(http) => http.url.fmt(f),
        }
    }
}
