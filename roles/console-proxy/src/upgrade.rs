//! The WebSocket's opening handshake as RFC 6455 wants it: what is wrong is refused with what would
//! be right, and nothing is guessed. What HTTP itself wants of a request, the front has checked.

use axum::body::Body;
use axum::http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use axum::http::uri::Authority;
use axum::http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
};
use axum::response::IntoResponse;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hyper::upgrade::OnUpgrade;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::control;

/// The one version there is.
const VERSION: HeaderValue = HeaderValue::from_static("13");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// Length of a key, decoded.
const KEY_LENGTH: usize = 16;

/// A key is 16 bytes in Base64; some clients fill its last bits with chance.
const KEY: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
        .with_decode_allow_trailing_bits(true),
);

/// Why a request is not answered as asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a WebSocket handshake has the word Upgrade in its Connection header")]
    Connection,
    #[error("WebSocket version 13 is spoken here")]
    Version,
    #[error("a WebSocket handshake has one key of 16 bytes in Base64")]
    Key,
    #[error("a WebSocket handshake has no body")]
    Body,
}

impl IntoResponse for Malformed {
    fn into_response(self) -> Response<Body> {
        let text = format!("{self}\n");
        if self != Self::Version {
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
        let headers = [
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, WEBSOCKET),
            (SEC_WEBSOCKET_VERSION, VERSION),
        ];
        (StatusCode::UPGRADE_REQUIRED, headers, text).into_response()
    }
}

/// The host that a request is for, with its port. A proxy's form of target outranks the header.
pub(crate) fn authority<B>(request: &Request<B>) -> Option<Authority> {
    let named = || Authority::try_from(request.headers().get(HOST)?.as_bytes()).ok();
    request.uri().authority().cloned().or_else(named)
}

/// Whether a request asks for a WebSocket.
pub(crate) fn is_websocket<B>(request: &Request<B>) -> bool {
    request.method() == Method::GET
        && request.version() >= Version::HTTP_11
        && has_word(request.headers(), &UPGRADE, "websocket")
}

/// Whether it would, in a version of HTTP that knew upgrades.
pub(crate) fn is_too_old<B>(request: &Request<B>) -> bool {
    request.version() < Version::HTTP_11 && request.headers().contains_key(SEC_WEBSOCKET_KEY)
}

fn has_word(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let words = value.to_str().unwrap_or_default().split(',');
        words.into_iter().any(|w| w.trim().eq_ignore_ascii_case(word))
    })
}

/// The value of a header that must be there once.
fn once<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok().map(str::trim),
        _ => None,
    }
}

/// Answers a WebSocket handshake: 101, the future connection and whether its page speaks
/// [`control`], or what is wrong with it.
pub(crate) fn accept(
    request: &mut Request<Body>,
) -> Result<(Response<Body>, OnUpgrade, bool), Malformed> {
    let headers = request.headers();
    if !has_word(headers, &CONNECTION, "upgrade") {
        return Err(Malformed::Connection);
    }
    if once(headers, &SEC_WEBSOCKET_VERSION) != VERSION.to_str().ok() {
        return Err(Malformed::Version);
    }
    let key = once(headers, &SEC_WEBSOCKET_KEY).ok_or(Malformed::Key)?;
    if KEY.decode(key).ok().is_none_or(|bytes| bytes.len() != KEY_LENGTH) {
        return Err(Malformed::Key);
    }
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes()))
        .map_err(|_error| Malformed::Key)?;
    // Its bytes would be taken for frames.
    let length = headers.get(CONTENT_LENGTH).map(HeaderValue::as_bytes);
    if length.is_some_and(|length| length != b"0") || headers.contains_key(TRANSFER_ENCODING) {
        return Err(Malformed::Body);
    }
    // Some viewers offer one and fail without it, others fail when one comes unasked.
    let offered = |name: &&str| has_word(headers, &SEC_WEBSOCKET_PROTOCOL, name);
    let protocol = [control::PROTOCOL, "binary"].into_iter().find(offered);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let out = response.headers_mut();
    out.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    out.insert(UPGRADE, WEBSOCKET);
    out.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = protocol {
        out.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let has_control = protocol == Some(control::PROTOCOL);
    Ok((response, hyper::upgrade::on(request), has_control))
}

