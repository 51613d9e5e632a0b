//! One HTTP/1.1 connection, driven by the call that uses it: no task is left behind, and a call
//! that is given up takes its connection along.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bedrock::Secret;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::ApiUrl;

/// A signed call.
pub(crate) struct Request {
    /// Reads only: may be made again, and goes as GET.
    pub(crate) reading: bool,
    /// Query or form body.
    pub(crate) parameters: Secret<String>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Where a proxy in between would have the call made instead; without the query, which would
    /// repeat key and signature.
    pub(crate) elsewhere: Option<String>,
    pub(crate) body: Bytes,
}

/// Why an exchange on an open connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("the request cannot be written in HTTP")]
    Request(#[source] hyper::http::Error),
    #[error("the connection ended")]
    Http(#[source] hyper::Error),
    #[error("the answer is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ExchangeError {
    /// Whether a kept connection had ended before the server can have acted on the request.
    pub(crate) fn is_stale(&self, reading: bool) -> bool {
        match self {
            Self::Http(error) => error.is_canceled() || reading,
            Self::Request(_) | Self::TooLarge { .. } | Self::Body(_) => false,
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Moves the bytes; polled while a call waits. `None` once it ended.
    driver: Option<Driver>,
    authority: String,
    path: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Connection {
    pub(crate) async fn open(
        url: &ApiUrl,
        tls: &Arc<rustls::ClientConfig>,
    ) -> std::io::Result<Self> {
        let tcp = TcpStream::connect((url.host.as_str(), url.port)).await?;
        tcp.set_nodelay(true)?;
        let stream: Box<dyn Stream> = if url.tls {
            let name = ServerName::try_from(url.host.clone()).map_err(std::io::Error::other)?;
            Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await?)
        } else {
            Box::new(tcp)
        };
        // As browsers and curl read what odd proxies write; no name or value gets in by it.
        let mut builder = http1::Builder::new();
        builder
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true);
        let (sender, driver) =
            builder.handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        let (authority, path) = (url.authority(), url.path.clone());
        Ok(Self { sender, driver: Some(Box::pin(driver)), authority, path })
    }

    /// The connection itself, unless it has ended.
    pub(crate) fn kept(self) -> Option<Self> {
        (self.driver.is_some() && !self.sender.is_closed()).then_some(self)
    }

    /// Sends a request and receives the whole answer.
    pub(crate) async fn exchange(
        &mut self,
        request: &Request,
        limit: usize,
    ) -> Result<Answer, ExchangeError> {
        let request = self.http(request).map_err(ExchangeError::Request)?;
        let answer = self.sender.send_request(request);
        let response = drive(&mut self.driver, answer).await.map_err(ExchangeError::Http)?;
        let status = response.status().as_u16();
        let elsewhere = response.status().is_redirection().then(|| elsewhere(&response)).flatten();
        let body = Limited::new(response.into_body(), limit).collect();
        let body = drive(&mut self.driver, body).await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                ExchangeError::TooLarge { limit }
            } else {
                ExchangeError::Body(error)
            }
        })?;
        Ok(Answer { status, elsewhere, body: body.to_bytes() })
    }

    fn http(&self, request: &Request) -> hyper::http::Result<hyper::Request<Full<Bytes>>> {
        let parameters = request.parameters.reveal();
        let builder = hyper::Request::builder()
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("quickcloud/", env!("CARGO_PKG_VERSION")));
        if request.reading {
            builder.uri(format!("{}?{parameters}", self.path)).body(Full::default())
        } else {
            builder
                .method("POST")
                .uri(&self.path)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
                .body(Full::from(parameters.clone()))
        }
    }
}

fn elsewhere<B>(response: &hyper::Response<B>) -> Option<String> {
    const LONGEST: usize = 200;
    let text = String::from_utf8_lossy(response.headers().get(LOCATION)?.as_bytes()).into_owned();
    let plain = text.split(['?', '#']).next().unwrap_or_default().chars();
    Some(plain.filter(|c| !c.is_control()).take(LONGEST).collect())
}

/// Waits for `future` and moves the connection's bytes meanwhile.
async fn drive<F: Future>(driver: &mut Option<Driver>, future: F) -> F::Output {
    tokio::pin!(future);
    if let Some(connection) = driver {
        tokio::select! {
            biased;
            output = &mut future => return output,
            outcome = connection => {
                // The future gets the error, if it is one; an end after the answer is none.
                if let Err(error) = outcome {
                    tracing::trace!(%error, "api connection ended");
                }
            }
        }
        *driver = None;
    }
    future.await
}
