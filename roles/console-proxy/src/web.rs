//! What browsers reach: the page of a link, its files, and the WebSocket.
//!
//! | path | answer |
//! |---|---|
//! | `/resource/noVNC/…` | the console page and its files |
//! | `…/websockify` with an upgrade | a console |
//! | `/ajax?token=…` | redirect to the page: the server's other form of link |
//! | anything else | 404 |

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH,
    LOCATION, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use http_front::ClientAddress;

use crate::assets::{self, Asset};
use crate::console::{self, Knock};
use crate::service::Service;
use crate::websocket;

/// Where the server's links point.
const PAGES: &str = "/resource/noVNC/";
const PAGE: &str = "vnc.html";

/// The router of every listener of the role.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new().fallback(answer).with_state(service)
}

async fn answer(
    State(service): State<Arc<Service>>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    mut request: Request<Body>,
) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if websocket::is_upgrade(request.headers()) {
        return if path.rsplit('/').next() == Some("websockify") {
            knock(&service, client, &mut request)
        } else {
            not_found()
        };
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(ALLOW, "GET, HEAD")];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, "only GET is answered\n").into_response();
    }
    match path.strip_prefix(PAGES) {
        Some(file) => page_file(&service, file, request.headers()).await,
        None if path == "/ajax" => to_page(request.uri().query().unwrap_or_default()),
        None => not_found(),
    }
}

fn not_found() -> Response<Body> {
    (StatusCode::NOT_FOUND, "there is nothing here; open a console from the cloud's pages\n")
        .into_response()
}

/// Opens the door to a console, or says at once why not.
fn knock(service: &Arc<Service>, client: IpAddr, request: &mut Request<Body>) -> Response<Body> {
    if !websocket::origin_allowed(request.headers(), &service.config.allowed_origins) {
        service.metrics.refused("origin");
        return (StatusCode::FORBIDDEN, "consoles may not be opened from that page\n")
            .into_response();
    }
    if service.is_guessing(client) {
        service.metrics.refused("guessing");
        return (
            StatusCode::TOO_MANY_REQUESTS,
            "too many damaged console links from your address\n",
        )
            .into_response();
    }
    let Ok(place) = Arc::clone(&service.places).try_acquire_owned() else {
        service.metrics.refused("full");
        return (StatusCode::SERVICE_UNAVAILABLE, "too many consoles are open\n").into_response();
    };
    let query = request.uri().query().unwrap_or_default().to_owned();
    match websocket::accept(request) {
        Ok((response, upgrade)) => {
            let consoles = Arc::clone(service);
            service.tasks.spawn("console", async move {
                console::run(consoles, upgrade, Knock { query, client }).await;
                drop(place);
            });
            response
        }
        Err(refusal) => refusal.into_response(),
    }
}

/// The server's older form of link, whose viewer does not exist any more.
fn to_page(query: &str) -> Response<Body> {
    let target = format!("{PAGES}{PAGE}?autoconnect=true&{query}");
    match HeaderValue::from_str(&target) {
        Ok(target) => {
            let headers =
                [(LOCATION, target), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            (StatusCode::FOUND, headers).into_response()
        }
        Err(_error) => not_found(),
    }
}

async fn page_file(service: &Service, path: &str, headers: &HeaderMap) -> Response<Body> {
    let asset = match &service.config.novnc_dir {
        None => assets::built_in(path),
        Some(directory) => {
            let (directory, path) = (directory.clone(), path.to_owned());
            let read = move || assets::from_directory(&directory, &path);
            service.tasks.blocking("page file", read).await.ok().flatten()
        }
    };
    let Some(asset) = asset else { return not_found() };
    let page = path == PAGE;
    let policy = page.then(|| policy(service, headers));
    respond(asset, headers, page, policy)
}

fn respond(
    asset: Asset,
    request: &HeaderMap,
    page: bool,
    policy: Option<HeaderValue>,
) -> Response<Body> {
    let known = request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim().trim_start_matches("W/") == asset.etag);
    let mut response = if known && !page {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::new(Body::from(asset.bytes.into_owned()))
    };
    let headers = response.headers_mut();
    if let Ok(etag) = HeaderValue::from_str(&asset.etag)
        && !page
    {
        headers.insert(ETAG, etag);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
    // The page's address holds a token; the files are asked for anew but rarely sent anew.
    let cache = if page { "no-store" } else { "no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(policy) = policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The page may load from us alone, and connect to any port of the host it came from.
fn policy(service: &Service, headers: &HeaderMap) -> HeaderValue {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _port)| name);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
    let sockets = if !name.is_empty() && name.chars().all(plain) {
        format!("ws://{name}:* wss://{name}:*")
    } else {
        // An IPv6 literal cannot be written in a policy.
        "ws: wss:".to_owned()
    };
    let frames = service.config.frame_ancestors.join(" ");
    // A foreign noVNC has styles in its page; ours has none.
    let styles = if service.config.novnc_dir.is_some() { " 'unsafe-inline'" } else { "" };
    let text = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self' data: blob:; \
         font-src 'self'; media-src 'self'; manifest-src 'self'; connect-src 'self' {sockets}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'self' {frames}"
    );
    HeaderValue::from_str(text.trim_end())
        .unwrap_or_else(|_error| HeaderValue::from_static("default-src 'none'"))
}
