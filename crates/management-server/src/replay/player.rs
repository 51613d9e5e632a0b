//! The player: one future that sends commands and waits for answers, one that reads and answers the
//! agent's own requests, one that writes; all three in the caller's task.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use agent_protocol::agent::{AgentControlAnswer, PingAnswer, PlainAnswer, ShutdownCommand};
use agent_protocol::frame::{DEFAULT_MAX_INFLATED, Flags, Frame, FrameHeader, Sequence};
use agent_protocol::storage::{
    DownloadAnswer, DownloadCommand, DownloadProgressCommand, DownloadRequest, DownloadStatus,
};
use agent_protocol::{AgentRequest, Envelope};
use serde_json::Value;
use tokio::io::AsyncRead;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};

use super::compare::{self, Replacements};
use super::conversation::{self, Conversation, Ending, Recorded, simple};
use super::report::{Exchange, Report, Step, Unanswered};
use super::{ReplayError, ReplaySettings};
use crate::ClientCertificates;
use crate::ca::CertificateAuthority;
use crate::commands;
use crate::config::ServerConfig;
use crate::sync::lock;
use crate::tls;
use crate::wire::{self, MessageReader, Outgoing};
use bedrock::chain;

/// Numbers of questions that the recording does not have; far from recorded ones.
const OWN_SEQUENCE: i64 = 1 << 40;
const OUTBOX: usize = 64;

/// An answer as it came.
struct Answer {
    header: FrameHeader,
    json: Value,
}

/// A command that was sent and has a recorded answer.
struct Open<'a> {
    command: &'a Recorded,
    expected: &'a Recorded,
    /// The command as it was sent.
    sent: Value,
    answer: oneshot::Receiver<Answer>,
}

struct Pending {
    command: Unanswered,
    caller: oneshot::Sender<Answer>,
}

/// What the futures of one replay share.
struct Stage<'a> {
    conversation: &'a Conversation,
    settings: &'a ReplaySettings,
    outbox: mpsc::Sender<Outgoing>,
    inner: Mutex<Inner>,
    started: watch::Sender<bool>,
}

struct Inner {
    report: Report,
    replacements: Replacements,
    /// Who waits for the answer to a sequence.
    pending: HashMap<i64, Pending>,
    /// Whether the agent said goodbye, and what was unanswered at that time.
    goodbye: Option<Vec<Unanswered>>,
    /// Which of the differences on purpose occurred.
    used: Vec<bool>,
    /// Lines of recorded requests that the agent made already.
    taken: Vec<usize>,
    next_request: i64,
    next_own: i64,
    /// Host id from the first ready command on, −1 before.
    host: i64,
    done: bool,
}

