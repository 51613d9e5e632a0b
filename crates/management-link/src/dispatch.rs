//! From a request to its one response: commands run in order, each to exactly one answer.
//!
//! A request is one task. The server serialises what must not overlap (the in-sequence flag is
//! its business), so requests run side by side, up to `max_commands`. That bound is generous on
//! purpose: a handler that waits costs a few KiB, the server itself has at most one in-sequence
//! command per server node under way. A full set would stop reading the link, lists and pings and
//! all, so handlers that wait by choice never fill it: from half of it on, the oldest are asked to
//! answer now ([`Waiting`]). The answers of the session itself (ready, lists, migration) never go
//! through here.

use std::any::Any;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_protocol::agent::{
    AnswerBase, CommandBase, PlainAnswer, SetupCertificateAnswer, SetupCertificateCommand,
    SetupKeyStoreCommand, SetupKeystoreAnswer, UnsupportedAnswer,
};
use agent_protocol::{Answer, Envelope, Flags, Frame, FrameHeader, failed_answer};
use futures_util::FutureExt;
use role::TaskScope;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::agent::{Agent, AnswerNow, CommandContext};
use crate::certificates;
use crate::session::{STOPPING, Step, Work};

/// Answers above this size are not read again for the log.
const LOGGED_ANSWER: usize = 64 * 1024;

/// What running commands needs; cheap to clone.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    pub(crate) agent: Arc<dyn Agent>,
    pub(crate) tasks: TaskScope,
    pub(crate) state_directory: PathBuf,
}

/// The facts of the moment a request came in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Circumstances {
    pub(crate) host_id: Option<i64>,
    /// Our name for a certificate request.
    pub(crate) host_name: String,
    /// Our end of the link.
    pub(crate) seen_at: Option<IpAddr>,
    pub(crate) answer_now: AnswerNow,
    /// The role stops and has no time left: what has no answer yet fails.
    pub(crate) give_up: CancellationToken,
}

/// The commands under way, oldest first, so that those which wait by choice leave room for others.
#[derive(Debug)]
pub(crate) struct Waiting {
    commands: VecDeque<(u64, AnswerNow)>,
    started: u64,
    /// More than so many and the oldest is asked to answer.
    limit: usize,
    /// Everybody is asked, also who comes later.
    hurried: bool,
}

impl Waiting {
    /// `max_commands`: as many stop the reading of the link.
    pub(crate) fn new(max_commands: usize) -> Self {
        let limit = max_commands / 2;
        Self { commands: VecDeque::new(), started: 0, limit, hurried: false }
    }

    /// Another `max_commands`, for commands from now on.
    pub(crate) fn limit(&mut self, max_commands: usize) {
        self.limit = max_commands / 2;
    }

    /// Takes a command up: its number and what it waits with.
    pub(crate) fn start(&mut self) -> (u64, AnswerNow) {
        let (number, answer_now) = (self.started, AnswerNow::default());
        self.started += 1;
        self.commands.push_back((number, answer_now.clone()));
        if self.hurried {
            answer_now.ask();
        }
        let waiting = self.commands.iter().filter(|(_, waits)| !waits.is_asked());
        let (count, oldest) = waiting
            .fold((0, None), |(count, oldest), (_, waits)| (count + 1, oldest.or(Some(waits))));
        if count > self.limit
            && let Some(oldest) = oldest
        {
            oldest.ask();
        }
        (number, answer_now)
    }

    pub(crate) fn done(&mut self, number: u64) {
        self.commands.retain(|(started, _)| *started != number);
    }

    /// The role stops: nobody waits by choice any more.
    pub(crate) fn hurry(&mut self) {
        self.hurried = true;
        for (_, waits) in &self.commands {
            waits.ask();
        }
    }
}

impl Dispatcher {
    /// Runs all commands and makes the response.
    pub(crate) async fn run(&self, work: Work, circumstances: Circumstances) -> Frame {
        let header = work.header;
        let stops = header.flags.contains(Flags::STOP_ON_ERROR);
        let several = work.steps.len() > 1;
        let mut failed = false;
        let mut answers = Vec::with_capacity(work.steps.len());
        for step in work.steps {
            if failed {
                answers.push(Envelope::of(&PlainAnswer::stopped_by_previous_failure()));
                continue;
            }
            let command = command_of(&step);
            let answer = tokio::select! {
                biased;
                answer = self.answer(step, &header, &circumstances) => answer,
                () = circumstances.give_up.cancelled() => failed_answer(&command, STOPPING),
            };
            failed = stops && several && !succeeded(&answer);
            answers.push(answer);
        }
        Frame::response(&header, &answers)
    }

    async fn answer(
        &self,
        step: Step,
        header: &FrameHeader,
        circumstances: &Circumstances,
    ) -> Envelope {
        match step {
            Step::Answered(answer) => answer,
            Step::Agent(command) => self.run_command(command, header, circumstances).await,
            Step::MakeCertificateRequest => self.make_request(circumstances).await,
            Step::InstallCertificate(command) => self.install(*command).await,
        }
    }

