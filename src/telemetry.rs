//! Logs to stderr: human or JSON, a filter that can be changed while running, and a bound on
//! repeated identical warnings.
//!
//! Below journald (stderr is the journal's socket) lines carry syslog priorities and no time of
//! their own; on a terminal they are coloured unless `NO_COLOR` is set.

mod filter;
mod repeat;

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

pub use self::filter::{DirectiveError, parse_filter};
use crate::config::{LogConfig, LogFormat};
use repeat::{Line, RepeatLimiter};

/// Shows and changes what the running process logs. Cloneable.
#[derive(Clone)]
pub struct LogHandle {
    reload: Arc<dyn Fn(Targets) -> Result<(), reload::Error> + Send + Sync>,
    filter: Arc<std::sync::Mutex<String>>,
    limiter: RepeatLimiter,
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("filter", &self.filter()).finish()
    }
}

/// Why the filter stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("{text:?} is not a log filter")]
    Syntax { text: String, source: DirectiveError },
    #[error("cannot replace the log filter")]
    Reload(#[source] reload::Error),
}

impl LogHandle {
    /// The directives in force.
    pub fn filter(&self) -> String {
        self.filter.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Puts other directives in force, or says why not.
    pub fn replace_filter(&self, text: &str) -> Result<(), FilterError> {
        let filter = parse_filter(text)
            .map_err(|source| FilterError::Syntax { text: text.to_owned(), source })?;
        (self.reload)(filter).map_err(FilterError::Reload)?;
        text.clone_into(&mut self.filter.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        Ok(())
    }

    /// Another window for repeated warnings; zero writes every one.
    pub fn set_repeat_window(&self, window: Duration) {
        self.limiter.set_window(window);
    }
}

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("cannot install the log subscriber")]
    Install(#[source] tracing_subscriber::util::TryInitError),
}

/// Installs the process's subscriber and a panic hook that logs. Once per process.
pub fn init(config: &LogConfig) -> Result<LogHandle, TelemetryError> {
    let filter = parse_filter(&config.filter)
        .map_err(|source| FilterError::Syntax { text: config.filter.clone(), source })?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let limiter = RepeatLimiter::new(config.repeat_window);
    let handle_limiter = limiter.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match config.format {
        LogFormat::Human => {
            let journald = std::env::var_os("JOURNAL_STREAM").is_some();
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let format = Format::default().with_target(false);
            let inner = Inner::Human { format, journald };
            registry
                .with(layer.with_ansi(colour).event_format(Lines { inner, limiter }))
                .try_init()
                .map_err(TelemetryError::Install)?;
        }
        LogFormat::Json => {
            let format = Format::default().json().flatten_event(true).with_current_span(false);
            let inner = Inner::Json(format);
            registry
                .with(
                    layer
                        .with_ansi(false)
                        .fmt_fields(JsonFields::new())
                        .event_format(Lines { inner, limiter }),
                )
                .try_init()
                .map_err(TelemetryError::Install)?;
        }
    }
    std::panic::set_hook(Box::new(log_panic));
    let reload = Arc::new(move |filter| handle.reload(filter));
    let filter = Arc::new(std::sync::Mutex::new(config.filter.clone()));
    Ok(LogHandle { reload, filter, limiter: handle_limiter })
}

fn log_panic(info: &std::panic::PanicHookInfo<'_>) {
    let text = info.payload_as_str().unwrap_or("(no text)");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(%location, error = text, "panic");
}

/// Formats one event, unless it repeats a warning of a moment ago.
struct Lines {
    inner: Inner,
    limiter: RepeatLimiter,
}

enum Inner {
    Human { format: Format<Full>, journald: bool },
    Json(Format<Json>),
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        cx: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if *event.metadata().level() <= Level::WARN {
            match self.limiter.line(event, outermost(cx)) {
                Line::LeaveOut => return Ok(()),
                Line::Write { left_out: 0 } => {}
                Line::Write { left_out } => self.note(&mut writer, left_out, event)?,
            }
        }
        match &self.inner {
            Inner::Human { format, journald: false } => format.format_event(cx, writer, event),
            Inner::Human { format, journald: true } => {
                writer.write_str(priority(*event.metadata().level()))?;
                format.clone().without_time().format_event(cx, writer, event)
            }
            Inner::Json(format) => format.format_event(cx, writer, event),
        }
    }
}

/// The outermost span of an event, as it is written: the role, where there is one.
fn outermost<S, N>(cx: &FmtContext<'_, S, N>) -> Option<(&'static str, String)>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let span = cx.event_scope()?.from_root().next()?;
    let fields = span.extensions().get::<FormattedFields<N>>().map(|text| text.fields.clone());
    Some((span.name(), fields.unwrap_or_default()))
}

impl Lines {
    /// A line of its own before the one that is written again.
    fn note(&self, writer: &mut Writer<'_>, count: u64, event: &Event<'_>) -> fmt::Result {
        let level = event.metadata().level();
        match &self.inner {
            Inner::Human { journald, .. } => {
                let prefix = if *journald { priority(*level) } else { "" };
                writeln!(
                    writer,
                    "{prefix}{level:>5} the next line was left out before count={count}"
                )
            }
            Inner::Json(_) => {
                let message = "the next line was left out before";
                let line = serde_json::json!({
                    "level": level.as_str(), "message": message, "count": count,
                });
                writeln!(writer, "{line}")
            }
        }
    }
}

/// The prefix by which journald learns a line's priority (`sd-daemon(3)`).
const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _debug => "<7>",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Mutex, PoisonError};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What `work` writes, without times.
    fn lines_of(limiter: &RepeatLimiter, work: impl FnOnce()) -> String {
        let captured = Captured::default();
        let writer = captured.clone();
        let format = Format::default().with_target(false);
        let inner = Inner::Human { format, journald: true };
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Lines { inner, limiter: limiter.clone() });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), work);
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    fn attempt(role: &'static str, attempt: u32, error: &str) {
        let _role = tracing::error_span!("role", role).entered();
        // As a link does: a span of its own for each attempt.
        let _attempt = tracing::error_span!("attempt", attempt).entered();
        tracing::warn!(attempt, error, retry_in_ms = attempt * 100, "cannot connect");
    }

    #[test]
    fn a_warning_is_written_once_per_window_cause_and_role_with_a_count() {
        let limiter = RepeatLimiter::new(Duration::from_secs(60));
        let lines = lines_of(&limiter, || {
            for number in 1..=12 {
                attempt("ss", number, "refused");
            }
            attempt("cp", 1, "refused");
            attempt("ss", 13, "timed out");
        });
        assert_eq!(lines.lines().count(), 3, "{lines}");
        limiter.set_window(Duration::from_millis(1));
        let mut lines =
            std::iter::repeat_with(|| lines_of(&limiter, || attempt("ss", 14, "refused")));
        let lines = lines.find(|lines| !lines.is_empty()).unwrap();
        let (note, line) = lines.split_once('\n').unwrap();
        assert!(note.starts_with("<4> WARN the next line was left out before count="), "{note}");
        assert_eq!(
            line,
            "<4> WARN role{role=\"ss\"}:attempt{attempt=14}: cannot connect attempt=14 \
             error=\"refused\" retry_in_ms=1400\n"
        );
    }
}
