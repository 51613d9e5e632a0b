//! What is known of consoles: VMs with a screen, single-use sessions, the load that proxies report.

use std::collections::{BTreeMap, VecDeque};

use bedrock::Secret;
use serde::Deserialize;

use crate::random::{self, RandomError};
use crate::token::{self, TicketFacts, TokenError, TokenKey};

/// Session records kept; the oldest closed ones go first.
const SESSION_RECORDS: usize = 10_000;
/// Bytes of a load report that fit into its column.
const REPORT_LIMIT: usize = 65_535;

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

    pub(crate) fn vm(&self, uuid: &str) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.uuid == uuid)
    }

    pub(crate) fn vm_by_number(&self, id: i64) -> Option<&Vm> {
        self.vms.iter().find(|vm| vm.id == id)
    }

    /// How many consoles a proxy reported as open.
    pub(crate) fn open(&self, proxy: i64) -> usize {
        self.loads.get(&proxy).map_or(0, |load| load.connections)
    }

    pub(crate) fn open_session(&mut self, vm: &str) -> String {
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
    pub(crate) fn acquire(&mut self, uuid: &str, client_address: Option<String>) -> bool {
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

    pub(crate) fn ticket(&self, facts: TicketFacts<'_>, minute: i64) -> String {
        token::ticket(self.hash_key.reveal(), facts, minute)
    }

    /// Takes what a proxy reports: sessions that ended, then its load.
    pub(crate) fn take_report(
        &mut self,
        proxy: i64,
        parsed: Report,
        details: String,
    ) -> Result<(), String> {
        self.close(parsed.removed_sessions.as_deref().unwrap_or_default())?;
        if details.len() > REPORT_LIMIT {
            return Err("Data too long for column 'session_details'".to_owned());
        }
        let load = self.loads.entry(proxy).or_default();
        load.connections = parsed.connections.len();
        load.details = details;
        load.reports += 1;
        Ok(())
    }
}

/// What a report says, as far as a server reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Report {
    connections: Vec<serde_json::Value>,
    removed_sessions: Option<Vec<Option<String>>>,
}
