//! Why a request got no answer, in words, and whether asking again may help.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::time::Duration;

use tls_material::https::unknown_issuer;

use crate::sources::error::SourceError;

/// A request that failed before an answer. Refused or unreachable is an answer; a connection that
/// was not made in time or that was closed without one is worth another attempt, and the original
/// makes one.
pub(super) fn unanswered(error: &reqwest::Error, connect_timeout: Duration) -> SourceError {
    let text = connect_text(error);
    if error.is_connect() && error.is_timeout() {
        let limit = connect_timeout.as_secs_f64();
        return SourceError::Lost(format!(
            "connection timed out after {limit} seconds (connect_timeout)"
        ));
    }
    if causes(error).any(is_lost) { SourceError::Lost(text) } else { SourceError::Connect(text) }
}

fn causes<'a>(error: &'a reqwest::Error) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |error| {
        let error: &'a (dyn StdError + 'static) = *error;
        error.source()
    })
}

fn is_lost(error: &(dyn StdError + 'static)) -> bool {
    let lost = [
        ErrorKind::TimedOut,
        ErrorKind::ConnectionReset,
        ErrorKind::ConnectionAborted,
        ErrorKind::BrokenPipe,
        ErrorKind::UnexpectedEof,
    ];
    error.downcast_ref::<std::io::Error>().is_some_and(|io| lost.contains(&io.kind()))
        || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
}

/// The text of a failed connection: the operating system's words where there are some, as in the
/// original ("Connection refused"), else the innermost cause.
pub(super) fn connect_text(error: &reqwest::Error) -> String {
    if let Some(unknown) = unknown_issuer(error) {
        return unknown.to_string();
    }
    let mut last = String::new();
    for cause in causes(error) {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.raw_os_error().is_some()
        {
            let text = io.to_string();
            return text.split(" (os error").next().unwrap_or_default().to_owned();
        }
        last = cause.to_string();
    }
    if error.is_timeout() { format!("connection timed out: {last}") } else { last }
}
