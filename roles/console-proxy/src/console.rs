//! One console from the upgraded connection to its end.
//!
//! ```text
//! token → source address → extra text → single use     nothing of this reaches the server
//!   → the management server's verdict (10 s)            no verdict = no console
//!   → the table of sessions (replaces the VM's other console)
//!   → the VM's screen, RFB as a client
//! viewer's RFB handshake in parallel, its answer waits for the verdict
//!   → relay → goodbye; whatever ended it, the drop of `Registered` reports the end
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bedrock::Secret;
use hyper::upgrade::OnUpgrade;
use rfb::ServerInit;
use role::BoxFuture;
use tracing::Instrument;

use crate::bridge::relay;
use crate::query::RawQuery;
use crate::refusal::{End, Refusal};
use crate::screen::{self, Screen};
use crate::service::Service;
use crate::sessions::{Asked, NewSession, Registered};
use crate::token::{ConsoleToken, Way};
use crate::viewer::{Greeted, HasScreen, NotGreeted, greet};
use crate::websocket;

/// A question to the management server: may this browser see this console? The texts stand as in
/// the token, since the ticket covers them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccessQuestion {
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) vm: String,
    pub(crate) sid: Secret<String>,
    pub(crate) ticket: Secret<String>,
    pub(crate) session: String,
    pub(crate) client: IpAddr,
}

/// The management server's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Admitted,
    Denied,
    /// It was never asked: the link is down.
    NotAsked,
    /// It was asked and did not answer, or not in words we know.
    Unanswered,
}

/// Asks the management server.
pub(crate) trait AccessAuthority: Send + Sync + 'static {
    fn may_open(&self, question: AccessQuestion) -> BoxFuture<'_, Verdict>;
}

/// A viewer at the door.
pub(crate) struct Knock {
    /// The raw query of its URL.
    pub(crate) query: String,
    pub(crate) client: IpAddr,
}

/// Admitted, and connected to the VM's screen.
struct Opened {
    registered: Registered,
    screen: Screen,
    init: ServerInit,
}

impl HasScreen for Opened {
    fn server_init(&self) -> ServerInit {
        self.init.clone()
    }
}

/// Runs a console to its end.
pub(crate) async fn run(service: Arc<Service>, upgrade: OnUpgrade, knock: Knock) {
    let client = knock.client;
    let span = tracing::error_span!("console", %client);
    async {
        let upgraded = match upgrade.await {
            Ok(upgraded) => upgraded,
            Err(error) => {
                tracing::debug!(error = %bedrock::chain(&error), "viewer left during the upgrade");
                return;
            }
        };
        let socket = websocket::open(upgraded, service.config.message_limit).await;
        serve(&service, socket, knock).await;
    }
    .instrument(span)
    .await;
}

async fn serve(service: &Arc<Service>, mut socket: websocket::Socket, knock: Knock) {
    let opening = Box::pin(async {
        let outcome = open(service, &knock).await;
        if let Err(refusal) = &outcome {
            // Now, not when the viewer has heard it: one that never listens is counted as well.
            service.refused(refusal, knock.client);
        }
        outcome
    });
    let patience = service.config.handshake_timeout;
    let greeted = tokio::select! {
        greeted = greet(&mut socket, opening, patience) => greeted,
        () = service.stop.cancelled() => Err(NotGreeted::Ended(End::Shutdown)),
    };
    match greeted {
        Ok(greeted) => watch(service, socket, greeted).await,
        Err(NotGreeted::Refused(refusal)) => {
            let (code, _) = End::Refused.close();
            websocket::close(socket, code, &refusal.to_string()).await;
        }
        Err(NotGreeted::Ended(end)) => {
            service.metrics.ended(end.label());
            tracing::debug!(reason = end.label(), "console ended before it opened");
            let (code, reason) = end.close();
            websocket::close(socket, code, reason).await;
        }
    }
}

/// The open console.
async fn watch(service: &Arc<Service>, mut socket: websocket::Socket, greeted: Greeted<Opened>) {
    let Opened { registered, mut screen, .. } = greeted.screen;
    let session = &registered.session;
    tracing::info!(session = session.uuid, vm = session.vm, "console opened");
    let ahead = (greeted.ahead, std::mem::take(&mut screen.ahead));
    let bytes = service.metrics.bytes();
    let limits = service.config.bridge;
    let end = relay(&mut socket, &mut screen.stream, ahead, session, bytes, limits).await;
    service.metrics.ended(end.label());
    tracing::info!(
        session = session.uuid,
        vm = session.vm,
        reason = end.label(),
        bytes_to_viewer = session.to_viewer.load(Ordering::Relaxed),
        bytes_to_vm = session.to_vm.load(Ordering::Relaxed),
        "console closed"
    );
    // The VM's side first: the goodbye to the viewer may take a while.
    drop(screen);
    drop(registered);
    let (code, reason) = end.close();
    websocket::close(socket, code, reason).await;
}