/// Plays a conversation to one connected agent.
pub(super) async fn play(
    conversation: &Conversation,
    settings: &ReplaySettings,
    authority: &CertificateAuthority,
    mut stream: TcpStream,
    peer: SocketAddr,
    observe: impl AsyncFnMut(Step<'_>),
) -> Result<Report, ReplayError> {
    let broken = |error: tls::TlsError| ReplayError::Link(chain(&error));
    let tls = tls::settings(authority, ClientCertificates::Wanted, peer.ip()).map_err(broken)?;
    let handshake = tls::handshake(&mut stream, tls);
    let (session, early) = tokio::time::timeout(settings.answer_timeout, handshake)
        .await
        .map_err(|_| ReplayError::Link("the handshake took too long".to_owned()))?
        .map_err(broken)?;
    let session = Arc::new(Mutex::new(session));
    let (outbox, queue) = mpsc::channel(OUTBOX);
    let inner = Inner {
        report: Report::default(),
        replacements: Replacements::new(settings.substitutions.clone(), settings.overrides.clone()),
        pending: HashMap::new(),
        goodbye: None,
        used: vec![false; settings.differences.len()],
        taken: Vec::new(),
        next_request: 0,
        next_own: OWN_SEQUENCE,
        host: -1,
        done: false,
    };
    let started = watch::Sender::new(false);
    let stage = Stage { conversation, settings, outbox, inner: Mutex::new(inner), started };
    let (read_half, write_half) = stream.split();
    let reader = MessageReader::new(read_half, Arc::clone(&session), early);
    let ended = {
        let mut listen = std::pin::pin!(stage.listen(reader));
        tokio::select! {
            reason = stage.direct(observe) => reason,
            reason = &mut listen => reason,
            outcome = wire::write_all(write_half, session, queue) => match outcome {
                Ok(()) => String::new(),
                // What the agent said before it closed counts, so it is read to its end.
                Err(error) => {
                    tokio::time::timeout(settings.answer_timeout, listen).await.ok();
                    chain(&error)
                }
            },
        }
    };
    Ok(stage.finish(ended))
}

impl<'a> Stage<'a> {
    /// Sends the recorded commands, each after the answers that came before it in the recording.
    /// Returns only when the agent does not start.
    async fn direct(&self, mut observe: impl AsyncFnMut(Step<'_>)) -> String {
        let mut started = self.started.subscribe();
        let startup = started.wait_for(|started| *started);
        if tokio::time::timeout(self.settings.answer_timeout, startup).await.is_err() {
            return "no start-up command came".to_owned();
        }
        let mut open: Vec<Open<'a>> = Vec::new();
        for command in self.conversation.commands() {
            let (due, later) = open.into_iter().partition(|open| open.expected.line < command.line);
            open = later;
            self.conclude(due, &mut observe).await;
            if lock(&self.inner).goodbye.is_some() {
                break;
            }
            open.extend(self.send_command(command).await);
            let (line, command) = (command.line, simple(command.class()));
            observe(Step::Sent { line, command }).await;
        }
        self.conclude(open, &mut observe).await;
        lock(&self.inner).done = true;
        if self.conversation.ending() == Ending::Agent {
            tokio::time::sleep(self.settings.linger).await;
        }
        // The writer ends the replay when everything before the end is written.
        self.outbox.send(Outgoing::Close).await.ok();
        std::future::pending().await
    }

    /// Sends one recorded command; `None` when none of its answers was recorded.
    async fn send_command(&self, command: &'a Recorded) -> Option<Open<'a>> {
        let (caller, answer) = oneshot::channel();
        let sent = {
            let mut inner = lock(&self.inner);
            if command.header.agent_id >= 0 {
                inner.host = command.header.agent_id;
            }
            // A refusal wants no answer.
            if command.header.sequence.0 >= 0 {
                let name = simple(command.class()).to_owned();
                let command_sent = Unanswered { line: command.line, command: name };
                let pending = Pending { command: command_sent, caller };
                inner.pending.insert(command.header.sequence.0, pending);
            }
            inner.replacements.apply(&command.json)
        };
        self.send(command.header, &conversation::envelopes(&sent)).await;
        let expected = self.conversation.answer(command)?;
        Some(Open { command, expected, sent, answer })
    }

    /// Waits for answers, compares them and tells the caller, in the recorded order.
    async fn conclude(&self, mut due: Vec<Open<'a>>, observe: &mut impl AsyncFnMut(Step<'_>)) {
        due.sort_by_key(|open| open.expected.line);
        for open in due {
            let exchange = self.exchange(open).await;
            observe(Step::Answered(&exchange)).await;
            lock(&self.inner).report.answers.push(exchange);
        }
    }

    async fn exchange(&self, open: Open<'a>) -> Exchange {
        let Open { command, expected, sent, answer } = open;
        let mut exchange = Exchange {
            line: command.line,
            command: simple(command.class()).to_owned(),
            recorded: Some(expected.json.clone()),
            got: None,
            header_faults: Vec::new(),
            mismatches: Vec::new(),
            excused: Vec::new(),
        };
        let Ok(Ok(answer)) = tokio::time::timeout(self.settings.answer_timeout, answer).await
        else {
            return exchange;
        };
        exchange.header_faults = answer_faults(&command.header, &answer.header);
        let got = self.settled(&sent, expected, answer.json).await;
        let mut inner = lock(&self.inner);
        inner.replacements.learn(&expected.json, &got, &self.settings.learned);
        self.compare(&mut inner, &mut exchange, &expected.json, &got);
        exchange.got = Some(got);
        exchange
    }

    fn compare(&self, inner: &mut Inner, exchange: &mut Exchange, recorded: &Value, got: &Value) {
        let recorded = inner.replacements.apply(recorded);
        let mismatches = compare::bodies(&recorded, got);
        let differences = &self.settings.differences;
        Report::excuse(exchange, mismatches, differences, &mut inner.used);
        exchange.recorded = Some(recorded);
    }

    /// An agent may answer at once that a transfer runs, where the recorded one waited for its
    /// end: then it is asked until it ends.
    async fn settled(&self, sent: &Value, expected: &Recorded, got: Value) -> Value {
        let runs = |json: &Value| download(json).is_some_and(|answer| is_running(&answer));
        if runs(&expected.json) || !runs(&got) {
            return got;
        }
        let command = conversation::envelopes(sent)
            .first()
            .and_then(|command| command.open::<DownloadCommand>().ok());
        let Some(command) = command else { return got };
        let mut latest = got;
        while let Some(answer) = download(&latest).filter(is_running) {
            tokio::time::sleep(self.settings.poll_interval).await;
            let question = DownloadProgressCommand {
                job_id: answer.job_id,
                request: Some(DownloadRequest::GetStatus),
                download: command.clone(),
            };
            let Some(next) = self.ask(&question).await else { break };
            latest = next;
        }
        latest
    }

    /// Asks a question of our own.
    async fn ask(&self, question: &DownloadProgressCommand) -> Option<Value> {
        let (caller, answer) = oneshot::channel();
        let header = {
            let mut inner = lock(&self.inner);
            inner.next_own += 1;
            let sequence = inner.next_own;
            let command = simple(<DownloadProgressCommand as agent_protocol::Body>::CLASS);
            let command = Unanswered { line: 0, command: command.to_owned() };
            inner.pending.insert(sequence, Pending { command, caller });
            FrameHeader {
                flags: Flags::REQUEST | Flags::STOP_ON_ERROR | Flags::FROM_SERVER,
                sequence: Sequence(sequence),
                length: 0,
                management_id: self.management_id(),
                agent_id: inner.host,
                via: inner.host,
            }
        };
        self.send(header, &[Envelope::of(question)]).await;
        let answer = tokio::time::timeout(self.settings.answer_timeout, answer).await;
        answer.ok()?.ok().map(|answer| answer.json)
    }

    /// Reads until the agent closes the link; says why it ended.
    async fn listen<R: AsyncRead + Unpin>(&self, mut reader: MessageReader<R>) -> String {
        loop {
            let message = match reader.next().await {
                Ok(Some(message)) => message,
                Ok(None) => return "closed by the agent".to_owned(),
                Err(error) => return chain(&error),
            };
            let frame = match Frame::decode(&message, DEFAULT_MAX_INFLATED) {
                Ok(frame) => frame,
                Err(error) => return chain(&error),
            };
            let envelopes = match frame.envelopes() {
                Ok(envelopes) => envelopes,
                Err(error) => return chain(&error),
            };
            if frame.header.flags.contains(Flags::REQUEST) {
                self.request(&frame.header, envelopes).await;
            } else {
                self.answer(frame.header, &envelopes);
            }
        }
    }

    fn answer(&self, header: FrameHeader, envelopes: &[Envelope]) {
        let mut inner = lock(&self.inner);
        let json = conversation::json(envelopes);
        match inner.pending.remove(&header.sequence.0) {
            Some(Pending { command: Unanswered { line, .. }, caller }) => {
                if line > 0 {
                    inner.report.order.push(line);
                }
                // Recorded without an answer: nobody waits, and the answer is kept as it is.
                if let Err(answer) = caller.send(Answer { header, json }) {
                    let exchange = unexpected(line, answer.json, Vec::new());
                    inner.report.answers.push(exchange);
                }
            }
            None => {
                let fault = format!("sequence {} that nobody waits for", header.sequence);
                inner.report.answers.push(unexpected(0, json, vec![fault]));
            }
        }
    }

    /// Answers a request of the agent as recorded.
    async fn request(&self, header: &FrameHeader, envelopes: Vec<Envelope>) {
        let got = conversation::json(&envelopes);
        let Some(envelope) = envelopes.into_iter().next() else { return };
        let recorded = self.recorded_request(&envelope, &got);
        let is_startup = envelope.simple_name().starts_with("Startup");
        let is_goodbye = envelope.is::<ShutdownCommand>();
        {
            let mut inner = lock(&self.inner);
            let mut exchange = Exchange {
                line: recorded.map_or(0, |recorded| recorded.line),
                command: envelope.simple_name().to_owned(),
                recorded: None,
                got: None,
                header_faults: inner.request_faults(header, recorded, is_startup),
                mismatches: Vec::new(),
                excused: Vec::new(),
            };
            if let Some(recorded) = recorded {
                self.compare(&mut inner, &mut exchange, &recorded.json, &got);
            }
            exchange.got = Some(got);
            inner.report.requests.push(exchange);
        }
        if let Some(answers) = self.reply(envelope, recorded) {
            let via = if is_startup { -1 } else { lock(&self.inner).host };
            let answer = header.server_response(self.management_id(), via);
            self.send(answer, &answers).await;
        }
        if is_goodbye {
            let mut inner = lock(&self.inner);
            inner.goodbye = Some(inner.unanswered());
        }
        if is_startup {
            self.started.send_replace(true);
        }
    }

    /// The recorded request that this one stands for: the next of its class, of an authentication
    /// the one of the same session.
    fn recorded_request(&self, envelope: &Envelope, got: &Value) -> Option<&'a Recorded> {
        let session = session_of(got);
        let mut inner = lock(&self.inner);
        let found = self.conversation.requests().find(|recorded| {
            stands_for(recorded.class(), &envelope.class)
                && !inner.taken.contains(&recorded.line)
                && (session.is_none() || session_of(&recorded.json) == session)
        });
        inner.taken.extend(found.map(|found| found.line));
        found
    }

    /// What to answer; `None` for what got no answer in the recording.
    fn reply(&self, envelope: Envelope, recorded: Option<&Recorded>) -> Option<Vec<Envelope>> {
        let class = envelope.class.clone();
        let recorded = recorded.or_else(|| {
            // Beyond the recorded pings the last one repeats, answered or not.
            let mut requests =
                self.conversation.requests().filter(|line| stands_for(line.class(), &class));
            requests.by_ref().last()
        });
        let answer = recorded.map(|recorded| self.conversation.answer(recorded));
        let request = AgentRequest::decode(envelope).ok()?;
        match (request, answer) {
            (AgentRequest::Shutdown(_), _) | (_, Some(None)) => None,
            (AgentRequest::Ping(ping), answer) => {
                Some(self.ping_answer(commands::Ping::Plain(*ping), answer.flatten()))
            }
            (AgentRequest::PingStorage(ping), answer) => {
                Some(self.ping_answer(commands::Ping::Storage(*ping), answer.flatten()))
            }
            (_, Some(Some(answer))) => {
                let json = lock(&self.inner).replacements.apply(&answer.json);
                Some(conversation::envelopes(&json))
            }
            (AgentRequest::ConsoleProxyLoadReport(_), None) => {
                Some(vec![Envelope::of(&AgentControlAnswer::default())])
            }
            (_, None) => Some(vec![Envelope::of(&PlainAnswer::success())]),
        }
    }

    /// The recorded answer to a ping, around the ping that came.
    fn ping_answer(&self, ping: commands::Ping, recorded: Option<&Recorded>) -> Vec<Envelope> {
        let config = ServerConfig::new(self.settings.listen);
        let mut answer = commands::ping_answer(&config, ping, false);
        let recorded = recorded.and_then(|recorded| {
            let envelopes = conversation::envelopes(&recorded.json);
            envelopes.first().and_then(|envelope| envelope.open::<PingAnswer>().ok())
        });
        if let Some(recorded) = recorded {
            answer = PingAnswer { command: answer.command, ..recorded };
        }
        vec![Envelope::of(&answer)]
    }

    async fn send(&self, header: FrameHeader, envelopes: &[Envelope]) {
        let frame = Frame::new(header, envelopes);
        // A closed outbox means that the writer ended, and with it the replay.
        self.outbox.send(Outgoing::Message(frame.encode())).await.ok();
    }

    fn management_id(&self) -> i64 {
        let mut messages = self.conversation.messages().iter();
        messages.find(|message| message.from_server).map_or(-1, |line| line.header.management_id)
    }

    fn finish(self, ended: String) -> Report {
        let Self { conversation, settings, inner, .. } = self;
        let mut inner = inner.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        inner.report.broken = (!inner.done).then_some(ended);
        let stale = settings.differences.iter().zip(&inner.used).filter(|(_, used)| !**used);
        inner.report.stale = stale.map(|(difference, _)| difference.clone()).collect();
        let open = inner.unanswered();
        // A command and the goodbye may pass each other on the way.
        inner.report.unanswered = match inner.goodbye.take() {
            Some(before) => before.into_iter().filter(|command| open.contains(command)).collect(),
            None => open,
        };
        inner.report.reordered = reordered(conversation, &inner.report.order);
        inner.report
    }
}

impl Inner {
    /// The commands that nobody has answered so far.
    fn unanswered(&self) -> Vec<Unanswered> {
        let mut commands: Vec<_> =
            self.pending.values().map(|pending| pending.command.clone()).collect();
        commands.sort();
        commands
    }

    /// The header rules of an agent's requests.
    fn request_faults(
        &mut self,
        header: &FrameHeader,
        recorded: Option<&Recorded>,
        is_startup: bool,
    ) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |what: &str, expected: i64, got: i64| {
            if expected != got {
                faults.push(format!("{what} {got} instead of {expected}"));
            }
        };
        if let Some(recorded) = recorded {
            let flags = header.flags.without(Flags::COMPRESSED);
            check("flags", recorded.header.flags.bits().into(), flags.bits().into());
        }
        let goodbye = Flags::SHUTDOWN.bits() == header.flags.bits();
        if goodbye {
            check("sequence", -1, header.sequence.0);
        } else {
            check("sequence", self.next_request, header.sequence.0);
            self.next_request = header.sequence.0.wrapping_add(1);
        }
        check("management id", -1, header.management_id);
        if !is_startup && self.host >= 0 {
            check("agent id", self.host, header.agent_id);
        }
        check("via", header.agent_id, header.via);
        faults
    }
}

