//! Asking a web server for an image: redirects, address rule, TLS, ranges.
//!
//! Redirects are followed by hand. Each hop is resolved here, judged by the address policy, and
//! the connection is pinned to the judged addresses: a name that resolves differently a moment
//! later cannot get around the rule.

pub mod address;
mod answer;
mod failure;
mod no_proxy;
pub(crate) mod pace;
mod ranges;
mod stream;
pub mod trust;
pub mod url;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::AsciiSet;
use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};

use crate::redacted::RedactedUrl;

use super::error::SourceError;
use super::{Announced, Chunks, Coding, Continuation, Opening, Retries, Version};
use address::AddressPolicy;
use answer::{Length, Part};
use failure::{connect_text, unanswered};
pub use no_proxy::{Direct, NoProxy};
pub use pace::MinimumRate;
pub use ranges::Parallel;
use ranges::RangedChunks;
use stream::HttpChunks;
use trust::Trust;
use url::{Credentials, ProxySetting, SourceUrl};

const MAX_REDIRECTS: usize = 10;
/// More would be an attack on memory; some object stores send one for each attribute.
const MAX_HEADERS: usize = 500;
/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Limits that hold for every download of this host.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    pub connect_timeout: Duration,
    /// Longest silence of a server, before and within its answer.
    pub stall_timeout: Duration,
    pub min_rate: MinimumRate,
    pub retries: Retries,
    pub parallel: Parallel,
}

impl HttpLimits {
    /// The pause after so many failures in a row; longer when the server asks for it.
    fn pause(&self, failures: u32, error: &SourceError) -> Duration {
        let asked = match error {
            SourceError::Busy { wait, .. } => wait.unwrap_or_default().min(LONGEST_PAUSE),
            _ => Duration::ZERO,
        };
        self.retries.delay(failures).max(asked)
    }
}

/// One image on a web server.
#[derive(Debug, Clone)]
pub struct HttpSource {
    pub url: SourceUrl,
    pub credentials: Option<Credentials>,
    pub proxy: Option<ProxySetting>,
    /// Hosts that are asked without it.
    pub no_proxy: NoProxy,
    pub follow_redirects: bool,
    pub policy: AddressPolicy,
    pub limits: HttpLimits,
    pub trust: Trust,
    /// A digest of the whole content will be compared: then a part of it is taken even when nothing
    /// says which version it is of.
    pub is_judged: bool,
}

/// A server's answer with a body to come.
#[derive(Debug)]
struct Body {
    response: Response,
    /// Of the whole image as downloaded.
    length: Length,
    version: Version,
    coding: Coding,
    /// The server gives parts.
    ranges: bool,
}

/// A continued download, or one that has to begin again.
#[derive(Debug)]
enum Continued {
    Here(Box<Body>, Part),
    /// Nothing is missing: there are no more bytes than those that are here.
    Complete,
    /// The server cannot continue, or the image changed.
    FromStart,
}

impl HttpSource {
    /// Asks for the image, for its rest when `from` says what is there already; continues over
    /// broken connections. The whole comes when the server cannot continue that version.
    pub async fn open(&self, from: Option<&Continuation>) -> Result<Opening, SourceError> {
        if let Some(from) = from
            && let Some(rest) = self.rest(from).await?
        {
            let announced = Announced {
                length: rest.total(),
                coding: rest.coding(),
                version: rest.version().clone(),
                ..Announced::default()
            };
            return Ok(Opening { announced, from: from.received, chunks: ranged(rest) });
        }
        let mut failures = 0;
        let body = loop {
            match self.start().await {
                Ok(body) => break body,
                Err(error) => self.again(&mut failures, error).await?,
            }
        };
        let Length { exact: length, hint } = body.length;
        let (coding, version) = (body.coding, body.version.clone());
        let announced = Announced { length, hint, coding, version, ..Announced::default() };
        let chunks = HttpChunks::new(self.clone(), body, 0);
        Ok(Opening { announced, from: 0, chunks: ranged(chunks) })
    }

