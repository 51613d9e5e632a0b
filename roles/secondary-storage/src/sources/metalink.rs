//! Metalinks: a small XML document that names mirrors, length and digests of a file (RFC 5854, and
//! the older version 3).
//!
//! The document is fetched as any image is: with the rule of addresses, and only a good answer
//! counts. Its digests are compared, whatever the command gives besides.

mod parse;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use reqwest::Url;

use super::error::SourceError;
use super::http::url::SourceUrl;
use super::mirrors::MirrorSource;
use super::{Continuation, HttpSource, Opening};
pub use parse::{Described, MetalinkError, parse};

/// Far more than a document with all the mirrors of a distribution has.
const MAX_LEN: usize = 1 << 20;
const ENDINGS: [&str; 2] = [".metalink", ".meta4"];

/// A file that a metalink describes.
#[derive(Debug, Clone)]
pub struct MetalinkSource {
    /// How the document is fetched, and in the same manner its mirrors.
    pub document: HttpSource,
    /// How many mirrors have failed.
    failed: Arc<AtomicUsize>,
}

impl MetalinkSource {
    /// Whether a URL's path has the ending of a metalink.
    pub fn is_meant(url: &SourceUrl) -> bool {
        let path = url.url().path().to_ascii_lowercase();
        ENDINGS.iter().any(|ending| path.ends_with(ending))
    }

    pub fn new(document: HttpSource) -> Self {
        Self { document, failed: Arc::default() }
    }

    /// Fetches the document, then opens the file at the first mirror that gives it.
    pub(super) async fn open(&self, from: Option<&Continuation>) -> Result<Opening, SourceError> {
        let bytes = self.document.document(MAX_LEN).await?;
        let described = parse(&bytes).map_err(|error| self.unusable(error.to_string()))?;
        let base = self.document.url.url();
        let mirrors: Vec<HttpSource> =
            described.mirrors.iter().filter_map(|mirror| self.mirror(base, mirror)).collect();
        if mirrors.is_empty() {
            return Err(self.unusable("none of its mirrors has an http or https URL".to_owned()));
        }
        tracing::info!(metalink = %self, mirrors = mirrors.len(), "read a metalink");
        let hashes = described.hash.into_iter().collect();
        let failed = Arc::clone(&self.failed);
        MirrorSource::new(mirrors, described.length, hashes, failed).open(from).await
    }

    fn unusable(&self, reason: String) -> SourceError {
        SourceError::Metalink { url: self.document.url.to_string(), reason }
    }

    /// A mirror that can be asked. Credentials of the command are for the document's server only.
    fn mirror(&self, base: &Url, text: &str) -> Option<HttpSource> {
        let joined = base.join(text).ok()?;
        let url = SourceUrl::parse(joined.as_str()).ok()?;
        let is_same_server = url.url().origin() == base.origin();
        let credentials = self.document.credentials.clone().filter(|_own| is_same_server);
        Some(HttpSource { url, credentials, ..self.document.clone() })
    }
}

impl fmt::Display for MetalinkSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.url.fmt(f)
    }
}
