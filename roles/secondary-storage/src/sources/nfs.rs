//! A file of an NFS server as the source: `nfs://HOST/EXPORT/PATH/FILE`.
//!
//! Version 3, spoken by this process: nothing is mounted. The server's address is judged by the rule
//! of every source. Further settings are those that other programs know in such URLs: `uid` and `gid`
//! (whom the server takes us for), `nfsport` and `mountport` (asked of its port mapper otherwise).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use percent_encoding::percent_decode_str;
use reqwest::Url;
use role::{BoxFuture, TaskScope};

use super::error::SourceError;
use super::http::HttpLimits;
use super::http::address::AddressPolicy;
use super::{Announced, Chunks, Continuation, Opening, Version};
use crate::redacted::RedactedUrl;
use crate::stores::nfs::{NfsSettings, RemotePlace, open_remote};
use crate::stores::{EngineError, InstallPath, Opened};

/// Bytes of one read, and reads under way: enough to keep a server busy.
const BLOCK: u64 = 256 << 10;
const AHEAD: usize = 4;
const SCHEME: &str = "nfs:";

/// One file of a server.
#[derive(Debug, Clone)]
pub struct NfsSource {
    host: String,
    path: InstallPath,
    settings: NfsSettings,
    policy: AddressPolicy,
    limits: HttpLimits,
    /// Runs connections.
    tasks: TaskScope,
}

impl NfsSource {
    /// Whether the text is meant as an `nfs:` URL.
    pub fn is_meant(text: &str) -> bool {
        text.trim().get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
    }

    pub fn parse(
        text: &str,
        policy: AddressPolicy,
        limits: HttpLimits,
        tasks: TaskScope,
    ) -> Result<Self, SourceError> {
        let refused = |reason| SourceError::Url { url: RedactedUrl::of(text), reason };
        let url: Url = text.trim().parse().map_err(|_bad| refused("it cannot be parsed"))?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| refused("it has no host; give nfs://HOST/EXPORT/PATH"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("NFS knows no user names; give ?uid=NUMBER&gid=NUMBER"));
        }
        let mut settings = NfsSettings { port: url.port(), ..NfsSettings::default() };
        for (key, value) in url.query_pairs() {
            let bad = |_error| refused("a value in its query is not a number of its kind");
            match key.as_ref() {
                "uid" => settings.uid = value.parse().map_err(bad)?,
                "gid" => settings.gid = value.parse().map_err(bad)?,
                "nfsport" => settings.port = Some(value.parse().map_err(bad)?),
                "mountport" => settings.mount_port = Some(value.parse().map_err(bad)?),
                "version" if value == "3" => {}
                "version" => return Err(refused("only version 3 of NFS is spoken")),
                _ => return Err(refused("its query may have uid, gid, nfsport, mountport only")),
            }
        }
        let decoded = percent_decode_str(url.path()).decode_utf8();
        let path = decoded.map_err(|_bad| refused("it is not UTF-8"))?;
        let path: InstallPath =
            path.parse().map_err(|_bad| refused("its path is not that of a file"))?;
        Ok(Self { host: host.to_ascii_lowercase(), path, settings, policy, limits, tasks })
    }

    async fn address(&self) -> Result<IpAddr, SourceError> {
        let limit = self.limits.connect_timeout;
        let found = self.policy.resolve(&self.host, 0, limit).await?;
        let first = found.first().map(|address| address.ip());
        first.ok_or_else(|| SourceError::Connect(format!("{} has no address", self.host)))
    }

    async fn file(&self) -> Result<Arc<dyn Opened>, SourceError> {
        let place = RemotePlace {
            address: self.address().await?,
            path: self.path.clone(),
            settings: self.settings.clone(),
            deadline: self.limits.stall_timeout,
            tasks: self.tasks.clone(),
        };
        let found = open_remote(place).await.map_err(|error| failed(error, 0, None))?;
        let file = found.ok_or_else(|| SourceError::File(format!("there is no file {self}")))?;
        Ok(Arc::from(file))
    }

    /// Opens the file; from where it was left off if it is the same file still.
    pub(super) async fn open(&self, from: Option<&Continuation>) -> Result<Opening, SourceError> {
        let file = self.file().await?;
        let (length, version) = (file.length(), version(&*file));
        let at = from.filter(|from| {
            from.received <= length
                && from.length.is_none_or(|known| known == length)
                && version.is_surely(&from.version)
        });
        let at = at.map_or(0, |from| from.received);
        let announced =
            Announced { length: Some(length), version: version.clone(), ..Announced::default() };
        let chunks = NfsChunks {
            source: self.clone(),
            file,
            version,
            received: at,
            asked: at,
            reads: FuturesOrdered::new(),
            failures: 0,
        };
        Ok(Opening { announced, from: at, chunks: Box::new(chunks) })
    }

    pub(super) fn server(&self) -> String {
        self.host.clone()
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.host == other.host && self.path == other.path && self.settings == other.settings
    }
}