    /// A pause before another attempt, if that may help.
    async fn again(&self, failures: &mut u32, error: SourceError) -> Result<(), SourceError> {
        *failures += 1;
        if !error.is_transient() || *failures > self.limits.retries.count {
            return Err(error);
        }
        tracing::info!(attempt = *failures, %error, "no image was sent, asking again");
        tokio::time::sleep(self.limits.pause(*failures, &error)).await;
        Ok(())
    }

    /// The rest of an image over one connection; `None` when it has to begin again.
    async fn rest(&self, from: &Continuation) -> Result<Option<HttpChunks>, SourceError> {
        let mut failures = 0;
        loop {
            match self.ask_for_rest(from).await {
                Ok(rest) => return Ok(rest),
                Err(error) => self.again(&mut failures, error).await?,
            }
        }
    }

    async fn ask_for_rest(&self, from: &Continuation) -> Result<Option<HttpChunks>, SourceError> {
        let received = from.received;
        if !self.may_continue(&from.version) {
            return Ok(None);
        }
        match self.resume(received, None, &from.version).await? {
            Continued::Here(body, part) if self.fits(from, &body, &part) => {
                let length = Length { exact: from.length.or(part.total), hint: None };
                let body = Body { length, version: from.version.clone(), ..*body };
                Ok(Some(HttpChunks::new(self.clone(), body, received)))
            }
            Continued::Here(..) | Continued::Complete | Continued::FromStart => Ok(None),
        }
    }

    const fn may_continue(&self, version: &Version) -> bool {
        version.is_named() || self.is_judged
    }

    /// Whether a part continues what is there.
    fn fits(&self, from: &Continuation, body: &Body, part: &Part) -> bool {
        let same_length =
            from.length.is_none() || part.total.is_none() || from.length == part.total;
        let whole = from.length.or(part.total);
        let fits = whole.is_none_or(|total| part.last < total);
        let is_same = if from.version.is_named() {
            from.version.is_surely(&body.version)
        } else {
            // Nothing names it: the length must be the same, and the digest judges.
            whole.is_some() && from.version.may_be(&body.version)
        };
        same_length && fits && is_same
    }

    /// Whether the other one asks for the same bytes in the same manner.
    pub fn is_same(&self, other: &Self) -> bool {
        self.url == other.url && self.follow_redirects == other.follow_redirects
    }

    async fn start(&self) -> Result<Body, SourceError> {
        let (response, url) = self.get(HeaderMap::new()).await?;
        let headers = response.headers();
        match response.status() {
            StatusCode::OK => {}
            // Nobody asked for a part, but some caches answer with one that is everything.
            StatusCode::PARTIAL_CONTENT
                if Part::of(headers).is_some_and(|part| part.is_whole()) => {}
            _ => return Err(refused(&response)),
        }
        let length = answer::length(headers, self.is_judged)?;
        let version = answer::version(headers);
        let coding = answer::coding(headers, [self.url.url(), &url])?;
        let ranges = answer::has_ranges(headers);
        Ok(Body { response, length, version, coding, ranges })
    }

