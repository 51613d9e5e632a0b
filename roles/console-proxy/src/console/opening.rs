//! Everything between a link and the VM's VNC server, in the order in which a refusal costs least.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bedrock::Secret;
use bedrock::net::HostPort;
use rfb::{PixelFormat, ServerInit};

use super::{Opened, UpgradeRequest};
use crate::access::{AccessDecision, AccessQuestion};
use crate::context::ConsoleContext;
use crate::dialler::{self, Dialling};
use crate::query::RawQuery;
use crate::refusal::{Refusal, VncServerError};
use crate::sessions::{Asked, NewSession, Registered};
use crate::token::ConsoleToken;
use crate::upstream::{Ticket, Upstream};
use crate::vnc_server::{self, VncServer};

/// How often a VM that moves is looked for, and how long in between.
const SEARCHES: usize = 8;
const BETWEEN: Duration = Duration::from_millis(1500);

/// The question about a console, in the token's own words.
pub(super) fn question(
    token: &ConsoleToken,
    session: String,
    client: IpAddr,
    again: bool,
) -> AccessQuestion {
    AccessQuestion {
        host: token.host.clone(),
        port: token.port,
        vm: token.vm.clone(),
        sid: token.sid.clone(),
        ticket: token.ticket.clone(),
        session,
        client,
        again,
    }
}

pub(super) async fn open(
    context: &Arc<ConsoleContext>,
    token: &ConsoleToken,
    request: &UpgradeRequest,
) -> Result<Opened, Refusal> {
    let (session, upstream) = check(context, token, request)?;
    let ticket = RawQuery(&request.query).raw("resume").filter(|ticket| !ticket.is_empty());
    let (registered, searches) = match ticket {
        Some(ticket) => (resume(context, token, request, session, ticket).await?, SEARCHES),
        None => (admit(context, token, request, session, upstream).await?, 2),
    };
    let connected = tokio::select! {
        outcome = connect(context, token, &registered, searches) => outcome,
        ended = registered.session.ended() => return Err(Refusal::Ended(ended)),
    };
    let vnc_server = connected.map_err(Refusal::VncServer)?;
    registered.session.encrypted.store(vnc_server.encrypted, Ordering::Relaxed);
    // Named as the original does: its viewers tell by the end whether the host's side is encrypted.
    let end = if vnc_server.encrypted { "(TLS backend)" } else { "" };
    let name = format!("{} {end}", token.display_name).into_bytes();
    let init = ServerInit { name, ..vnc_server.init.clone() };
    Ok(Opened { registered, vnc_server, init })
}

/// A fresh link: used up, decided by the server, entered.
async fn admit(
    context: &Arc<ConsoleContext>,
    token: &ConsoleToken,
    request: &UpgradeRequest,
    session: String,
    upstream: Upstream,
) -> Result<Registered, Refusal> {
    let limits = context.now();
    if token.new_viewer && context.sessions.of_vm(&token.vm) >= limits.sessions_per_vm {
        return Err(Refusal::TooMany);
    }
    let asked = take(context, session.clone())?;
    context.sessions.ledger.journal.written().await;
    let location = match &upstream {
        // The server changed the port after it made the ticket: asked, it would always deny.
        Upstream::WebSocket { .. } => None,
        _ => {
            let question = question(token, session.clone(), request.client, false);
            match context.authority.may_open(question, limits.verdict_timeout).await {
                AccessDecision::Admitted(admission) => admission.location,
                AccessDecision::NotAsked => {
                    asked.not_presented();
                    return Err(Refusal::ServerUnreachable);
                }
                AccessDecision::Denied => return Err(Refusal::Denied),
                AccessDecision::Unanswered => return Err(Refusal::ServerSilent),
            }
        }
    };
    // Where the management server says it is now, else where the link says it was.
    let upstream = location.unwrap_or(upstream);
    let registered = context.sessions.enter(entry(token, request, session, upstream, true));
    asked.admitted();
    Ok(registered)
}

fn entry(
    token: &ConsoleToken,
    request: &UpgradeRequest,
    session: String,
    upstream: Upstream,
    owed: bool,
) -> NewSession {
    NewSession {
        uuid: session,
        key: token.viewer_key(),
        vm: token.vm.clone(),
        display_name: token.display_name.clone(),
        client: request.client,
        host: token.host.clone(),
        port: token.port,
        upstream,
        sid: token.sid.clone(),
        owed,
    }
}

