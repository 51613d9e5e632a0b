//! The client: one connection, every call with a deadline, several servers of one cloud.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::answer::{Refusal, read};
use crate::commands::{Command, is_reading};
use crate::sign::{Credentials, Parameters};
use crate::transport::{Answer, Connection, ExchangeError, Request};
use crate::xml::ReadError;

/// How long a signed call may be replayed. Servers may refuse more than 15 minutes.
const VALIDITY: Duration = Duration::from_mins(10);

/// Where an API is: `http://10.0.0.5:8080/client/api`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ApiUrl {
    pub(crate) tls: bool,
    /// Without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) path: String,
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl ApiUrl {
    /// Name or address of the server, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Host and port as in a `Host` header.
    pub(crate) fn authority(&self) -> String {
        let host = self.host.clone();
        bedrock::net::HostPort { host, port: Some(self.port) }.to_string()
    }
}

impl FromStr for ApiUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: hyper::Uri = text.trim().parse().map_err(|_error| "not a URL")?;
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err("the URL begins with neither http:// nor https://"),
        };
        let authority = url.authority().ok_or("the URL names no host")?;
        if authority.as_str().contains('@') {
            return Err("the URL holds a user; keys are given in files of their own");
        }
        if url.query().is_some() {
            return Err("the URL holds a query");
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err("the URL names no host");
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = match url.path() {
            "" | "/" => "/client/api".to_owned(),
            path => path.trim_end_matches('/').to_owned(),
        };
        Ok(Self { tls, host, port, path })
    }
}

/// What a client needs to know.
#[derive(Clone)]
pub struct ClientConfig {
    /// Servers of one cloud; the next is tried when one cannot be reached.
    pub urls: Vec<ApiUrl>,
    pub credentials: Credentials,
    /// Trust for `https` URLs.
    pub tls: Arc<rustls::ClientConfig>,
    /// For TCP and TLS, per server.
    pub connect_timeout: Duration,
    /// For a whole call.
    pub timeout: Duration,
    /// Bytes of one answer.
    pub body_limit: usize,
    /// Objects of a page; above `default.page.size` (500) the server refuses.
    pub page_size: u32,
    /// The wall clock, for the expiry of signatures.
    pub now: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientConfig").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl ClientConfig {
    /// With the usual bounds: 5 s to connect, 60 s a call, 64 MiB an answer, 500 objects a page.
    pub fn new(
        urls: Vec<ApiUrl>,
        credentials: Credentials,
        tls: Arc<rustls::ClientConfig>,
        now: impl Fn() -> SystemTime + Send + Sync + 'static,
    ) -> Self {
        Self {
            urls,
            credentials,
            tls,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(60),
            body_limit: 64 << 20,
            page_size: 500,
            now: Arc::new(now),
        }
    }
}

/// Why a call gave no answer. No text of it holds a key, a parameter's value or a query.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no URL of the CloudStack API is configured")]
    NoUrl,
    #[error("cannot connect to {url}")]
    Connect { url: ApiUrl, source: std::io::Error },
    #[error("{command} was not answered within {timeout:?}")]
    Timeout { command: &'static str, timeout: Duration },
    #[error("{command} was interrupted")]
    Exchange { command: &'static str, source: ExchangeError },
    #[error("the answer to {command}, HTTP status {status}, is not one of the CloudStack API")]
    NotAnAnswer { command: &'static str, status: u16, source: ReadError },
    #[error(
        "the answer to {command} is that it should be made at {elsewhere}; give that as the URL"
    )]
    Elsewhere { command: &'static str, elsewhere: String },
    #[error("{command} was refused")]
    Refused { command: &'static str, source: Refusal },
    #[error("the list of {command} did not end within {pages} pages")]
    Endless { command: &'static str, pages: u32 },
}

impl CallError {
    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } | Self::Exchange { .. } => true,
            // A proxy's page while the server starts.
            Self::NotAnAnswer { status, .. } => *status >= 500,
            Self::Refused { source, .. } => source.kind.is_transient(),
            Self::NoUrl | Self::Elsewhere { .. } | Self::Endless { .. } => false,
        }
    }

    /// The server's own refusal, if it is one.
    pub const fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// A client of one cloud. Calls go one after the other over one connection, which is kept.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    /// Index of the server that answered last.
    current: usize,
    /// Taken while a call is under way: one that is dropped in the middle takes it along.
    connection: Option<Connection>,
}

impl Client {
    pub const fn new(config: ClientConfig) -> Self {
        Self { config, current: 0, connection: None }
    }

