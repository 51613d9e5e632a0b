//! The way in over TCP: a bearer token, and what its role may do.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dhcp_api::problem::{Problem, ProblemKind};

use super::problem::Refusal;
use crate::access::{AccessRole, Tokens};

/// Before a wrong token is answered.
const DELAY: Duration = Duration::from_millis(300);

/// Lets a request pass when its token allows it.
pub(super) async fn guard(State(tokens): State<Tokens>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    if path == "/v1/healthz" {
        return next.run(request).await;
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(|text| text.to_str().ok());
    let token = given.and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((name, role)) = token.and_then(|(_, token)| tokens.check(token.trim())) else {
        tracing::warn!(%method, path, given = given.is_some(), "no valid token");
        tokio::time::sleep(DELAY).await;
        let problem = Problem::new(ProblemKind::Unauthenticated, "a bearer token is needed");
        let problem = problem.remedy("send Authorization: Bearer with a token of the tokens file");
        let mut response = Refusal::from(problem).into_response();
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    };
    let needed = needed(method, path);
    if role < needed {
        let text = format!("the token {name} is a {role}'s, and this needs a {needed}'s");
        return Refusal::new(ProblemKind::Forbidden, text).into_response();
    }
    next.run(request).await
}

fn needed(method: &Method, path: &str) -> AccessRole {
    // /v1/zones/{zone}/{kind}: a zone may be called anything.
    let kind = path.split('/').nth(4).unwrap_or_default();
    let is_daily = ["reservations", "reservations:batch", "records", "leases"].contains(&kind);
    match *method {
        Method::GET | Method::HEAD => AccessRole::Reader,
        // It stores nothing.
        _ if path == "/v1/validate" => AccessRole::Reader,
        _ if is_daily => AccessRole::Writer,
        _ => AccessRole::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_needs_a_reader_reserving_a_writer_and_all_else_an_admin() {
        let check = |method, path, role| assert_eq!(needed(&method, path), role, "{method} {path}");
        check(Method::GET, "/v1/zones/z1", AccessRole::Reader);
        check(Method::PUT, "/v1/zones/z1/reservations/r1", AccessRole::Writer);
        check(Method::POST, "/v1/zones/z1/reservations:batch", AccessRole::Writer);
        check(Method::DELETE, "/v1/zones/z1/leases/10.0.0.1", AccessRole::Writer);
        check(Method::PUT, "/v1/zones/z1/desired", AccessRole::Admin);
        check(Method::DELETE, "/v1/zones/z1", AccessRole::Admin);
        check(Method::DELETE, "/v1/zones/leases", AccessRole::Admin);
        check(Method::PUT, "/v1/zones/records/subnets/reservations", AccessRole::Admin);
        check(Method::POST, "/v1/sync", AccessRole::Admin);
        check(Method::POST, "/v1/validate", AccessRole::Reader);
        check(Method::PUT, "/v1/desired", AccessRole::Admin);
        check(Method::PUT, "/v1/zones/z1/option-sets/pxe", AccessRole::Admin);
    }
}
