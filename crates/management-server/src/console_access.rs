//! Links to consoles in the server's form, and the decision when a proxy asks whether a browser may
//! look.

use std::net::IpAddr;
use std::sync::Arc;

use agent_protocol::agent::{AgentControlAnswer, AnswerBase, PlainAnswer};
use agent_protocol::console::{
    AllowConsoleAccessCommand, ConsoleAccessAuthenticationAnswer,
    ConsoleAccessAuthenticationCommand, ConsoleProxyLoadReportCommand,
};
use agent_protocol::{Answer as _, Envelope};
use bedrock::chain;

use crate::commands::base;
use crate::config::{ConsoleMode, HostKind, SystemVm};
use crate::console::{ConsoleError, ConsoleLink, Report};
use crate::core::Core;
use crate::events::EventKind;
use crate::link::Link;
use crate::random;
use crate::sync::lock;
use crate::token::{ClientParameters, TicketFacts};

/// Page of the links.
const PAGE: &str = "/resource/noVNC/vnc.html";

/// Makes a link to a VM's screen; in row mode the proxy's host is told of the session first.
pub(crate) async fn link(
    core: &Arc<Core>,
    vm: &str,
    client_address: IpAddr,
    extra: Option<&str>,
) -> Result<ConsoleLink, ConsoleError> {
    let (address, port, row) = proxy_address(core, vm)?;
    let (session, token, windows) = make_token(core, vm, client_address, extra)?;
    if let Some(row) = row {
        allow(core, row, &session).await;
    }
    let settings = &core.config.console;
    let root = if port == 80 { address.clone() } else { format!("{address}:{port}") };
    let mut url = format!(
        "http://{root}{PAGE}?autoconnect=true&show_dot={}&port={}&token={token}",
        settings.show_dot, settings.websocket_port
    );
    if let Some(extra) = extra {
        url.push_str("&extra=");
        url.push_str(extra);
    }
    if windows {
        url.push_str("&guest=windows");
    }
    core.journal.changed();
    Ok(ConsoleLink { url, session, token, host: address, port: settings.websocket_port })
}

/// Address and port of links, and the row whose host has to be told.
fn proxy_address<'a>(
    core: &'a Core,
    vm: &str,
) -> Result<(String, u16, Option<&'a SystemVm>), ConsoleError> {
    match &core.config.console.mode {
        ConsoleMode::Static { address, port } => Ok((address.clone(), *port, None)),
        ConsoleMode::Rows { published } => {
            let mut rows = core.config.system_vms.iter();
            let row = rows
                .find(|row| row.kind == HostKind::ConsoleProxy)
                .ok_or_else(|| ConsoleError::NoProxy(vm.to_owned()))?;
            let open = lock(&core.consoles).open(row.id);
            if open >= core.config.console.session_limit {
                return Err(ConsoleError::Busy);
            }
            let (address, port) =
                published.clone().unwrap_or_else(|| (row.public_address.clone(), 80));
            Ok((address, port, Some(row)))
        }
    }
}

fn make_token(
    core: &Core,
    vm: &str,
    client_address: IpAddr,
    extra: Option<&str>,
) -> Result<(String, String, bool), ConsoleError> {
    let mut consoles = lock(&core.consoles);
    let vm = consoles.vm(vm).cloned().ok_or_else(|| ConsoleError::UnknownVm(vm.to_owned()))?;
    if !vm.running {
        return Err(ConsoleError::NotRunning(vm.uuid));
    }
    let session = consoles.open_session(&vm.uuid);
    let facts = TicketFacts {
        host: &vm.host_address,
        port: &vm.port.to_string(),
        sid: vm.vnc_password.reveal(),
        tag: &vm.uuid,
        session: &session,
    };
    let ticket = consoles.ticket(facts, minute(core));
    let parameters = ClientParameters {
        client_host_address: vm.host_address.clone(),
        client_host_port: i64::from(vm.port),
        client_host_password: vm.vnc_password.reveal().to_owned(),
        client_tag: vm.uuid.clone(),
        client_display_name: vm.name.clone(),
        ticket,
        locale: vm.keyboard.clone(),
        session_requires_new_viewer: false,
        source_ip: client_address.to_string(),
        session_uuid: session.clone(),
        extra_security_token: extra.map(str::to_owned),
    };
    let token = consoles.key().encrypt(&parameters)?;
    Ok((session, token, vm.windows))
}

