//! File (or an original agent's files), `--set` and `--roles` become one validated [`Config`], or the
//! list of everything wrong.
//!
//! Each crate reads its own table; this module only composes them. Nothing here touches the
//! machine beyond reading the one file.

pub mod effective;
pub mod overlay;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use config_reader::{Effective, Section, Violation, Violations, format_duration};
use role::{ConfigInput, RoleDescriptor, RoleKind, RoleSpec};
use toml::{Table, Value};

use crate::import;
use crate::registry;
use crate::restart::RestartPolicy;
use crate::supervisor::{ConfiguredRole, Keys};

/// Where `status` looks and `run` listens when nothing else is said.
pub const ADMIN_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8251);
/// Below it every role has a directory of its own.
pub const STATE_DIRECTORY: &str = "/var/lib/quickcloud";

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub file: Option<PathBuf>,
    /// An original agent's files in place of `file`.
    pub properties: Option<import::Request>,
    /// `dotted.key=VALUE`, later ones win.
    pub set: Vec<String>,
    /// `--roles`; wins over `supervisor.roles`.
    pub roles: Option<String>,
    pub log_format: Option<LogFormat>,
    pub log_filter: Option<String>,
}

/// What code sees.
#[derive(Debug, Clone)]
pub struct Config {
    pub supervisor: SupervisorConfig,
    pub log: LogConfig,
    pub roles: Vec<ConfiguredRole>,
    /// What holds for each key of `[supervisor]` and `[log]`.
    pub keys: Keys,
}

impl Config {
    /// The roles' specs.
    pub fn specs(&self) -> Vec<Arc<dyn RoleSpec>> {
        self.roles.iter().map(|role| Arc::clone(&role.spec)).collect()
    }

    /// Roles that may need longer to let go than a stop of the process grants, with a sentence: what
    /// they owe to the management server is then cut off.
    pub fn short_graces(&self) -> Vec<(RoleKind, String)> {
        let grace = self.supervisor.shutdown_grace;
        let longer = |role: &ConfiguredRole| {
            let needed = role.spec.stop_grace().filter(|needed| *needed > grace)?;
            let (needed, grace) = (format_duration(needed), format_duration(grace));
            let problem = format!(
                "may need {needed} to answer what it owes and say goodbye, but the process stops \
                 after {grace} (supervisor.shutdown_grace)"
            );
            Some((role.spec.kind(), problem))
        };
        self.roles.iter().filter_map(longer).collect()
    }
}

/// `[supervisor]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupervisorConfig {
    pub state_directory: PathBuf,
    pub admin_address: SocketAddr,
    /// Where the id of the process is written, for those who look for it there.
    pub pid_file: Option<PathBuf>,
    pub shutdown_grace: Duration,
    /// Connections of one client address, on all ports that roles serve together.
    pub connections_per_address: usize,
    /// Stop the process when a role is given up. Off by default: a broken role must not take the
    /// others down, and `/readyz` and the log say plainly which one is missing.
    pub exit_on_failed_role: bool,
    /// A role whose main loop is silent for this long hangs.
    pub progress_deadline: Duration,
    /// How long a failed or hanging role may take to let go before it is aborted.
    pub role_stop_grace: Duration,
    pub restart: RestartPolicy,
}

impl Default for SupervisorConfig {
    fn default() -> Self {
        Self {
            state_directory: STATE_DIRECTORY.into(),
            admin_address: ADMIN_ADDRESS,
            pid_file: None,
            shutdown_grace: Duration::from_secs(30),
            connections_per_address: http_front::CONNECTIONS_PER_ADDRESS,
            exit_on_failed_role: false,
            progress_deadline: Duration::from_mins(1),
            role_stop_grace: Duration::from_secs(5),
            restart: RestartPolicy::default(),
        }
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    pub format: LogFormat,
    /// Directives: see [`crate::telemetry::parse_filter`].
    pub filter: String,
    /// Identical warnings within this time are counted instead of written; zero writes all.
    pub repeat_window: Duration,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            filter: "info".to_owned(),
            repeat_window: Duration::from_mins(1),
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text, coloured on a terminal, with syslog priorities below journald.
    Human,
    /// One JSON object per line.
    Json,
}

impl std::fmt::Display for LogFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Human => "human",
            Self::Json => "json",
        })
    }
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err("neither human nor json"),
        }
    }
}

