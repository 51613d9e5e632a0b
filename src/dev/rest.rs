//! HTTP to the process itself: the dhcp role's REST API on its Unix socket, the admin listener,
//! pages and links on TCP.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Answers stay far below this.
const BODY_LIMIT: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(15);

/// Where to ask.
#[derive(Debug, Clone)]
pub(crate) enum At {
    Socket(PathBuf),
    Tcp(SocketAddr),
}

/// Why a call gave no document.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestError {
    #[error("cannot reach {at}")]
    Connect { at: String, source: std::io::Error },
    #[error("the call {call} broke off")]
    Http { call: String, source: hyper::Error },
    #[error("the call {call} got no usable answer: {problem}")]
    Answer { call: String, problem: String },
    /// The other side's own words.
    #[error("{call}: {status}: {detail}")]
    Refused { call: String, status: StatusCode, detail: String },
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(at: &At) -> Result<Box<dyn Stream>, RestError> {
    match at {
        At::Socket(path) => match UnixStream::connect(path).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(RestError::Connect { at: path.display().to_string(), source }),
        },
        At::Tcp(addr) => match TcpStream::connect(addr).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(RestError::Connect { at: addr.to_string(), source }),
        },
    }
}

/// One exchange, whatever the status.
pub(crate) async fn fetch(
    at: &At,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(StatusCode, Bytes), RestError> {
    let call = format!("{method} {path}");
    let problem = |problem: String| RestError::Answer { call: call.clone(), problem };
    tokio::time::timeout(PATIENCE, exchange(at, method, path, body, &call))
        .await
        .map_err(|_elapsed| problem(format!("nothing within {PATIENCE:?}")))?
}

async fn exchange(
    at: &At,
    method: Method,
    path: &str,
    body: Option<&Value>,
    call: &str,
) -> Result<(StatusCode, Bytes), RestError> {
    let http = |source| RestError::Http { call: call.to_owned(), source };
    let problem = |problem: String| RestError::Answer { call: call.to_owned(), problem };
    let stream = connect(at).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
    let bytes = body.map(|document| Bytes::from(document.to_string())).unwrap_or_default();
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::new(bytes)).map_err(|error| problem(error.to_string()))?;
    let talk = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_LIMIT).collect().await;
        Ok((status, body.map_err(|error| problem(error.to_string()))?.to_bytes()))
    };
    tokio::pin!(talk, connection);
    let mut open = true;
    loop {
        tokio::select! {
            done = &mut talk => return done,
            outcome = &mut connection, if open => {
                outcome.map_err(http)?;
                open = false;
            }
        }
    }
}

/// One call of a JSON API; an empty answer is `Value::Null`, an answer that is text is a string.
pub(crate) async fn call(
    at: &At,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, RestError> {
    let name = format!("{method} {path}");
    let (status, bytes) = fetch(at, method, path, body).await?;
    let document = if bytes.is_empty() {
        Value::Null
    } else {
        serde_json::from_slice(&bytes)
            .unwrap_or_else(|_not_json| Value::String(String::from_utf8_lossy(&bytes).into_owned()))
    };
    if status.is_success() {
        return Ok(document);
    }
    Err(RestError::Refused { call: name, status, detail: words(&document) })
}

/// What a problem document says: its detail, or every fault of a field, each with the remedy.
fn words(document: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    let sentence = |what: String, remedy: Option<String>| match remedy {
        Some(remedy) => format!("{what}; {remedy}"),
        None => what,
    };
    let faults = document.get("errors").and_then(Value::as_array).into_iter().flatten();
    let faults: Vec<String> = faults
        .filter_map(|fault| {
            let value = fault.get("value").cloned().unwrap_or_default();
            let what = format!("{} {value} {}", text(fault, "field")?, text(fault, "reason")?);
            Some(sentence(what, text(fault, "remedy")))
        })
        .collect();
    if !faults.is_empty() {
        return faults.join("\n");
    }
    match text(document, "detail") {
        Some(detail) => sentence(detail, text(document, "remedy")),
        None => document.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_problem_is_told_with_its_remedy() {
        let fault = |field: &str| json!({"field": field, "value": "zz", "reason": "is not an address", "remedy": "give one"});
        for (document, expected) in [
            (
                json!({"detail": "not used", "errors": [fault("mac"), fault("ipv4")]}),
                "mac \"zz\" is not an address; give one\nipv4 \"zz\" is not an address; give one",
            ),
            (
                json!({"detail": "the name is taken", "remedy": "choose another"}),
                "the name is taken; choose another",
            ),
            (json!({"detail": "not found"}), "not found"),
            (json!("plain"), "\"plain\""),
        ] {
            assert_eq!(words(&document), expected);
        }
    }
}
