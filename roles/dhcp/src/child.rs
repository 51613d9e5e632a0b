//! The dnsmasq process: started, listened to, signalled, stopped.
//!
//! It is started through `setpriv`, which gives it an account of its own with three capabilities
//! and asks the kernel to kill it when we die, so that no orphan keeps the ports after a `kill -9`
//! of ours. The kernel drops that wish when a process changes its account, which is why dnsmasq is
//! not left to drop root itself.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use role::host::CommandError;
use role::{CommandRunner, CommandSpec, TaskScope};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Child as Process;
use tokio::sync::mpsc;

use crate::dnsmasq_log::{self, LogEvent};
use crate::heard::Heard;
use crate::machine::{RunAs, needed_capabilities};
use crate::metrics::Metrics;

/// Events waiting for the reconciler; further ones are dropped, and what waited for them is then
/// done again.
const EVENTS: usize = 1024;
/// Longer lines are cut.
const LINE: usize = 4096;
/// Lines kept to tell why a process ended.
const LAST_WORDS: usize = 4;
/// From SIGTERM to SIGKILL.
const STOP: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("cannot start dnsmasq")]
    Start(#[source] CommandError),
    #[error("dnsmasq ended: {0}")]
    Ended(String),
    #[error("dnsmasq was not ready within {0:?}")]
    NotReady(Duration),
    #[error("cannot signal dnsmasq")]
    Signal(#[source] nix::errno::Errno),
}

/// A running dnsmasq. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Child {
    process: Process,
    pub(crate) pid: Pid,
    pub(crate) started: Instant,
    pub(crate) events: mpsc::Receiver<LogEvent>,
    last_words: LastWords,
}

type LastWords = Arc<Mutex<VecDeque<String>>>;

/// Arguments for `setpriv`, then dnsmasq itself.
fn command(dnsmasq: &Path, main_file: &Path, run_as: &RunAs) -> CommandSpec {
    let capabilities = needed_capabilities();
    // Only root may narrow the bounding set.
    let narrowed = |extra: &str| format!("--bounding-set=-all,{capabilities}{extra}");
    let inherited = format!("--inh-caps=-all,{capabilities}");
    let mut spec =
        CommandSpec::new("setpriv", Duration::ZERO).arg("--pdeathsig=KILL").arg("--no-new-privs");
    match run_as {
        RunAs::Plain => {}
        // dnsmasq sets its group even when it stays root.
        RunAs::Root => spec = spec.arg(inherited).arg(narrowed(",+setgid")),
        RunAs::Account { user, group, .. } => {
            spec = spec
                .arg(format!("--reuid={user}"))
                .arg(format!("--regid={group}"))
                .arg("--clear-groups")
                .arg(inherited)
                .arg(format!("--ambient-caps=-all,{capabilities}"))
                .arg(narrowed(""));
        }
    }
    spec = spec.arg(dnsmasq).arg(format!("--conf-file={}", main_file.display()));
    if *run_as == RunAs::Root {
        spec = spec.arg("--user=root").arg("--group=root");
    }
    spec
}

impl Child {
    /// Starts the process; it is not ready yet.
    ///
    /// Must be called on a task of the runtime: the kernel's wish to kill the child is bound to
    /// the thread that starts it, and threads for blocking work end when they are idle.
    pub(crate) fn start(
        runner: &dyn CommandRunner,
        dnsmasq: &Path,
        main_file: &Path,
        run_as: &RunAs,
        tasks: &TaskScope,
        metrics: &Metrics,
        heard: &Heard,
    ) -> Result<Self, ChildError> {
        let mut process =
            runner.start(command(dnsmasq, main_file, run_as)).map_err(ChildError::Start)?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid else {
            return Err(ChildError::Ended("at once".to_owned()));
        };
        let (sender, events) = mpsc::channel(EVENTS);
        let last_words = LastWords::default();
        for stream in [
            process.stdout.take().map(|out| Box::new(out) as Box<dyn AsyncRead + Send + Unpin>),
            process.stderr.take().map(|err| Box::new(err) as Box<dyn AsyncRead + Send + Unpin>),
        ]
        .into_iter()
        .flatten()
        {
            let output = Output {
                events: sender.clone(),
                last_words: Arc::clone(&last_words),
                metrics: metrics.clone(),
                heard: heard.clone(),
            };
            tasks.spawn("dnsmasq output", output.follow(stream));
        }
        let pid = Pid::from_raw(pid);
        Ok(Self { process, pid, started: Instant::now(), events, last_words })
    }

    /// Waits for the end and says what it was.
    pub(crate) async fn ended(&mut self) -> String {
        let status = match self.process.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        // The last words are in the pipe still; both streams end with the process.
        let drained = async { while self.events.recv().await.is_some() {} };
        if tokio::time::timeout(Duration::from_millis(500), drained).await.is_err() {
            tracing::debug!("something else holds the output of dnsmasq open");
        }
        let words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        words.iter().fold(status, |text, word| format!("{text}; {word}"))
    }

