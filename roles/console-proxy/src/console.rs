//! One console from the upgraded connection to its end.
//!
//! ```text
//! token → source address → extra text → single use     nothing of this reaches the server
//!   → the management server's decision (10 s)           no answer = no console
//!   → the table of sessions (replaces the VM's other console)
//!   → the VM's VNC server, RFB as a client
//! viewer's RFB handshake in parallel, its answer waits for the decision
//!   → relay → goodbye; whatever ended it, the drop of `Registered` reports the end
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::upgrade::OnUpgrade;
use rfb::ServerInit;
use tracing::Instrument;

use crate::access::{AccessDecision, AccessQuestion};
use crate::bridge::relay;
use crate::context::ConsoleContext;
use crate::dialler;
use crate::query::RawQuery;
use crate::refusal::{End, Refusal, VncServerError};
use crate::sessions::{Asked, NewSession, Registered};
use crate::token::ConsoleToken;
use crate::upstream::Upstream;
use crate::viewer::{Greeted, NotGreeted, Shown, greet};
use crate::vnc_server::{self, VncServer};
use crate::websocket;

/// A viewer that asks for a console.
pub(crate) struct UpgradeRequest {
    /// The raw query of its URL.
    pub(crate) query: String,
    pub(crate) client: IpAddr,
}

/// Admitted, and connected to the VM's VNC server.
struct Opened {
    registered: Registered,
    vnc_server: VncServer,
    init: ServerInit,
}

impl Shown for Opened {
    fn server_init(&self) -> ServerInit {
        self.init.clone()
    }
}

/// Runs a console to its end.
pub(crate) async fn run(context: Arc<ConsoleContext>, upgrade: OnUpgrade, request: UpgradeRequest) {
    let client = request.client;
    let span = tracing::error_span!("console", %client);
    async {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(error = %bedrock::chain(&error), "viewer left during the upgrade");
                return;
            }
        };
        let socket = websocket::open(upgraded, context.now().message_limit).await;
        serve(&context, socket, request).await;
    }
    .instrument(span)
    .await;
}

async fn serve(
    context: &Arc<ConsoleContext>,
    mut socket: websocket::Socket,
    request: UpgradeRequest,
) {
    let client = request.client;
    let opening = Box::pin(async {
        let token = match token(context, &request) {
            Ok(token) => token,
            Err(refusal) => {
                context.refused(&refusal, client, None);
                return Err(refusal);
            }
        };
        let outcome = open(context, &token, &request).await;
        if let Err(refusal) = &outcome {
            // Now, not when the viewer has heard it: one that never listens is counted as well.
            context.refused(refusal, client, Some(&token));
        }
        outcome
    });
    let greeted = tokio::select! {
        greeted = greet(&mut socket, opening, context.now().handshake_timeout) => greeted,
        () = context.stop.cancelled() => Err(NotGreeted::Ended(End::Shutdown)),
    };
    match greeted {
        Ok(greeted) => watch(context, socket, greeted).await,
        Err(NotGreeted::Refused(refusal)) => {
            let (code, _) = End::Refused.close();
            websocket::close(socket, code, &refusal.to_string()).await;
        }
        Err(NotGreeted::Ended(end)) => {
            context.metrics.ended(end.label());
            tracing::debug!(reason = end.label(), "console ended before it opened");
            let (code, reason) = end.close();
            websocket::close(socket, code, reason).await;
        }
    }
}

/// The open console.
async fn watch(
    context: &Arc<ConsoleContext>,
    mut socket: websocket::Socket,
    greeted: Greeted<Opened>,
) {
    let Opened { registered, vnc_server, .. } = greeted.shown;
    let session = &registered.session;
    let VncServer { stream, ahead, .. } = vnc_server;
    tracing::info!(
        session = session.uuid,
        vm = session.vm,
        name = session.display_name,
        vnc_server = %session.upstream,
        "console opened"
    );
    let bytes = context.metrics.bytes();
    let limits = context.now().bridge;
    // The VM's side ends with the relay: the goodbye to the viewer may take a while.
    let end = relay(&mut socket, stream, (greeted.ahead, ahead), session, bytes, limits).await;
    context.metrics.ended(end.label());
    tracing::info!(
        session = session.uuid,
        vm = session.vm,
        name = session.display_name,
        reason = end.label(),
        bytes_to_viewer = session.to_viewer.load(Ordering::Relaxed),
        bytes_to_vm = session.to_vm.load(Ordering::Relaxed),
        "console closed"
    );
    drop(registered);
    let (code, reason) = end.close();
    websocket::close(socket, code, reason).await;
}