/// A page that comes back: to its own session where that still waits, else by the server's leave.
async fn resume(
    context: &Arc<ConsoleContext>,
    token: &ConsoleToken,
    request: &UpgradeRequest,
    session: String,
    ticket: &str,
) -> Result<Registered, Refusal> {
    let window = context.window().ok_or(Refusal::NotResumed)?;
    let now = context.sessions.now_ms();
    if !window.tickets.is_good(ticket, &session, now) {
        return Err(Refusal::NotResumed);
    }
    if context.sessions.ledger.is_revoked(&session) {
        return Err(Refusal::Revoked);
    }
    if let Some(registered) = context.unpark(&session).await {
        return Ok(registered);
    }
    let question = question(token, session.clone(), request.client, true);
    match context.authority.may_open(question, context.now().verdict_timeout).await {
        AccessDecision::Admitted(admission) => {
            let known = token.upstream.clone().ok_or(Refusal::Incomplete)?;
            let upstream = admission.location.unwrap_or(known);
            // Its end was told, or will be by the proxy that it comes from: once is enough.
            Ok(context.sessions.enter(entry(token, request, session, upstream, false)))
        }
        AccessDecision::Denied => Err(Refusal::Denied),
        AccessDecision::NotAsked => Err(Refusal::ServerUnreachable),
        AccessDecision::Unanswered => Err(Refusal::ServerSilent),
    }
}

/// Connects to the VM's screen; where it is not, the server is asked where it is now.
async fn connect(
    context: &ConsoleContext,
    token: &ConsoleToken,
    registered: &Registered,
    searches: usize,
) -> Result<VncServer, VncServerError> {
    let session = &registered.session;
    let mut search = 1;
    loop {
        let upstream = session.upstream();
        let error = match reach(context, &token.sid, &upstream).await {
            Ok(vnc_server) => return Ok(vnc_server),
            Err(error) => error,
        };
        if search >= searches || !error.may_be_elsewhere() || upstream.is_ticket() {
            return Err(error);
        }
        tracing::debug!(error = %bedrock::chain(&error), search, "the screen is not where it was");
        let question = question(token, session.uuid.clone(), session.client, true);
        let asked = context.authority.may_open(question, context.now().verdict_timeout).await;
        let AccessDecision::Admitted(admission) = asked else { return Err(error) };
        let location = admission.location.unwrap_or_else(|| upstream.clone());
        if location == upstream {
            if searches < SEARCHES {
                return Err(error);
            }
            // It is on its way, or starts again.
            tokio::time::sleep(BETWEEN).await;
        }
        session.set_upstream(location);
        search += 1;
    }
}

/// Connects to the VM's screen where it is said to be.
pub(crate) async fn reach(
    context: &ConsoleContext,
    sid: &Secret<String>,
    upstream: &Upstream,
) -> Result<VncServer, VncServerError> {
    let limits = context.now();
    let dialling = Dialling {
        connect_timeout: limits.connect_timeout,
        policy: limits.host_tls,
        credentials: Arc::clone(&context.credentials),
        metrics: Arc::clone(&context.metrics),
    };
    let connection = dialler::dial(upstream, &dialling).await?;
    if upstream.is_ticket() {
        let (stream, encrypted) = (connection.stream, connection.encrypted);
        let init =
            ServerInit { width: 0, height: 0, format: PixelFormat::RGB888, name: Vec::new() };
        return Ok(VncServer { stream, init, ahead: Vec::new(), encrypted });
    }
    let (sid, limit) = (sid.reveal(), limits.handshake_timeout);
    match vnc_server::enter(connection, sid, limit).await {
        Err(VncServerError::OnlyClear) => {
            // What it encrypts with shows no certificate; it offers the same in clear.
            let clear = Dialling { policy: crate::config::HostTlsPolicy::Off, ..dialling };
            vnc_server::enter(dialler::dial(upstream, &clear).await?, sid, limit).await
        }
        outcome => outcome,
    }
}

/// The checks that need nobody else. Gives the session's UUID and where to dial.
fn check(
    context: &ConsoleContext,
    token: &ConsoleToken,
    request: &UpgradeRequest,
) -> Result<(String, Upstream), Refusal> {
    if let Some(Upstream::HyperV { host }) = &token.upstream {
        let port = u16::try_from(token.port).ok().filter(|port| *port > 0);
        return Err(Refusal::HyperV(HostPort { host: host.clone(), port }.to_string()));
    }
    let (Some(session), Some(upstream)) = (&token.session, &token.upstream) else {
        return Err(Refusal::Incomplete);
    };
    let is_ticket = |url: &str| Ticket::parse(url).is_some();
    if session.len() > 64
        || matches!(upstream, Upstream::WebSocket { url } if !is_ticket(url.reveal()))
    {
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
