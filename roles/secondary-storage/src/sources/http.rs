//! Asking a web server for an image: redirects, address rule, TLS, ranges.
//!
//! Redirects are followed by hand. Each hop is resolved here, judged by the address policy, and
//! the connection is pinned to the judged addresses: a name that resolves differently a moment
//! later cannot get around the rule.

pub mod address;
mod stream;
pub mod trust;
pub mod url;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url};

use super::error::{SourceError, connect_text};
use super::{Announced, Chunks, Retries};
use address::AddressPolicy;
use stream::HttpChunks;
use url::{Credentials, ProxySetting, SourceUrl, shown};

const MAX_REDIRECTS: usize = 10;

/// Headers in which object stores and proxies tell a length when there is no `Content-Length`.
const LENGTH_HEADERS: [&str; 8] = [
    "x-goog-stored-content-length",
    "x-goog-meta-size",
    "x-amz-meta-size",
    "x-amz-meta-content-length",
    "x-object-meta-size",
    "x-original-content-length",
    "x-oss-meta-content-length",
    "x-file-size",
];

/// Limits that hold for every download of this host.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    pub connect_timeout: Duration,
    /// Longest silence of a server, before and within its answer.
    pub stall_timeout: Duration,
    pub retries: Retries,
}

/// One image on a web server.
#[derive(Debug, Clone)]
pub struct HttpSource {
    pub url: SourceUrl,
    pub credentials: Option<Credentials>,
    pub proxy: Option<ProxySetting>,
    pub follow_redirects: bool,
    pub policy: AddressPolicy,
    pub limits: HttpLimits,
    pub trust: Arc<rustls::RootCertStore>,
}

/// A server's answer with a body to come.
#[derive(Debug)]
struct Body {
    pub response: Response,
    /// Length of the whole image as downloaded, when the server told it reliably.
    pub total: Option<u64>,
    /// A length that is only good for showing progress.
    pub hint: Option<u64>,
    /// Names this version of the image, for continuing later.
    pub validator: Option<HeaderValue>,
}

/// A continued download, or one that has to begin again.
#[derive(Debug)]
enum Continued {
    Here(Box<Body>),
    /// The server cannot continue, or the image changed.
    FromStart,
}

impl HttpSource {
    /// Asks for the whole image; continues over broken connections.
    pub async fn open(&self) -> Result<(Announced, Box<dyn Chunks>), SourceError> {
        let body = self.start().await?;
        let announced =
            Announced { length: body.total, hint: body.hint, coding: super::Coding::Identity };
        Ok((announced, Box::new(HttpChunks::new(self.clone(), body))))
    }

    /// Whether the other one asks for the same bytes in the same manner.
    pub fn is_same(&self, other: &Self) -> bool {
        self.url == other.url && self.follow_redirects == other.follow_redirects
    }

