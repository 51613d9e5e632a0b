//! The ways in: an account on the socket, over TCP a bearer token or a certificate; and what the
//! role of either may do.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use dhcp_api::problem::{Problem, ProblemKind};
use http_front::{ClientCertificate, UnixPeer};
use key_store::certificate::client_names;
use tokio::sync::watch;

use super::problem::Refusal;
use crate::access::{AccessRole, Accounts, Grant, Tokens, of_names};

/// Before a wrong token is answered.
const DELAY: Duration = Duration::from_millis(300);

/// Who is let in by a listener.
#[derive(Debug, Clone)]
pub(crate) enum Gate {
    /// Accounts of this machine.
    Socket(Accounts),
    /// Bearers of a token, and names in certificates.
    Tcp { tokens: watch::Receiver<Tokens>, names: Arc<[Grant]> },
}

/// Somebody who was let in, in words.
struct Caller {
    who: String,
    role: AccessRole,
}

/// Lets a request pass when its caller may.
pub(super) async fn guard(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    if path == "/v1/healthz" {
        return next.run(request).await;
    }
    let caller = match &gate {
        Gate::Socket(accounts) => account(accounts, &request),
        Gate::Tcp { tokens, names } => match request.headers().get(header::AUTHORIZATION) {
            // Whoever sends a token is who the token says.
            Some(given) => bearer(&tokens.borrow(), given),
            None => certificate(names, &request),
        },
    };
    let caller = match caller {
        Ok(caller) => caller,
        Err(problem) => {
            tracing::warn!(%method, path, reason = problem.detail, "nobody who may");
            tokio::time::sleep(DELAY).await;
            let unknown = problem.status == 401;
            let mut response = Refusal::from(*problem).into_response();
            if unknown {
                let challenge = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            }
            return response;
        }
    };
    let (needed, Caller { who, role }) = (needed(method, path), caller);
    if role < needed {
        let text = format!("{who} is a {role}'s, and this needs a {needed}'s");
        return Refusal::new(ProblemKind::Forbidden, text).into_response();
    }
    next.run(request).await
}

fn account(accounts: &Accounts, request: &Request) -> Result<Caller, Box<Problem>> {
    let refused = |text: String| {
        let problem = Problem::new(ProblemKind::Forbidden, text);
        Box::new(problem.remedy("add it to roles.dhcp.api_socket_access: \"NAME reader\""))
    };
    let Some(peer) = request.extensions().get::<UnixPeer>() else {
        return Err(refused("the kernel does not tell whose process this is".to_owned()));
    };
    match accounts.role_of(peer.uid, peer.gid) {
        Some(role) => Ok(Caller { who: format!("the account {}", peer.uid), role }),
        None => Err(refused(format!("the account {} is not let in", peer.uid))),
    }
}

fn bearer(tokens: &Tokens, given: &HeaderValue) -> Result<Caller, Box<Problem>> {
    let token = given.to_str().ok().and_then(|text| text.split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let found = token.and_then(|(_, token)| tokens.check(token.trim()));
    let found = found.map(|(name, role)| Caller { who: format!("the token {name}"), role });
    found.ok_or_else(|| {
        let problem = Problem::new(ProblemKind::Unauthenticated, "a valid bearer token is needed");
        Box::new(problem.remedy("send Authorization: Bearer with a token of the tokens file"))
    })
}

fn certificate(grants: &[Grant], request: &Request) -> Result<Caller, Box<Problem>> {
    let Some(ClientCertificate(shown)) = request.extensions().get::<ClientCertificate>() else {
        let text = "a bearer token or a certificate is needed";
        let remedy = "send Authorization: Bearer with a token of the tokens file, or show a \
                      certificate of api_client_ca_file";
        return Err(Box::new(Problem::new(ProblemKind::Unauthenticated, text).remedy(remedy)));
    };
    let names = client_names(shown);
    let found = of_names(&names, grants);
    let found = found.map(|(name, role)| Caller { who: format!("the certificate {name}"), role });
    found.ok_or_else(|| {
        let text = format!("the certificate's names are not let in: {}", names.join(", "));
        let problem = Problem::new(ProblemKind::Forbidden, text);
        Box::new(problem.remedy("add one to roles.dhcp.api_client_names: \"NAME reader\""))
    })
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
