//! `quickcloud zone …`: puts a zone into this host's care and gives it back.

pub(super) mod api;
mod db;
pub(super) mod show;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use cloudstack_api::Client;

use crate::exit::Outcome;
use crate::output::{complain, complain_of, say};
use crate::zone::act::{ActError, Doing, act, settle};
use crate::zone::disable::disable;
use crate::zone::enable::{enable, needs_set_up};
use crate::zone::look::{Seen, look};
use crate::zone::{ConsoleMode, Step, StorageMode, Wish, state};
use api::ApiOptions;
use db::DatabaseOptions;

#[derive(Debug, Subcommand)]
pub(super) enum ZoneCommand {
    /// Shows what is, what will be and why, and changes nothing
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(EnableOptions),
    /// Puts the zone into this host's care
    ///
    /// Shows the plan and asks. What the API can do is done. What only the database can change is run
    /// there with --db; else it is printed as SQL: run it, then the same command again, which goes on
    /// where it is. Exit code 1 while steps are left.
    #[command(after_help = ENABLE_EXAMPLES)]
    Enable(EnableOptions),
    /// Gives the zone back to its system VMs, and waits for them
    #[command(after_help = DISABLE_EXAMPLES)]
    Disable(DisableOptions),
    /// Says who serves the zone, and what is half done and how to go on
    #[command(after_help = STATUS_EXAMPLES)]
    Status(StatusOptions),
}

const PLAN_EXAMPLES: &str = "\
Examples:
  quickcloud zone plan z1 --url http://10.0.0.5:8080/client/api \\
                  --api-key-file /etc/quickcloud/api.key --secret-key-file /etc/quickcloud/secret.key";

const ENABLE_EXAMPLES: &str = "\
Examples:
  quickcloud zone enable z1 --output /etc/quickcloud/quickcloud.toml --sql rows.sql
  quickcloud zone enable z1 --output /etc/quickcloud/quickcloud.toml \\
                  --db /etc/cloudstack/management/db.properties --db-key-file /etc/cloudstack/management/key
  quickcloud zone enable z1 --db mysql://cloud@10.0.0.5/cloud --db-password-file /etc/quickcloud/db.password
  quickcloud zone enable z1 --roles ss --storage standalone --yes
  quickcloud zone enable z1 --roles ss,cp,dhcp --interface cloudbr0 --config /etc/quickcloud/quickcloud.toml

The API is that of --url and the two key files, or CLOUDSTACK_ENDPOINT, CLOUDSTACK_KEY and
CLOUDSTACK_SECRET, or roles.dhcp.sync of --config. The user needs the role of a root administrator.";

const DISABLE_EXAMPLES: &str = "\
Examples:
  quickcloud zone disable z1
  quickcloud zone disable z1 --yes --wait 20m";

const STATUS_EXAMPLES: &str = "\
Examples:
  quickcloud zone status z1
  quickcloud zone status z1 --json

Exit code 0 when the zone is wholly in the care of one, 1 when something is half done.";

/// Of every subcommand; a test parses them.
#[cfg(test)]
pub(super) const EXAMPLES: &[&str] =
    &[PLAN_EXAMPLES, ENABLE_EXAMPLES, DISABLE_EXAMPLES, STATUS_EXAMPLES];

