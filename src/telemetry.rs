//! Logs to stderr: human or JSON, a filter that can be changed while running, and a bound on
//! repeated identical warnings.
//!
//! Below journald (stderr is the journal's socket) lines carry syslog priorities and no time of
//! their own; on a terminal they are coloured unless `NO_COLOR` is set.

mod repeat;

use std::fmt;
use std::io::IsTerminal;
use std::sync::Arc;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::fmt::format::{Format, Full, Json, JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};
use repeat::{RepeatLimiter, Verdict};

/// Reads a log filter strictly.
pub fn parse_filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(text)
}

/// Shows and changes the filter of the running process. Cloneable.
#[derive(Clone)]
pub struct FilterHandle {
    reload: Arc<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>,
    current: Arc<std::sync::Mutex<String>>,
}

impl fmt::Debug for FilterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilterHandle").field("current", &self.current()).finish()
    }
}

/// Why the filter stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("{text:?} is not a log filter")]
    Syntax { text: String, source: ParseError },
    #[error("cannot replace the log filter")]
    Reload(#[source] reload::Error),
}

impl FilterHandle {
    /// The directives in force.
    pub fn current(&self) -> String {
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Puts other directives in force, or says why not.
    pub fn replace(&self, text: &str) -> Result<(), FilterError> {
        let filter = parse_filter(text)
            .map_err(|source| FilterError::Syntax { text: text.to_owned(), source })?;
        (self.reload)(filter).map_err(FilterError::Reload)?;
        text.clone_into(
            &mut self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        Ok(())
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
pub fn init(config: &LogConfig) -> Result<FilterHandle, TelemetryError> {
    let filter = parse_filter(&config.filter)
        .map_err(|source| FilterError::Syntax { text: config.filter.clone(), source })?;
    let (filter, handle) = reload::Layer::new(filter);
    let registry = tracing_subscriber::registry().with(filter);
    let limiter = RepeatLimiter::new(config.repeat_window);
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
    Ok(FilterHandle { reload, current: Arc::new(std::sync::Mutex::new(config.filter.clone())) })
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
            match self.limiter.judge(event) {
                Verdict::Suppress => return Ok(()),
                Verdict::Write { suppressed: 0 } => {}
                Verdict::Write { suppressed } => self.note(&mut writer, suppressed, event)?,
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

impl Lines {
    /// A line of its own before the one that is written again.
    fn note(&self, writer: &mut Writer<'_>, count: u64, event: &Event<'_>) -> fmt::Result {
        let level = event.metadata().level();
        match &self.inner {
            Inner::Human { journald, .. } => {
                let prefix = if *journald { priority(*level) } else { "" };
                writeln!(writer, "{prefix}{level:>5} the next line was suppressed count={count}")
            }
            Inner::Json(_) => {
                let message = "the next line was suppressed";
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
