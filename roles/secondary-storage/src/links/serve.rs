//! `/userdata/<directory>/<file>`: the file behind a link.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Router, body::Body};
use http_front::{ClientAddress, FileAnswer, FileFuture, Files};
use percent_encoding::percent_decode_str;
use role::Host;

use super::copy::{self, CopyRules};
use super::files::{Answer, Serving};
use super::{Found, LinkName, Links};
use crate::metrics::Metrics;
use crate::serving::certificates::ServedCertificates;
use crate::serving::page;
use crate::stores::Stores;

/// Path prefix of every link.
pub const PREFIX: &str = "/userdata/";

/// What answers requests for files: links of users, and copies between zones.
#[derive(Debug, Clone)]
pub struct FileService {
    pub links: Links,
    pub stores: Stores,
    pub metrics: Arc<Metrics>,
    pub host: Host,
    pub copy: CopyRules,
    pub certificates: ServedCertificates,
}

/// The routes of links, copies and the help page, and the answer to everything else.
pub fn router(service: FileService) -> Router {
    Router::new()
        .route("/", any(help))
        .route("/userdata/{*rest}", any(answer))
        .route("/copy/{*rest}", any(answer))
        .fallback(async || {
            page::text(StatusCode::NOT_FOUND, "Nothing is here. / says what this host serves.")
        })
        .with_state(service)
}

async fn help(State(service): State<FileService>, method: Method) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return only_get();
    }
    page::help(&service.certificates.status())
}

async fn answer(State(service): State<FileService>, request: Request<Body>) -> Response {
    let request = request.map(drop);
    match service.find(&request).await {
        Ok(answer) => answer.response(&service.metrics),
        Err(refusal) => *refusal,
    }
}

pub(super) fn only_get() -> Response {
    let allow = [(header::ALLOW, "GET, HEAD")];
    (StatusCode::METHOD_NOT_ALLOWED, allow).into_response()
}

/// A refusal in words. Boxed: responses are large, and most requests get none.
type Refusal = Box<Response>;

pub(super) fn refusal(status: StatusCode, text: &str) -> Refusal {
    Box::new(page::text(status, text))
}

impl FileService {
    async fn find(&self, request: &axum::http::Request<()>) -> Result<Answer, Refusal> {
        let (method, headers) = (request.method(), request.headers());
        if method != Method::GET && method != Method::HEAD {
            return Err(Box::new(only_get()));
        }
        let path = request.uri().path();
        if let Some(rest) = path.strip_prefix(PREFIX) {
            return self.link(rest, method, headers).await;
        }
        match path.strip_prefix(copy::PREFIX) {
            Some(rest) => {
                let client = request.extensions().get::<ClientAddress>().copied();
                self.copy.admit(client, headers)?;
                let serving = copy::open(&self.stores, rest).await?;
                Ok(serving.answer(method, headers, None))
            }
            None => Err(refusal(StatusCode::NOT_FOUND, "Nothing is here.")),
        }
    }

    async fn link(
        &self,
        rest: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Answer, Refusal> {
        let unknown = || {
            let text = "This link is not known. It may have ended long ago, or be misspelt: ask for \
                        a new one in the CloudStack user interface.";
            refusal(StatusCode::NOT_FOUND, text)
        };
        let name = link_name(rest).ok_or_else(unknown)?;
        let found = self.links.find(&name, self.host.clock.unix_ms()).await;
        let target = match found {
            Ok(Found::Target(target)) => target,
            Ok(Found::Unknown) => return Err(unknown()),
            Ok(Found::Ended { at_ms }) => {
                let at = jiff::Timestamp::from_millisecond(at_ms).unwrap_or_default();
                let at = at.strftime("%Y-%m-%d %H:%M:%S UTC");
                let text = format!(
                    "This link ended at {at}. Ask for a new one in the CloudStack user interface."
                );
                return Err(refusal(StatusCode::GONE, &text));
            }
            Err(error) => return Err(unreadable(&error, &name.to_string())),
        };
        let store = self.stores.open(&target.store, None).await;
        let store = store.map_err(|error| unreadable(&error, &target.path.to_string()))?;
        match Serving::open(store, target.path.clone()).await {
            Ok(Some(serving)) => Ok(serving.answer(method, headers, Some(name.file.as_str()))),
            Ok(None) => {
                Err(refusal(StatusCode::GONE, "The file behind this link has been deleted."))
            }
            Err(error) => Err(unreadable(&error, &target.path.to_string())),
        }
    }
}

/// The store does not answer, or not well.
pub(super) fn unreadable(error: &(dyn std::error::Error + 'static), path: &str) -> Refusal {
    tracing::warn!(path, error = bedrock::chain(error), "cannot serve a file");
    let text = "The store of this file cannot be read at the moment. Try again in a minute.";
    let mut response = page::text(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(header::RETRY_AFTER, axum::http::HeaderValue::from_static("60"));
    Box::new(response)
}

/// The two segments of a link's path, decoded.
fn link_name(rest: &str) -> Option<LinkName> {
    let (directory, file) = rest.split_once('/')?;
    let decode = |text| percent_decode_str(text).decode_utf8().ok();
    LinkName::new(&decode(directory)?, &decode(file)?).ok()
}

impl Files for FileService {
    fn find(&self, request: axum::http::Request<()>) -> FileFuture<Option<FileAnswer>> {
        let this = self.clone();
        Box::pin(async move { Self::find(&this, &request).await.ok()?.file(&this.metrics) })
    }
}
