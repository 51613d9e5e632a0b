//! What browsers reach: the page of a link, its files, and the WebSocket.
//!
//! | path | answer |
//! |---|---|
//! | `…/resource/noVNC/…` | the console page and its files |
//! | `…/websockify` with an upgrade | a console |
//! | `…/ajax?token=…` | redirect to the page: the server's other form of link |
//! | anything else | 404 |
//!
//! A proxy in front may put all of it below a prefix, and may leave the prefix in what it passes
//! on: paths are told by their ends, and nothing that we answer names a path from the root.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, FORWARDED,
    IF_NONE_MATCH, LOCATION, REFERRER_POLICY, STRICT_TRANSPORT_SECURITY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;
use http_front::{ClientAddress, Peer};

use crate::assets::{self, Asset, Encoding};
use crate::console::{self, UpgradeRequest};
use crate::context::ConsoleContext;
use crate::places::NoPlace;
use crate::upgrade;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Where the server's links point.
const PAGES: &str = "/resource/noVNC/";
const PAGE: &str = "vnc.html";
/// The page as our own links name it.
pub(crate) const PAGE_PATH: &str = "/resource/noVNC/vnc.html";
/// The last part of a WebSocket's path; clients put it below whatever they like.
const SOCKET: &str = "websockify";

/// The router of a listener of the role. Over TLS browsers are told to come back so.
pub(crate) fn router(context: Arc<ConsoleContext>, tls: bool) -> Router {
    let router = Router::new().fallback(answer);
    let router = if tls {
        let over_tls = axum::middleware::from_fn_with_state(Arc::clone(&context), over_tls);
        router.layer(over_tls)
    } else {
        router
    };
    router.with_state(context)
}

/// What is different over TLS.
async fn over_tls(
    State(context): State<Arc<ConsoleContext>>,
    request: Request<Body>,
    next: Next,
) -> Response<Body> {
    if request.uri().path().ends_with(PAGE)
        && let Some(host) = upgrade::authority(&request)
    {
        context.certificate.asked_for(host.host());
    }
    let mut response = next.run(request).await;
    let seconds = context.now().hsts.as_secs();
    if seconds > 0
        && let Ok(value) = HeaderValue::from_str(&format!("max-age={seconds}"))
    {
        response.headers_mut().insert(STRICT_TRANSPORT_SECURITY, value);
    }
    response
}

