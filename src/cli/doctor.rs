//! `quickcloud doctor`: everything that can be asked about configuration, machine, servers and the
//! running process, one line each.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use config_reader::Effective;
use http_client::Client;
use role::{CommandSpec, DoctorFinding, Host, Reach, Resource, RoleDescriptor};
use serde_json::{Value, json};
use status_api::{HealthWord, ProcessStatus};

use super::SourceOptions;
use super::check::{complain_of_load, state_directory};
use super::text::plain;
use crate::admin::AddressFile;
use crate::config::{self, Config};
use crate::doctor::{self, Answer};
use crate::exit::Outcome;
use crate::output::{complain_of, say};
use crate::process::own_resources;
use crate::supervisor::conflicts;
use crate::supervisor::preflight::{Preflight, preflight};

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud doctor --config /etc/quickcloud/quickcloud.toml
  quickcloud doctor --config /etc/quickcloud/quickcloud.toml --json
  quickcloud doctor --config /etc/quickcloud/quickcloud.toml --fix

Exit codes: 0 nothing is wrong (warnings included), 69 something is, 78 the configuration is wrong.
quickcloud zone status asks the server how the zone is.";

#[derive(Debug, Args)]
pub(super) struct DoctorOptions {
    #[command(flatten)]
    sources: SourceOptions,
    /// Ask this machine only
    #[arg(long)]
    offline: bool,
    /// Make directories that are missing; nothing else is ever changed
    #[arg(long)]
    fix: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// One line of the answer.
#[derive(Debug)]
struct Line {
    subject: String,
    check: String,
    finding: DoctorFinding,
}

impl Line {
    fn new(subject: &str, check: &str, finding: DoctorFinding) -> Self {
        Self { subject: subject.to_owned(), check: check.to_owned(), finding }
    }