/// What the link carries.
fn token(context: &ConsoleContext, request: &UpgradeRequest) -> Result<ConsoleToken, Refusal> {
    let key = context.key().ok_or(Refusal::NoKey)?;
    let text = RawQuery(&request.query).token().ok_or(Refusal::Token)?;
    key.open(&text).map_err(|_error| Refusal::Token)
}

/// Everything between the link and the VM's VNC server, in the order in which a refusal costs
/// least.
async fn open(
    context: &Arc<ConsoleContext>,
    token: &ConsoleToken,
    request: &UpgradeRequest,
) -> Result<Opened, Refusal> {
    let (session, upstream) = check(context, token, request)?;
    let asked = take(context, session.clone())?;
    let question = AccessQuestion {
        host: token.host.clone(),
        port: token.port,
        vm: token.vm.clone(),
        sid: token.sid.clone(),
        ticket: token.ticket.clone(),
        session: session.clone(),
        client: request.client,
        again: false,
    };
    let limit = context.now().verdict_timeout;
    let admission = match context.authority.may_open(question, limit).await {
        AccessDecision::Admitted(admission) => admission,
        AccessDecision::NotAsked => {
            asked.not_presented();
            return Err(Refusal::ServerUnreachable);
        }
        AccessDecision::Denied => return Err(Refusal::Denied),
        AccessDecision::Unanswered => return Err(Refusal::ServerSilent),
    };
    let registered = context.sessions.enter(NewSession {
        uuid: session,
        key: token.viewer_key(),
        vm: token.vm.clone(),
        display_name: token.display_name.clone(),
        client: request.client,
        host: token.host.clone(),
        port: token.port,
        // Where the management server says it is now, else where the link says it was.
        upstream: admission.location.unwrap_or(upstream),
    });
    asked.admitted();
    let vnc_server = tokio::select! {
        outcome = connect(context, token, &registered) => outcome.map_err(Refusal::VncServer)?,
        ended = registered.session.ended() => return Err(Refusal::Ended(ended)),
    };
    // The name ends in a space where the original names the backend's encryption.
    let name = format!("{} ", token.display_name).into_bytes();
    let init = ServerInit { name, ..vnc_server.init.clone() };
    Ok(Opened { registered, vnc_server, init })
}

async fn connect(
    context: &ConsoleContext,
    token: &ConsoleToken,
    registered: &Registered,
) -> Result<VncServer, VncServerError> {
    let limits = context.now();
    let connection = dialler::dial(&registered.session.upstream, limits.connect_timeout).await?;
    vnc_server::enter(connection, token.sid.reveal(), limits.handshake_timeout).await
}

/// The checks that need nobody else. Gives the session's UUID and where to dial.
fn check(
    context: &ConsoleContext,
    token: &ConsoleToken,
    request: &UpgradeRequest,
) -> Result<(String, Upstream), Refusal> {
    if let Some(kind) = token.upstream.as_ref().and_then(dialler::unsupported) {
        return Err(Refusal::Unsupported(kind));
    }
    let (Some(session), Some(upstream)) = (&token.session, &token.upstream) else {
        return Err(Refusal::Incomplete);
    };
    if session.len() > 64 {
        return Err(Refusal::Incomplete);
    }
    if context.source_check.load(Ordering::Relaxed) {
        let source = token.source.as_deref().unwrap_or_default();
        if !crate::network::is_address(source, request.client) {
            return Err(Refusal::SourceAddress);
        }
    }
    if let Some(extra) = &token.extra
        && !RawQuery(&request.query).has_extra(extra.reveal())
    {
        return Err(Refusal::Extra);
    }
    Ok((session.clone(), upstream.clone()))
}

/// Takes the session for use, once.
///
/// A server with rows for its proxies announces each session before its link is used; one with a
/// static proxy never does, and a link that reconnects can lose an announcement. The server is
/// asked in any case, so a missing announcement is not a reason to refuse.
fn take(context: &Arc<ConsoleContext>, session: String) -> Result<Asked, Refusal> {
    let announced = context.sessions.ledger.take(&session).ok_or(Refusal::Replay)?;
    tracing::debug!(session, announced, "asking the management server");
    Ok(Asked::new(&context.sessions, session))
}