/// Whether the page of this origin may open a console here. Without an allow-list every page may:
/// what admits a viewer is the link's token and nothing that a browser adds by itself.
pub(crate) fn origin_allowed(
    headers: &HeaderMap,
    own: Option<&Authority>,
    allowed: &[String],
) -> bool {
    if allowed.is_empty() || !headers.contains_key(ORIGIN) {
        return true;
    }
    let Some(origin) = once(headers, &ORIGIN) else { return false };
    if allowed.iter().any(|a| a.eq_ignore_ascii_case(origin)) {
        return true;
    }
    // The page and the WebSocket may be on two ports of one host.
    let theirs = origin.parse::<Uri>().ok().and_then(|origin| origin.into_parts().authority);
    match (own, theirs) {
        (Some(own), Some(theirs)) => own.host().eq_ignore_ascii_case(theirs.host()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(version: Version, target: &str, lines: &[(&str, &str)]) -> Request<Body> {
        let builder = Request::builder().version(version).uri(target);
        let builder =
            lines.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(Body::empty()).unwrap()
    }

    const GOOD: [(&str, &str); 5] = [
        ("Host", "console.example.org"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    /// The good handshake with one header replaced by these values.
    fn with(name: &str, values: &[&str]) -> Request<Body> {
        let kept = GOOD.iter().filter(|(other, _)| *other != name).copied();
        let lines: Vec<_> = kept.chain(values.iter().map(|value| (name, *value))).collect();
        request(Version::HTTP_11, "/websockify", &lines)
    }

    #[test]
    fn a_handshake_is_right_or_refused_for_what_is_wrong_with_it() {
        let check = |name: &str, values: &[&str], expected: Option<Malformed>| {
            let outcome = accept(&mut with(name, values)).err();
            assert_eq!(outcome, expected, "{name}: {values:?}");
        };
        let (connection, version, key) =
            (Some(Malformed::Connection), Some(Malformed::Version), Some(Malformed::Key));
        check("Connection", &["keep-alive, UPGRADE"], None);
        check("Connection", &["keep-alive", "upgrade"], None);
        check("Connection", &[], connection);
        check("Connection", &["close"], connection);
        check("Connection", &["upgraded"], connection);
        check("Upgrade", &["h2c, WebSocket"], None);
        check("Sec-WebSocket-Version", &[" 13 "], None);
        for bad in [&["8"][..], &["13, 8"], &["13", "13"], &["013"], &[""], &[]] {
            check("Sec-WebSocket-Version", bad, version);
        }
        // The last bits of the last letter carry nothing.
        check("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZR=="], None);
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZWE=",
            "dGhlIHNhbXBsZSBub25jZQ==, x",
            "dGhlIHNhbXBsZSBub25j Q==",
            "dGhlIHNhbXBsZS_ub25jZQ==",
            "????????????????????????",
        ] {
            check("Sec-WebSocket-Key", &[bad], key);
        }
        check("Sec-WebSocket-Key", &[], key);
        check("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ=="; 2], key);
        check("Content-Length", &["0"], None);
        check("Content-Length", &["5"], Some(Malformed::Body));
        check("Transfer-Encoding", &["chunked"], Some(Malformed::Body));
    }

    #[test]
    fn another_version_is_told_the_one_spoken_here() {
        let response = Malformed::Version.into_response();
        assert_eq!(response.status(), StatusCode::UPGRADE_REQUIRED);
        let header = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!(header("sec-websocket-version"), "13");
        assert_eq!((header("upgrade"), header("connection")), ("websocket", "Upgrade"));
        assert_eq!(Malformed::Key.into_response().status(), StatusCode::BAD_REQUEST);
    }

    #[test]
    fn only_a_get_of_http_1_1_asks_for_a_websocket() {
        let check = |method: Method, version: Version, upgrade: &[&str], expected: bool| {
            let mut request = with("Upgrade", upgrade);
            *request.method_mut() = method;
            *request.version_mut() = version;
            assert_eq!(is_websocket(&request), expected, "{upgrade:?}");
            assert_eq!(is_too_old(&request), version == Version::HTTP_10);
        };
        check(Method::GET, Version::HTTP_11, &["websocket"], true);
        check(Method::GET, Version::HTTP_11, &["h2c", "foo, WEBSOCKET"], true);
        check(Method::GET, Version::HTTP_10, &["websocket"], false);
        check(Method::HEAD, Version::HTTP_11, &["websocket"], false);
        check(Method::POST, Version::HTTP_11, &["websocket"], false);
        for other in [&["h2c"][..], &["websocket2"], &["websocket/13"], &[]] {
            check(Method::GET, Version::HTTP_11, other, false);
        }
    }

    #[test]
    fn the_target_outranks_the_host_header() {
        let check = |target: &str, host: &str, expected: Option<&str>| {
            let request = request(Version::HTTP_11, target, &[("Host", host)]);
            let expected = expected.map(|host| host.parse::<Authority>().unwrap());
            assert_eq!(authority(&request), expected, "{target} {host}");
        };
        check("/", "a:8080", Some("a:8080"));
        check("/", "[2001:db8::1]:8080", Some("[2001:db8::1]:8080"));
        check("http://b/x", "a", Some("b"));
        check("/", "", None);
    }

    #[test]
    fn own_pages_and_listed_ones_may_open_consoles_and_without_a_list_all() {
        let listed = ["https://portal.example.org".to_owned()];
        let check = |own: &str, origins: &[&'static str], allowed: &[String], expected: bool| {
            let mut headers = HeaderMap::new();
            for origin in origins {
                headers.append(ORIGIN, HeaderValue::from_static(origin));
            }
            let own: Authority = own.parse().unwrap();
            assert_eq!(origin_allowed(&headers, Some(&own), allowed), expected, "{origins:?}");
        };
        check("10.0.0.1:8080", &[], &listed, true);
        check("10.0.0.1:8080", &["http://10.0.0.1"], &listed, true);
        check("10.0.0.1:8080", &["http://10.0.0.1:80"], &listed, true);
        check("[2001:db8::1]:8080", &["http://[2001:db8::1]"], &listed, true);
        check("[2001:db8::1]", &["http://[2001:db8::2]"], &listed, false);
        check("Console.example.org", &["https://console.EXAMPLE.org"], &listed, true);
        check("10.0.0.1:8080", &["https://portal.example.org"], &listed, true);
        check("10.0.0.1:8080", &["https://evil.example.org"], &listed, false);
        check("10.0.0.1:8080", &["http://10.0.0.1", "http://10.0.0.1"], &listed, false);
        check("10.0.0.1:8080", &["http://10.0.0.1.evil.example.org"], &listed, false);
        check("10.0.0.1:8080", &["null"], &listed, false);
        check("10.0.0.1:8080", &["https://evil.example.org"], &[], true);
    }
}
