//! The console of a XenServer or XCP-ng host: an HTTP CONNECT with a session of its API, and RFB
//! from the end of the answer on.

use axum::http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{BoxStream, Connection, tcp, tls};
use crate::refusal::VncServerError;

/// Longest answer; the original's has four lines.
const REPLY_LIMIT: usize = 8 * 1024;

/// Why a tunnel cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    #[error("the tunnel's address is none that can be dialled")]
    Url,
    #[error("the tunnel's session is none that can be sent")]
    Session,
    #[error("the host does not answer as XenServer does")]
    NotHttp,
    #[error("the host refused the tunnel ({0}{hint})", hint = hint(*.0))]
    Status(u16),
    #[error("the host's answer is longer than {REPLY_LIMIT} bytes")]
    TooLong,
    #[error("the host closed the connection before it answered")]
    Ended,
}

fn hint(status: u16) -> &'static str {
    match status {
        301 | 302 | 307 | 308 => ", it sends elsewhere",
        401 | 403 => ", the session of the management server has ended",
        404 => ", there is no such console",
        _ => "",
    }
}

/// What the answer's head is: `Ok(None)` when more bytes are needed, else its length.
///
/// # Errors
/// For anything but a whole head with status 200.
pub fn reply(bytes: &[u8]) -> Result<Option<usize>, ReplyError> {
    let seen = bytes.len().min(5);
    if bytes.get(..seen) != b"HTTP/".get(..seen) {
        return Err(ReplyError::NotHttp);
    }
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let Some(end) = end else {
        return if bytes.len() >= REPLY_LIMIT { Err(ReplyError::TooLong) } else { Ok(None) };
    };
    if end > REPLY_LIMIT {
        return Err(ReplyError::TooLong);
    }
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default());
    let mut lines = head.map_err(|_odd| ReplyError::NotHttp)?.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let version = words.next().unwrap_or_default();
    if !matches!(version, "HTTP/1.0" | "HTTP/1.1") {
        return Err(ReplyError::NotHttp);
    }
    let status = words.next().filter(|word| word.len() == 3).and_then(|word| word.parse().ok());
    match status {
        Some(200) => {}
        Some(status) => return Err(ReplyError::Status(status)),
        None => return Err(ReplyError::NotHttp),
    }
    let is_header = |line: &str| line.split_once(':').is_some_and(|(name, _)| !name.is_empty());
    if lines.all(is_header) { Ok(Some(end + 4)) } else { Err(ReplyError::NotHttp) }
}

/// Where a tunnel's address leads, and what is asked for there.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    host: String,
    port: u16,
    path: String,
}

fn target(url: &str) -> Result<Target, ReplyError> {
    let uri: Uri = url.trim().parse().map_err(|_odd| ReplyError::Url)?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(ReplyError::Url),
    };
    let authority = uri.authority().ok_or(ReplyError::Url)?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    if host.is_empty() || authority.as_str().contains('@') {
        return Err(ReplyError::Url);
    }
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Ok(Target { tls, host, port, path })
}

/// The request, a line each; nothing in it can end a line.
fn request(target: &Target, session: &str) -> Result<String, ReplyError> {
    let plain = |c: char| c.is_ascii_graphic() && c != ';' && c != ',';
    if session.is_empty() || session.len() > 512 || !session.chars().all(plain) {
        return Err(ReplyError::Session);
    }
    let Target { host, path, .. } = target;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    Ok(format!("CONNECT {path} HTTP/1.0\r\nHost: {host}\r\nCookie: session_id={session}\r\n\r\n"))
}

/// Dials the tunnel up to the first byte of RFB.
pub(super) async fn connect(url: &str, session: &str) -> Result<Connection, VncServerError> {
    let target = target(url)?;
    let request = request(&target, session.trim())?;
    let stream = tcp(&target.host, target.port).await.map_err(VncServerError::Connect)?;
    let mut stream: BoxStream = match target.tls {
        true => tls::to_anyone(stream, &target.host).await?,
        false => Box::new(stream),
    };
    stream.write_all(request.as_bytes()).await.map_err(VncServerError::Io)?;
    stream.flush().await.map_err(VncServerError::Io)?;
    let mut head = Vec::new();
    loop {
        // One byte at a time at its end: what follows belongs to RFB.
        let byte = match stream.read_u8().await {
            Ok(byte) => byte,
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(ReplyError::Ended.into());
            }
            Err(error) => return Err(VncServerError::Io(error)),
        };
        head.push(byte);
        // Looked at where it may be whole, or already wrong.
        let is_due = head.ends_with(b"\r\n\r\n") || head.len() >= REPLY_LIMIT || head.len() <= 5;
        if is_due && reply(&head)?.is_some() {
            break;
        }
    }
    Ok(Connection { stream, start_tls: None, encrypted: target.tls })
}

#[cfg(test)]
mod tests;
