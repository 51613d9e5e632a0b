//! What HTTP itself wants of a request, checked once for every listener.

use axum::body::Body;
use axum::http::header::{HOST, UPGRADE};
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Request, Version};
use hyper::upgrade::OnUpgrade;

/// Lets a request through, or says what is wrong with it (RFC 9112, 3.2; RFC 9110, 7.8).
pub(crate) fn admit(request: &mut Request<Body>) -> Result<(), &'static str> {
    let old = request.version() < Version::HTTP_11;
    if old {
        // HTTP/1.0 knows no upgrades: the request is a plain one.
        request.headers_mut().remove(UPGRADE);
        request.extensions_mut().remove::<OnUpgrade>();
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err("the request has two Host headers"),
        (None, _) if !old => Err("the request has no Host header"),
        (Some(host), None) if !is_host(host) => Err("the Host header is not a host"),
        _ => Ok(()),
    }
}

/// A name or address with an optional port; empty where the client has none to name.
fn is_host(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    bytes.is_empty() || (!bytes.contains(&b'@') && Authority::try_from(bytes).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_host_and_an_old_one_may_have_none() {
        let check = |version: Version, hosts: &[&str], expected: Option<&str>| {
            let mut request = Request::builder().version(version).body(Body::empty()).unwrap();
            for host in hosts {
                request.headers_mut().append(HOST, host.parse().unwrap());
            }
            let refusal = admit(&mut request).err();
            let found =
                refusal.is_some_and(|text| expected.is_some_and(|word| text.contains(word)));
            assert!(found || refusal == expected, "{version:?} {hosts:?} {refusal:?}");
        };
        check(Version::HTTP_11, &["example.org"], None);
        check(Version::HTTP_11, &["[2001:db8::1]:8080"], None);
        check(Version::HTTP_11, &[""], None);
        check(Version::HTTP_11, &[], Some("has no Host"));
        check(Version::HTTP_11, &["a", "a"], Some("two"));
        check(Version::HTTP_11, &["a b"], Some("not a host"));
        check(Version::HTTP_11, &["user@example.org"], Some("not a host"));
        check(Version::HTTP_10, &[], None);
        check(Version::HTTP_10, &["a", "b"], Some("two"));
    }

    #[test]
    fn an_upgrade_in_http_1_0_is_a_plain_request() {
        let request = |version| {
            let builder = Request::builder().version(version).header(HOST, "a");
            builder.header(UPGRADE, "websocket").body(Body::empty()).unwrap()
        };
        let (mut old, mut new) = (request(Version::HTTP_10), request(Version::HTTP_11));
        assert!(admit(&mut old).is_ok() && admit(&mut new).is_ok());
        assert!(!old.headers().contains_key(UPGRADE) && new.headers().contains_key(UPGRADE));
    }
}
