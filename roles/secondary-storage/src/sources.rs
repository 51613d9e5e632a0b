//! Where the bytes of an object come from.
//!
//! A source announces what it knows of its content, then yields it chunk by chunk. Whatever a
//! source has to do to go on (asking again, ranges, other mirrors) is its own business: the
//! pipeline in [`crate::ingest`] sees bytes, an end, or an error, and knows no protocol.

pub mod error;
pub mod file;
pub mod http;
pub mod metalink;
pub mod mirrors;
pub mod nfs;
mod version;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use role::BoxFuture;

pub use error::{SourceError, all_seen};
pub use file::FileSource;
pub use http::HttpSource;
pub use metalink::MetalinkSource;
pub use mirrors::MirrorSource;
pub use nfs::NfsSource;
pub use version::Version;

use crate::ingest::digest::Algorithm;

/// Longest pause before another attempt.
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(30);

/// One way to get the bytes of an object.
#[derive(Debug, Clone)]
pub enum Source {
    Http(HttpSource),
    Mirrors(MirrorSource),
    Metalink(MetalinkSource),
    File(FileSource),
    Nfs(NfsSource),
}

/// What a source says before its first byte.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Announced {
    /// Length of the whole content, when it was told reliably: more or fewer bytes are an error.
    pub length: Option<u64>,
    /// A length that is only good for showing progress.
    pub hint: Option<u64>,
    /// What the source put around its content.
    pub coding: Coding,
    pub version: Version,
    /// Digests that the whole content has, whatever else is asked of it.
    pub hashes: Vec<Hash>,
}

/// A digest that a source names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hash {
    pub algorithm: Algorithm,
    /// In lower case.
    pub hex: String,
}

impl Hash {
    /// From `{ALG}hex`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, hex) = text.strip_prefix('{')?.split_once('}')?;
        Some(Self { algorithm: Algorithm::by_name(name)?, hex: hex.to_owned() })
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}{}", self.algorithm.name(), self.hex)
    }
}

/// Where a content was left off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// Bytes of the content that are there.
    pub received: u64,
    /// Length of the whole content, when it was told.
    pub length: Option<u64>,
    pub version: Version,
}

/// A source that gives its content.
#[derive(Debug)]
pub struct Opening {
    pub announced: Announced,
    /// The first byte that comes: 0, or where the content was left off.
    pub from: u64,
    pub chunks: Box<dyn Chunks>,
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

    /// Whether it was put together of parts that nothing but a digest tells to be of one version.
    fn is_patched(&self) -> bool {
        false
    }
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

/// Nothing more to come.
#[derive(Debug)]
pub struct Nothing;

impl Chunks for Nothing {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

impl Source {
    /// Asks for the content, for its rest when `from` says what is there already. The whole comes
    /// when it cannot be continued.
    pub async fn open(&self, from: Option<&Continuation>) -> Result<Opening, SourceError> {
        match self {
            Self::Http(http) => http.open(from).await,
            Self::Mirrors(mirrors) => mirrors.open(from).await,
            Self::Metalink(metalink) => metalink.open(from).await,
            Self::File(file) => file.open(from).await,
            Self::Nfs(file) => file.open(from).await,
        }
    }

    /// Whose load it is: host and port that the bytes come from.
    pub fn server(&self) -> String {
        match self {
            Self::Http(http) => http.url.server(),
            Self::Mirrors(mirrors) => {
                mirrors.mirrors().first().map(|mirror| mirror.url.server()).unwrap_or_default()
            }
            Self::Metalink(metalink) => metalink.document.url.server(),
            Self::File(file) => file.server(),
            Self::Nfs(file) => file.server(),
        }
    }

    /// Whether the other one gives the same bytes in the same manner.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Http(one), Self::Http(other)) => one.is_same(other),
            (Self::Mirrors(one), Self::Mirrors(other)) => {
                let (one, other) = (one.mirrors(), other.mirrors());
                one.len() == other.len()
                    && one.iter().zip(other).all(|(one, other)| one.is_same(other))
            }
            (Self::Metalink(one), Self::Metalink(other)) => one.document.is_same(&other.document),
            (Self::File(one), Self::File(other)) => one.is_same(other),
            (Self::Nfs(one), Self::Nfs(other)) => one.is_same(other),
            (
                Self::Http(_) | Self::Mirrors(_) | Self::Metalink(_) | Self::File(_) | Self::Nfs(_),
                _,
            ) => false,
        }
    }
}

/// As a log or an answer may show it: without credentials and query.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(http) => http.url.fmt(f),
            Self::Mirrors(mirrors) => match mirrors.mirrors().last() {
                Some(original) => original.url.fmt(f),
                None => f.write_str("no mirror"),
            },
            Self::Metalink(metalink) => metalink.fmt(f),
            Self::File(file) => file.fmt(f),
            Self::Nfs(file) => file.fmt(f),
        }
    }
}