/// Everything between the link and the VM's screen, in the order in which a refusal costs least.
async fn open(service: &Arc<Service>, knock: &Knock) -> Result<Opened, Refusal> {
    let query = RawQuery(&knock.query);
    let token = {
        let key = service.key().ok_or(Refusal::NoKey)?;
        let text = query.token().ok_or(Refusal::Token)?;
        key.open(&text).map_err(|_error| Refusal::Token)?
    };
    let (session, port) = check(service, &token, query, knock.client)?;
    let asked = take(service, session.clone())?;
    let question = AccessQuestion {
        host: token.host.clone(),
        port: token.port,
        vm: token.vm.clone(),
        sid: token.sid.clone(),
        ticket: token.ticket.clone(),
        session: session.clone(),
        client: knock.client,
    };
    match service.authority.may_open(question).await {
        Verdict::Admitted => {}
        Verdict::NotAsked => {
            asked.not_presented();
            return Err(Refusal::ServerUnreachable);
        }
        Verdict::Denied => return Err(Refusal::Denied),
        Verdict::Unanswered => return Err(Refusal::ServerSilent),
    }
    let registered = service.sessions.enter(NewSession {
        uuid: session,
        key: token.viewer_key(),
        vm: token.vm.clone(),
        display_name: token.display_name.clone(),
        client: knock.client,
        host: token.host.clone(),
        port: token.port,
    });
    asked.admitted();
    let screen = connect(service, &token, port, &registered).await?;
    // The name ends in a space where the original names the backend's encryption.
    let name = format!("{} ", token.display_name).into_bytes();
    let init = ServerInit { name, ..screen.init.clone() };
    Ok(Opened { registered, screen, init })
}

async fn connect(
    service: &Service,
    token: &ConsoleToken,
    port: u16,
    registered: &Registered,
) -> Result<Screen, Refusal> {
    let limits = (service.config.connect_timeout, service.config.handshake_timeout);
    let outcome = tokio::select! {
        outcome = screen::connect(&token.host, port, token.sid.reveal(), limits) => outcome,
        ended = registered.session.ended() => return Err(Refusal::Ended(ended)),
    };
    outcome.map_err(|error| {
        tracing::warn!(
            session = registered.session.uuid,
            host = token.host,
            port,
            error = %bedrock::chain(&error),
            "cannot open the screen"
        );
        Refusal::Screen(error)
    })
}

/// The checks that need nobody else. Gives the session's UUID and the port.
fn check(
    service: &Service,
    token: &ConsoleToken,
    query: RawQuery<'_>,
    client: IpAddr,
) -> Result<(String, u16), Refusal> {
    if token.way != Way::Direct {
        return Err(Refusal::Unsupported(token.way));
    }
    let port = u16::try_from(token.port).ok().filter(|port| *port > 0);
    let (Some(session), Some(port)) = (&token.session, port) else {
        return Err(Refusal::Incomplete);
    };
    if token.host.trim().is_empty() || session.len() > 64 {
        return Err(Refusal::Incomplete);
    }
    if service.source_check.load(Ordering::Relaxed) {
        let source = token.source.as_deref().unwrap_or_default();
        if !crate::network::is_address(source, client) {
            return Err(Refusal::SourceAddress);
        }
    }
    if let Some(extra) = &token.extra
        && !query.has_extra(extra.reveal())
    {
        return Err(Refusal::Extra);
    }
    Ok((session.clone(), port))
}

/// Takes the session for use, once.
///
/// A server with rows for its proxies announces each session before its link is used; one with a
/// static proxy never does, and a link that reconnects can lose an announcement. The server is
/// asked in any case, so a missing announcement is not a reason to refuse.
fn take(service: &Arc<Service>, session: String) -> Result<Asked, Refusal> {
    let announced = service.sessions.ledger.take(&session).ok_or(Refusal::Replay)?;
    tracing::debug!(session, announced, "asking the management server");
    Ok(Asked::new(&service.sessions, session))
}
