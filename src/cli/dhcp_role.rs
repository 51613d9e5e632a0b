//! `quickcloud dhcp …`: what the DHCP and DNS role serves, and what it should. Asks the role's API
//! over its Unix socket.

mod change;
mod document;
mod plan;
mod show;
mod target;
mod watch;

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::exit::Outcome;
use crate::output::{complain, say};
use crate::registry::access::{self, AccessRole};
use target::{Target, View};

#[derive(Debug, Subcommand)]
pub(super) enum DhcpCommand {
    /// Shows what is served, how the sync with the management server is, and what is wrong
    #[command(after_help = STATUS_EXAMPLES)]
    Status(View),
    /// Lists reservations: who gets which address under which name
    #[command(after_help = RESERVATIONS_EXAMPLES)]
    Reservations(ReservationsOptions),
    /// Lists leases: who holds which address
    #[command(after_help = LEASES_EXAMPLES)]
    Leases(LeasesOptions),
    /// Says why a client gets an address, or why it does not
    #[command(after_help = EXPLAIN_EXAMPLES)]
    Explain(ExplainOptions),
    /// Makes or replaces a reservation
    #[command(after_help = PUT_EXAMPLES)]
    Put(PutOptions),
    /// Removes a reservation
    Rm(OneOptions),
    /// Takes a lease back from whoever holds it
    Release(ReleaseOptions),
    /// Reads the management server's book now, and says what came of it
    #[command(after_help = SYNC_EXAMPLES)]
    Sync(SyncOptions),
    /// Shows how a zone gets a guest network whose DHCP and DNS are this role's, and makes it
    ///
    /// Without --apply nothing is changed. With it what the API can do is done; what is done already
    /// is left alone, so that it can be run again. Exit code 1 while steps are left.
    #[command(after_help = plan::EXAMPLES)]
    Plan(Box<plan::PlanOptions>),
    /// Shows live what a client says and is told
    #[command(after_help = watch::EXAMPLES)]
    Trace(watch::TraceOptions),
    /// Asks on the interface whether somebody else gives addresses
    #[command(after_help = watch::PROBE_EXAMPLES)]
    Probe(watch::ProbeOptions),
    /// Writes everything of the API as one file
    #[command(after_help = document::EXAMPLES)]
    Export(document::ExportOptions),
    /// Says everything that is wrong with such a file, and what it would change
    #[command(after_help = document::EXAMPLES)]
    Validate(document::ValidateOptions),
    /// Makes everything of the API as in a file: what is not in it goes
    #[command(after_help = document::EXAMPLES)]
    Apply(document::ApplyOptions),
    /// Makes a token for the API over TCP: the token on stderr, its line for the file on stdout
    #[command(after_help = TOKEN_EXAMPLES)]
    Token(TokenOptions),
    /// Prints a file of dnsmasq as it is rendered
    Config(ConfigOptions),
    /// Reserves an address as CloudStack's edithosts scripts do
    ///
    /// For scripts written against those: exit code 0 when it is served, 1 with one line on stderr
    /// when it is refused, 75 when the role does not run.
    Edithosts(EdithostsOptions),
}

const STATUS_EXAMPLES: &str = "\
Examples:
  quickcloud dhcp status
  quickcloud dhcp status --watch
  quickcloud dhcp status --json --socket /run/quickcloud/dhcp.sock";

const RESERVATIONS_EXAMPLES: &str = "\
Examples:
  quickcloud dhcp reservations
  quickcloud dhcp reservations --source cloudstack --unleased
  quickcloud dhcp reservations --mac 1e:00:28:00:01:63 --json";

const LEASES_EXAMPLES: &str = "\
Examples:
  quickcloud dhcp leases
  quickcloud dhcp leases --conflicts";

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  quickcloud dhcp explain 10.77.0.50
  quickcloud dhcp explain 1e:00:28:00:01:63
  quickcloud dhcp explain web-1.cs.example

Exit code 0 when the client is served, 1 when it is not.";

const PUT_EXAMPLES: &str = "\
Examples:
  quickcloud dhcp put printer --mac 02:00:00:00:00:07 --ip 10.77.0.7 --name printer";

const SYNC_EXAMPLES: &str = "\
Examples:
  quickcloud dhcp sync
  quickcloud dhcp sync --dry-run
  quickcloud dhcp sync --force";

const TOKEN_EXAMPLES: &str = "\
Examples:
  quickcloud dhcp token monitoring --role reader
  quickcloud dhcp token portal --role writer >> /etc/quickcloud/dhcp-tokens

Only the digest is kept: nobody can read the token out of the file again.";