/// The header rules of an agent's answers.
fn answer_faults(command: &FrameHeader, answer: &FrameHeader) -> Vec<String> {
    let expected = command.response();
    let got = FrameHeader { flags: answer.flags.without(Flags::COMPRESSED), length: 0, ..*answer };
    if expected == got { Vec::new() } else { vec![format!("{got:?} instead of {expected:?}")] }
}

fn unexpected(line: usize, json: Value, header_faults: Vec<String>) -> Exchange {
    Exchange {
        line,
        command: simple(conversation::class_of(&json)).to_owned(),
        recorded: None,
        got: Some(json),
        header_faults,
        mismatches: Vec::new(),
        excused: Vec::new(),
    }
}

/// Pairs of commands whose answers came in another order than recorded, although both were open.
fn reordered(conversation: &Conversation, order: &[usize]) -> Vec<(usize, usize)> {
    let answer_line = |line: usize| {
        let messages = conversation.messages().iter();
        messages.filter(|message| message.pair == Some(line)).map(|message| message.line).next()
    };
    let mut pairs = Vec::new();
    for (index, first) in order.iter().enumerate() {
        for second in order.iter().skip(index + 1) {
            if let (Some(one), Some(two)) = (answer_line(*first), answer_line(*second))
                && one > two
            {
                pairs.push((*first, *second));
            }
        }
    }
    pairs
}

/// Whether a request of one class stands for a recorded one; an agent of the other role may be
/// played to as well, so all start-up commands stand for each other.
fn stands_for(recorded: &str, class: &str) -> bool {
    let is_startup = |class| simple(class).starts_with("Startup");
    recorded == class || (is_startup(recorded) && is_startup(class))
}

fn session_of(json: &Value) -> Option<&str> {
    let body = json.get(0)?.as_object()?.values().next()?;
    body.get("sessionUuid")?.as_str()
}

fn download(json: &Value) -> Option<DownloadAnswer> {
    conversation::envelopes(json).first()?.open().ok()
}

fn is_running(answer: &DownloadAnswer) -> bool {
    matches!(
        answer.download_status,
        Some(DownloadStatus::DownloadInProgress | DownloadStatus::NotDownloaded)
    )
}