impl fmt::Display for NfsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nfs://{}/{}", self.host, self.path)
    }
}

fn version(file: &dyn Opened) -> Version {
    let modified = file.modified().duration_since(UNIX_EPOCH).unwrap_or_default();
    Version { modified: Some(modified.as_nanos().to_string()), ..Version::default() }
}

fn failed(error: EngineError, received: u64, expected: Option<u64>) -> SourceError {
    match error {
        EngineError::Stalled(waited) => SourceError::Stalled { waited, received, expected },
        other => SourceError::File(bedrock::chain(&other)),
    }
}

struct NfsChunks {
    source: NfsSource,
    file: Arc<dyn Opened>,
    version: Version,
    received: u64,
    /// The first byte that no read was sent for.
    asked: u64,
    reads: FuturesOrdered<BoxFuture<'static, Result<Bytes, EngineError>>>,
    /// In a row, without a byte between them.
    failures: u32,
}

impl fmt::Debug for NfsChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NfsChunks").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Chunks for NfsChunks {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, SourceError>> {
        Box::pin(self.advance())
    }
}

impl NfsChunks {
    async fn advance(&mut self) -> Result<Option<Bytes>, SourceError> {
        let length = self.file.length();
        loop {
            while self.asked < length && self.reads.len() < AHEAD {
                let end = self.asked.saturating_add(BLOCK).min(length);
                self.reads.push_back(self.file.read(self.asked..end));
                self.asked = end;
            }
            match self.reads.next().await {
                Some(Ok(bytes)) => {
                    self.received = self.received.saturating_add(bytes.len() as u64);
                    self.failures = 0;
                    return Ok(Some(bytes));
                }
                Some(Err(error)) => {
                    let error = failed(error, self.received, Some(length));
                    self.go_on(error).await?;
                }
                // Somebody may have written to it meanwhile.
                None => match self.source.file().await {
                    Ok(file) => return self.is_still(&*file).map(|()| None),
                    Err(error) => self.go_on(error).await?,
                },
            }
        }
    }

    fn is_still(&self, file: &dyn Opened) -> Result<(), SourceError> {
        if file.length() == self.file.length() && version(file) == self.version {
            return Ok(());
        }
        let changed = format!("{} was changed while it was read", self.source);
        Err(SourceError::Restart(Box::new(SourceError::File(changed))))
    }

    /// Opens the file again, after a pause, while that may help.
    async fn go_on(&mut self, mut error: SourceError) -> Result<(), SourceError> {
        let retries = self.source.limits.retries;
        loop {
            self.failures += 1;
            if self.failures > retries.count {
                return Err(error);
            }
            tracing::info!(attempt = self.failures, %error, "download interrupted");
            tokio::time::sleep(retries.delay(self.failures)).await;
            match self.source.file().await {
                Ok(file) => {
                    self.is_still(&*file)?;
                    self.file = file;
                    self.reads = FuturesOrdered::new();
                    self.asked = self.received;
                    return Ok(());
                }
                Err(other) => error = other,
            }
        }
    }
}
