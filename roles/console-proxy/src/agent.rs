//! The console proxy as the management server sees it: one host of type ConsoleProxy.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agent_protocol::agent::{
    AgentControlAnswer, HostType, PingCommand, PlainAnswer, StartupProxyCommand,
};
use agent_protocol::console::{
    AllowConsoleAccessCommand, CheckConsoleProxyLoadCommand, ConsoleAccessAuthenticationAnswer,
    ConsoleAccessAuthenticationCommand, ConsoleCommand, ConsoleProxyLoadAnswer,
    ConsoleProxyLoadReportCommand, StartConsoleProxyAgentHttpHandlerCommand,
};
use agent_protocol::{Answer, Envelope, failed_answer, unsupported};
use bedrock::Secret;
use management_link::nic::{HostNics, Nic};
use management_link::{
    Agent, CommandContext, HostCredentials, LinkError, ManagementLink, StartupFacts,
};
use role::{BoxFuture, HealthReporter};

use crate::access::{AccessAuthority, AccessDecision, AccessQuestion, Admission};
use crate::config::Identity;
use crate::context::ConsoleContext;
use crate::dialler::Credentials;
use crate::report::{ReportOutcome, ReportSink, load_info};
use crate::token::TokenKey;
use crate::upstream::Upstream;

/// How long the answer to a load report is waited for.
const REPORT: Duration = Duration::from_secs(10);

/// Asks and tells the management server through the link.
pub(crate) struct LinkPort {
    pub(crate) link: ManagementLink,
    pub(crate) proxy_vm: i64,
}

impl AccessQuestion {
    fn command(self) -> ConsoleAccessAuthenticationCommand {
        ConsoleAccessAuthenticationCommand {
            host: Some(self.host),
            port: Some(self.port.to_string()),
            vm_id: Some(self.vm),
            sid: Some(self.sid.reveal().as_str().into()),
            ticket: Some(self.ticket.reveal().as_str().into()),
            session_uuid: Some(self.session),
            client_address: Some(self.client.to_string()),
            is_reauthenticating: self.again,
            ..ConsoleAccessAuthenticationCommand::default()
        }
    }
}

impl AccessAuthority for LinkPort {
    fn may_open(
        &self,
        question: AccessQuestion,
        timeout: Duration,
    ) -> BoxFuture<'_, AccessDecision> {
        Box::pin(async move {
            match self.link.request(&question.command(), timeout).await {
                Ok(answer) => decision(&answer),
                Err(error) => {
                    tracing::warn!(error = %bedrock::chain(&error), "no answer on a console");
                    match error {
                        LinkError::NotAttached | LinkError::Busy | LinkError::Closed => {
                            AccessDecision::NotAsked
                        }
                        // The server failed on the question, or nobody there handles it.
                        LinkError::UnexpectedAnswer { .. }
                        | LinkError::Body(_)
                        | LinkError::Unreadable => AccessDecision::Denied,
                        LinkError::Lost | LinkError::Timeout(_) => AccessDecision::Unanswered,
                    }
                }
            }
        })
    }
}

/// Only the answer to a question asked again says where the VM is.
fn decision(answer: &ConsoleAccessAuthenticationAnswer) -> AccessDecision {
    if !answer.success {
        return AccessDecision::Denied;
    }
    let tunnel = || {
        let (url, session) = (answer.tunnel_url.as_ref()?, answer.tunnel_session.as_ref()?);
        Upstream::tunnel(url.as_str(), session.reveal())
    };
    let tcp = || Upstream::tcp(answer.host.as_deref()?, answer.port);
    let location = answer.is_reauthenticating.then(|| tunnel().or_else(tcp)).flatten();
    AccessDecision::Admitted(Admission { location })
}

impl Credentials for LinkPort {
    fn credentials(&self) -> BoxFuture<'_, Result<HostCredentials, String>> {
        Box::pin(self.link.host_credentials())
    }
}

impl ReportSink for LinkPort {
    fn report(&self, load_info: String) -> BoxFuture<'_, ReportOutcome> {
        Box::pin(async move {
            let command = ConsoleProxyLoadReportCommand {
                proxy_vm_id: self.proxy_vm,
                load_info: Some(load_info),
                ..ConsoleProxyLoadReportCommand::default()
            };
            match self.link.request(&command, REPORT).await {
                Ok(AgentControlAnswer { base }) if base.result => ReportOutcome::Accepted,
                Ok(AgentControlAnswer { base }) => {
                    ReportOutcome::Rejected(base.details.unwrap_or_default())
                }
                Err(error @ LinkError::UnexpectedAnswer { .. }) => {
                    ReportOutcome::Rejected(bedrock::chain(&error))
                }
                Err(error) => ReportOutcome::Unknown(bedrock::chain(&error)),
            }
        })
    }
}

/// Our end of the link.
pub(crate) struct ConsoleAgent {
    pub(crate) context: Arc<ConsoleContext>,
    pub(crate) health: HealthReporter,
}

