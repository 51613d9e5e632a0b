//! The host table: one row per agent, found by guid, kept when the agent goes and taken over when
//! it comes back.

use std::sync::Arc;

use tokio::time::Instant;

use crate::attachment::Attachment;
use crate::config::HostKind;
use crate::hosts::{Host, HostState, StartupFacts};

/// One row.
#[derive(Debug)]
struct Row {
    host: Host,
    attachment: Option<Arc<Attachment>>,
    last_contact: Instant,
    /// A thread of the original still waits for an answer and holds the host's lock.
    locked_until: Option<Instant>,
}

/// All rows.
#[derive(Debug, Default)]
pub(crate) struct HostTable {
    rows: Vec<Row>,
    last_id: i64,
}

impl HostTable {
    /// Finds or makes the row of a start-up command and sets it to Connecting.
    pub(crate) fn admit(
        &mut self,
        facts: &StartupFacts,
        kind: HostKind,
        zone_id: i64,
        pod_id: Option<i64>,
        arch: String,
    ) -> Host {
        let known = self.position(facts);
        let (id, uuid, guid, connects) = match known.and_then(|index| self.rows.get(index)) {
            Some(Row { host, .. }) => {
                (host.id, host.uuid.clone(), host.guid.clone(), host.connects)
            }
            None => {
                self.last_id += 1;
                let uuid = uuid::Uuid::new_v4().to_string();
                (self.last_id, uuid, facts.guid.clone(), 0)
            }
        };
        let host = Host {
            id,
            uuid,
            guid,
            name: facts.name.clone(),
            kind,
            proxy_vm: facts.proxy_vm,
            zone_id,
            pod_id,
            state: HostState::Connecting,
            attached: known.is_some_and(|index| {
                self.rows.get(index).is_some_and(|row| row.attachment.is_some())
            }),
            private_address: facts.private_address.clone(),
            public_address: facts.public_address.clone(),
            version: facts.version.clone(),
            arch,
            connects: connects + 1,
        };
        let last_contact = Instant::now();
        match known.and_then(|index| self.rows.get_mut(index)) {
            Some(row) => {
                row.host = host.clone();
                row.last_contact = last_contact;
            }
            None => self.rows.push(Row {
                host: host.clone(),
                attachment: None,
                last_contact,
                locked_until: None,
            }),
        }
        host
    }

    /// Locks a host until then: start-up commands of its guid get no further.
    pub(crate) fn lock_until(&mut self, host_id: i64, until: Instant) {
        if let Some(row) = self.row_mut(host_id) {
            row.locked_until = Some(until);
        }
    }

    /// Unlocks every host.
    pub(crate) fn unlock_all(&mut self) {
        self.rows.iter_mut().for_each(|row| row.locked_until = None);
    }

    /// Until when the host of a start-up command is locked.
    pub(crate) fn locked_until(&self, facts: &StartupFacts) -> Option<Instant> {
        self.rows.get(self.position(facts)?)?.locked_until.filter(|until| *until > Instant::now())
    }

    /// By exact guid, else by the guid without the resource name as suffix.
    fn position(&self, facts: &StartupFacts) -> Option<usize> {
        let exact = self.rows.iter().position(|row| row.host.guid == facts.guid);
        exact.or_else(|| {
            let (bare, suffix) = facts.guid.rsplit_once('-')?;
            if Some(suffix) != facts.resource_name.as_deref() {
                return None;
            }
            self.rows.iter().position(|row| row.host.guid == bare)
        })
    }

    /// Binds a link to a row; the attachment it replaces is returned.
    pub(crate) fn attach(&mut self, attachment: Arc<Attachment>) -> Option<Arc<Attachment>> {
        let row = self.row_mut(attachment.host_id())?;
        row.host.attached = true;
        row.last_contact = Instant::now();
        row.attachment.replace(attachment)
    }

    /// Takes the attachment of a link that is gone and moves the row to `state`; `None` when
    /// another link holds the row by now.
    pub(crate) fn detach(
        &mut self,
        attachment: &Arc<Attachment>,
        state: impl FnOnce(HostState) -> HostState,
    ) -> Option<HostState> {
        let row = self.row_mut(attachment.host_id())?;
        if !row.attachment.as_ref().is_some_and(|held| Arc::ptr_eq(held, attachment)) {
            return None;
        }
        row.attachment = None;
        row.host.attached = false;
        row.host.state = state(row.host.state);
        Some(row.host.state)
    }

    /// Moves a connecting row to Up, if this link still holds it.
    pub(crate) fn ready(&mut self, attachment: &Arc<Attachment>) -> bool {
        let Some(row) = self.row_mut(attachment.host_id()) else { return false };
        let held = row.attachment.as_ref().is_some_and(|held| Arc::ptr_eq(held, attachment));
        if held && row.host.state == HostState::Connecting {
            row.host.state = HostState::Up;
        }
        held
    }

    /// Remembers a sign of life.
    pub(crate) fn touch(&mut self, host_id: i64) {
        if let Some(row) = self.row_mut(host_id) {
            row.last_contact = Instant::now();
        }
    }

    /// Attachments that were silent for longer than allowed.
    pub(crate) fn silent(&self, allowed: std::time::Duration) -> Vec<Arc<Attachment>> {
        let late = self.rows.iter().filter(|row| row.last_contact.elapsed() > allowed);
        late.filter_map(|row| row.attachment.clone()).collect()
    }

    pub(crate) fn get(&self, host_id: i64) -> Option<&Host> {
        self.rows.iter().find(|row| row.host.id == host_id).map(|row| &row.host)
    }

    pub(crate) fn find(&self, wanted: impl Fn(&Host) -> bool) -> Option<Host> {
        self.rows.iter().map(|row| &row.host).find(|host| wanted(host)).cloned()
    }

    /// The attachment of a host, by its guid.
    pub(crate) fn attachment(&self, guid: &str) -> Option<Arc<Attachment>> {
        self.rows.iter().find(|row| row.host.guid == guid)?.attachment.clone()
    }

    /// The first attached host, up or connecting, that `wanted` takes.
    pub(crate) fn attached(
        &self,
        wanted: impl Fn(&Host) -> bool,
    ) -> Option<(Host, Arc<Attachment>)> {
        self.rows.iter().find_map(|row| {
            let usable = matches!(row.host.state, HostState::Up | HostState::Connecting);
            let attachment = row.attachment.clone()?;
            (usable && wanted(&row.host)).then(|| (row.host.clone(), attachment))
        })
    }

    /// All attached hosts that `wanted` takes.
    pub(crate) fn all_attached(
        &self,
        wanted: impl Fn(&Host) -> bool,
    ) -> Vec<(Host, Arc<Attachment>)> {
        let wanted = self.rows.iter().filter(|row| wanted(&row.host));
        wanted.filter_map(|row| Some((row.host.clone(), row.attachment.clone()?))).collect()
    }

    pub(crate) fn snapshot(&self) -> Vec<Host> {
        self.rows.iter().map(|row| row.host.clone()).collect()
    }

    fn row_mut(&mut self, host_id: i64) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.host.id == host_id)
    }
}
