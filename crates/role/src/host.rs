//! Ports to the machine: wall clock and programs. Everything else of the operating system a role
//! reaches through the standard library and tokio.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::AsyncReadExt;

use crate::BoxFuture;

/// The machine as a role sees it. Cloneable; tests put doubles in.
#[derive(Clone)]
pub struct Host {
    pub clock: Arc<dyn Clock>,
    pub runner: Arc<dyn CommandRunner>,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl Host {
    /// The real machine.
    pub fn system() -> Self {
        Self { clock: Arc::new(SystemClock), runner: Arc::new(SystemRunner) }
    }
}

/// Wall time is an input.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> SystemTime;

    /// Milliseconds since 1970, as Java and CloudStack count.
    fn unix_ms(&self) -> i64 {
        let since = self.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

#[derive(Debug, Clone, Copy)]
struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A program with typed arguments. No shell is ever involved; the environment is emptied but for
/// `PATH` and `LC_ALL=C`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandSpec {
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    pub timeout: Duration,
}

impl CommandSpec {
    pub fn new(program: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self { program: program.into(), arguments: Vec::new(), timeout }
    }

    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }
}

/// What a finished program left, each stream cut at 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CommandOutput {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("cannot start {}", program.display())]
    Start { program: PathBuf, source: std::io::Error },
    #[error("{} did not end within {timeout:?}", program.display())]
    Timeout { program: PathBuf, timeout: Duration },
    #[error("cannot read the output of {}", program.display())]
    Output { program: PathBuf, source: std::io::Error },
}

/// Starts programs.
pub trait CommandRunner: Send + Sync + 'static {
    /// Runs to the end, at most `spec.timeout`; then the program is killed.
    fn run(&self, spec: CommandSpec) -> BoxFuture<'static, Result<CommandOutput, CommandError>>;

    /// Starts a program that stays, with stdout and stderr piped; it is killed when the child
    /// value is dropped. `spec.timeout` is not used.
    fn start(&self, spec: CommandSpec) -> Result<tokio::process::Child, CommandError>;
}

const OUTPUT_LIMIT: u64 = 64 * 1024;

#[derive(Debug, Clone, Copy)]
struct SystemRunner;

impl CommandRunner for SystemRunner {
    fn run(&self, spec: CommandSpec) -> BoxFuture<'static, Result<CommandOutput, CommandError>> {
        Box::pin(async move {
            let mut child = start(&spec)?;
            let output = |source| CommandError::Output { program: spec.program.clone(), source };
            let work = async {
                let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
                let (stdout, stderr) =
                    tokio::try_join!(read_bounded(stdout), read_bounded(stderr))?;
                Ok((child.wait().await?.code(), stdout, stderr))
            };
            match tokio::time::timeout(spec.timeout, work).await {
                Ok(done) => {
                    let (code, stdout, stderr) = done.map_err(output)?;
                    Ok(CommandOutput { code, stdout, stderr })
                }
                Err(_elapsed) => Err(CommandError::Timeout {
                    program: spec.program.clone(),
                    timeout: spec.timeout,
                }),
            }
        })
    }

    fn start(&self, spec: CommandSpec) -> Result<tokio::process::Child, CommandError> {
        start(&spec)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that starts programs")]
fn start(spec: &CommandSpec) -> Result<tokio::process::Child, CommandError> {
    let mut command = tokio::process::Command::new(&spec.program);
    command
        .args(&spec.arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().map_err(|source| CommandError::Start { program: spec.program.clone(), source })
}

async fn read_bounded<R: tokio::io::AsyncRead + Unpin>(
    stream: Option<R>,
) -> std::io::Result<String> {
    let Some(mut stream) = stream else { return Ok(String::new()) };
    let mut bytes = Vec::new();
    (&mut stream).take(OUTPUT_LIMIT).read_to_end(&mut bytes).await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_hangs_is_killed_and_named() {
        let spec = CommandSpec::new("/bin/sleep", Duration::from_millis(50)).arg("30");
        let error = Host::system().runner.run(spec).await.unwrap_err();
        assert_eq!(error.to_string(), "/bin/sleep did not end within 50ms");
    }

    #[tokio::test]
    async fn output_beyond_the_bound_is_dropped_not_kept() {
        let spec = CommandSpec::new("/usr/bin/head", Duration::from_secs(20))
            .arg("-c")
            .arg("200000")
            .arg("/dev/zero");
        let output = Host::system().runner.run(spec).await.unwrap();
        assert_eq!((output.code, output.stdout.len()), (Some(0), 64 * 1024));
    }
}