    /// Asks for the rest of an image of which `received` bytes are there, or for what comes before
    /// `end`. Whether the answer is of the same version is for the caller to judge.
    async fn resume(
        &self,
        received: u64,
        end: Option<u64>,
        version: &Version,
    ) -> Result<Continued, SourceError> {
        let mut headers = HeaderMap::new();
        let last = end.map(|end| end.saturating_sub(1).to_string()).unwrap_or_default();
        let range = HeaderValue::try_from(format!("bytes={received}-{last}"))
            .map_err(|_bad| SourceError::Internal)?;
        headers.insert(header::RANGE, range);
        if let Some(condition) = answer::condition(version) {
            headers.insert(header::IF_RANGE, condition);
        }
        let (response, url) = self.get(headers).await?;
        let headers = response.headers();
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let part = Part::of(headers).filter(|part| part.first == received);
                let Some(part) = part.filter(|_part| answer::is_one_part(headers)) else {
                    return Ok(Continued::FromStart);
                };
                let length = Length { exact: part.total, hint: None };
                let version = answer::version(headers);
                let coding = answer::coding(headers, [self.url.url(), &url])?;
                let body = Body { response, length, version, coding, ranges: true };
                Ok(Continued::Here(Box::new(body), part))
            }
            // The condition held, or all would come.
            StatusCode::RANGE_NOT_SATISFIABLE
                if end.is_none()
                    && version.is_named()
                    && answer::unsatisfied(headers) == Some(received)
                    && version.may_be(&answer::version(headers)) =>
            {
                Ok(Continued::Complete)
            }
            StatusCode::OK
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::PRECONDITION_FAILED => Ok(Continued::FromStart),
            _ => Err(refused(&response)),
        }
    }

    /// A small document as a whole.
    pub(super) async fn document(&self, limit: usize) -> Result<Vec<u8>, SourceError> {
        let mut failures = 0;
        loop {
            match self.fetch(limit).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) => self.again(&mut failures, error).await?,
            }
        }
    }

    async fn fetch(&self, limit: usize) -> Result<Vec<u8>, SourceError> {
        let (mut response, url) = self.get(HeaderMap::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(&response));
        }
        let coding = answer::coding(response.headers(), [self.url.url(), &url])?;
        if coding != Coding::Identity {
            return Err(SourceError::Coding(coding.name().to_owned()));
        }
        let mut bytes = Vec::new();
        let stall = self.limits.stall_timeout;
        loop {
            let received = bytes.len() as u64;
            let chunk =
                tokio::time::timeout(stall, response.chunk()).await.map_err(|_elapsed| {
                    SourceError::Stalled { waited: stall, received, expected: None }
                })?;
            let chunk = chunk.map_err(|error| SourceError::Cut {
                received,
                expected: None,
                reason: connect_text(&error),
            })?;
            let Some(chunk) = chunk else { return Ok(bytes) };
            if bytes.len() + chunk.len() > limit {
                return Err(SourceError::Surplus { announced: limit as u64 });
            }
            bytes.extend_from_slice(&chunk);
        }
    }

    /// The answer of the last hop, and where that was.
    async fn get(&self, headers: HeaderMap) -> Result<(Response, Url), SourceError> {
        let mut url = self.url.url().clone();
        let mut seen = HashSet::new();
        for _hop in 0..=MAX_REDIRECTS {
            if !seen.insert(url.clone()) {
                return Err(SourceError::RedirectLoop(RedactedUrl::of(url.as_str())));
            }
            let response = self.hop(&url, headers.clone()).await?;
            let status = response.status();
            let location = response.headers().get(header::LOCATION);
            let redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = location.filter(|_location| redirect) else {
                return Ok((response, url));
            };
            if !self.follow_redirects {
                let status = status.as_u16();
                return Err(SourceError::RedirectNotFollowed {
                    url: RedactedUrl::of(url.as_str()),
                    status,
                });
            }
            url = self.target(&url, location)?;
        }
        Err(SourceError::TooManyRedirects(MAX_REDIRECTS))
    }

    fn target(&self, from: &Url, location: &HeaderValue) -> Result<Url, SourceError> {
        let bad = || SourceError::Url {
            url: RedactedUrl::of(from.as_str()),
            reason: "it redirects to something that is not a URL",
        };
        // Raw bytes beyond ASCII stand for themselves, whatever their character set.
        let text =
            percent_encoding::percent_encode(location.as_bytes(), &AsciiSet::EMPTY).to_string();
        let joined = from.join(&text).map_err(|_bad| bad())?;
        // Credentials that a server puts into a redirect are not ours to send.
        match SourceUrl::parse(joined.as_str()) {
            Ok(target) => Ok(target.url().clone()),
            Err(SourceError::Scheme(scheme)) => Err(SourceError::RedirectScheme(scheme)),
            Err(error) => Err(error),
        }
    }

    async fn hop(&self, url: &Url, headers: HeaderMap) -> Result<Response, SourceError> {
        let client = self.client(url).await?;
        let mut request = client
            .get(url.clone())
            .headers(headers)
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::ACCEPT, "*/*");
        let own = self.url.url();
        if own.origin() == url.origin()
            && let Some(credentials) = self.credentials.as_ref().or(self.url.credentials())
        {
            request = request.basic_auth(&credentials.user, Some(credentials.password.reveal()));
        }
        let limit = self.limits.connect_timeout + self.limits.stall_timeout;
        match tokio::time::timeout(limit, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(&error, url)),
            Err(_elapsed) => {
                Err(SourceError::Stalled { waited: limit, received: 0, expected: None })
            }
        }
    }

    /// The proxy to ask for a URL through.
    fn proxy(&self, url: &Url) -> Option<&ProxySetting> {
        let host = url.host_str().unwrap_or_default();
        self.proxy.as_ref().filter(|_proxy| !self.no_proxy.holds(host))
    }

    fn unreachable(&self, error: &reqwest::Error, url: &Url) -> SourceError {
        let through = |text| match self.proxy(url) {
            Some(proxy) if error.is_connect() => {
                format!("{text} (through the web proxy {})", proxy.url())
            }
            Some(_) | None => text,
        };
        match unanswered(error, self.limits.connect_timeout) {
            SourceError::Lost(text) => SourceError::Lost(through(text)),
            SourceError::Connect(text) => SourceError::Connect(through(text)),
            other => other,
        }
    }

    /// A client for one hop that can reach nothing but the addresses judged here.
    async fn client(&self, url: &Url) -> Result<Client, SourceError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SourceError::Connect(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(self.trust.verifier())
            .with_no_client_auth();
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            // As a browser or curl takes them.
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_ignore_invalid_headers_in_responses(true)
            .http1_max_headers(MAX_HEADERS)
            .pool_max_idle_per_host(0)
            .connect_timeout(self.limits.connect_timeout)
            .user_agent(concat!("quickcloud/", env!("CARGO_PKG_VERSION")));
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        if let Some(address) = literal {
            self.policy.judge(host, address)?;
        }
        if let Some(proxy) = self.proxy(url) {
            // The proxy resolves names; what it may reach is its own operator's decision.
            builder = builder.proxy(proxy_for(proxy)?);
        } else if literal.is_none() {
            let port = url.port_or_known_default().unwrap_or(0);
            let limit = self.limits.connect_timeout;
            let addresses = self.policy.resolve(host, port, limit).await?;
            builder = builder.resolve_to_addrs(host, &addresses);
        }
        builder.build().map_err(|error| SourceError::Connect(connect_text(&error)))
    }
}

/// Over several connections, if that is wanted and possible.
fn ranged(chunks: HttpChunks) -> Box<dyn Chunks> {
    match RangedChunks::new(chunks) {
        Ok(ranged) => Box::new(ranged),
        Err(plain) => Box::new(*plain),
    }
}

fn proxy_for(proxy: &ProxySetting) -> Result<reqwest::Proxy, SourceError> {
    let mut built = reqwest::Proxy::all(proxy.url())
        .map_err(|error| SourceError::Proxy(error.without_url().to_string()))?;
    if let Some(credentials) = &proxy.credentials {
        built = built.basic_auth(&credentials.user, credentials.password.reveal());
    }
    Ok(built)
}

/// An answer without the image. Some of them are for the moment only.
fn refused(response: &Response) -> SourceError {
    let headers = response.headers();
    match response.status().as_u16() {
        status @ (408 | 425 | 429 | 500 | 502..=504 | 506..=599) => {
            SourceError::Busy { status, wait: answer::retry_after(headers) }
        }
        status => SourceError::Status(status),
    }
}