/// Announces a session to the proxy's host; a lost announcement does not hurt the link.
async fn allow(core: &Core, row: &SystemVm, session: &str) {
    let host = lock(&core.hosts)
        .attached(|host| host.kind == HostKind::ConsoleProxy && host.name == row.name);
    let Some((_, attachment)) = host else {
        tracing::warn!(proxy = row.name, "console session not announced, no agent is attached");
        return;
    };
    let command = AllowConsoleAccessCommand {
        session_uuid: Some(session.to_owned()),
        base: base(&random::log_id().unwrap_or_default()),
    };
    if let Err(error) = core.ask(&attachment, &command, core.answer_timeout(0)).await {
        tracing::warn!(proxy = row.name, error = chain(&error), "console session not announced");
    }
}

/// Whether a browser may look at a console.
pub(crate) fn authenticate(
    core: &Core,
    link: &Link,
    command: &ConsoleAccessAuthenticationCommand,
) -> Envelope {
    let decision = decide(core, command);
    let session = command.session_uuid.clone().unwrap_or_default();
    let (granted, reason) = match &decision {
        AccessDecision::Granted { .. } => (true, "granted"),
        AccessDecision::Denied(reason) => (false, *reason),
        AccessDecision::Failed(_) => (false, "the vm id is not a number"),
    };
    link.record(EventKind::Console { session, granted, reason });
    let again = command.is_reauthenticating;
    match decision {
        AccessDecision::Granted { host, port } => {
            Envelope::of(&ConsoleAccessAuthenticationAnswer {
                success: true,
                is_reauthenticating: again,
                host,
                port,
                ..ConsoleAccessAuthenticationAnswer::default()
            })
        }
        AccessDecision::Denied(_) => Envelope::of(&ConsoleAccessAuthenticationAnswer::default()),
        AccessDecision::Failed(details) => Envelope::of(&PlainAnswer::failed(details)),
    }
}

enum AccessDecision {
    /// Admitted; the current address only when asked again.
    Granted { host: Option<String>, port: i32 },
    /// Denied, by which check.
    Denied(&'static str),
    /// The original throws: a plain answer with its text.
    Failed(String),
}

/// The checks of a 4.22 server, in its order: a session is used up before its ticket is looked at.
fn decide(core: &Core, command: &ConsoleAccessAuthenticationCommand) -> AccessDecision {
    let Some(ticket) = &command.ticket else { return AccessDecision::Denied("no ticket") };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (host, port, tag) = (text(&command.host), text(&command.port), text(&command.vm_id));
    let sid = command.sid.as_ref().map_or("", |sid| sid.reveal());
    let session = text(&command.session_uuid);
    let mut consoles = lock(&core.consoles);
    if !command.is_reauthenticating {
        if !consoles.acquire(&session, command.client_address.clone()) {
            return AccessDecision::Denied("session unknown or used");
        }
        let facts = TicketFacts { host: &host, port: &port, sid, tag: &tag, session: &session };
        let now = minute(core);
        let fits = |minute| consoles.ticket(facts, minute) == *ticket.reveal();
        if !fits(now) && !fits(now.saturating_sub(1)) {
            return AccessDecision::Denied("ticket does not fit");
        }
    }
    if tag.is_empty() {
        return AccessDecision::Denied("no vm id");
    }
    let vm = match consoles.vm(&tag) {
        Some(vm) => vm,
        None => {
            let Ok(number) = tag.parse::<i64>() else {
                return AccessDecision::Failed(format!("For input string: \"{tag}\""));
            };
            match consoles.vm_by_number(number) {
                Some(vm) => vm,
                None => return AccessDecision::Denied("vm unknown"),
            }
        }
    };
    if !vm.running {
        return AccessDecision::Denied("vm has no host");
    }
    if vm.vnc_password.reveal() != sid {
        return AccessDecision::Denied("vnc password does not fit");
    }
    if command.is_reauthenticating {
        return AccessDecision::Granted {
            host: Some(vm.host_address.clone()),
            port: i32::from(vm.port),
        };
    }
    AccessDecision::Granted { host: None, port: 0 }
}

/// Takes a proxy's report; the static manager ignores it.
pub(crate) fn load_report(core: &Core, report: &ConsoleProxyLoadReportCommand) -> Envelope {
    if matches!(core.config.console.mode, ConsoleMode::Static { .. }) {
        return Envelope::of(&AgentControlAnswer::default());
    }
    let details = report.load_info.clone().unwrap_or_default();
    let parsed: Report = serde_json::from_str(&details).unwrap_or_else(|error| {
        tracing::warn!(%error, proxy = report.proxy_vm_id, "load report is not readable");
        Report::default()
    });
    let outcome = lock(&core.consoles).take_report(report.proxy_vm_id, parsed, details);
    core.journal.changed();
    match outcome {
        Ok(()) => Envelope::of(&AgentControlAnswer::default()),
        Err(reason) => Envelope::of(&PlainAnswer { base: AnswerBase::failed(reason) }),
    }
}

fn minute(core: &Core) -> i64 {
    core.config.clock.now().as_millisecond().div_euclid(60_000)
}
