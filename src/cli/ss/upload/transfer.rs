//! The bytes on their way, and what is shown of it.

use std::fmt;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use futures_util::{StreamExt, TryStreamExt};
use reqwest::{Body, Client, Method, RequestBuilder, Response, StatusCode, Url, header};
use tls_material::{FileError, HttpsVerifier, add_system_roots, read_certificates};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::order::Order;
use crate::cli::progress::{bar, left, speed};
use crate::cli::text::{size, span};
use crate::output::complain;

const REMEDY: &str =
    "give its CA certificate, or the certificate itself when it is self-signed, by --ca";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The host answers the last byte when the image is checked and installed.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3_600);
/// For questions without a body.
const ASK_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// Read from the file at once.
const BLOCK: usize = 256 * 1024;
const BAR: usize = 30;

/// What is shown while the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Show {
    Nothing,
    /// One line that is written over.
    Line,
    /// A line now and then.
    Steps,
}

#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) file: PathBuf,
    pub(super) ca: Option<PathBuf>,
    pub(super) retry_for: Duration,
    pub(super) show: Show,
    pub(super) order: Order,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("cannot read {}", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    #[error("cannot use the certificates of --ca")]
    Ca(#[from] FileError),
    #[error("cannot make a client: {0}")]
    Client(String),
    #[error("cannot reach {host}: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("the host could not go on within {}: {reason}", span(u64::try_from(.limit.as_millis()).unwrap_or(u64::MAX)))]
    Away { limit: Duration, reason: String },
    #[error("the host refused the upload: {0}")]
    Refused(String),
    #[error("the host's answer is not understood: {0}")]
    Answer(&'static str),
    #[error("{} changed while it was uploaded", .0.display())]
    Changed(PathBuf),
    #[error("interrupted; the same command goes on where it was, until the host ends the pause")]
    Interrupted,
}

/// An upload that is complete.
#[derive(Debug)]
pub(super) struct Done {
    bytes: u64,
    /// What an earlier command had sent.
    before: u64,
    took: Duration,
    interruptions: u32,
}

impl Done {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "uploaded": true,
            "bytes": self.bytes,
            "sent_before": self.before,
            "took_ms": u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX),
            "interruptions": self.interruptions,
        })
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.took.as_millis()).unwrap_or(u64::MAX);
        write!(f, "uploaded {} in {}", size(self.bytes), span(millis))?;
        if self.before > 0 {
            write!(f, " ({} were there already)", size(self.before))?;
        }
        if self.interruptions > 0 {
            write!(f, ", {} broken connections", self.interruptions)?;
        }
        f.write_str("; the server shows it within a minute")
    }
}

