//! A file of a store as the source: the management server names one when it copies a template
//! between stores of a zone without a storage host, `file://<store's directory>/<path>`.
//!
//! Only files in the directory of an object of a store that this host serves are read; whatever else
//! a `file:` URL may name on this machine is refused.

use std::fmt;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use percent_encoding::percent_decode_str;
use role::BoxFuture;

use super::error::SourceError;
use super::{Announced, Chunks, Continuation, Opening, Version};
use crate::redacted::RedactedUrl;
use crate::stores::{InstallPath, ObjectKind, Opened, StoreUrl, Stores, Work};

const BLOCK: u64 = 256 * 1024;
const SCHEME: &str = "file://";

/// One file of a store.
#[derive(Debug, Clone)]
pub struct FileSource {
    stores: Stores,
    store: StoreUrl,
    path: InstallPath,
}

impl FileSource {
    /// Whether the text is meant as a `file:` URL.
    pub fn is_meant(text: &str) -> bool {
        text.trim().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
    }

    /// The store is found by its directory's name, as the server records it, or by the directory
    /// where it is on this host.
    pub fn parse(text: &str, stores: &Stores) -> Result<Self, SourceError> {
        let refused = |reason| SourceError::Url { url: RedactedUrl::of(text), reason };
        let rest = text.trim().get(SCHEME.len()..).unwrap_or_default();
        let decoded = percent_decode_str(rest).decode_utf8();
        let place = decoded.map_err(|_bad| refused("it is not UTF-8"))?;
        let (store, path) = Self::find(&place, stores).ok_or_else(|| {
            refused("it names no store of this host; only files of stores are read")
        })?;
        let path: InstallPath = path.parse().map_err(|_bad| refused("its path is not usable"))?;
        let is_in = |kind: ObjectKind| kind.directory(&path).is_some_and(|object| object != path);
        if !ObjectKind::ALL.into_iter().any(is_in) {
            return Err(refused("it names no file of a template or volume"));
        }
        Ok(Self { stores: stores.clone(), store, path })
    }

    fn find<'p>(place: &'p str, stores: &Stores) -> Option<(StoreUrl, &'p str)> {
        for store in stores.ready() {
            let below = place.strip_prefix(&store.place()).and_then(|rest| rest.strip_prefix('/'));
            if let Some(path) = below {
                return Some((store.url().clone(), path));
            }
        }
        let (name, path) = place.trim_start_matches('/').split_once('/')?;
        Some((stores.url_of_directory(name)?, path))
    }

    /// Opens the file; from where it was left off if it is the same file still.
    pub(super) async fn open(&self, from: Option<&Continuation>) -> Result<Opening, SourceError> {
        let failed = |error: crate::stores::StoreError| SourceError::File(bedrock::chain(&error));
        let store = self.stores.open(&self.store, None).await.map_err(failed)?;
        let work = Work::new();
        let opening = store.engine().open(&work, self.path.clone());
        let found = store.run("open a file", opening).await.map_err(failed)?;
        let file = found.ok_or_else(|| SourceError::File(format!("there is no file {self}")))?;
        let length = file.length();
        let modified = file.modified().duration_since(UNIX_EPOCH).unwrap_or_default();
        let version =
            Version { modified: Some(modified.as_nanos().to_string()), ..Version::default() };
        let at = from.filter(|from| {
            from.received <= length
                && from.length.is_none_or(|known| known == length)
                && version.is_surely(&from.version)
        });
        let at = at.map_or(0, |from| from.received);
        let announced = Announced { length: Some(length), version, ..Announced::default() };
        let chunks = FileChunks { file, _work: work, at };
        Ok(Opening { announced, from: at, chunks: Box::new(chunks) })
    }

    pub(super) fn server(&self) -> String {
        self.store.to_string()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.store == other.store && self.path == other.path
    }
}

impl fmt::Display for FileSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of store {}", self.path, self.store)
    }
}

#[derive(Debug)]
struct FileChunks {
    file: Box<dyn Opened>,
    /// The owner of the reads.
    _work: Work,
    at: u64,
}

impl Chunks for FileChunks {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(async move {
            let end = self.at.saturating_add(BLOCK).min(self.file.length());
            if end <= self.at {
                return Ok(None);
            }
            let read = self.file.read(self.at..end).await;
            let bytes = read.map_err(|error| SourceError::File(bedrock::chain(&error)))?;
            self.at = end;
            Ok(Some(bytes))
        })
    }
}