    async fn start(&self) -> Result<Body, SourceError> {
        let response = self.get(HeaderMap::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(SourceError::Status(response.status().as_u16()));
        }
        let headers = response.headers();
        let total = number(headers, header::CONTENT_LENGTH.as_str());
        let chunked = headers
            .get(header::TRANSFER_ENCODING)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.to_ascii_lowercase().contains("chunked"));
        if total.is_none() && !chunked {
            return Err(SourceError::NoLength);
        }
        let hint = LENGTH_HEADERS.into_iter().find_map(|name| number(headers, name));
        let validator = validator(headers);
        Ok(Body { response, total, hint, validator })
    }

    /// Asks for the rest of an image of which `received` bytes are there.
    async fn resume(
        &self,
        received: u64,
        validator: &HeaderValue,
    ) -> Result<Continued, SourceError> {
        let mut headers = HeaderMap::new();
        let range = HeaderValue::try_from(format!("bytes={received}-"))
            .map_err(|_bad| SourceError::Internal)?;
        headers.insert(header::RANGE, range);
        headers.insert(header::IF_RANGE, validator.clone());
        let response = self.get(headers).await?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let (first, total) = content_range(response.headers()).unwrap_or((u64::MAX, None));
                if first != received {
                    return Ok(Continued::FromStart);
                }
                let validator = Some(validator.clone());
                Ok(Continued::Here(Box::new(Body { response, total, hint: None, validator })))
            }
            StatusCode::OK
            | StatusCode::RANGE_NOT_SATISFIABLE
            | StatusCode::PRECONDITION_FAILED => Ok(Continued::FromStart),
            other if other.is_server_error() => Err(SourceError::Cut {
                received,
                expected: None,
                reason: format!("the server answers {}", other.as_u16()),
            }),
            other => Err(SourceError::Status(other.as_u16())),
        }
    }

    async fn get(&self, headers: HeaderMap) -> Result<Response, SourceError> {
        let mut url = self.url.url().clone();
        let mut seen = HashSet::new();
        for _hop in 0..=MAX_REDIRECTS {
            if !seen.insert(url.clone()) {
                return Err(SourceError::RedirectLoop(shown(&url)));
            }
            let response = self.hop(&url, headers.clone()).await?;
            let status = response.status();
            let location = response.headers().get(header::LOCATION);
            let redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = location.filter(|_location| redirect) else {
                return Ok(response);
            };
            if !self.follow_redirects {
                return Err(match status.as_u16() {
                    301 | 302 => SourceError::RedirectNotFollowed {
                        url: shown(&url),
                        status: status.as_u16(),
                    },
                    other => SourceError::Status(other),
                });
            }
            url = self.target(&url, location)?;
        }
        Err(SourceError::TooManyRedirects(MAX_REDIRECTS))
    }

    fn target(&self, from: &Url, location: &HeaderValue) -> Result<Url, SourceError> {
        let bad = || SourceError::Url { url: shown(from), reason: "it redirects to no URL" };
        let text = location.to_str().map_err(|_bad| bad())?;
        let joined = from.join(text).map_err(|_bad| bad())?;
        // Credentials that a server puts into a redirect are not ours to send.
        Ok(SourceUrl::parse(joined.as_str())?.url().clone())
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
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_elapsed) => {
                Err(SourceError::Stalled { waited: limit, received: 0, expected: None })
            }
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> SourceError {
        let text = connect_text(error);
        match &self.proxy {
            Some(proxy) if error.is_connect() => {
                SourceError::Connect(format!("{text} (through the web proxy {})", proxy.url()))
            }
            Some(_) | None => SourceError::Connect(text),
        }
    }

    /// A client for one hop that can reach nothing but the addresses judged here.
    async fn client(&self, url: &Url) -> Result<Client, SourceError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SourceError::Connect(error.to_string()))?
            .with_root_certificates(Arc::clone(&self.trust))
            .with_no_client_auth();
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .pool_max_idle_per_host(0)
            .connect_timeout(self.limits.connect_timeout)
            .user_agent(concat!("quickcloud/", env!("CARGO_PKG_VERSION")));
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        if let Some(address) = literal {
            self.judge(host, address)?;
        }
        if let Some(proxy) = &self.proxy {
            // The proxy resolves names; what it may reach is its own operator's decision.
            builder = builder.proxy(proxy_for(proxy)?);
        } else if literal.is_none() {
            let addresses = self.resolve(host, url.port_or_known_default().unwrap_or(0)).await?;
            builder = builder.resolve_to_addrs(host, &addresses);
        }
        builder.build().map_err(|error| SourceError::Connect(connect_text(&error)))
    }

    fn judge(&self, host: &str, address: IpAddr) -> Result<(), SourceError> {
        self.policy.check(address).map_err(|kind| SourceError::Address {
            host: host.to_owned(),
            kind,
            address,
        })
    }

    /// The allowed addresses of a name; an error when there are none.
    async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, SourceError> {
        let error = |reason: String| SourceError::Resolve { host: host.to_owned(), reason };
        let lookup = tokio::net::lookup_host((host, port));
        let found = tokio::time::timeout(self.limits.connect_timeout, lookup)
            .await
            .map_err(|_elapsed| error("the name service does not answer".to_owned()))?
            .map_err(|source| error(source.to_string()))?;
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in found {
            match self.judge(host, address.ip()) {
                Ok(()) => allowed.push(address),
                Err(reason) => refused = Some(reason),
            }
        }
        match (allowed.is_empty(), refused) {
            (false, _) => Ok(allowed),
            (true, Some(reason)) => Err(reason),
            (true, None) => Err(error("it has none".to_owned())),
        }
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

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// A strong entity tag, else a date; both name one version of the image.
fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    let strong = |value: &&HeaderValue| value.as_bytes().starts_with(b"\"");
    headers.get(header::ETAG).filter(strong).or_else(|| headers.get(header::LAST_MODIFIED)).cloned()
}

/// First byte and total of `Content-Range: bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, total.trim().parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn ranges_and_validators_are_read() {
        let range = |text| content_range(&headers(&[("content-range", text)]));
        assert_eq!(range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(range("bytes */10"), None);
        assert_eq!(range("5-9/10"), None);
        let tagged = headers(&[("etag", "\"a\""), ("last-modified", "x")]);
        assert_eq!(validator(&tagged).unwrap(), "\"a\"");
        let weak = headers(&[("etag", "W/\"a\""), ("last-modified", "Tue")]);
        assert_eq!(validator(&weak).unwrap(), "Tue");
        assert_eq!(validator(&headers(&[])), None);
    }
}