    fn fault(subject: &str, check: &str, problem: String, remedy: impl Into<String>) -> Self {
        Self::new(subject, check, DoctorFinding::Fault { problem, remedy: remedy.into() })
    }
}

/// How long the running process may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_secs(3);

pub(super) fn doctor(options: DoctorOptions, registry: &[RoleDescriptor]) -> Outcome {
    let loaded = match config::load(&options.sources.sources(), registry) {
        Ok(loaded) => loaded,
        Err(error) => return complain_of_load(&error),
    };
    let mut lines: Vec<Line> = loaded
        .violations
        .iter()
        .map(|found| {
            let problem = format!("{}: {}", found.place, found.problem);
            Line::fault("configuration", "config", problem, found.remedy.clone())
        })
        .collect();
    let Some(config) = &loaded.config else {
        let said = show(&lines, options.json);
        return if said == Outcome::Clean { Outcome::Configuration } else { said };
    };
    if options.fix {
        let root = loaded.effective.get("roles.secondary_storage.mount_root");
        let root = root.and_then(|value| match value {
            Effective::Given(value) => value.as_str().map(str::to_owned),
            Effective::Default(text) => Some(text.trim_matches('"').to_owned()),
            _ => None,
        });
        fix(&mut lines, config, root.as_deref());
    }
    let runtime = match crate::runtime::single_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    let reach = if options.offline { Reach::Machine } else { Reach::Network };
    runtime.block_on(examine(&mut lines, config, reach));
    let said = show(&lines, options.json);
    let is_fault = |line: &Line| matches!(line.finding, DoctorFinding::Fault { .. });
    match said {
        Outcome::Clean if lines.iter().any(is_fault) => Outcome::Unavailable,
        said => said,
    }
}

/// What is safe: directories that a start would make, or miss.
fn fix(lines: &mut Vec<Line>, config: &Config, mount_root: Option<&str>) {
    let state = Some(config.supervisor.state_directory.clone());
    let has_ss = config.roles.iter().any(|role| role.spec.kind().short == "ss");
    let root = mount_root.filter(|_| has_ss).map(PathBuf::from);
    for path in state.into_iter().chain(root).filter(|path| !path.exists()) {
        let finding = match std::fs::create_dir_all(&path) {
            Ok(()) => DoctorFinding::Good(format!("{} is made", path.display())),
            Err(error) => DoctorFinding::Fault {
                problem: format!("cannot make {}: {error}", path.display()),
                remedy: "run this as the user that quickcloud runs as, or as root".to_owned(),
            },
        };
        lines.push(Line::new("supervisor", "fix", finding));
    }
}

async fn examine(lines: &mut Vec<Line>, config: &Config, reach: Reach) {
    let host = Host::system();
    for conflict in conflicts::find(&config.specs(), &own_resources(config)) {
        let remedy = "give each its own; for names, none may begin with another";
        lines.push(Line::fault("supervisor", "config.conflict", conflict.to_string(), remedy));
    }
    let state = &config.supervisor.state_directory;
    lines.push(match state_directory(state) {
        Some(found) => Line::fault("supervisor", "state.directory", found.problem, found.remedy),
        None => {
            let text = format!("{} can be written to", state.display());
            Line::new("supervisor", "state.directory", DoctorFinding::Good(text))
        }
    });
    lines.push(Line::new("machine", "machine.clock", clock(&host).await));
    let running = process(lines, config).await;
    if !running {
        ports(lines, config);
    }
    for role in &config.roles {
        let short = role.spec.kind().short;
        let found = match preflight(&role.spec, &host).await {
            Preflight::Passed => Vec::new(),
            Preflight::Misconfigured(found) | Preflight::Lacking(found) => found,
            Preflight::Broken(problem) => {
                lines.push(Line::fault(short, "start", problem, "report this as a bug"));
                Vec::new()
            }
        };
        lines.extend(
            found.into_iter().map(|found| Line::fault(short, "start", found.problem, found.remedy)),
        );
    }
    for Answer { role, check, finding } in doctor::ask(&config.roles, &host, reach).await {
        // What makes a start impossible may be found by a check, too.
        let told = |line: &Line| match (&line.finding, &finding) {
            (DoctorFinding::Fault { problem: a, .. }, DoctorFinding::Fault { problem: b, .. }) => {
                line.subject == role && a == b
            }
            _ => false,
        };
        if !lines.iter().any(told) {
            lines.push(Line::new(role, check, finding));
        }
    }
}

/// Certificates and signatures of the API depend on it.
async fn clock(host: &Host) -> DoctorFinding {
    let mut spec = CommandSpec::new("timedatectl", STATUS_TIMEOUT);
    for argument in ["show", "--property=NTPSynchronized", "--value"] {
        spec = spec.arg(argument);
    }
    match host.runner.run(spec).await {
        Ok(output) if output.stdout.trim() == "yes" => {
            DoctorFinding::Good("the clock is synchronised".to_owned())
        }
        Ok(output) if output.stdout.trim() == "no" => DoctorFinding::Warning {
            problem: "the clock is not synchronised".to_owned(),
            remedy: "signatures and certificates depend on it: start chrony or \
                     systemd-timesyncd"
                .to_owned(),
        },
        Ok(_) | Err(_) => DoctorFinding::Skipped(
            "timedatectl does not tell whether the clock is synchronised".to_owned(),
        ),
    }
}

/// How the running process is; whether one runs.
async fn process(lines: &mut Vec<Line>, config: &Config) -> bool {
    let supervisor = &config.supervisor;
    let address = AddressFile::read(&supervisor.state_directory);
    let address = address.unwrap_or(supervisor.admin_address);
    let client = Client::tcp(address.to_string()).timeout(STATUS_TIMEOUT);
    let status = match client.get::<ProcessStatus>("/status").await {
        Ok(status) => status,
        Err(error) => {
            let problem = format!("no process answers at {address}: {}", bedrock::chain(&error));
            let remedy = "systemctl start quickcloud, or give the --config it was started with";
            let finding = DoctorFinding::Warning { problem, remedy: remedy.to_owned() };
            lines.push(Line::new("process", "process.running", finding));
            return false;
        }
    };
    let text = format!("version {} answers at {address}", plain(&status.version));
    lines.push(Line::new("process", "process.running", DoctorFinding::Good(text)));
    for role in &status.roles {
        let finding = match role.health {
            HealthWord::Ready => DoctorFinding::Good("ready".to_owned()),
            health => DoctorFinding::Fault {
                problem: format!(
                    "{health}: {}",
                    role.reason.as_deref().unwrap_or("no reason given")
                ),
                remedy: "see the checks of this role, and journalctl -u quickcloud".to_owned(),
            },
        };
        lines.push(Line::new(&role.role, "process.role", finding));
    }
    true
}

/// Ports that a start would bind; while the process runs they are its own.
fn ports(lines: &mut Vec<Line>, config: &Config) {
    let mut seen: Vec<SocketAddr> = Vec::new();
    for role in &config.roles {
        let short = role.spec.kind().short;
        for resource in role.spec.resources() {
            let (Resource::Tcp(addr) | Resource::HttpRoute { addr, .. }) = resource else {
                continue;
            };
            if seen.contains(&addr) {
                continue;
            }
            seen.push(addr);
            lines.push(Line::new(short, "port", port(addr)));
        }
    }
}

fn port(addr: SocketAddr) -> DoctorFinding {
    use std::io::ErrorKind;
    let error = match TcpListener::bind(addr) {
        Ok(_listener) => return DoctorFinding::Good(format!("{addr} is free")),
        Err(error) => error,
    };
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => {
            let port = addr.port();
            format!("see who has it (ss -ltnp 'sport = :{port}'), stop that, or listen elsewhere")
        }
        ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: start it by the unit file, or choose \
             another port"
                .to_owned()
        }
        _ => "listen on an address of this machine".to_owned(),
    };
    DoctorFinding::Fault { problem: format!("cannot listen on {addr}: {error}"), remedy }
}

