//! What tests of several crates need: a role's context without a supervisor, waiting without
//! sleeping, a scripted program runner. Never a dependency of shipped code.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use http_front::HttpFront;
use role::host::{Clock, CommandError, CommandOutput};
use role::{
    BoxFuture, CommandRunner, CommandSpec, Heartbeat, Host, RoleContext, RoleKind, TaskScope,
};
use tokio_util::sync::CancellationToken;

/// A context as the supervisor would make it, on the real machine.
pub fn context(kind: RoleKind) -> RoleContext {
    context_on(kind, Host::system())
}

/// A context on a machine of doubles.
pub fn context_on(kind: RoleKind, host: Host) -> RoleContext {
    let tasks = TaskScope::new();
    let http = HttpFront::new(tasks.clone());
    RoleContext::new(kind, CancellationToken::new(), tasks, Heartbeat::new(), http, host)
}

/// Waits until `check` gives a value, at most `limit`; polls every 5 ms.
///
/// # Panics
/// When the time is over; the message says what was waited for.
pub async fn eventually<T>(what: &str, limit: Duration, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        if let Some(value) = check() {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what} did not happen within {limit:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What this thread logs while the value lives: level, spans, message and fields, a line each.
#[derive(Debug)]
pub struct CapturedLog {
    lines: Arc<Mutex<Vec<u8>>>,
    _default: tracing::subscriber::DefaultGuard,
}

impl CapturedLog {
    #[expect(clippy::new_without_default, reason = "it does something")]
    pub fn new() -> Self {
        Self::of_level(tracing::Level::INFO)
    }

    /// Of this level and the more important ones.
    pub fn of_level(level: tracing::Level) -> Self {
        // Whether a line is worth making is remembered for the process: while nobody listens on any
        // other thread, a line met there first would be missed here too.
        static LISTENER: Once = Once::new();
        LISTENER.call_once(|| {
            let everything = tracing_subscriber::registry();
            // Whoever set one before listens already.
            tracing::subscriber::set_global_default(everything).unwrap_or_default();
        });
        let lines = Arc::<Mutex<Vec<u8>>>::default();
        let writer = Arc::clone(&lines);
        let subscriber =
            tracing_subscriber::fmt().with_max_level(level).with_ansi(false).with_target(false);
        let subscriber = subscriber.without_time().with_writer(move || Lines(Arc::clone(&writer)));
        let default = tracing::subscriber::set_default(subscriber.finish());
        Self { lines, _default: default }
    }

    pub fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&lines).into_owned()
    }
}

struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct ManualClock(Mutex<SystemTime>);

impl ManualClock {
    pub fn at(unix_seconds: u64) -> Arc<Self> {
        Arc::new(Self(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_seconds))))
    }

    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A runner that starts nothing: it records what it was asked and answers from a script.
#[derive(Debug, Default)]
pub struct ScriptedRunner {
    seen: Mutex<Vec<CommandSpec>>,
    answers: Mutex<VecDeque<CommandOutput>>,
}

impl ScriptedRunner {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The answer to the next call that has none yet; without a script a call succeeds silently.
    pub fn answer(&self, code: i32, stdout: &str, stderr: &str) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).push_back(CommandOutput {
            code: Some(code),
            stdout: stdout.to_owned(),
            stderr: stderr.to_owned(),
        });
    }

    /// The command lines so far, program first.
    pub fn lines(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .map(|spec| {
                let mut line = spec.program.display().to_string();
                for argument in &spec.arguments {
                    line.push(' ');
                    line.push_str(&argument.to_string_lossy());
                }
                line
            })
            .collect()
    }
}

impl CommandRunner for ScriptedRunner {
    fn run(&self, spec: CommandSpec) -> BoxFuture<'static, Result<CommandOutput, CommandError>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(spec);
        let answer = self.answers.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let answer = answer.unwrap_or(CommandOutput { code: Some(0), ..CommandOutput::default() });
        Box::pin(async move { Ok(answer) })
    }

    fn start(&self, spec: CommandSpec) -> Result<tokio::process::Child, CommandError> {
        let program = spec.program.clone();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(spec);
        Err(CommandError::Start {
            program,
            source: std::io::Error::from(std::io::ErrorKind::NotFound),
        })
    }
}

/// A host with the given runner and the system's clock.
pub fn host_with(runner: Arc<dyn CommandRunner>) -> Host {
    Host { clock: Host::system().clock, runner }
}

/// A test-data file below a crate's `tests` folder.
pub fn vector(manifest_dir: &str, name: &str) -> PathBuf {
    Path::new(manifest_dir).join("tests/vectors").join(name)
}
