//! One console from the upgraded connection to its end.
//!
//! ```text
//! token → source address → extra text → single use     nothing of this reaches the server
//!   → the management server's decision (10 s)           no answer = no console
//!   → the table of sessions (replaces the VM's other console)
//!   → the VM's VNC server, RFB as a client; where it is not, the server is asked once more
//! viewer's RFB handshake in parallel, its answer waits for the decision
//!   → relay → goodbye; whatever ended it, the drop of `Registered` reports the end
//! ```
//!
//! A page that lost its connection comes back with a ticket instead of a fresh link (`control`): the
//! session waits for it in `parked`. The console of an ESXi host differs in that nothing is asked and
//! that browser and host shake hands themselves.

mod opening;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rfb::ServerInit;
use tracing::Instrument;
use websocket::Opcode;

use crate::access::AccessDecision;
use crate::bridge::{Terms, Vm, Window, relay};
use crate::browser::{Browser, Socket};
use crate::context::ConsoleContext;
use crate::control::ToPage;
use crate::parked::Held;
use crate::places::Place;
use crate::query::RawQuery;
use crate::refusal::{End, Refusal};
use crate::replay;
use crate::sessions::Registered;
use crate::token::ConsoleToken;
use crate::upstream::Upstream;
use crate::viewer::{Greeted, NotGreeted, Shown, greet};
use crate::vnc_server::VncServer;
use opening::open;
pub(crate) use opening::reach;

/// A viewer that asks for a console.
pub(crate) struct UpgradeRequest {
    /// The raw query of its URL.
    pub(crate) query: String,
    pub(crate) client: IpAddr,
    /// It understands the messages of [`crate::control`].
    pub(crate) has_control: bool,
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
pub(crate) async fn run(
    context: Arc<ConsoleContext>,
    upgrade: OnUpgrade,
    request: UpgradeRequest,
    place: Place,
) {
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
        let limit = context.now().message_limit;
        let socket = Browser::new(TokioIo::new(upgraded), limit, request.has_control);
        serve(&context, socket, request, place).await;
    }
    .instrument(span)
    .await;
}

async fn serve(
    context: &Arc<ConsoleContext>,
    mut socket: Socket,
    request: UpgradeRequest,
    place: Place,
) {
    let client = request.client;
    if let Some(admitted) = context.replays.admit(&request.query) {
        return replay::run(context, socket, admitted, place).await;
    }
    let token = match token(context, &request) {
        Ok(token) => token,
        Err(refusal) => {
            context.refused(&refusal, client, None);
            return turn_away(context, socket, refusal).await;
        }
    };
    let opening = Box::pin(async {
        let outcome = open(context, &token, &request).await;
        if let Err(refusal) = &outcome {
            // Now, not when the viewer has heard it: one that never listens is counted as well.
            context.refused(refusal, client, Some(&token));
        }
        outcome
    });
    if matches!(token.upstream, Some(Upstream::WebSocket { .. })) {
        let opened = tokio::select! {
            opened = opening => opened,
            () = context.stop.cancelled() => return socket.close(1001, "").await,
        };
        return match opened {
            Ok(opened) => {
                watch(context, socket, opened, Vec::new(), &token, place).await;
            }
            Err(refusal) => turn_away(context, socket, refusal).await,
        };
    }
    let greeted = tokio::select! {
        greeted = greet(&mut socket, opening, context.now().handshake_timeout) => greeted,
        () = context.stop.cancelled() => Err(NotGreeted::Ended(End::Shutdown)),
    };
    match greeted {
        Ok(Greeted { shown, ahead }) => watch(context, socket, shown, ahead, &token, place).await,
        Err(NotGreeted::Refused(refusal)) => {
            let (code, _) = End::Refused.close();
            socket.close(code, &refusal.to_string()).await;
        }
        Err(NotGreeted::Ended(end)) => {
            context.metrics.ended(end.label());
            tracing::debug!(reason = end.label(), "console ended before it opened");
            let (code, reason) = end.close();
            socket.close(code, reason).await;
        }
    }
}