#[derive(Debug, Args)]
pub(super) struct EnableOptions {
    /// Name or id of the zone
    zone: String,
    #[command(flatten)]
    api: ApiOptions,
    #[command(flatten)]
    database: DatabaseOptions,
    /// Services to take: ss, cp, dhcp
    #[arg(long, value_delimiter = ',', default_value = "ss,cp", value_parser = ["ss", "cp", "dhcp"])]
    roles: Vec<String>,
    /// Address of this host towards the management server; that of the route to it by default
    #[arg(long)]
    address: Option<IpAddr>,
    /// Address that links name; that of --address by default
    #[arg(long)]
    public_address: Option<IpAddr>,
    /// Management servers for agents, as HOST or HOST:PORT; the hosts of --url by default
    #[arg(long, value_delimiter = ',')]
    servers: Vec<String>,
    /// How the server knows the storage
    #[arg(long, value_enum, default_value_t = StorageMode::Auto)]
    storage: StorageMode,
    /// How the server knows the console proxy
    #[arg(long, value_enum, default_value_t = ConsoleMode::Row)]
    console: ConsoleMode,
    /// Port of a static console proxy, in its links
    #[arg(long, default_value_t = 8080)]
    console_port: u16,
    /// Interface of the guest network, for dhcp
    #[arg(long)]
    interface: Option<String>,
    /// Write the configuration of this host there
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace FILE when it says something else
    #[arg(long, requires = "output")]
    force: bool,
    /// Write the SQL there instead of printing it
    #[arg(long, value_name = "FILE")]
    sql: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct DisableOptions {
    /// Name or id of the zone
    zone: String,
    #[command(flatten)]
    api: ApiOptions,
    #[command(flatten)]
    database: DatabaseOptions,
    /// How long to wait for this host to leave and for the system VMs to come
    #[arg(long, default_value = "10m", value_parser = duration)]
    wait: Duration,
    /// Write the SQL there instead of printing it
    #[arg(long, value_name = "FILE")]
    sql: Option<PathBuf>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct StatusOptions {
    /// Name or id of the zone
    zone: String,
    #[command(flatten)]
    api: ApiOptions,
    #[command(flatten)]
    database: DatabaseOptions,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

/// Between two looks at the server.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);

fn duration(text: &str) -> Result<Duration, String> {
    config_reader::parse_duration(text).ok_or_else(|| "give a time such as \"10m\"".to_owned())
}

pub(super) fn zone(command: &ZoneCommand) -> Outcome {
    let runtime = match crate::runtime::single_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    runtime.block_on(async {
        match command {
            ZoneCommand::Plan(options) => plan(options, false).await,
            ZoneCommand::Enable(options) => plan(options, true).await,
            ZoneCommand::Disable(options) => give_back(options).await,
            ZoneCommand::Status(options) => status(options).await,
        }
    })
}

/// The connected client and what it sees; an error is told already.
pub(super) async fn seen(
    api: &ApiOptions,
    zone: &str,
) -> Result<(Client, api::Access, Seen), Outcome> {
    let access = api.access().map_err(|problem| {
        complain(&format!("error: {problem}\n"));
        Outcome::Usage
    })?;
    let mut client = access.client().map_err(|problem| {
        complain(&format!("error: {problem}\n"));
        Outcome::Configuration
    })?;
    match look(&mut client, zone).await {
        Ok(seen) => Ok((client, access, seen)),
        Err(error) => {
            complain_of(&error);
            Err(Outcome::Failed)
        }
    }
}

async fn plan(options: &EnableOptions, carry_out: bool) -> Outcome {
    let (mut client, access, seen) = match seen(&options.api, &options.zone).await {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    let mut wish = match wish(options, &access) {
        Ok(wish) => wish,
        Err(problem) => {
            complain(&format!("error: {problem}\n"));
            return Outcome::Usage;
        }
    };
    let database = match options.database.open().await {
        Ok(database) => database,
        Err(outcome) => return outcome,
    };
    if let Some(database) = database.as_ref().filter(|_| needs_set_up(&seen, &wish)) {
        match database.set_up().await {
            Ok(set_up) => wish.set_up = set_up,
            Err(error) => {
                complain_of(&error);
                return Outcome::Failed;
            }
        }
    }
    let steps = enable(&seen, &wish);
    if !carry_out {
        return show::plan(&seen, &steps, options.json, options.sql.as_deref());
    }
    if !options.json {
        let shown = show::plan(&seen, &steps, false, options.sql.as_deref());
        if shown != Outcome::Clean {
            return shown;
        }
    }
    if !options.yes && !confirmed() {
        return Outcome::Usage;
    }
    let mut doing = Doing {
        client: &mut client,
        zone: &options.zone,
        database: database.as_ref(),
        file: options.output.as_deref(),
        force: options.force,
        wait: Duration::ZERO,
        interval: INTERVAL,
        webhooks: false,
    };
    let done = act(&mut doing, |seen| enable(seen, &wish), told).await;
    finish(done, &seen, options.json, options.sql.as_deref(), Some("disable"))
}

async fn give_back(options: &DisableOptions) -> Outcome {
    let (mut client, _, seen) = match seen(&options.api, &options.zone).await {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    let database = match options.database.open().await {
        Ok(database) => database,
        Err(outcome) => return outcome,
    };
    if !options.json {
        let shown = show::plan(&seen, &disable(&seen), false, options.sql.as_deref());
        if shown != Outcome::Clean {
            return shown;
        }
    }
    if !options.yes && !confirmed() {
        return Outcome::Usage;
    }
    let mut doing = Doing {
        client: &mut client,
        zone: &options.zone,
        database: database.as_ref(),
        file: None,
        force: false,
        wait: options.wait,
        interval: INTERVAL,
        webhooks: false,
    };
    let done = match act(&mut doing, disable, told).await {
        Ok(steps) if steps.iter().all(|step| step.done) => Ok(steps),
        Ok(_) => settle(&mut doing, disable, told).await,
        Err(error) => Err(error),
    };
    finish(done, &seen, options.json, options.sql.as_deref(), Some("enable"))
}

/// Progress goes to standard error: the answer is the plan.
pub(super) fn told(line: &str) {
    complain(&format!("{}\n", super::text::plain(line)));
}

/// What is left, with the outcome.
pub(super) fn finish(
    done: Result<Vec<Step>, ActError>,
    seen: &Seen,
    json: bool,
    sql: Option<&std::path::Path>,
    back: Option<&str>,
) -> Outcome {
    match done {
        Ok(steps) => {
            let open = steps.iter().any(|step| !step.done);
            let said = show::plan(seen, &steps, json, sql);
            if said == Outcome::Clean && open { Outcome::Failed } else { said }
        }
        Err(error) => {
            complain_of(&error);
            let zone = super::text::plain(&seen.zone.name);
            let back =
                back.map(|back| format!(", or quickcloud zone {back} {zone} to take it back"));
            let back = back.unwrap_or_default();
            complain(&format!("what was done stays: run the command again to go on{back}\n"));
            Outcome::Failed
        }
    }
}

async fn status(options: &StatusOptions) -> Outcome {
    let (_, _, seen) = match seen(&options.api, &options.zone).await {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    // Whether it is there, and what it should be, is told by an error.
    if let Err(outcome) = options.database.open().await {
        return outcome;
    }
    let found = state::judge(&seen);
    let said = show::state(&seen, &found, options.json);
    match said {
        Outcome::Clean if !found.findings.is_empty() => Outcome::Failed,
        said => said,
    }
}

fn confirmed() -> bool {
    if !std::io::stdin().is_terminal() {
        complain("nothing is changed: add --yes, nobody can be asked here\n");
        return false;
    }
    complain("Go on? [y/N] ");
    std::io::stderr().flush().unwrap_or_default();
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let yes = read.is_ok() && matches!(line.trim(), "y" | "Y" | "yes");
    if !yes {
        complain("nothing is changed\n");
    }
    yes
}

fn wish(options: &EnableOptions, access: &api::Access) -> Result<Wish, String> {
    let role = |name: &str| options.roles.iter().any(|role| role == name);
    let server = access.hosts.first().ok_or("the API's URL names no host")?;
    let address = match options.address {
        Some(address) => address,
        None => towards(server).ok_or_else(|| {
            format!("this host has no route to {server}: give its address with --address")
        })?,
    };
    if role("dhcp") && options.interface.is_none() {
        return Err("role dhcp needs --interface, the bridge of the guest network".to_owned());
    }
    let servers = match options.servers.as_slice() {
        [] => access.hosts.clone(),
        given => given.to_vec(),
    };
    Ok(Wish {
        ss: role("ss"),
        cp: role("cp"),
        dhcp: role("dhcp"),
        address,
        public: options.public_address.unwrap_or(address),
        servers,
        storage: options.storage,
        console: options.console,
        console_port: options.console_port,
        interface: options.interface.clone(),
        api: access.files.clone(),
        set_up: None,
    })
}

/// Our address on the way to a host; nothing is sent.
fn towards(host: &str) -> Option<IpAddr> {
    let to = std::net::ToSocketAddrs::to_socket_addrs(&(host, 8250)).ok()?.next()?;
    let any: std::net::SocketAddr =
        if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// Writes SQL where it was asked for.
pub(super) fn say_or_write(text: &str, file: Option<&std::path::Path>) -> Outcome {
    let Some(path) = file else { return say(text) };
    match bedrock::files::replace(path, text.as_bytes(), 0o600) {
        Ok(()) => say(&format!("SQL is in {}\n", path.display())),
        Err(error) => {
            complain(&format!("error: cannot write {}: {error}\n", path.display()));
            Outcome::System
        }
    }
}