/// Text that is a valid log filter.
#[derive(Debug, Clone)]
struct FilterText(String);

impl std::fmt::Display for FilterText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FilterText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        crate::telemetry::parse_filter(text)
            .map(|_filter| Self(text.to_owned()))
            .map_err(|error| bedrock::chain(&error))
    }
}

/// A configuration that could be read, right or wrong.
#[derive(Debug)]
pub struct Loaded {
    /// `None` exactly when there are violations.
    pub config: Option<Config>,
    pub violations: Vec<Violation>,
    /// Every key that was read, with its value after defaults.
    pub effective: BTreeMap<String, Effective>,
    /// Tables that are there but not read.
    pub unread: Vec<String>,
    /// Dotted keys given by `--set`.
    pub set: Vec<String>,
    /// What became of an original agent's values, for the log.
    pub imported: Vec<import::Line>,
}

/// Why there is nothing to validate.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Syntax { path: PathBuf, line: usize, column: usize, problem: String },
    #[error(transparent)]
    Import(#[from] import::ReadError),
    #[error("cannot write the password of the key store into {}", path.display())]
    Password { path: PathBuf, source: std::io::Error },
}

/// Reads file and `--set` into one table; also the dotted keys that `--set` gave.
pub fn read_table(sources: &Sources) -> Result<(Table, Vec<String>), LoadError> {
    let (table, set, _) = read(sources)?;
    Ok((table, set))
}

/// As [`read_table`], and what became of an original agent's values.
fn read(sources: &Sources) -> Result<(Table, Vec<String>, Vec<import::Line>), LoadError> {
    let (mut table, imported) = match (&sources.file, &sources.properties) {
        (Some(path), _) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| LoadError::Unreadable { path: path.clone(), source })?;
            let table = text.parse::<Table>();
            (table.map_err(|error| syntax_error(path.clone(), &text, &error))?, Vec::new())
        }
        (None, Some(request)) => import_properties(request, sources)?,
        (None, None) => (Table::default(), Vec::new()),
    };
    let mut set = Vec::new();
    for text in &sources.set {
        let key = overlay::apply(&mut table, text)
            .map_err(|error| LoadError::Usage(error.to_string()))?;
        set.push(key);
    }
    Ok((table, set, imported))
}

/// The password of the agent's key store goes into the state directory, as a secret of this process.
fn import_properties(
    request: &import::Request,
    sources: &Sources,
) -> Result<(Table, Vec<import::Line>), LoadError> {
    let own = Sources { file: None, properties: None, ..sources.clone() };
    let (own, ..) = read(&own)?;
    let state = own.get("supervisor").and_then(|table| table.get("state_directory"));
    let directory = PathBuf::from(state.and_then(Value::as_str).unwrap_or(STATE_DIRECTORY));
    let path = directory.join("imported-keystore.password");
    let imported = import::import(request, &path)?;
    if let Some(password) = &imported.password {
        let written = std::fs::create_dir_all(&directory)
            .and_then(|()| bedrock::files::replace(&path, password.reveal().as_bytes(), 0o600));
        written.map_err(|source| LoadError::Password { path, source })?;
    }
    Ok((imported.table, imported.lines))
}

fn syntax_error(path: PathBuf, text: &str, error: &toml::de::Error) -> LoadError {
    let offset = error.span().map_or(0, |span| span.start);
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let problem = error.message().replace('\n', "; ");
    LoadError::Syntax { path, line, column, problem }
}

/// Reads and validates everything the chosen roles need.
pub fn load(sources: &Sources, registry: &[RoleDescriptor]) -> Result<Loaded, LoadError> {
    let (table, set, imported) = read(sources)?;
    let loaded = load_table(&table, sources, registry)?;
    Ok(Loaded { set, imported, ..loaded })
}

