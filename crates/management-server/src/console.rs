//! Consoles: records of VMs, links to their screens in the server's form, single-use sessions, and
//! the verdict when a proxy asks whether a browser may look.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use agent_protocol::agent::{AgentControlAnswer, AnswerBase, PlainAnswer};
use agent_protocol::console::{
    AllowConsoleAccessCommand, ConsoleAccessAuthenticationAnswer,
    ConsoleAccessAuthenticationCommand, ConsoleProxyLoadReportCommand,
};
use agent_protocol::{Answer as _, Envelope};
use serde::Deserialize;

use crate::commands::base;
use crate::config::{ConsoleMode, HostKind, SystemVm};
use crate::core::Core;
use crate::events::EventKind;
use crate::link::Link;
use crate::random::{self, RandomError};
use crate::sync::lock;
use crate::token::{self, ClientParameters, TicketFacts, TokenError, TokenKey};
use bedrock::{Secret, chain};

/// Session records kept; the oldest closed ones go first.
const SESSION_RECORDS: usize = 10_000;
/// Bytes of a load report that fit into its column.
const REPORT_LIMIT: usize = 65_535;
/// Page of the links.
const PAGE: &str = "/resource/noVNC/vnc.html";

/// A VM whose screen can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    /// Number of the VM.
    pub id: i64,
    /// UUID, which the token carries.
    pub uuid: String,
    /// Name shown in the viewer.
    pub name: String,
    /// Address of its host's VNC server.
    pub host_address: String,
    /// Port of its host's VNC server.
    pub port: u16,
    /// VNC password.
    pub vnc_password: Secret<String>,
    /// Keyboard, if not the browser's.
    pub keyboard: Option<String>,
    /// Whether the guest is a Windows, which the page wants to know.
    pub windows: bool,
    /// A VM that does not run has no host: its links are refused.
    pub running: bool,
}

/// A console session: made with a link, used once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleSession {
    /// UUID of the session.
    pub uuid: String,
    /// UUID of the VM.
    pub vm: String,
    /// Whether a proxy already asked for it, granted or not.
    pub acquired: bool,
    /// The browser's address that the proxy named.
    pub client_address: Option<String>,
    /// Whether a proxy reported its end.
    pub removed: bool,
}

/// A link to a console, in parts as the API gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleLink {
    /// The whole link for a browser.
    pub url: String,
    /// UUID of the session.
    pub session: String,
    /// The token alone.
    pub token: String,
    /// Host of the WebSocket.
    pub host: String,
    /// Port of the WebSocket.
    pub port: u16,
}

/// What a proxy reported last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProxyLoad {
    /// Open consoles.
    pub connections: usize,
    /// The report's text.
    pub details: String,
    /// Reports taken so far.
    pub reports: u64,
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// No VM has this UUID.
    #[error("no vm {0}")]
    UnknownVm(String),
    /// The VM is stopped.
    #[error("vm {0} is not running")]
    NotRunning(String),
    /// No row of a console proxy is known.
    #[error("no console proxy is known for vm {0}")]
    NoProxy(String),
    /// The proxy has as many consoles open as it may.
    #[error("console access will be ready in a few minutes, please try it again later")]
    Busy,
    /// The token could not be made.
    #[error("make a console token")]
    Token(#[from] TokenError),
}

/// Everything about consoles.
#[derive(Debug)]
pub(crate) struct Consoles {
    vms: Vec<Vm>,
    sessions: VecDeque<ConsoleSession>,
    loads: BTreeMap<i64, ProxyLoad>,
    key: TokenKey,
    hash_key: Secret<String>,
}

impl Consoles {
    pub(crate) fn new(key: Option<TokenKey>) -> Result<Self, RandomError> {
        let key = match key {
            Some(key) => key,
            None => TokenKey::generate()?,
        };
        Ok(Self {
            vms: Vec::new(),
            sessions: VecDeque::new(),
            loads: BTreeMap::new(),
            key,
            hash_key: Secret::new(random::password(22)?),
        })
    }

    pub(crate) fn key(&self) -> &TokenKey {
        &self.key
    }

    /// Adds a VM, or replaces the one with its UUID.
    pub(crate) fn put(&mut self, vm: Vm) {
        self.vms.retain(|known| known.uuid != vm.uuid);
        self.vms.push(vm);
    }

    pub(crate) fn remove(&mut self, uuid: &str) -> bool {
        let before = self.vms.len();
        self.vms.retain(|known| known.uuid != uuid);
        self.vms.len() < before
    }

    pub(crate) fn vms(&self) -> Vec<Vm> {
        self.vms.clone()
    }

    pub(crate) fn sessions(&self) -> Vec<ConsoleSession> {
        self.sessions.iter().cloned().collect()
    }

    pub(crate) fn loads(&self) -> BTreeMap<i64, ProxyLoad> {
        self.loads.clone()
    }