async fn answer(
    State(context): State<Arc<ConsoleContext>>,
    Extension(ClientAddress(client)): Extension<ClientAddress>,
    mut request: Request<Body>,
) -> Response<Body> {
    if let Some(Peer::Tcp { remote, .. }) = request.extensions().get::<Peer>()
        && [&FORWARDED, &X_FORWARDED_FOR].iter().any(|name| request.headers().contains_key(*name))
        && !context.now().trusted_proxies.iter().any(|known| known.contains(remote.ip()))
    {
        context.forwarded_by(remote.ip().to_canonical());
    }
    let host = upgrade::authority(&request);
    let path = request.uri().path().to_owned();
    let last = path.rsplit('/').next().unwrap_or_default();
    if last == SOCKET && upgrade::is_websocket(&request) {
        return open_console(&context, client, host.as_ref(), &mut request);
    }
    if last == SOCKET && upgrade::is_too_old(&request) {
        tracing::warn!(
            %client,
            "a WebSocket was asked for in HTTP/1.0, which has none; the proxy in front has to \
             speak HTTP/1.1 (nginx: proxy_http_version 1.1)"
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let allow = [(ALLOW, "GET, HEAD")];
        return (StatusCode::METHOD_NOT_ALLOWED, allow, "only GET is answered\n").into_response();
    }
    match path.split_once(PAGES) {
        Some((_prefix, file)) => page_file(&context, file, request.headers(), host.as_ref()).await,
        None if last == "ajax" => to_page(request.uri().query().unwrap_or_default()),
        None => not_found(),
    }
}

fn not_found() -> Response<Body> {
    (StatusCode::NOT_FOUND, "there is nothing here; open a console from the cloud's pages\n")
        .into_response()
}

/// Begins a console, or says at once why not.
fn open_console(
    context: &Arc<ConsoleContext>,
    client: IpAddr,
    host: Option<&Authority>,
    request: &mut Request<Body>,
) -> Response<Body> {
    let limits = context.now();
    let refuse = |reason: &'static str, status: StatusCode, text: &'static str| {
        context.metrics.refused(reason);
        tracing::warn!(%client, reason, "console refused");
        (status, text).into_response()
    };
    if !upgrade::origin_allowed(request.headers(), host, &limits.allowed_origins) {
        let text = "consoles may not be opened from that page\n";
        return refuse("origin", StatusCode::FORBIDDEN, text);
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    if context.is_guessing(client) && !context.is_genuine(&query) {
        let text = "too many damaged console links from your address\n";
        return refuse("guessing", StatusCode::TOO_MANY_REQUESTS, text);
    }
    let (all, per_address) = (limits.sessions, limits.sessions_per_address);
    let place = match context.places.take(client, all, per_address) {
        Ok(place) => place,
        Err(NoPlace::InAll) => {
            return refuse("full", StatusCode::SERVICE_UNAVAILABLE, "too many consoles are open\n");
        }
        Err(NoPlace::ForAddress) => {
            let text = "too many consoles are open from your address\n";
            return refuse("address", StatusCode::TOO_MANY_REQUESTS, text);
        }
    };
    match upgrade::accept(request) {
        Ok((response, upgrade, has_control)) => {
            let consoles = Arc::clone(context);
            context.tasks.spawn("console", async move {
                let request = UpgradeRequest { query, client, has_control };
                console::run(consoles, upgrade, request, place).await;
            });
            response
        }
        Err(malformed) => {
            context.metrics.refused("malformed");
            tracing::debug!(%client, error = %malformed, "malformed WebSocket handshake");
            malformed.into_response()
        }
    }
}

/// The server's older form of link, whose viewer does not exist any more. The page is named from
/// where the link is.
fn to_page(query: &str) -> Response<Body> {
    let pages = PAGES.trim_start_matches('/');
    let target = format!("{pages}{PAGE}?autoconnect=true&{query}");
    match HeaderValue::from_str(&target) {
        Ok(target) => {
            let headers =
                [(LOCATION, target), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
            (StatusCode::FOUND, headers).into_response()
        }
        Err(_error) => not_found(),
    }
}

async fn page_file(
    context: &ConsoleContext,
    path: &str,
    headers: &HeaderMap,
    host: Option<&Authority>,
) -> Response<Body> {
    let asset = match &context.config.novnc_dir {
        None => Ok(assets::built_in(path, Encoding::accepted(headers))),
        Some(directory) => {
            let (directory, path) = (directory.clone(), path.to_owned());
            let read = move || assets::from_directory(&directory, &path);
            match context.tasks.blocking("page file", read).await {
                Ok(Ok(asset)) => Ok(asset),
                Ok(Err(error)) => Err(bedrock::chain(&error)),
                Err(error) => Err(bedrock::chain(&error)),
            }
        }
    };
    match asset {
        Ok(Some(asset)) => {
            let page = path == PAGE;
            let policy = page.then(|| policy(context, host));
            respond(asset, headers, page, policy)
        }
        Ok(None) => not_found(),
        Err(error) => {
            tracing::error!(path, error, "cannot read a file of novnc_dir");
            let text = "the console page cannot be read at the moment\n";
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
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
    // The page's address holds a token. Its files have new names when they change; an operator's own
    // are asked for anew but rarely sent anew.
    let cache = match (page, asset.immutable) {
        (true, _) => "no-store",
        (false, true) => "public, max-age=31536000, immutable",
        (false, false) => "no-cache",
    };
    if let Some(encoding) = asset.encoding.name() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(policy) = policy {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The page may load from us alone, and connect to any port of the host it came from.
fn policy(context: &ConsoleContext, host: Option<&Authority>) -> HeaderValue {
    let name = host.map_or("", Authority::host);
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
    let sockets = if !name.is_empty() && name.chars().all(plain) {
        format!("ws://{name}:* wss://{name}:*")
    } else {
        // An IPv6 literal cannot be written in a policy.
        "ws: wss:".to_owned()
    };
    let frames = context.now().frame_ancestors.join(" ");
    // A foreign noVNC has styles in its page; ours has none.
    let styles = if context.config.novnc_dir.is_some() { " 'unsafe-inline'" } else { "" };
    let text = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'{styles}; img-src 'self' data: blob:; \
         font-src 'self'; media-src 'self'; manifest-src 'self'; connect-src 'self' {sockets}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'self' {frames}"
    );
    HeaderValue::from_str(text.trim_end())
        .unwrap_or_else(|_error| HeaderValue::from_static("default-src 'none'"))
}
