//! JSON over HTTP/1.1 to services of this machine: the admin listener on TCP, the dhcp role's API
//! on a Unix socket.
//!
//! One connection per call, a deadline over all of it, a bound on the answer. Not for the world
//! outside: it knows neither TLS nor redirects nor proxies.

mod error;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
pub use hyper::{Method, StatusCode};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

pub use error::ClientError;

/// Answers stay far below this.
const ANSWER_LIMIT: u64 = 8 << 20;
/// How long one call may take unless said otherwise.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where a service listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// Address or name with port.
    Tcp(String),
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => f.write_str(authority),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Calls one service.
#[derive(Debug, Clone)]
pub struct Client {
    endpoint: Endpoint,
    timeout: Duration,
    answer_limit: u64,
}

/// An answer, whatever its status.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null when there is none, a text when it is not JSON.
    pub fn value(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_not_json| String::from_utf8_lossy(&self.body).into_owned().into())
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Client {
    pub const fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, timeout: TIMEOUT, answer_limit: ANSWER_LIMIT }
    }

    /// A client of a TCP listener: address or name with port.
    pub fn tcp(authority: impl fmt::Display) -> Self {
        Self::new(Endpoint::Tcp(authority.to_string()))
    }

    /// A client of a Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::new(Endpoint::Unix(path.into()))
    }

    /// As `self`, with another bound on the time of one call.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// As `self`, with another bound on the bytes of an answer.
    pub const fn answer_limit(mut self, bytes: u64) -> Self {
        self.answer_limit = bytes;
        self
    }

    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// One exchange, whatever the status. `path` is a path with query, as it stands in a request.
    ///
    /// # Errors
    /// When there is no complete answer in time.
    pub async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<Answer, ClientError> {
        let call = format!("{method} {path}");
        match tokio::time::timeout(self.timeout, self.exchange(method, path, body, &call)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(ClientError::Timeout {
                endpoint: self.endpoint.clone(),
                call,
                timeout: self.timeout,
            }),
        }
    }

    /// A call of a JSON API whose answer is a `T`. `()` takes an empty answer, [`Value`] any.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the service's own words when the status is not a success.
    pub async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ClientError> {
        let call = format!("{method} {path}");
        let unusable = |problem: serde_json::Error| ClientError::Unusable {
            endpoint: self.endpoint.clone(),
            call: call.clone(),
            problem: problem.to_string(),
        };
        let body = body.map(serde_json::to_vec).transpose().map_err(unusable)?.map(Bytes::from);
        let answer = self.fetch(method, path, body).await?;
        if !answer.status.is_success() {
            let detail = error::words(&answer.value());
            return Err(ClientError::Refused { call, status: answer.status, detail });
        }
        let parsed = serde_json::from_slice(&answer.body);
        // Not JSON: for readers of any value a text, or nothing.
        parsed
            .or_else(|error| serde_json::from_value(answer.value()).map_err(|_same| error))
            .map_err(unusable)
    }

    /// [`Client::call`] with GET.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, ClientError> {
        let failed = |source| ClientError::Connect { endpoint: self.endpoint.clone(), source };
        Ok(match &self.endpoint {
            Endpoint::Tcp(authority) => {
                Box::new(TcpStream::connect(authority).await.map_err(failed)?)
            }
            Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
        })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
        call: &str,
    ) -> Result<Answer, ClientError> {
        let broken = |source| ClientError::Exchange {
            endpoint: self.endpoint.clone(),
            call: call.to_owned(),
            source,
        };
        let unusable = |problem: String| ClientError::Unusable {
            endpoint: self.endpoint.clone(),
            call: call.to_owned(),
            problem,
        };
        let host = match &self.endpoint {
            Endpoint::Tcp(authority) => authority.as_str(),
            Endpoint::Unix(_) => "localhost",
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::CONNECTION, "close");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body.unwrap_or_default()));
        let request = request.map_err(|error| unusable(error.to_string()))?;
        let stream = self.connect().await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let talk = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let limit = usize::try_from(self.answer_limit).unwrap_or(usize::MAX);
            let body = Limited::new(response.into_body(), limit).collect().await;
            let body = body.map_err(|error| unusable(error.to_string()))?.to_bytes();
            Ok(Answer { status, body })
        };
        tokio::pin!(talk, connection);
        let mut open = true;
        loop {
            tokio::select! {
                done = &mut talk => return done,
                outcome = &mut connection, if open => {
                    outcome.map_err(broken)?;
                    open = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