    fn vm(&self, uuid: &str) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.uuid == uuid)
    }

    fn open_session(&mut self, vm: &str) -> String {
        if self.sessions.len() >= SESSION_RECORDS {
            let closed = self.sessions.iter().position(|session| session.removed).unwrap_or(0);
            self.sessions.remove(closed);
        }
        let uuid = uuid::Uuid::new_v4().to_string();
        self.sessions.push_back(ConsoleSession {
            uuid: uuid.clone(),
            vm: vm.to_owned(),
            acquired: false,
            client_address: None,
            removed: false,
        });
        uuid
    }

    /// Marks a session as used; false when it is unknown, used or removed.
    fn acquire(&mut self, uuid: &str, client_address: Option<String>) -> bool {
        let session = self.sessions.iter_mut().find(|session| session.uuid == uuid);
        match session {
            Some(session) if !session.acquired && !session.removed => {
                session.acquired = true;
                session.client_address = client_address;
                true
            }
            _ => false,
        }
    }

    /// Closes reported sessions in order; stops at the first that is not open and names it.
    fn close(&mut self, reported: &[Option<String>]) -> Result<(), String> {
        for uuid in reported {
            let named = uuid.as_deref().unwrap_or("null");
            let session = self.sessions.iter_mut().find(|session| session.uuid == named);
            match session {
                Some(session) if !session.removed => session.removed = true,
                _ => return Err(format!("console session {named} is not open")),
            }
        }
        Ok(())
    }

    fn ticket(&self, facts: TicketFacts<'_>, minute: i64) -> String {
        token::ticket(self.hash_key.reveal(), facts, minute)
    }
}

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
            let open = lock(&core.consoles).loads.get(&row.id).map_or(0, |load| load.connections);
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
    let token = consoles.key.encrypt(&parameters)?;
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
    if let Err(error) = core.ask(&attachment, &command, core.patience(0)).await {
        tracing::warn!(proxy = row.name, error = chain(&error), "console session not announced");
    }
}

/// The verdict on a console.
pub(crate) fn authenticate(
    core: &Core,
    link: &Link,
    command: &ConsoleAccessAuthenticationCommand,
) -> Envelope {
    let verdict = judge(core, command);
    let session = command.session_uuid.clone().unwrap_or_default();
    let (granted, reason) = match &verdict {
        Verdict::Granted { .. } => (true, "granted"),
        Verdict::Denied(reason) => (false, *reason),
        Verdict::Failed(_) => (false, "the vm id is no number"),
    };
    link.record(EventKind::Console { session, granted, reason });
    let again = command.is_reauthenticating;
    match verdict {
        Verdict::Granted { host, port } => Envelope::of(&ConsoleAccessAuthenticationAnswer {
            success: true,
            is_reauthenticating: again,
            host,
            port,
            ..ConsoleAccessAuthenticationAnswer::default()
        }),
        Verdict::Denied(_) => Envelope::of(&ConsoleAccessAuthenticationAnswer::default()),
        Verdict::Failed(details) => Envelope::of(&PlainAnswer::failed(details)),
    }
}

enum Verdict {
    /// Admitted; the current address only when asked again.
    Granted { host: Option<String>, port: i32 },
    /// Denied, by which check.
    Denied(&'static str),
    /// The original throws: a plain answer with its text.
    Failed(String),
}

/// The checks of a 4.22 server, in its order: a session is used up before its ticket is looked at.
fn judge(core: &Core, command: &ConsoleAccessAuthenticationCommand) -> Verdict {
    let Some(ticket) = &command.ticket else { return Verdict::Denied("no ticket") };
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (host, port, tag) = (text(&command.host), text(&command.port), text(&command.vm_id));
    let sid = command.sid.as_ref().map_or("", |sid| sid.reveal());
    let session = text(&command.session_uuid);
    let mut consoles = lock(&core.consoles);
    if !command.is_reauthenticating {
        if !consoles.acquire(&session, command.client_address.clone()) {
            return Verdict::Denied("session unknown or used");
        }
        let facts = TicketFacts { host: &host, port: &port, sid, tag: &tag, session: &session };
        let now = minute(core);
        let fits = |minute| consoles.ticket(facts, minute) == *ticket.reveal();
        if !fits(now) && !fits(now.saturating_sub(1)) {
            return Verdict::Denied("ticket does not fit");
        }
    }
    if tag.is_empty() {
        return Verdict::Denied("no vm id");
    }
    let vm = match consoles.vm(&tag) {
        Some(vm) => vm,
        None => {
            let Ok(number) = tag.parse::<i64>() else {
                return Verdict::Failed(format!("For input string: \"{tag}\""));
            };
            match consoles.vms.iter().find(|vm| vm.id == number) {
                Some(vm) => vm,
                None => return Verdict::Denied("vm unknown"),
            }
        }
    };
    if !vm.running {
        return Verdict::Denied("vm has no host");
    }
    if vm.vnc_password.reveal() != sid {
        return Verdict::Denied("vnc password does not fit");
    }
    if command.is_reauthenticating {
        return Verdict::Granted { host: Some(vm.host_address.clone()), port: i32::from(vm.port) };
    }
    Verdict::Granted { host: None, port: 0 }
}

/// What a report says, as far as a server reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Report {
    connections: Vec<serde_json::Value>,
    removed_sessions: Option<Vec<Option<String>>>,
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
    let outcome = take_report(&mut lock(&core.consoles), report.proxy_vm_id, parsed, details);
    core.journal.changed();
    match outcome {
        Ok(()) => Envelope::of(&AgentControlAnswer::default()),
        Err(reason) => Envelope::of(&PlainAnswer { base: AnswerBase::failed(reason) }),
    }
}

fn take_report(
    consoles: &mut Consoles,
    proxy: i64,
    parsed: Report,
    details: String,
) -> Result<(), String> {
    consoles.close(parsed.removed_sessions.as_deref().unwrap_or_default())?;
    if details.len() > REPORT_LIMIT {
        return Err("Data too long for column 'session_details'".to_owned());
    }
    let load = consoles.loads.entry(proxy).or_default();
    load.connections = parsed.connections.len();
    load.details = details;
    load.reports += 1;
    Ok(())
}

fn minute(core: &Core) -> i64 {
    core.config.clock.now().as_millisecond().div_euclid(60_000)
}
