//! Single requests to a bucket: signed, with time-outs, tried again where that is safe.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use role::Host;

use super::answer::{self, AnswerError, Begun, Page, Refusal};
use super::settings::S3Settings;
use super::sign::{Request, Signer, encode_path, encode_query, sha256};
use super::tag::{self, Md5Sum};
use crate::sources::http::trust::Trust;

/// Longest answer in XML: a page has a thousand keys.
const MAX_TEXT: usize = 8 << 20;
/// Room that is made before anything of an object is there.
const MAX_AHEAD: usize = 8 << 20;
/// The first pause before another attempt; each is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// A request whose body is sent slowly is not stalled; this is for all of it.
const WHOLE: Duration = Duration::from_secs(600);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    #[error("cannot reach the S3 server {server}: {reason}")]
    Unreachable { server: String, reason: String },
    #[error("the S3 server refuses it: {status} {code} {message}")]
    Refused { status: u16, code: String, message: String },
    #[error("the S3 server ended its answer after {received} of {expected} bytes")]
    Cut { received: u64, expected: u64 },
    #[error("the object changed while it was read")]
    Changed,
    #[error("the S3 server has other bytes than were sent: their MD5 is {sent}, it says {tag}")]
    Differs { sent: String, tag: String },
    #[error(transparent)]
    Answer(#[from] AnswerError),
    #[error("the S3 server's answer has no {0}")]
    Missing(&'static str),
}

impl From<S3Error> for std::io::Error {
    fn from(error: S3Error) -> Self {
        let kind = match &error {
            S3Error::Refused { status: 403, .. } => std::io::ErrorKind::PermissionDenied,
            S3Error::Refused { status: 404, .. } => std::io::ErrorKind::NotFound,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

type Outcome<T> = Result<T, S3Error>;

/// What is known of an object.
#[derive(Debug, Clone)]
pub struct Head {
    pub length: u64,
    pub modified: SystemTime,
    pub tag: String,
    /// Whether the tag tells of the bytes: of what is encrypted with certain keys it does not.
    pub is_plain: bool,
}

/// A request before it is signed.
#[derive(Debug, Clone)]
struct Ask<'a> {
    method: Method,
    /// `None`: the bucket itself.
    key: Option<&'a str>,
    query: Vec<(&'a str, &'a str)>,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl<'a> Ask<'a> {
    fn new(method: Method, key: &'a str) -> Self {
        let (query, headers) = (Vec::new(), Vec::new());
        Self { method, key: Some(key), query, headers, body: Bytes::new() }
    }

    fn bucket(query: Vec<(&'a str, &'a str)>) -> Self {
        Self { key: None, query, ..Self::new(Method::GET, "") }
    }
}

/// Requests to one bucket. The connections are kept and shared.
#[derive(Debug)]
pub struct Client {
    settings: S3Settings,
    http: reqwest::Client,
    /// What requests are signed for; a server may say that it is another.
    region: Mutex<String>,
    /// Uploads that this process has begun: not every server tells when that was.
    own: Mutex<BTreeSet<String>>,
    host: Host,
}

impl Client {
    pub fn new(settings: S3Settings, trust: &Trust, host: Host) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(trust.verifier())
            .with_no_client_auth();
        let keep_alive = settings.keep_alive.then_some(settings.connection_ttl);
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.socket_timeout)
            .timeout(WHOLE)
            .pool_idle_timeout(settings.connection_ttl)
            .tcp_keepalive(keep_alive)
            .user_agent(concat!("quickcloud/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| error.to_string())?;
        let region = Mutex::new(settings.region.clone());
        Ok(Self { settings, http, region, own: Mutex::default(), host })
    }

    pub const fn settings(&self) -> &S3Settings {
        &self.settings
    }

    /// For people.
    pub fn place(&self) -> String {
        format!("bucket {} at {}", self.settings.bucket, self.server())
    }

    fn server(&self) -> String {
        let base = &self.settings.base;
        let port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", base.host_str().unwrap_or_default())
    }

    fn region(&self) -> String {
        self.region.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// One attempt.
    async fn send(&self, ask: &Ask<'_>, payload: &str) -> Outcome<Response> {
        let unreachable = |reason: String| S3Error::Unreachable { server: self.server(), reason };
        let bucket = if self.settings.is_path_style {
            format!("/{}", self.settings.bucket)
        } else {
            String::new()
        };
        let path = match ask.key {
            Some(key) => format!("{bucket}/{}", encode_path(key)),
            None if bucket.is_empty() => "/".to_owned(),
            None => bucket,
        };
        let query = encode_query(&ask.query);
        let now = jiff::Timestamp::try_from(self.host.clock.now());
        let now = now.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let date = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut headers = ask.headers.clone();
        headers.push(("host", self.server()));
        headers.push(("x-amz-content-sha256", payload.to_owned()));
        headers.push(("x-amz-date", date.clone()));
        headers.sort();
        let region = self.region();
        let signer = Signer {
            access_key: &self.settings.access_key,
            secret_key: &self.settings.secret_key,
            region: &region,
            date: &date,
        };
        let authorization = signer.sign(&Request {
            method: ask.method.as_str(),
            path: &path,
            query: &query,
            headers: &headers,
            payload,
        });
        headers.push(("authorization", authorization));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let value =
                HeaderValue::from_str(&value).map_err(|error| unreachable(error.to_string()))?;
            map.insert(HeaderName::from_static(name), value);
        }
        let base = self.settings.base.as_str().trim_end_matches('/');
        let separator = if query.is_empty() { "" } else { "?" };
        let url = format!("{base}{path}{separator}{query}");
        let request = self.http.request(ask.method.clone(), url).headers(map);
        let sent = request.body(ask.body.clone()).send().await;
        sent.map_err(|error| unreachable(bedrock::chain(&error.without_url())))
    }

    /// A request until it is answered for good. Every one of them may be repeated: it names what it
    /// makes.
    async fn ask(&self, ask: Ask<'_>) -> Outcome<Response> {
        let payload = sha256(&ask.body);
        self.ask_hashed(ask, &payload, None).await
    }

    /// A request whose body is kept by the server, which tells the body's MD5 sum as a rule: other bytes
    /// are sent again.
    async fn store(&self, ask: Ask<'_>) -> Outcome<(Response, Md5Sum)> {
        // On a thread: a part has megabytes.
        let body = ask.body.clone();
        let (tx, rx) = tokio::sync::oneshot::channel();
        let hash = move || drop(tx.send((sha256(&body), tag::md5(&body))));
        let spawned = std::thread::Builder::new().name("ss-s3-hash".to_owned()).spawn(hash);
        spawned.map_err(|error| S3Error::Unreachable {
            server: self.server(),
            reason: error.to_string(),
        })?;
        let (payload, sum) = rx.await.map_err(|_died| S3Error::Missing("digest"))?;
        Ok((self.ask_hashed(ask, &payload, Some(sum)).await?, sum))
    }

    async fn ask_hashed(
        &self,
        ask: Ask<'_>,
        payload: &str,
        sum: Option<Md5Sum>,
    ) -> Outcome<Response> {
        let mut pause = PAUSE;
        let mut attempt = 0;
        loop {
            let (error, again) = match self.send(&ask, payload).await {
                Ok(response) if response.status().is_success() => match sum {
                    Some(sum) if tag::differs(response.headers(), sum) => {
                        let tag = tag::of(response.headers()).to_owned();
                        (S3Error::Differs { sent: tag::hex(sum), tag }, true)
                    }
                    _ => return Ok(response),
                },
                Ok(response) => self.refusal(response).await,
                Err(error) => (error, true),
            };
            attempt += 1;
            if !again || attempt > self.settings.retries {
                return Err(error);
            }
            tracing::debug!(attempt, %error, "trying a request to the bucket again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

impl Client {
    /// What a failed answer means, and whether another attempt may succeed.
    async fn refusal(&self, response: Response) -> (S3Error, bool) {
        let status = response.status();
        let text = text(response).await.unwrap_or_default();
        let Refusal { code, message, region } = answer::refusal(&text).unwrap_or_default();
        let mut again = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        again |= matches!(code.as_str(), "SlowDown" | "RequestTimeout" | "InternalError");
        if let Some(region) = region.filter(|region| *region != self.region()) {
            tracing::info!(
                region,
                bucket = self.settings.bucket,
                "the bucket is in another region"
            );
            *self.region.lock().unwrap_or_else(PoisonError::into_inner) = region;
            again = true;
        }
        (S3Error::Refused { status: status.as_u16(), code, message }, again)
    }

    /// `None` when there is no such object.
    pub async fn head(&self, key: &str) -> Outcome<Option<Head>> {
        match self.ask(Ask::new(Method::HEAD, key)).await {
            Ok(response) => {
                let text =
                    |name| response.headers().get(name).and_then(|value| value.to_str().ok());
                let length = text("content-length").and_then(|text| text.parse().ok());
                let modified =
                    text("last-modified").and_then(|text| httpdate::parse_http_date(text).ok());
                Ok(Some(Head {
                    length: length.ok_or(S3Error::Missing("length"))?,
                    modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
                    tag: text("etag").unwrap_or_default().to_owned(),
                    is_plain: tag::is_plain(response.headers()),
                }))
            }
            Err(S3Error::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Exactly the bytes of a range of the object that has this tag. A connection that breaks is
    /// followed by another one for what is missing.
    pub async fn get(&self, key: &str, range: Range<u64>, tag: &str) -> Outcome<Bytes> {
        let expected = range.end.saturating_sub(range.start);
        // Growing step by step would need twice the room.
        let room = usize::try_from(expected).map_or(MAX_AHEAD, |all| all.min(MAX_AHEAD));
        let mut bytes = BytesMut::with_capacity(room);
        let mut attempts = 0;
        while (bytes.len() as u64) < expected {
            let begin = range.start + bytes.len() as u64;
            let mut ask = Ask::new(Method::GET, key);
            ask.headers.push(("range", format!("bytes={begin}-{}", range.end - 1)));
            if !tag.is_empty() {
                ask.headers.push(("if-match", tag.to_owned()));
            }
            let mut response = match self.ask(ask).await {
                Ok(response) => response,
                Err(S3Error::Refused { status: 404 | 412 | 416, .. }) => {
                    return Err(S3Error::Changed);
                }
                Err(error) => return Err(error),
            };
            // A server without ranges would send the beginning again and again.
            if response.status() != StatusCode::PARTIAL_CONTENT && begin > 0 {
                return Err(S3Error::Missing("range"));
            }
            let before = bytes.len();
            while let Ok(Some(chunk)) = response.chunk().await {
                let room = usize::try_from(expected).unwrap_or(usize::MAX) - bytes.len();
                bytes.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if bytes.len() as u64 >= expected {
                    break;
                }
            }
            attempts = if bytes.len() > before { 0 } else { attempts + 1 };
            if attempts > self.settings.retries {
                return Err(S3Error::Cut { received: bytes.len() as u64, expected });
            }
        }
        Ok(bytes.freeze())
    }

    fn storage_class(&self, ask: &mut Ask<'_>) {
        if self.settings.reduced_redundancy {
            ask.headers.push(("x-amz-storage-class", "REDUCED_REDUNDANCY".to_owned()));
        }
    }

    pub async fn put(&self, key: &str, body: Bytes) -> Outcome<()> {
        let mut ask = Ask { body, ..Ask::new(Method::PUT, key) };
        self.storage_class(&mut ask);
        self.store(ask).await.map(drop)
    }

    /// What was not there is success.
    pub async fn delete(&self, key: &str) -> Outcome<()> {
        match self.ask(Ask::new(Method::DELETE, key)).await {
            Ok(_) | Err(S3Error::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One page of the keys that begin with `prefix`.
    pub async fn list(
        &self,
        prefix: &str,
        delimiter: Option<&str>,
        from: Option<&str>,
        most: u32,
    ) -> Outcome<Page> {
        let most = most.to_string();
        let mut query = vec![("list-type", "2"), ("prefix", prefix), ("max-keys", most.as_str())];
        query.extend(delimiter.map(|delimiter| ("delimiter", delimiter)));
        query.extend(from.map(|from| ("continuation-token", from)));
        let response = self.ask(Ask::bucket(query)).await?;
        Ok(answer::page(&self.text(response).await?)?)
    }

    /// Begins an upload in parts.
    pub async fn begin(&self, key: &str) -> Outcome<String> {
        let mut ask = Ask { query: vec![("uploads", "")], ..Ask::new(Method::POST, key) };
        self.storage_class(&mut ask);
        let response = self.ask(ask).await?;
        let upload = answer::upload(&self.text(response).await?)?;
        self.own.lock().unwrap_or_else(PoisonError::into_inner).insert(upload.clone());
        Ok(upload)
    }

    fn forget(&self, upload: &str) {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).remove(upload);
    }

    /// Whether this process has begun the upload and not ended it.
    pub fn is_own(&self, upload: &str) -> bool {
        self.own.lock().unwrap_or_else(PoisonError::into_inner).contains(upload)
    }

    /// The tag and the MD5 sum of a part.
    pub async fn part(
        &self,
        key: &str,
        upload: &str,
        number: usize,
        body: Bytes,
    ) -> Outcome<(String, Md5Sum)> {
        let number = number.to_string();
        let query = vec![("partNumber", number.as_str()), ("uploadId", upload)];
        let ask = Ask { query, body, ..Ask::new(Method::PUT, key) };
        let (response, sum) = self.store(ask).await?;
        let tag = response.headers().get("etag").and_then(|tag| tag.to_str().ok());
        Ok((tag.map(str::to_owned).ok_or(S3Error::Missing("tag of the part"))?, sum))
    }

    /// Makes the object of its parts.
    pub async fn complete(&self, key: &str, upload: &str, tags: &[String]) -> Outcome<()> {
        let parts: String = tags
            .iter()
            .enumerate()
            .map(|(at, tag)| {
                let (number, tag) = (at + 1, tag.replace('&', "&amp;").replace('<', "&lt;"));
                format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
            })
            .collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        let query = vec![("uploadId", upload)];
        let ask = Ask { query, body: body.into(), ..Ask::new(Method::POST, key) };
        let response = self.ask(ask).await?;
        let text = self.text(response).await?;
        // Servers begin to answer before they are done, and may say afterwards that it failed.
        match answer::refusal(&text) {
            Some(Refusal { code, message, .. }) => {
                Err(S3Error::Refused { status: 200, code, message })
            }
            None => {
                self.forget(upload);
                Ok(())
            }
        }
    }

    pub async fn abort(&self, key: &str, upload: &str) -> Outcome<()> {
        let ask = Ask { query: vec![("uploadId", upload)], ..Ask::new(Method::DELETE, key) };
        match self.ask(ask).await {
            Ok(_) | Err(S3Error::Refused { status: 404, .. }) => {
                self.forget(upload);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Uploads that were begun and not ended; no more than a page of them.
    pub async fn begun(&self, prefix: &str) -> Outcome<Vec<Begun>> {
        let response = self.ask(Ask::bucket(vec![("uploads", ""), ("prefix", prefix)])).await?;
        Ok(answer::uploads(&self.text(response).await?)?)
    }

    pub fn now(&self) -> i64 {
        self.host.clock.unix_ms() / 1000
    }

    async fn text(&self, response: Response) -> Outcome<String> {
        text(response)
            .await
            .map_err(|reason| S3Error::Unreachable { server: self.server(), reason })
    }
}

/// A bounded answer.
async fn text(mut response: Response) -> Result<String, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| bedrock::chain(&error.without_url()))?
    {
        if bytes.len() + chunk.len() > MAX_TEXT {
            return Err(format!("its answer is longer than {MAX_TEXT} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes).map_err(|error| error.to_string())
}