/// Of every subcommand; a test parses them.
#[cfg(test)]
pub(super) const EXAMPLES: &[&str] = &[
    STATUS_EXAMPLES,
    RESERVATIONS_EXAMPLES,
    LEASES_EXAMPLES,
    EXPLAIN_EXAMPLES,
    PUT_EXAMPLES,
    SYNC_EXAMPLES,
    TOKEN_EXAMPLES,
    document::EXAMPLES,
    plan::EXAMPLES,
    watch::EXAMPLES,
    watch::PROBE_EXAMPLES,
];

#[derive(Debug, Args)]
pub(super) struct ReservationsOptions {
    /// Only this MAC address
    #[arg(long)]
    mac: Option<String>,
    /// Only this address
    #[arg(long)]
    ip: Option<Ipv4Addr>,
    /// Only this name
    #[arg(long)]
    name: Option<String>,
    /// Only those of this source
    #[arg(long, value_parser = ["api", "cloudstack"])]
    source: Option<String>,
    /// Only those whose client holds no lease
    #[arg(long)]
    unleased: bool,
    #[command(flatten)]
    view: View,
}

#[derive(Debug, Args)]
pub(super) struct LeasesOptions {
    /// Only leases that are nobody's reservation
    #[arg(long)]
    conflicts: bool,
    #[command(flatten)]
    view: View,
}

#[derive(Debug, Args)]
pub(super) struct ExplainOptions {
    /// A MAC address, an IPv4 address, or a name with or without its domain
    who: String,
    /// As JSON, as the role gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct PutOptions {
    /// Id of the reservation
    id: String,
    #[arg(long)]
    mac: String,
    #[arg(long)]
    ip: Ipv4Addr,
    /// Host name
    #[arg(long)]
    name: Option<String>,
    /// Tell the client no router, DNS server or domain
    #[arg(long)]
    no_default_route: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct OneOptions {
    /// Id of the reservation
    id: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct ReleaseOptions {
    /// The leased address
    ip: Ipv4Addr,
    /// Only if this MAC holds it
    #[arg(long)]
    mac: Option<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct SyncOptions {
    /// Confirm deletions that are held
    #[arg(long)]
    force: bool,
    /// Say what would come of it, and store nothing
    #[arg(long)]
    dry_run: bool,
    /// As JSON, as the role gives it
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct TokenOptions {
    /// Whose it is, one word
    name: String,
    /// What it allows: reader, writer (reservations, records, leases) or admin
    #[arg(long)]
    role: AccessRole,
}

#[derive(Debug, Args)]
pub(super) struct ConfigOptions {
    /// Which file
    #[arg(default_value = "main", value_parser = ["main", "hosts", "opts", "names"])]
    file: String,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
pub(super) struct EdithostsOptions {
    mac: String,
    ip: Ipv4Addr,
    name: String,
    #[command(flatten)]
    target: Target,
}

pub(super) fn dhcp(command: &DhcpCommand) -> Outcome {
    match command {
        DhcpCommand::Status(view) => show::status(view),
        DhcpCommand::Reservations(options) => show::reservations(options),
        DhcpCommand::Leases(options) => show::leases(options),
        DhcpCommand::Explain(options) => show::explain(options),
        DhcpCommand::Config(options) => show::config(options),
        DhcpCommand::Token(options) => token(options),
        DhcpCommand::Put(options) => change::put(options),
        DhcpCommand::Rm(options) => change::rm(options),
        DhcpCommand::Release(options) => change::release(options),
        DhcpCommand::Sync(options) => change::sync(options),
        DhcpCommand::Plan(options) => plan::plan(options),
        DhcpCommand::Trace(options) => watch::trace(options),
        DhcpCommand::Probe(options) => watch::probe(options),
        DhcpCommand::Export(options) => document::export(options),
        DhcpCommand::Validate(options) => document::validate(options),
        DhcpCommand::Apply(options) => document::apply(options),
        DhcpCommand::Edithosts(options) => change::edithosts(options),
    }
}

fn token(options: &TokenOptions) -> Outcome {
    if options.name.is_empty() || options.name.chars().any(|c| c.is_whitespace() || c == '#') {
        complain("error: the name is not one word; give letters, digits and hyphens\n");
        return Outcome::Usage;
    }
    let (token, line) = access::mint(&options.name, options.role);
    complain(&format!("{token}\n"));
    say(&format!("{line}\n"))
}

/// The role's table of the configuration holds where its socket is.
fn configured_socket(table: &toml::Table) -> Option<PathBuf> {
    let dhcp = table.get("roles")?.get("dhcp")?;
    dhcp.get("api_socket")?.as_str().map(PathBuf::from)
}
