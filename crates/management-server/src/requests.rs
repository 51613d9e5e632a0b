//! Messages from agents: answers go to whoever waits for them, requests are answered here, and
//! whatever the original drops is dropped.

use std::sync::Arc;

use agent_protocol::agent::{AnswerBase, PlainAnswer, ShutdownCommand, StartupCommand};
use agent_protocol::frame::{DEFAULT_MAX_INFLATED, Flags, Frame, FrameHeader};
use agent_protocol::{AgentRequest, Answer as _, Envelope};

use crate::attachment::Attachment;
use crate::commands::{self, Ping};
use crate::config::HostKind;
use crate::connection::Connection;
use crate::console_access;
use crate::core::Core;
use crate::events::{EventKind, Message};
use crate::hosts::{HostState, StartupFacts};
use crate::link::Link;
use crate::registration;
use crate::script::Point;
use crate::sync::lock;
use bedrock::chain;

/// Handles one whole message.
pub(crate) async fn handle(core: &Arc<Core>, connection: &Arc<Connection>, bytes: &[u8]) {
    let link = connection.link();
    let frame = match Frame::decode(bytes, DEFAULT_MAX_INFLATED) {
        Ok(frame) => frame,
        Err(error) => return link.drop_message(chain(&error)),
    };
    let envelopes = match frame.envelopes() {
        Ok(envelopes) => envelopes,
        Err(error) => return link.drop_message(chain(&error)),
    };
    let message = Message { header: frame.header, envelopes: envelopes.clone().into() };
    link.record(EventKind::Received(message));
    if frame.header.flags.contains(Flags::REQUEST) {
        request(core, connection, &frame.header, envelopes).await;
    } else {
        answer(core, connection, &frame.header, envelopes).await;
    }
}

/// An answer must carry the header it was asked with; the original looks at each of these fields
/// and drops what does not fit.
async fn answer(
    core: &Core,
    connection: &Connection,
    header: &FrameHeader,
    answers: Vec<Envelope>,
) {
    let link = connection.link();
    if header.flags.contains(Flags::FROM_SERVER) {
        return link.drop_message("answer with the from-server flag");
    }
    if header.management_id != core.config.management_id {
        return link.drop_message(format!("answer to server {}", header.management_id));
    }
    let Some(attachment) = connection.attachment() else {
        return link.drop_message("answer on a link without a host");
    };
    if header.agent_id != attachment.host_id() {
        return link.drop_message(format!("answer of host {}", header.agent_id));
    }
    if !attachment.answered(header, answers).await {
        link.drop_message(format!("answer to sequence {} that nobody waits for", header.sequence));
    }
}

async fn request(
    core: &Arc<Core>,
    connection: &Arc<Connection>,
    header: &FrameHeader,
    envelopes: Vec<Envelope>,
) {
    let link = connection.link();
    let attachment = connection.attachment();
    let mut answers = Vec::with_capacity(envelopes.len());
    let mut struck = crate::core::Struck::default();
    for envelope in envelopes {
        // A class or a field that the server does not know makes a bad command, which succeeds.
        let request = AgentRequest::decode(envelope.clone())
            .unwrap_or_else(|_| AgentRequest::Unknown(envelope));
        if let Some(facts) = startup_facts(&request) {
            return registration::startup(core, connection, header, facts).await;
        }
        let Some(attachment) = &attachment else {
            return link.drop_message("request before the start-up command");
        };
        let point = match request {
            AgentRequest::Ping(_) | AgentRequest::PingStorage(_) => Point::Ping,
            _ => Point::Control,
        };
        struck = core.strike(link, point).await;
        if let Some(answer) = respond(core, link, attachment, request, &struck) {
            answers.push(answer);
        }
    }
    let Some(attachment) = attachment else { return };
    if !struck.swallow && !answers.is_empty() {
        link.respond(&struck.header(header), attachment.host_id(), &answers).await;
    }
}

/// The answer to one request; `None` for those that get none.
fn respond(
    core: &Core,
    link: &Link,
    attachment: &Arc<Attachment>,
    request: AgentRequest,
    struck: &crate::core::Struck,
) -> Option<Envelope> {
    match request {
        AgentRequest::Ping(ping) => {
            Some(pinged(core, attachment, Ping::Plain(*ping), struck.ask_for_startup))
        }
        AgentRequest::PingStorage(ping) => {
            Some(pinged(core, attachment, Ping::Storage(*ping), struck.ask_for_startup))
        }
        AgentRequest::Shutdown(command) => goodbye(core, link, attachment, *command),
        AgentRequest::ConsoleAccessAuthentication(command) => {
            Some(console_access::authenticate(core, link, &command))
        }
        AgentRequest::ConsoleProxyLoadReport(report) => {
            Some(console_access::load_report(core, &report))
        }
        _ => Some(Envelope::of(&PlainAnswer::success())),
    }
}

fn pinged(core: &Core, attachment: &Attachment, ping: Ping, ask: bool) -> Envelope {
    let mut hosts = lock(&core.hosts);
    hosts.touch(attachment.host_id());
    let not_up = hosts.get(ping.host_id()).is_some_and(|host| host.state != HostState::Up);
    drop(hosts);
    core.journal.changed();
    Envelope::of(&commands::ping_answer(&core.config, ping, not_up || ask))
}

fn goodbye(
    core: &Core,
    link: &Link,
    attachment: &Arc<Attachment>,
    command: ShutdownCommand,
) -> Option<Envelope> {
    let reason = command.reason.unwrap_or_default();
    link.record(EventKind::Goodbye { reason: reason.clone() });
    match reason.as_str() {
        ShutdownCommand::SIG_KILL => {
            attachment.close();
            // A goodbye in the connect phase leaves a row that is up without an agent.
            let state = lock(&core.hosts).detach(attachment, |state| match state {
                HostState::Connecting => HostState::Up,
                _ => HostState::Disconnected,
            });
            if let Some(state) = state {
                link.record(EventKind::State(state));
            }
            link.close("the agent said goodbye");
            None
        }
        "" => Some(Envelope::of(&PlainAnswer::failed("shutdown without a reason".to_owned()))),
        "update" => {
            Some(Envelope::of(&PlainAnswer { base: AnswerBase::failed("no update is known") }))
        }
        _ => None,
    }
}

/// What a start-up command says; `None` for any other request.
fn startup_facts(request: &AgentRequest) -> Option<StartupFacts> {
    let (kind, startup, proxy_vm) = match request {
        AgentRequest::StartupSecondaryStorage(command) => {
            (Some(HostKind::SecondaryStorage), &command.startup, None)
        }
        AgentRequest::StartupProxy(command) => {
            (Some(HostKind::ConsoleProxy), &command.startup, Some(command.proxy_vm_id))
        }
        AgentRequest::StartupStorage(command) => (None, &command.startup, None),
        _ => return None,
    };
    Some(facts(kind, startup, proxy_vm))
}

fn facts(kind: Option<HostKind>, startup: &StartupCommand, proxy_vm: Option<i64>) -> StartupFacts {
    StartupFacts {
        kind,
        guid: startup.guid.clone().unwrap_or_default(),
        resource_name: startup.resource_name.clone(),
        name: startup.name.clone().unwrap_or_default(),
        zone: startup.data_center.clone().unwrap_or_default(),
        pod: startup.pod.clone().unwrap_or_default(),
        proxy_vm,
        private_address: startup.private_ip_address.clone(),
        public_address: startup.public_ip_address.clone(),
        version: startup.version.clone(),
        arch: startup.arch.clone(),
        host_list: startup.ms_host_list.clone(),
    }
}