impl ConsoleAgent {
    fn identity(&self) -> &Identity {
        &self.context.config.identity
    }

    /// Takes over key and switches; a later one replaces them while consoles are open.
    fn start(&self, command: &StartConsoleProxyAgentHttpHandlerCommand) -> PlainAnswer {
        let source_check = command.is_source_ip_check_enabled;
        self.context.source_check.store(source_check, Ordering::Relaxed);
        self.take_certificate(command);
        let text = command.encryptor_password.as_ref().map_or("", |text| text.reveal());
        match TokenKey::parse(text) {
            Ok(key) => {
                self.context.set_key(key);
                self.health.clear_condition("key");
                tracing::info!(source_check, "ready to open consoles");
                PlainAnswer::success()
            }
            Err(error) => {
                tracing::error!(%error, "consoles cannot be opened");
                self.health.set_condition("key", error.to_string());
                PlainAnswer::failed(error.to_string())
            }
        }
    }

    /// A key store that is of no use takes no plain console away.
    fn take_certificate(&self, command: &StartConsoleProxyAgentHttpHandlerCommand) {
        let none = Secret::default();
        let password = command.keystore_password.as_ref().unwrap_or(&none);
        let bits = command.keystore_bits.as_ref().map(|bits| (bits.reveal().as_slice(), password));
        match self.context.certificate.deliver(bits) {
            Ok(()) => self.health.clear_condition("tls"),
            Err(error) => {
                let error = bedrock::chain(&error);
                tracing::error!(error, "browsers cannot be served over TLS with it");
                self.health.set_condition("tls", error);
            }
        }
    }

    fn allow(&self, command: AllowConsoleAccessCommand) -> PlainAnswer {
        match command.session_uuid {
            Some(session) if !session.is_empty() && session.len() <= 64 => {
                self.context.sessions.ledger.announce(&session);
                PlainAnswer::success()
            }
            _ => PlainAnswer::failed("the command names no session".to_owned()),
        }
    }

    fn load(&self, command: CheckConsoleProxyLoadCommand) -> ConsoleProxyLoadAnswer {
        let mut answer = ConsoleProxyLoadAnswer {
            proxy_vm_id: command.proxy_vm_id,
            proxy_vm_name: command.proxy_vm_name,
            ..ConsoleProxyLoadAnswer::default()
        };
        answer.base.details = Some(load_info(&self.context.sessions.list(), &[]) + "\n");
        answer
    }
}

impl Agent for ConsoleAgent {
    fn startup(&self, facts: &StartupFacts) -> Envelope {
        let identity = self.identity();
        let private = Nic::of_address(identity.private_address);
        let nics = HostNics {
            storage: private.clone(),
            private,
            public: Nic::of_address(identity.public_address),
        };
        let port = self.context.config.listen.first().map_or(80, |addr| addr.port());
        let resource = StartupProxyCommand::RESOURCE_NAME;
        Envelope::of(&StartupProxyCommand {
            proxy_port: i32::from(port),
            proxy_vm_id: identity.proxy_vm,
            startup: facts.command(HostType::ConsoleProxy, &identity.name, resource, nics),
        })
    }

    fn ping(&self, host_id: i64) -> Envelope {
        Envelope::of(&PingCommand::new(HostType::ConsoleProxy, host_id))
    }

    fn handle(
        self: Arc<Self>,
        command: Envelope,
        _cx: CommandContext,
    ) -> BoxFuture<'static, Envelope> {
        Box::pin(async move {
            match ConsoleCommand::open(&command) {
                Ok(Some(ConsoleCommand::StartConsoleProxyAgentHttpHandler(command))) => {
                    Envelope::of(&self.start(&command))
                }
                Ok(Some(ConsoleCommand::AllowConsoleAccess(command))) => {
                    Envelope::of(&self.allow(*command))
                }
                Ok(Some(ConsoleCommand::CheckConsoleProxyLoad(command))) => {
                    Envelope::of(&self.load(*command))
                }
                // The one recurring command; no server sends it, and a single answer to it would
                // promise more.
                Ok(Some(watch @ ConsoleCommand::WatchConsoleProxyLoad(_))) => {
                    watch.failed_answer("reporting the load again and again is not supported")
                }
                Ok(Some(ConsoleCommand::Unknown(_)) | None) => unsupported(&command),
                Err(error) => failed_answer(&command, &bedrock::chain(&error)),
            }
        })
    }

    fn attached(&self, host_id: i64) {
        if self.context.key().is_none() {
            let Identity { name, proxy_vm, .. } = self.identity();
            self.health.set_condition(
                "key",
                format!(
                    "host {host_id} is registered, but the management server sent no console key; \
                     it wants a console proxy VM with id {proxy_vm} and name {name}"
                ),
            );
        }
        // What ended while the link was down.
        self.context.sessions.changed.notify_one();
    }
}

#[cfg(test)]
mod tests;