const fn word(finding: &DoctorFinding) -> &'static str {
    match finding {
        DoctorFinding::Good(_) => "ok",
        DoctorFinding::Warning { .. } => "warning",
        DoctorFinding::Fault { .. } => "fault",
        DoctorFinding::Skipped(_) => "skipped",
    }
}

fn parts(finding: &DoctorFinding) -> (&str, Option<&str>) {
    match finding {
        DoctorFinding::Good(text) | DoctorFinding::Skipped(text) => (text, None),
        DoctorFinding::Warning { problem, remedy } | DoctorFinding::Fault { problem, remedy } => {
            (problem, Some(remedy))
        }
    }
}

fn show(lines: &[Line], json: bool) -> Outcome {
    if json {
        let list: Vec<Value> = lines
            .iter()
            .map(|line| {
                let (text, remedy) = parts(&line.finding);
                json!({"subject": line.subject, "check": line.check, "state": word(&line.finding),
                       "text": text, "remedy": remedy})
            })
            .collect();
        let ok = !lines.iter().any(|line| word(&line.finding) == "fault");
        return say(&format!("{:#}\n", json!({"ok": ok, "checks": list})));
    }
    let mut text = String::new();
    for line in lines {
        let (told, remedy) = parts(&line.finding);
        let (subject, check) = (&line.subject, &line.check);
        text.push_str(&format!("{:7} {subject} {check}: {}\n", word(&line.finding), plain(told)));
        if let Some(remedy) = remedy {
            text.push_str(&format!("        → {}\n", plain(remedy)));
        }
    }
    let count = |wanted: &str| lines.iter().filter(|line| word(&line.finding) == wanted).count();
    let (faults, warnings) = (count("fault"), count("warning"));
    text.push_str(&format!("\n{} checks, {faults} faults, {warnings} warnings\n", lines.len()));
    say(&text)
}
