//! What all tasks of one server share, and how scripted faults strike a link.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_protocol::frame::{Flags, Frame, FrameHeader, Sequence};
use agent_protocol::{Command, Envelope};

use crate::attachment::{Attachment, SendError, refusal_header};
use crate::ca::CertificateAuthority;
use crate::config::{HostKind, ServerConfig, SystemVm};
use crate::console::Consoles;
use crate::events::{EventKind, Journal};
use crate::host_table::HostTable;
use crate::hosts::{Host, HostState};
use crate::images::Images;
use crate::link::Link;
use crate::malformed;
use crate::script::{Action, Point, Script};
use crate::sync::lock;
use crate::tasks::Tasks;

/// One server's state.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: ServerConfig,
    pub(crate) authority: CertificateAuthority,
    pub(crate) tasks: Tasks,
    pub(crate) journal: Arc<Journal>,
    pub(crate) script: Script,
    pub(crate) hosts: Mutex<HostTable>,
    pub(crate) consoles: Mutex<Consoles>,
    pub(crate) images: Mutex<Images>,
    /// Hosts are not locked any more.
    pub(crate) unlocked: tokio::sync::Notify,
}

/// What is left to do after the faults of a point struck.
#[derive(Debug, Default)]
pub(crate) struct Struck {
    /// Do not send what was to be sent.
    pub(crate) swallow: bool,
    /// Answer with a foreign sequence.
    pub(crate) wrong_sequence: bool,
    /// Ask for a new start-up command.
    pub(crate) ask_for_startup: bool,
    /// Refuse with this text.
    pub(crate) refuse: Option<String>,
}

impl Struck {
    /// The header of a request as its answer shall see it.
    pub(crate) fn header(&self, request: &FrameHeader) -> FrameHeader {
        if self.wrong_sequence {
            let sequence = Sequence(request.sequence.0.wrapping_add(1_000_000));
            return FrameHeader { sequence, ..*request };
        }
        *request
    }
}

impl Core {
    /// Lets the faults of a point strike a link.
    pub(crate) async fn strike(&self, link: &Arc<Link>, point: Point) -> Struck {
        let mut struck = Struck::default();
        for action in self.script.take(link.guid(), &point) {
            link.record(EventKind::Fault { point: point.clone(), action: action.clone() });
            self.apply(link, action, &mut struck).await;
        }
        struck
    }

    /// Applies one fault to a link.
    pub(crate) async fn apply(&self, link: &Arc<Link>, action: Action, struck: &mut Struck) {
        match action {
            Action::Close => link.close("closed by script"),
            Action::Reset => link.reset(),
            Action::Delay(time) => pause(link, tokio::time::sleep(time)).await,
            Action::Hold(gate) => pause(link, gate.opened()).await,
            Action::Refuse(text) => struck.refuse = Some(text),
            Action::Swallow => struck.swallow = true,
            Action::Silence => link.silence(),
            Action::Stall => link.stall(),
            Action::Flood { messages, bytes } => self.flood(link, messages, bytes).await,
            Action::Malformed(kind) => {
                for outgoing in malformed::bytes(kind, self.config.management_id) {
                    link.put(outgoing).await;
                }
            }
            Action::WrongSequence => struck.wrong_sequence = true,
            Action::AskForStartup => struck.ask_for_startup = true,
        }
    }

    async fn flood(&self, link: &Arc<Link>, messages: usize, bytes: usize) {
        let host = link.host_id();
        let envelope = malformed::ballast(bytes);
        for number in 0..messages {
            let header = FrameHeader {
                flags: Flags::REQUEST | Flags::STOP_ON_ERROR | Flags::FROM_SERVER,
                // Below all numbers that an attachment gives out: answers find nobody.
                sequence: Sequence(i64::try_from(number).unwrap_or(i64::MAX)),
                length: 0,
                management_id: self.config.management_id,
                agent_id: host,
                via: host,
            };
            link.send(Frame::new(header, std::slice::from_ref(&envelope))).await;
        }
    }

    /// Tells an agent that it is refused; the link stays open.
    pub(crate) async fn refuse(&self, link: &Arc<Link>, details: &str) {
        link.record(EventKind::Refused { details: details.to_owned() });
        let ready = crate::commands::refusal(details);
        link.send(Frame::new(refusal_header(), &[Envelope::of(&ready)])).await;
    }

    /// Sends a typed command over an attachment, with the faults of its class around it.
    pub(crate) async fn ask<C: Command>(
        &self,
        attachment: &Attachment,
        command: &C,
        timeout: Duration,
    ) -> Result<Envelope, SendError> {
        self.ask_raw(attachment, Envelope::of(command), C::IN_SEQUENCE, timeout).await
    }

    /// As [`Core::ask`], for any envelope.
    pub(crate) async fn ask_raw(
        &self,
        attachment: &Attachment,
        command: Envelope,
        in_sequence: bool,
        timeout: Duration,
    ) -> Result<Envelope, SendError> {
        let class = command.class.clone();
        let link = attachment.link();
        let struck = self.strike(link, Point::Command(class.clone())).await;
        if struck.swallow {
            tokio::time::timeout(timeout, link.closed().cancelled()).await.ok();
            return Err(SendError::Timeout { class, waited: timeout });
        }
        let answer = attachment.request(command, in_sequence, timeout).await?;
        self.strike(link, Point::Answered(class)).await;
        Ok(answer)
    }

    /// How long a command with this `wait` may take: twice its time, or twice the global one.
    pub(crate) fn answer_timeout(&self, wait: i64) -> Duration {
        let wait = u64::try_from(wait).unwrap_or(0);
        let wait = if wait == 0 { self.config.answer_wait } else { Duration::from_secs(wait) };
        wait.saturating_mul(2)
    }

    /// The attachment of a host by guid.
    pub(crate) fn attachment(&self, guid: &str) -> Result<Arc<Attachment>, SendError> {
        lock(&self.hosts).attachment(guid).ok_or_else(|| SendError::Detached(guid.to_owned()))
    }

    /// Ends an attachment: wakes its callers and records what it leaves unanswered. True when the
    /// original would keep the host locked for it.
    pub(crate) fn let_go(&self, attachment: &Attachment) -> bool {
        let commands = attachment.close();
        if commands.is_empty() {
            return false;
        }
        let mut hosts = lock(&self.hosts);
        let connecting =
            hosts.get(attachment.host_id()).map(|host| host.state) == Some(HostState::Connecting);
        let locked = connecting && self.config.lock_unanswered_hosts;
        if locked {
            let until = tokio::time::Instant::now() + self.answer_timeout(0);
            hosts.lock_until(attachment.host_id(), until);
        }
        drop(hosts);
        attachment.link().record(EventKind::Unanswered { commands });
        locked
    }

    /// The system VM's row that a host belongs to.
    pub(crate) fn row(&self, host: &Host) -> Option<&SystemVm> {
        self.config.system_vms.iter().find(|row| {
            row.kind == host.kind
                && row.name == host.name
                && (host.kind == HostKind::SecondaryStorage || host.proxy_vm == Some(row.id))
        })
    }

    /// An attached secondary storage host, the one with the lowest number.
    pub(crate) fn storage_host(&self) -> Result<(Host, Arc<Attachment>), SendError> {
        lock(&self.hosts)
            .attached(|host| host.kind == HostKind::SecondaryStorage)
            .ok_or_else(|| SendError::Detached("of secondary storage".to_owned()))
    }
}

/// Waits unless the link ends.
async fn pause(link: &Link, wait: impl Future<Output = ()>) {
    link.closed().run_until_cancelled(wait).await;
}