/// Validates a table that was read already.
pub(crate) fn load_table(
    table: &Table,
    sources: &Sources,
    registry: &[RoleDescriptor],
) -> Result<Loaded, LoadError> {
    let asked = match &sources.roles {
        Some(text) => Some(registry::parse_roles(text, registry).map_err(LoadError::Usage)?),
        None => None,
    };
    let mut violations = Violations::new();
    let tables = Tables::split(table, registry, &mut violations);
    let (supervisor, listed) = read_supervisor(tables.supervisor, registry, &mut violations);
    let log = read_log(tables.log, sources, &mut violations);
    let chosen = asked.unwrap_or(listed);
    if chosen.is_empty() && !violations.list().iter().any(|found| found.place == "supervisor.roles")
    {
        let names: Vec<&str> = registry.iter().map(|descriptor| descriptor.kind.short).collect();
        violations.add(
            "supervisor.roles",
            "no role is chosen",
            format!("give --roles {} or supervisor.roles = {names:?}", names.join(",")),
        );
    }

    let empty = Table::default();
    let keys = violations.effective().clone();
    let mut roles = Vec::new();
    for descriptor in &chosen {
        let input = ConfigInput {
            section: tables.role(descriptor).unwrap_or(&empty),
            management: tables.management.unwrap_or(&empty),
            state_directory: &supervisor.state_directory,
        };
        // Of its own, so that it is known which role reads which key.
        let mut found = Violations::new();
        let spec = (descriptor.configure)(input, &mut found);
        roles.extend(spec.map(|spec| ConfiguredRole {
            spec,
            keys: found.effective().clone(),
            reloadable: descriptor.reloadable,
        }));
        violations.absorb(found);
    }
    let unread = registry
        .iter()
        .filter(|known| !chosen.iter().any(|role| role.kind == known.kind))
        .filter(|known| tables.role(known).is_some())
        .map(|known| format!("roles.{}", known.kind.section))
        .collect();
    let list = violations.list().to_vec();
    let effective = violations.effective().clone();
    let config = list.is_empty().then_some(Config { supervisor, log, roles, keys });
    let (set, imported) = (Vec::new(), Vec::new());
    Ok(Loaded { config, violations: list, effective, unread, set, imported })
}

/// The top-level tables, all of the right type or absent.
struct Tables<'a> {
    supervisor: Option<&'a Table>,
    log: Option<&'a Table>,
    management: Option<&'a Table>,
    roles: Option<&'a Table>,
}

impl<'a> Tables<'a> {
    fn split(table: &'a Table, registry: &[RoleDescriptor], violations: &mut Violations) -> Self {
        deny_unknown("", table, &["supervisor", "log", "management", "roles"], violations);
        let mut sub = |parent: Option<&'a Table>, path: &str, key: &str| {
            let value = parent?.get(key)?;
            let found = value.as_table();
            if found.is_none() {
                let place = format!("{path}{key}");
                let remedy = format!("write a table: [{place}]");
                violations.add(place, format!("{value} is not a table"), remedy);
            }
            found
        };
        let tables = Self {
            supervisor: sub(Some(table), "", "supervisor"),
            log: sub(Some(table), "", "log"),
            management: sub(Some(table), "", "management"),
            roles: sub(Some(table), "", "roles"),
        };
        for descriptor in registry {
            sub(tables.roles, "roles.", descriptor.kind.section);
        }
        if let Some(roles) = tables.roles {
            let sections: Vec<&'static str> =
                registry.iter().map(|descriptor| descriptor.kind.section).collect();
            deny_unknown("roles", roles, &sections, violations);
        }
        tables
    }

    fn role(&self, descriptor: &RoleDescriptor) -> Option<&'a Table> {
        self.roles?.get(descriptor.kind.section)?.as_table()
    }
}