    async fn run_command(
        &self,
        command: Envelope,
        header: &FrameHeader,
        circumstances: &Circumstances,
    ) -> Envelope {
        let base = command.command_base().unwrap_or_default();
        let class = command.simple_name().to_owned();
        let kept = command.clone();
        let context = context(&base, header, circumstances);
        let span = tracing::error_span!(
            "command",
            seq = header.sequence.0,
            class,
            logid = context.log_id.as_deref().unwrap_or("-"),
        );
        let agent = Arc::clone(&self.agent);
        async move {
            let started = Instant::now();
            tracing::debug!("command received");
            let handled = AssertUnwindSafe(async move { agent.handle(command, context).await });
            let answer = match handled.catch_unwind().await {
                Ok(answer) => answer,
                Err(panic) => answer_to_panic(panic.as_ref(), &kept),
            };
            let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let result = (answer.body.get().len() < LOGGED_ANSWER).then(|| succeeded(&answer));
            tracing::debug!(elapsed_ms, ?result, answer = answer.simple_name(), "answered");
            answer
        }
        .instrument(span)
        .await
    }

    async fn make_request(&self, circumstances: &Circumstances) -> Envelope {
        let directory = self.state_directory.clone();
        let name = circumstances.host_name.clone();
        let seen_at = circumstances.seen_at;
        let made = self
            .tasks
            .blocking("certificate request", move || {
                certificates::make_request(&directory, &name, seen_at)
                    .map_err(|error| bedrock::chain(&error))
            })
            .await
            .unwrap_or_else(|error| Err(error.to_string()));
        match made {
            Ok(csr) => {
                tracing::info!("made a key and a certificate request for the management server");
                let base = AnswerBase::success();
                Envelope::of(&SetupKeystoreAnswer { csr: Some(csr), base })
            }
            Err(error) => {
                tracing::warn!(error, "cannot make a certificate request");
                Envelope::of(&SetupKeystoreAnswer::failed(error))
            }
        }
    }

    async fn install(&self, command: SetupCertificateCommand) -> Envelope {
        let directory = self.state_directory.clone();
        let installed = self
            .tasks
            .blocking("certificate", move || {
                certificates::install(
                    &directory,
                    &command.certificate.unwrap_or_default(),
                    &command.private_key.unwrap_or_default(),
                    &command.ca_certificates.unwrap_or_default(),
                )
                .map_err(|error| bedrock::chain(&error))
            })
            .await
            .unwrap_or_else(|error| Err(error.to_string()));
        match installed {
            Ok(()) => {
                tracing::info!("installed a new certificate, to be used at the next connect");
                Envelope::of(&SetupCertificateAnswer::default())
            }
            Err(error) => {
                tracing::warn!(error, "refused the certificate that the management server sent");
                Envelope::of(&SetupCertificateAnswer::failed(error))
            }
        }
    }
}

fn context(
    base: &CommandBase,
    header: &FrameHeader,
    circumstances: &Circumstances,
) -> CommandContext {
    CommandContext {
        log_id: base.log_id().map(str::to_owned),
        host_id: circumstances.host_id,
        in_sequence: header.flags.contains(Flags::IN_SEQUENCE),
        sequence: header.sequence.0,
        management_id: header.management_id,
        wait: u64::try_from(base.wait).ok().filter(|wait| *wait > 0).map(Duration::from_secs),
        answer_now: circumstances.answer_now.clone(),
    }
}

/// What a failure of this step answers.
fn command_of(step: &Step) -> Envelope {
    match step {
        Step::Answered(answer) => answer.clone(),
        Step::Agent(command) => command.clone(),
        Step::MakeCertificateRequest => Envelope::of(&SetupKeyStoreCommand::default()),
        // Not the command itself: it holds a key.
        Step::InstallCertificate(_) => Envelope::of(&SetupCertificateCommand::default()),
    }
}

/// An answer that cannot be read here is the server's to judge.
fn succeeded(answer: &Envelope) -> bool {
    answer.answer_base().map_or(true, |base| base.result)
}

/// The server gets a reference, the log the panic.
fn answer_to_panic(panic: &(dyn Any + Send), command: &Envelope) -> Envelope {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    let id = format!("{:08x}", random() & 0xffff_ffff);
    tracing::error!(id, error = text, "handler panicked");
    let details = format!("internal error, see log {id}");
    let answer = failed_answer(command, &details);
    // The role knows classes that nobody else does; then no class is expected of the answer.
    if answer.is::<UnsupportedAnswer>() {
        Envelope::of(&PlainAnswer::failed(details))
    } else {
        answer
    }
}

/// Random enough to tell things apart and to spread waits.
pub(crate) fn random() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests;
