//! Who may use the page: a browser that has it open, not another site that the same browser shows.
//!
//! The page has no password, it listens where only this machine reaches it. Two doors are left to
//! others and closed here: a foreign page that sends requests to our address, and a foreign name
//! that resolves to our address (DNS rebinding).

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::Response;

use super::page::Refusal;

/// Lets through what comes from the page itself or from no browser at all.
pub(crate) fn guarded(router: Router) -> Router {
    router.layer(middleware::from_fn(check))
}

async fn check(request: Request, next: Next) -> Result<Response, Refusal> {
    match stranger(request.method(), request.headers()) {
        None => Ok(next.run(request).await),
        Some(why) => {
            tracing::warn!(why, path = request.uri().path(), "request of a stranger refused");
            Err(Refusal(StatusCode::FORBIDDEN, why))
        }
    }
}

/// Why a request is not from the page.
fn stranger(method: &Method, headers: &HeaderMap) -> Option<String> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    let host = text(header::HOST).unwrap_or("");
    if !is_own(host) {
        return Some(format!("{host:?} is not an address of this page; open it by its IP address"));
    }
    if [Method::GET, Method::HEAD].contains(method) {
        return None;
    }
    let origin = text(header::ORIGIN)?;
    let same = origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host));
    (!same).then(|| format!("{origin:?} is another site; use the page at {host}"))
}

/// An IP address or `localhost`, with or without a port: no foreign name can stand there.
fn is_own(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    async fn status(method: Method, host: &str, origin: Option<&str>) -> StatusCode {
        let answer = || async { "done" };
        let service = guarded(Router::new().route("/", get(answer).post(answer)));
        let mut request = Request::builder().method(method).header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        service.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    }

    #[tokio::test]
    async fn only_the_page_itself_is_let_through() {
        let (yes, no) = (StatusCode::OK, StatusCode::FORBIDDEN);
        for (method, host, origin, expected) in [
            (Method::GET, "127.0.0.1:8096", None, yes),
            (Method::GET, "localhost", None, yes),
            (Method::GET, "[::1]:8096", None, yes),
            (Method::POST, "127.0.0.1:8096", None, yes),
            (Method::POST, "127.0.0.1:8096", Some("http://127.0.0.1:8096"), yes),
            (Method::POST, "localhost:8096", Some("http://localhost:8096"), yes),
            // another site in the same browser, another port, a sandboxed frame
            (Method::POST, "127.0.0.1:8096", Some("http://evil.example"), no),
            (Method::POST, "127.0.0.1:8096", Some("http://127.0.0.1:8080"), no),
            (Method::POST, "127.0.0.1:8096", Some("null"), no),
            // a name that somebody lets resolve to us
            (Method::GET, "evil.example:8096", None, no),
            (Method::POST, "evil.example:8096", Some("http://evil.example:8096"), no),
            (Method::GET, "localhost.evil.example", None, no),
            (Method::GET, "", None, no),
        ] {
            let seen = status(method.clone(), host, origin).await;
            assert_eq!(seen, expected, "{method} {host} {origin:?}");
        }
    }
}