/// Reports keys of `table` that are not in `known`. The scratch list keeps whole tables, which may
/// hold secrets, out of the effective values.
fn deny_unknown(path: &str, table: &Table, known: &[&'static str], violations: &mut Violations) {
    let mut scratch = Violations::new();
    let mut section = Section::new(path, table, &mut scratch);
    for key in known {
        section.raw(key);
    }
    section.finish();
    for found in scratch.list() {
        violations.add(found.place.clone(), found.problem.clone(), found.remedy.clone());
    }
}

fn read_supervisor(
    table: Option<&Table>,
    registry: &[RoleDescriptor],
    violations: &mut Violations,
) -> (SupervisorConfig, Vec<RoleDescriptor>) {
    let empty = Table::default();
    let mut section = Section::new("supervisor", table.unwrap_or(&empty), violations);
    let names: Vec<String> = section.list("roles", "list roles: roles = [\"ss\", \"cp\"]");
    let listed = if names.is_empty() {
        Vec::new()
    } else {
        registry::select(names.iter().map(String::as_str), registry).unwrap_or_else(|problem| {
            section.violation("roles", problem, "list known roles only");
            Vec::new()
        })
    };
    let admin_address =
        section.or_default("admin_address", ADMIN_ADDRESS, "give ADDRESS:PORT, port 0 for any");
    let remote = section.or_default("admin_allow_remote", false, "true or false");
    if !admin_address.ip().is_loopback() && !remote {
        section.violation(
            "admin_address",
            format!(
                "{admin_address} can be reached from other machines, and it asks for no password"
            ),
            "use 127.0.0.1, or set supervisor.admin_allow_remote = true behind a firewall",
        );
    }
    let default = SupervisorConfig::default();
    let policy = default.restart;
    let config = SupervisorConfig {
        state_directory: section.path("state_directory", STATE_DIRECTORY),
        admin_address,
        pid_file: section.optional_path("pid_file"),
        shutdown_grace: section.duration("shutdown_grace", default.shutdown_grace),
        connections_per_address: section.or_default(
            "connections_per_address",
            default.connections_per_address,
            "give a number from 1 on",
        ),
        exit_on_failed_role: section.or_default(
            "exit_on_failed_role",
            default.exit_on_failed_role,
            "true or false",
        ),
        progress_deadline: section.duration("progress_deadline", default.progress_deadline),
        role_stop_grace: section.duration("role_stop_grace", default.role_stop_grace),
        restart: RestartPolicy {
            first_delay: section.duration("restart_delay", policy.first_delay),
            max_delay: section.duration("restart_delay_max", policy.max_delay),
            limit: section.or_default("restart_limit", policy.limit, "give a number from 1 on"),
            window: section.duration("restart_window", policy.window),
            reset_after: section.duration("restart_reset_after", policy.reset_after),
        },
    };
    if config.connections_per_address == 0 {
        let remedy = "give 1 or more; a browser uses about 6";
        section.violation("connections_per_address", "0 lets nobody in", remedy);
    }
    if config.restart.limit == 0 {
        section.violation("restart_limit", "0 gives a role up before it fails", "give 1 or more");
    }
    for (key, duration) in [
        ("progress_deadline", config.progress_deadline),
        ("restart_delay", config.restart.first_delay),
    ] {
        if duration.is_zero() {
            section.violation(key, "is zero", "give a duration above zero");
        }
    }
    for (key, path) in
        [("state_directory", Some(&config.state_directory)), ("pid_file", config.pid_file.as_ref())]
    {
        if let Some(path) = path.filter(|path| !path.is_absolute()) {
            let problem = format!("{:?} is relative", path.display().to_string());
            section.violation(key, problem, "give an absolute path");
        }
    }
    section.finish();
    (config, listed)
}

fn read_log(table: Option<&Table>, sources: &Sources, violations: &mut Violations) -> LogConfig {
    let empty = Table::default();
    let default = LogConfig::default();
    let mut section = Section::new("log", table.unwrap_or(&empty), violations);
    let format = section.or_default("format", default.format, "give \"human\" or \"json\"");
    let filter = section.or_default(
        "filter",
        FilterText(default.filter),
        "give directives such as \"info\" or \"info,dhcp=debug\"",
    );
    let repeat_window = section.duration("repeat_window", default.repeat_window);
    section.finish();
    let filter = match &sources.log_filter {
        None => filter.0,
        Some(text) => {
            if let Err(problem) = text.parse::<FilterText>() {
                let remedy = "give directives such as \"info\" or \"info,dhcp=debug\"";
                violations.add("--log", format!("{text:?} is not valid: {problem}"), remedy);
            }
            text.clone()
        }
    };
    LogConfig { format: sources.log_format.unwrap_or(format), filter, repeat_window }
}

#[cfg(test)]
mod example_tests;
#[cfg(test)]
mod tests;