impl Transfer {
    pub(super) async fn run(&self) -> Result<Done, UploadError> {
        let begun = Instant::now();
        let unreadable = |error| UploadError::File(self.file.clone(), error);
        let metadata = tokio::fs::metadata(&self.file).await.map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(unreadable(std::io::Error::other("it is not a regular file")));
        }
        let bytes = metadata.len();
        if bytes == 0 {
            return Err(UploadError::Empty(self.file.clone()));
        }
        let client = client(self.ca.as_deref())?;
        let progress = Arc::new(Progress { total: bytes, ..Progress::default() });
        let showing = show(Arc::clone(&progress), self.show);
        let sending = async {
            if self.is_resumable(&client).await? {
                self.resumable(&client, &progress, &metadata).await
            } else {
                self.form(&client, &progress).await.map(|()| (0, 0))
            }
        };
        let (before, interruptions) = tokio::select! {
            sent = sending => {
                clear(self.show);
                sent?
            }
            () = showing => return Err(UploadError::Interrupted),
        };
        Ok(Done { bytes, before, took: begun.elapsed(), interruptions })
    }

    fn signed(&self, request: RequestBuilder) -> RequestBuilder {
        let Order { url, metadata, expires, signature } = &self.order;
        request
            .header("x-signature", signature)
            .header("x-metadata", metadata)
            .header("x-expires", expires)
            .header("x-post-url", url)
    }

    fn host(&self) -> String {
        let url = Url::parse(&self.order.url).ok();
        url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    fn unreachable(&self, error: &reqwest::Error) -> UploadError {
        let reason = match tls_material::https::unknown_issuer(error) {
            Some(unknown) => unknown.to_string(),
            None => bedrock::chain(&error.without_url_text()),
        };
        UploadError::Unreachable { host: self.host(), reason }
    }

    /// Whether the host knows the resumable protocol.
    async fn is_resumable(&self, client: &Client) -> Result<bool, UploadError> {
        let url = format!("{}/tus", self.order.url);
        let asked = client.request(Method::OPTIONS, url).timeout(ASK_TIMEOUT).send().await;
        let answer = asked.map_err(|error| self.unreachable(&error))?;
        let versions = answer.headers().get("tus-version").and_then(|text| text.to_str().ok());
        Ok(versions.is_some_and(|list| list.split(',').any(|version| version.trim() == "1.0.0")))
    }

    /// Gives how many bytes were there already, and the number of broken connections.
    async fn resumable(
        &self,
        client: &Client,
        progress: &Progress,
        file: &Metadata,
    ) -> Result<(u64, u32), UploadError> {
        let (location, before) = self.create(client, file).await?;
        let (mut offset, mut broken) = (before, 0);
        let mut last_good = Instant::now();
        loop {
            progress.sent.store(offset, Ordering::Relaxed);
            let asked = self.patch(client, &location, offset, progress, file).await?;
            let problem = match asked.send().await {
                Ok(answer) if answer.status() == StatusCode::NO_CONTENT => {
                    offset = self.offset_of(&answer)?;
                    if offset >= progress.total {
                        return Ok((before, broken));
                    }
                    continue;
                }
                // It has more or fewer bytes than we think: the offset says.
                Ok(answer) if answer.status() == StatusCode::CONFLICT || passes(&answer) => {
                    words(answer).await
                }
                Ok(answer) => return Err(UploadError::Refused(words(answer).await)),
                Err(error) => bedrock::chain(error.without_url_text()),
            };
            broken += 1;
            progress.is_broken.store(true, Ordering::Relaxed);
            if progress.sent.load(Ordering::Relaxed) > offset {
                last_good = Instant::now();
            }
            offset = self.offset(client, &location, last_good, problem).await?;
            progress.is_broken.store(false, Ordering::Relaxed);
        }
    }

    /// Where the bytes go, and how many are there: the host knows a file again by its name, length and
    /// time of change.
    async fn create(&self, client: &Client, file: &Metadata) -> Result<(Url, u64), UploadError> {
        let url = format!("{}/tus", self.order.url);
        let name = self.file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let modified = file.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let modified = modified.unwrap_or_default().as_millis().to_string();
        let (name, modified) = (base64_of(name.as_bytes()), base64_of(modified.as_bytes()));
        let request = self
            .signed(client.post(&url))
            .header("tus-resumable", "1.0.0")
            .header("upload-length", file.len())
            .header("upload-metadata", format!("filename {name},modified {modified}"))
            .timeout(ASK_TIMEOUT);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        if !matches!(answer.status(), StatusCode::CREATED | StatusCode::OK) {
            return Err(UploadError::Refused(words(answer).await));
        }
        // A host that begins anew need not say so.
        let offset = self.offset_of(&answer).unwrap_or(0);
        let location = answer.headers().get(header::LOCATION).and_then(|text| text.to_str().ok());
        let base = Url::parse(&url).map_err(|_odd| UploadError::Answer("its URL is odd"))?;
        let location = location.and_then(|location| base.join(location).ok());
        // A signed upload does not go to another host.
        let location = location
            .filter(|url| url.host_str() == base.host_str() && url.scheme() == base.scheme())
            .ok_or(UploadError::Answer("it names no place for the bytes"))?;
        Ok((location, offset))
    }

    async fn patch(
        &self,
        client: &Client,
        location: &Url,
        offset: u64,
        progress: &Progress,
        known: &Metadata,
    ) -> Result<RequestBuilder, UploadError> {
        let now = tokio::fs::metadata(&self.file).await;
        let now = now.map_err(|error| UploadError::File(self.file.clone(), error))?;
        if now.len() != known.len() || now.modified().ok() != known.modified().ok() {
            return Err(UploadError::Changed(self.file.clone()));
        }
        let length = progress.total.saturating_sub(offset);
        Ok(client
            .patch(location.clone())
            .header("tus-resumable", "1.0.0")
            .header("upload-offset", offset)
            .header(header::CONTENT_TYPE, "application/offset+octet-stream")
            .header(header::CONTENT_LENGTH, length)
            .body(self.bytes(offset, length, progress).await?))
    }

    /// The file from an offset on; what leaves counts.
    async fn bytes(
        &self,
        offset: u64,
        length: u64,
        progress: &Progress,
    ) -> Result<Body, UploadError> {
        let unreadable = |error| UploadError::File(self.file.clone(), error);
        let mut file = tokio::fs::File::open(&self.file).await.map_err(unreadable)?;
        file.seek(std::io::SeekFrom::Start(offset)).await.map_err(unreadable)?;
        let sent = Arc::clone(&progress.sent);
        let blocks =
            ReaderStream::with_capacity(file.take(length), BLOCK).inspect_ok(move |block| {
                sent.fetch_add(block.len() as u64, Ordering::Relaxed);
            });
        Ok(Body::wrap_stream(blocks))
    }

    fn offset_of(&self, answer: &Response) -> Result<u64, UploadError> {
        let offset = answer.headers().get("upload-offset").and_then(|text| text.to_str().ok());
        let offset = offset.and_then(|text| text.parse().ok());
        offset.ok_or(UploadError::Answer("it names no offset"))
    }

    /// How much the host has; asked until it answers or the time is over. `problem` is why it is asked.
    async fn offset(
        &self,
        client: &Client,
        location: &Url,
        last_good: Instant,
        mut problem: String,
    ) -> Result<u64, UploadError> {
        let mut wait = Duration::from_millis(500);
        loop {
            if last_good.elapsed() + wait > self.retry_for {
                return Err(UploadError::Away { limit: self.retry_for, reason: problem });
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            // As HEAD, but a refusal comes with its reason.
            let asked = client
                .get(location.clone())
                .header("tus-resumable", "1.0.0")
                .timeout(ASK_TIMEOUT)
                .send()
                .await;
            match asked {
                Ok(answer) if answer.status().is_success() => return self.offset_of(&answer),
                Ok(answer) if passes(&answer) => problem = words(answer).await,
                Ok(answer) => return Err(UploadError::Refused(words(answer).await)),
                Err(error) => problem = bedrock::chain(error.without_url_text()),
            }
        }
    }

    /// As a browser does, for hosts that know nothing else.
    async fn form(&self, client: &Client, progress: &Progress) -> Result<(), UploadError> {
        let boundary = format!("quickcloud-{:016x}", std::process::id());
        let name = self.file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let name: String =
            name.chars().map(|c| if c.is_ascii_graphic() && c != '"' { c } else { '_' }).collect();
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let length = head.len() as u64 + progress.total + tail.len() as u64;
        let unreadable = |error| UploadError::File(self.file.clone(), error);
        let file = tokio::fs::File::open(&self.file).await.map_err(unreadable)?;
        let sent = Arc::clone(&progress.sent);
        let blocks = ReaderStream::with_capacity(file.take(progress.total), BLOCK);
        let blocks = blocks.inspect_ok(move |block| {
            sent.fetch_add(block.len() as u64, Ordering::Relaxed);
        });
        let edge = |text: String| {
            futures_util::stream::once(async move { Ok::<_, std::io::Error>(text.into()) })
        };
        let body = edge(head).chain(blocks).chain(edge(tail));
        let request = self
            .signed(client.post(&self.order.url))
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
            .header(header::CONTENT_LENGTH, length)
            .body(Body::wrap_stream(body));
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(UploadError::Refused(words(answer).await))
    }
}

fn base64_of(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

/// The URL in a client's error holds nothing that its message does not say.
trait WithoutUrl {
    fn without_url_text(&self) -> &dyn std::error::Error;
}

impl WithoutUrl for reqwest::Error {
    fn without_url_text(&self) -> &dyn std::error::Error {
        std::error::Error::source(self).unwrap_or(self)
    }
}

fn client(ca: Option<&Path>) -> Result<Client, UploadError> {
    let other = |error: &dyn std::error::Error| UploadError::Client(bedrock::chain(error));
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    add_system_roots(&mut roots);
    let own = ca.map(read_certificates).transpose()?.unwrap_or_default();
    roots.add_parsable_certificates(own.iter().cloned());
    let verifier =
        HttpsVerifier::new(Arc::new(roots), own, REMEDY).map_err(|error| other(&error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| other(&error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(ANSWER_TIMEOUT)
        .build()
        .map_err(|error| other(&error))
}

/// Whether an answer that says no is of a host that is away, or not ready yet: a proxy's in front of
/// it, or its own.
fn passes(answer: &Response) -> bool {
    let has = |name: &str| answer.headers().contains_key(name);
    answer.status().is_server_error() && (!has("tus-resumable") || has("retry-after"))
}

/// The reason in an answer that says no.
async fn words(answer: Response) -> String {
    let status = answer.status();
    // No answer of a storage host of ours.
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return "a proxy in front of the host takes no request so long: raise its limit (nginx: \
                client_max_body_size 0)"
            .to_owned();
    }
    let body = answer.bytes().await.unwrap_or_default();
    let json = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let message = json.and_then(|body| Some(body.get("message")?.as_str()?.to_owned()));
    let text = message.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(&body);
        if text.contains('<') { String::new() } else { text.trim().to_owned() }
    });
    let text: String = text.chars().filter(|c| !c.is_control()).take(1_000).collect();
    if text.is_empty() { status.to_string() } else { text }
}

#[derive(Debug, Default)]
struct Progress {
    total: u64,
    sent: Arc<AtomicU64>,
    /// The connection is lost, and made again.
    is_broken: AtomicBool,
}

fn clear(show: Show) {
    if show == Show::Line {
        complain("\r\x1b[K");
    }
}

/// Shows how far it is, for ever.
async fn show(progress: Arc<Progress>, show: Show) {
    let every = match show {
        Show::Nothing => return std::future::pending().await,
        Show::Line => Duration::from_millis(200),
        Show::Steps => Duration::from_secs(10),
    };
    // Of the last ten looks.
    let mut looks = std::collections::VecDeque::from([(Instant::now(), 0)]);
    loop {
        tokio::time::sleep(every).await;
        let sent = progress.sent.load(Ordering::Relaxed).min(progress.total);
        looks.push_back((Instant::now(), sent));
        if looks.len() > 10 {
            looks.pop_front();
        }
        let first = looks.front().copied().unwrap_or((Instant::now(), sent));
        let millis = u64::try_from(first.0.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = sent.saturating_sub(first.1).saturating_mul(1_000) / millis;
        let line = if progress.is_broken.load(Ordering::Relaxed) {
            format!("{} sent, the host does not answer, trying again", size(sent))
        } else {
            line(sent, progress.total, rate)
        };
        complain(&match show {
            Show::Line => format!("\r\x1b[K{line}"),
            Show::Nothing | Show::Steps => format!("{line}\n"),
        });
    }
}

fn line(sent: u64, total: u64, rate: u64) -> String {
    let percent = sent.saturating_mul(100) / total.max(1);
    let shown = bar(sent, Some(total), BAR);
    if sent >= total {
        return format!("{shown} {percent:>3}%  {}  all sent, the host installs it", size(total));
    }
    let (rate, left) = (speed(Some(rate)), left(sent, Some(total), Some(rate)));
    format!("{shown} {percent:>3}%  {} of {}  {rate}  {left} left", size(sent), size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_how_fast_and_how_long() {
        let mib = 1 << 20;
        assert_eq!(
            line(5 * mib, 10 * mib, mib),
            "[###############...............]  50%  5.0MiB of 10MiB  1.0MiB/s  5s left"
        );
        assert!(line(10, 10, 0).ends_with("the host installs it"));
    }
}