    pub(crate) const fn page_size(&self) -> u32 {
        self.config.page_size
    }

    /// Makes one call.
    pub async fn call<C: Command>(&mut self, command: &C) -> Result<C::Answer, CallError> {
        let timeout = self.config.timeout;
        let exchange = self.exchange(C::NAME, self.request(command));
        let Answer { status, elsewhere, body } =
            tokio::time::timeout(timeout, exchange)
                .await
                .map_err(|_elapsed| CallError::Timeout { command: C::NAME, timeout })??;
        tracing::debug!(command = C::NAME, status, bytes = body.len(), "api call answered");
        match read::<C>(&body) {
            Ok(answer) => answer.map_err(|source| CallError::Refused { command: C::NAME, source }),
            Err(source) => Err(match elsewhere {
                Some(elsewhere) => CallError::Elsewhere { command: C::NAME, elsewhere },
                None => CallError::NotAnAnswer { command: C::NAME, status, source },
            }),
        }
    }

    fn request<C: Command>(&self, command: &C) -> Request {
        let mut parameters = Parameters::default();
        command.parameters(&mut parameters);
        parameters.set("command", C::NAME);
        parameters.set("response", "xml");
        parameters.set("signatureversion", "3");
        parameters.set("expires", expiry((self.config.now)()));
        Request {
            reading: is_reading(C::NAME),
            parameters: parameters.signed(&self.config.credentials),
        }
    }

    async fn exchange(
        &mut self,
        command: &'static str,
        request: Request,
    ) -> Result<Answer, CallError> {
        let interrupted = |source| CallError::Exchange { command, source };
        if let Some(mut connection) = self.connection.take() {
            match connection.exchange(&request, self.config.body_limit).await {
                Ok(answer) => {
                    self.connection = connection.kept();
                    return Ok(answer);
                }
                // The server closed a connection that lay idle; a change is only made again
                // when it cannot have arrived.
                Err(error) if error.is_stale(request.reading) => {}
                Err(error) => return Err(interrupted(error)),
            }
        }
        let mut connection = self.connect().await?;
        let answer =
            connection.exchange(&request, self.config.body_limit).await.map_err(interrupted)?;
        self.connection = connection.kept();
        Ok(answer)
    }

    /// Connects to the server that answered last, or the next that can be reached.
    async fn connect(&mut self) -> Result<Connection, CallError> {
        let mut error = CallError::NoUrl;
        for step in 0..self.config.urls.len() {
            let index = (self.current + step) % self.config.urls.len();
            let Some(url) = self.config.urls.get(index) else { break };
            let connecting = Connection::open(url, &self.config.tls);
            let outcome = tokio::time::timeout(self.config.connect_timeout, connecting).await;
            let outcome = outcome
                .unwrap_or_else(|_elapsed| Err(std::io::Error::from(std::io::ErrorKind::TimedOut)));
            match outcome {
                Ok(connection) => {
                    self.current = index;
                    return Ok(connection);
                }
                Err(source) => error = CallError::Connect { url: url.clone(), source },
            }
        }
        Err(error)
    }
}

/// `2030-01-01T00:00:00+0000`, in whole seconds.
fn expiry(now: SystemTime) -> String {
    let end = now + VALIDITY;
    let timestamp = Timestamp::try_from(end).unwrap_or(Timestamp::MAX);
    timestamp.strftime("%Y-%m-%dT%H:%M:%S+0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let found = text.parse::<ApiUrl>().map(|url| url.to_string());
        assert_eq!(found.as_deref().map_err(|error| *error), expected, "{text}");
    }

    #[test]
    fn urls_of_the_api() {
        check("http://10.0.0.5:8080", Ok("http://10.0.0.5:8080/client/api"));
        check("https://cloud.example", Ok("https://cloud.example:443/client/api"));
        check("http://[fd00::5]:8080/x/api/", Ok("http://[fd00::5]:8080/x/api"));
        check("ftp://a", Err("the URL begins with neither http:// nor https://"));
        check("10.0.0.5:8080", Err("the URL begins with neither http:// nor https://"));
        check("http://a b", Err("not a URL"));
        let user = "the URL holds a user; keys are given in files of their own";
        check("http://u:p@a/", Err(user));
        check("http://a/client/api?apikey=x", Err("the URL holds a query"));
    }

    #[test]
    fn a_signature_ends_after_ten_minutes() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_455_400);
        assert_eq!(expiry(now), "2030-01-01T00:00:00+0000");
    }
}
