//! One request of a role: run in the role's scope and span, to the last byte of its response.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Extension;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tower::ServiceExt;
use tracing::Span;

use super::{FrontRoutes, Route};
use crate::client::{ClientAddress, client_address};
use crate::serve::{Connection, Peer};

/// What a listener of the front serves.
pub(super) fn router(routes: FrontRoutes) -> Router {
    Router::new().fallback(
        async move |Extension(peer): Extension<Peer>,
                    Extension(connection): Extension<Connection>,
                    request: Request<Body>| {
            let Peer::Tcp { local, .. } = peer else { return nobody() };
            match routes.find(local, request.uri().path()) {
                Some(route) => answer(route, connection, request).await,
                None => nobody(),
            }
        },
    )
}

fn nobody() -> Response<Body> {
    (StatusCode::NOT_FOUND, "no service of this host answers here\n").into_response()
}

async fn answer(
    route: Route,
    connection: Connection,
    mut request: Request<Body>,
) -> Response<Body> {
    if let Some(remote) = connection.remote {
        let trusted = route.site.trusted_proxies.current();
        let client = ClientAddress(client_address(remote, request.headers(), &trusted));
        request.extensions_mut().insert(client);
    }
    let (mut answered, response) = oneshot::channel();
    let (router, span) = (route.site.router.clone(), route.span.clone());
    let work = async move {
        let response = tokio::select! {
            Ok(response) = router.oneshot(request) => response,
            // The client left.
            () = answered.closed() => return,
        };
        let (ended, end) = oneshot::channel();
        let body = |inner| Body::new(Watched { inner, span, _ended: ended });
        // When the scope kills this task, the connection goes with it: a client that does not read
        // would keep it, and what the role holds for it, for ever.
        let cut = connection.cut.drop_guard();
        if answered.send(response.map(body)).is_ok() {
            drop(end.await);
        }
        drop(cut.disarm());
    };
    route.site.tasks.spawn_in(route.span.clone(), "http request", work);
    response.await.unwrap_or_else(|_panicked_or_killed| {
        let text = "the service ended before it could answer\n";
        (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
    })
}

/// A response body that lets the role's scope know when it is over.
struct Watched {
    inner: Body,
    span: Span,
    _ended: oneshot::Sender<()>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let _entered = this.span.enter();
        Pin::new(&mut this.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