    /// Whether the process has ended, without waiting.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    /// Asks for the configuration of reservations, options and names to be read again.
    pub(crate) fn reload(&self) -> Result<(), ChildError> {
        self.signal(Signal::SIGHUP)
    }

    /// The process id stays ours until the process has been waited for, so nobody else is hit.
    fn signal(&self, signal: Signal) -> Result<(), ChildError> {
        if self.process.id().is_none() {
            return Err(ChildError::Ended("already".to_owned()));
        }
        nix::sys::signal::kill(self.pid, signal).map_err(ChildError::Signal)
    }

    /// SIGKILL, now.
    pub(crate) async fn kill(&mut self) {
        if let Err(error) = self.process.kill().await {
            tracing::warn!(%error, pid = self.pid.as_raw(), "cannot kill dnsmasq");
        }
    }

    /// SIGTERM, then SIGKILL.
    pub(crate) async fn stop(mut self) {
        if let Err(error) = self.signal(Signal::SIGTERM) {
            tracing::debug!(error = %bedrock::chain(&error), "dnsmasq ended before it was stopped");
        }
        // One that was stopped hears nothing before it goes on.
        if let Err(error) = self.signal(Signal::SIGCONT) {
            tracing::debug!(error = %bedrock::chain(&error), "dnsmasq ended at once");
        }
        if tokio::time::timeout(STOP, self.process.wait()).await.is_err() {
            tracing::warn!("dnsmasq did not stop in time and is killed");
            self.kill().await;
        }
    }
}

struct Output {
    events: mpsc::Sender<LogEvent>,
    last_words: LastWords,
    metrics: Metrics,
    heard: Heard,
}

impl Output {
    async fn follow(self, mut stream: Box<dyn AsyncRead + Send + Unpin>) {
        let mut buffer = Vec::new();
        loop {
            match stream.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot read the output of dnsmasq");
                    break;
                }
            }
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                self.line(&String::from_utf8_lossy(&line));
            }
            if buffer.len() > LINE {
                self.line(&String::from_utf8_lossy(&buffer));
                buffer.clear();
            }
        }
        if !buffer.is_empty() {
            self.line(&String::from_utf8_lossy(&buffer));
        }
    }

    fn line(&self, line: &str) {
        let line = line.trim_end();
        let event = dnsmasq_log::parse(line);
        let text = dnsmasq_log::message(line);
        match &event {
            LogEvent::Rejected(_) => tracing::warn!(line = text, "dnsmasq does not take a line"),
            LogEvent::Withheld(_) | LogEvent::Declined(_) => {
                self.heard.line(text);
                tracing::warn!(line = text, "dnsmasq withholds an address");
            }
            LogEvent::Dropped(_) => tracing::warn!(line = text, "dnsmasq leaves an option out"),
            LogEvent::Message { kind, ignored, mac } => {
                self.metrics.message(kind, *ignored);
                if let Some(mac) = mac {
                    self.heard.note(*mac, kind, *ignored);
                    self.heard.line(text);
                }
                tracing::debug!(line = text, "dnsmasq");
            }
            LogEvent::Read(_) | LogEvent::Other => tracing::debug!(line = text, "dnsmasq"),
        }
        if matches!(event, LogEvent::Other) && !text.is_empty() {
            let mut words = self.last_words.lock().unwrap_or_else(PoisonError::into_inner);
            if words.len() == LAST_WORDS {
                words.pop_front();
            }
            words.push_back(text.to_owned());
        }
        let is_news = matches!(
            event,
            LogEvent::Read(_)
                | LogEvent::Rejected(_)
                | LogEvent::Dropped(_)
                | LogEvent::Declined(_)
        );
        if is_news && let Err(error) = self.events.try_send(event) {
            tracing::trace!(%error, "nobody waits for what dnsmasq said");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(run_as: &RunAs) -> String {
        let spec = command(Path::new("/usr/sbin/dnsmasq"), Path::new("/s/main.conf"), run_as);
        let arguments: Vec<_> = spec.arguments.iter().map(|a| a.to_string_lossy()).collect();
        format!("{} {}", spec.program.display(), arguments.join(" "))
    }

    #[test]
    fn the_child_dies_with_us_and_gets_three_capabilities() {
        assert_eq!(
            arguments(&RunAs::Account { name: "dnsmasq".to_owned(), user: 999, group: 65534 }),
            "setpriv --pdeathsig=KILL --no-new-privs --reuid=999 --regid=65534 --clear-groups \
             --inh-caps=-all,+net_admin,+net_bind_service,+net_raw \
             --ambient-caps=-all,+net_admin,+net_bind_service,+net_raw \
             --bounding-set=-all,+net_admin,+net_bind_service,+net_raw \
             /usr/sbin/dnsmasq --conf-file=/s/main.conf"
        );
        assert_eq!(
            arguments(&RunAs::Plain),
            "setpriv --pdeathsig=KILL --no-new-privs /usr/sbin/dnsmasq --conf-file=/s/main.conf"
        );
    }
}