/// Tells a viewer that waits for RFB why there is none.
async fn turn_away(context: &ConsoleContext, mut socket: Socket, refusal: Refusal) {
    let limit = context.now().handshake_timeout;
    let refused = async { Err::<Opened, _>(refusal) };
    let (code, reason) = match greet(&mut socket, refused, limit).await {
        Err(NotGreeted::Refused(refusal)) => (End::Refused.close().0, refusal.to_string()),
        Err(NotGreeted::Ended(end)) => (end.close().0, end.close().1.to_owned()),
        Ok(_) => (End::Refused.close().0, String::new()),
    };
    socket.close(code, &reason).await;
}

/// The open console.
async fn watch(
    context: &Arc<ConsoleContext>,
    mut socket: Socket,
    opened: Opened,
    ahead: Vec<u8>,
    token: &ConsoleToken,
    place: Place,
) {
    let Opened { registered, vnc_server, init } = opened;
    let session = Arc::clone(&registered.session);
    let opaque = matches!(session.upstream(), Upstream::WebSocket { .. });
    tracing::info!(
        session = session.uuid,
        vm = session.vm,
        name = session.display_name,
        vnc_server = %session.upstream(),
        encrypted = vnc_server.encrypted,
        "console opened"
    );
    context.audit.record("opened", &session, None);
    // A password that works once does not bring anybody back.
    let comes_back = !opaque && socket.has_control && !token.new_viewer;
    let window = context.window().filter(|_| comes_back);
    // Of an ESXi host it is not known where the handshake ends.
    let recorder = match opaque {
        true => None,
        false => context.recordings.begin(&session, &init, &context.tasks, &context.audit),
    };
    let greeting = ToPage::Opened {
        session: session.id,
        ticket: window.as_ref().map(|window| session.ticket(window)).unwrap_or_default(),
        window_ms: window.as_ref().map_or(0, Window::millis),
        encrypted: vnc_server.encrypted,
        view_only: session.view_only.load(Ordering::Relaxed),
        recorded: recorder.is_some(),
    };
    let terms = Terms {
        session: Arc::clone(&session),
        counters: context.metrics.bytes(),
        limits: context.now().bridge,
        window,
        recorder,
    };
    let told = match socket.has_control {
        true => socket.send(Opcode::Text, greeting.text().as_bytes()).await,
        false => Ok(()),
    };
    let vm = Vm { stream: vnc_server.stream, ahead: vnc_server.ahead, opaque };
    // The VM's side ends with the relay: the goodbye to the viewer may take a while.
    let mut end = match told {
        Ok(()) => relay(&mut socket, vm, &ahead, &terms).await,
        Err(end) => end,
    };
    if terms.window.is_some() && matches!(end, End::ScreenClosed | End::ScreenLost) {
        let moving = socket.send(Opcode::Text, ToPage::Moving.text().as_bytes()).await;
        if moving.is_ok() && follow(context, token, &session).await {
            end = End::Moved;
        }
    }
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
    context.audit.closed(&session, end.label());
    let held = Held { registered, _place: place };
    let is_missed = match end {
        End::Moved | End::Resumed => true,
        // A viewer that says 1000 does not want to come back.
        End::ViewerClosed => socket.incoming.goodbye_code() != Some(1000),
        End::ViewerLost | End::Idle => true,
        _ => false,
    };
    match terms.window {
        Some(window) if is_missed => context.park(held, window.length),
        _ => drop(held),
    }
    let (code, reason) = end.close();
    let farewell = session.farewell();
    socket.close(code, farewell.as_deref().unwrap_or(reason)).await;
}

/// Asks the server where the VM is now; whether the viewer may come back there.
async fn follow(
    context: &ConsoleContext,
    token: &ConsoleToken,
    session: &crate::sessions::Session,
) -> bool {
    if !session.may_move() {
        return false;
    }
    let question = opening::question(token, session.uuid.clone(), session.client, true);
    match context.authority.may_open(question, context.now().verdict_timeout).await {
        AccessDecision::Admitted(admission) => {
            let Some(location) = admission.location else { return false };
            tracing::info!(session = session.uuid, vnc_server = %location, "the screen is there now");
            session.set_upstream(location);
            true
        }
        _ => false,
    }
}

/// What the link carries.
fn token(context: &ConsoleContext, request: &UpgradeRequest) -> Result<ConsoleToken, Refusal> {
    let key = context.key().ok_or(Refusal::NoKey)?;
    let text = RawQuery(&request.query).token().ok_or(Refusal::Token)?;
    key.open(&text).map_err(|_error| Refusal::Token)
}
