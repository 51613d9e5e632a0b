//! The command line: what can be asked, and who answers. One submodule per subcommand.

mod admin;
mod cert;
mod check;
mod cp;
mod dhcp_role;
mod doctor;
mod import;
mod progress;
mod reload;
mod run;
mod ss;
mod status;
mod text;
mod unit;
mod view;
mod wire;
mod zone;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand};
use role::RoleDescriptor;

use crate::config::{LogFormat, Sources};
use crate::exit::Outcome;
use crate::output::{complain, say};

/// CloudStack's system VM services as supervised roles of one process.
#[derive(Debug, Parser)]
#[command(name = "quickcloud", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0   did what was asked
  1   not gracefully: something had to be aborted, or the input was malformed
  64  the command line is wrong
  69  the machine lacks what the roles need
  70  a role failed for good
  71  the operating system refused what the supervisor needs
  75  another process uses the state directory
  78  the configuration is wrong";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs roles until told to stop
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunOptions),
    /// Checks configuration and machine without starting anything
    ///
    /// Prints the effective configuration with secrets masked, and everything that is wrong with
    /// its place and remedy.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckOptions),
    /// Makes a configuration of an original agent's property files and boot arguments
    #[command(after_help = import::EXAMPLES)]
    Import(import::ImportOptions),
    /// Shows how the roles of the running process are
    #[command(after_help = STATUS_EXAMPLES)]
    Status(view::ViewOptions),
    /// Makes the running process read its configuration again
    ///
    /// The configuration is validated whole; a faulty one changes nothing. Says what is in force
    /// now and what needs a restart. SIGHUP does the same.
    #[command(after_help = RELOAD_EXAMPLES)]
    Reload(reload::ReloadOptions),
    /// Looks for what is wrong: configuration, machine, the way to the servers, the running process
    ///
    /// One line for each check, with a remedy where something is found. Asks other machines, too;
    /// changes nothing without --fix.
    #[command(after_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorOptions),
    /// Shows, renews and forgets the certificates of the links to the management servers
    #[command(subcommand)]
    Cert(cert::CertCommand),
    /// Puts a zone into this host's care, and gives it back to its system VMs
    #[command(subcommand)]
    Zone(zone::ZoneCommand),
    /// Shows and steers DHCP and DNS of the running process
    #[command(subcommand)]
    Dhcp(dhcp_role::DhcpCommand),
    /// Shows and steers the secondary storage of the running process
    #[command(subcommand)]
    Ss(ss::SsCommand),
    /// Shows and changes the consoles of the running process
    #[command(subcommand)]
    Cp(cp::CpCommand),
    /// Runs all roles with an embedded management server and a page to play with
    ///
    /// Needs neither root nor CloudStack.
    #[cfg(feature = "dev")]
    #[command(after_help = DEV_EXAMPLES)]
    Dev(crate::dev::DevOptions),
    /// Looks at the bytes of the agent protocol
    #[command(subcommand)]
    Wire(WireCommand),
    /// Prints a completion script
    #[command(after_help = COMPLETION_EXAMPLES)]
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Prints what the systemd unit is to grant for the configured roles, as a drop-in
    #[command(after_help = unit::EXAMPLES)]
    Unit(unit::UnitOptions),
    /// Prints the version
    Version {
        /// As a JSON object
        #[arg(long)]
        json: bool,
    },
}

const RUN_EXAMPLES: &str = "\
Examples:
  quickcloud run --roles ss,cp,dhcp --config /etc/quickcloud/quickcloud.toml
  quickcloud run --roles cp --set management.servers=10.0.0.5 --set management.zone=z1 \\
                 --set roles.console_proxy.proxy_vm=901
  quickcloud run --config site.toml --log-format json --log info,dhcp=debug
  quickcloud run --properties agent/conf zone=1 pod=1 host=10.0.0.5 guid=ConsoleProxy.1

The first SIGTERM or SIGINT stops within supervisor.shutdown_grace, the second ends at once. SIGHUP
reads the configuration again, as quickcloud reload does.";

const CHECK_EXAMPLES: &str = "\
Examples:
  quickcloud check --config /etc/quickcloud/quickcloud.toml
  quickcloud check --roles dhcp --set roles.dhcp.interface=br0 --json

Exit codes: 0 all well, 69 the machine lacks something, 78 the configuration is wrong.";

const STATUS_EXAMPLES: &str = "\
Examples:
  quickcloud status
  quickcloud status --watch
  quickcloud status --json --admin 127.0.0.1:8251

Without --admin the address is the one the running process left in its state directory, or
supervisor.admin_address.";

const RELOAD_EXAMPLES: &str = "\
Examples:
  quickcloud reload
  quickcloud reload --json --admin 127.0.0.1:8251

The process reads what it was started with: the same --config, --set and --roles. Exit codes: 0 in
force or waiting for a restart, 78 the configuration is wrong and nothing changed, 1 something could
not be put in force or nothing answers.";

#[cfg(feature = "dev")]
const DEV_EXAMPLES: &str = "\
Examples:
  quickcloud dev
  quickcloud dev --listen 127.0.0.1:9000 --state /tmp/quickcloud
  quickcloud dev --check";

const DECODE_EXAMPLES: &str = "\
Examples:
  quickcloud wire decode capture.bin
  base64 -d <<< \"$BLOB\" | quickcloud wire decode
  quickcloud wire decode --json frames.jsonl

Takes frames as raw bytes, hex, base64, or JSON lines with a \"raw\" key. Malformed input ends with
exit code 1 and the number and byte offset of the frame.";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  quickcloud completions bash > /etc/bash_completion.d/quickcloud
  quickcloud completions zsh > ~/.zfunc/_quickcloud";

/// Where the configuration comes from.
#[derive(Debug, Clone, Args)]
struct SourceOptions {
    /// Roles to run: ss (secondary storage), cp (console proxy), dhcp (DHCP and DNS); wins over
    /// supervisor.roles
    #[arg(long, value_name = "LIST")]
    roles: Option<String>,
    /// Configuration file (TOML)
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One value, put over the file; VALUE is TOML, else a plain string. Repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl SourceOptions {
    fn sources(self) -> Sources {
        Sources { file: self.config, set: self.set, roles: self.roles, ..Sources::default() }
    }
}

#[derive(Debug, Args)]
struct RunOptions {
    #[command(flatten)]
    sources: SourceOptions,
    /// Run with an original agent's files in place of a configuration; behind the directory boot
    /// arguments of that agent. quickcloud import shows what comes of them
    #[arg(long, value_name = "DIR [KEY=VALUE…]", num_args = 1.., conflicts_with = "config")]
    properties: Vec<String>,
    /// URL of the store that lies at the agent's mount.path
    #[arg(long, value_name = "URL", requires = "properties")]
    store: Option<String>,
    /// How log lines look; wins over log.format
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Log filter such as "info,dhcp=debug"; wins over log.filter
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Args)]
struct CheckOptions {
    #[command(flatten)]
    sources: SourceOptions,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum WireCommand {
    /// Prints frames: header, flags, inflated JSON
    #[command(after_help = DECODE_EXAMPLES)]
    Decode {
        /// File to read; "-" or nothing is standard input
        file: Option<PathBuf>,
        /// One JSON object per frame
        #[arg(long)]
        json: bool,
    },
}

/// The whole command line, for manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The whole program: reads the arguments of this process, does what they ask.
pub fn main(registry: &[RoleDescriptor]) -> Outcome {
    main_with(std::env::args_os(), registry)
}

/// As [`main`], with the arguments given; the first is the program's name.
pub fn main_with(
    arguments: impl IntoIterator<Item = OsString>,
    registry: &[RoleDescriptor],
) -> Outcome {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match cli.command {
        Command::Run(options) => run::run(options, registry),
        Command::Check(options) => check::check(options, registry),
        Command::Import(options) => import::import(&options, registry),
        Command::Status(options) => status::status(&options),
        Command::Reload(options) => reload::reload(&options),
        Command::Doctor(options) => doctor::doctor(options, registry),
        Command::Cert(command) => cert::cert(command, registry),
        Command::Zone(command) => zone::zone(&command),
        Command::Dhcp(command) => dhcp_role::dhcp(&command),
        Command::Ss(command) => ss::ss(&command),
        Command::Cp(command) => cp::cp(&command),
        #[cfg(feature = "dev")]
        Command::Dev(options) => crate::dev::run(&options),
        Command::Wire(WireCommand::Decode { file, json }) => wire::decode(file.as_deref(), json),
        Command::Completions { shell } => completions(shell),
        Command::Unit(options) => unit::unit(options, registry),
        Command::Version { json } => version(json),
    }
}

/// Help and version are answers, anything else is a wrong command line.
fn usage(error: &clap::Error) -> Outcome {
    let text = error.render();
    if error.use_stderr() {
        complain(&text.to_string());
        Outcome::Usage
    } else {
        say(&text.to_string())
    }
}

fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "quickcloud", &mut script);
    say(&String::from_utf8_lossy(&script))
}

fn version(json: bool) -> Outcome {
    let version = env!("CARGO_PKG_VERSION");
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    if json {
        let object = serde_json::json!({
            "name": "quickcloud", "version": version, "arch": arch, "os": os,
        });
        say(&format!("{object}\n"))
    } else {
        say(&format!("quickcloud {version} ({arch}-{os})\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_help_texts_parses() {
        let examples = [
            RUN_EXAMPLES,
            CHECK_EXAMPLES,
            STATUS_EXAMPLES,
            RELOAD_EXAMPLES,
            #[cfg(feature = "dev")]
            DEV_EXAMPLES,
            DECODE_EXAMPLES,
            COMPLETION_EXAMPLES,
            import::EXAMPLES,
            doctor::EXAMPLES,
            unit::EXAMPLES,
        ];
        let lists = [
            &examples[..],
            ss::EXAMPLES,
            dhcp_role::EXAMPLES,
            cp::EXAMPLES,
            zone::EXAMPLES,
            cert::EXAMPLES,
        ];
        let joined = lists.concat().join("\n").replace("\\\n", "");
        let mut seen = 0;
        for line in joined.lines().filter_map(|line| line.strip_prefix("  ")) {
            let Some(at) = line.find("quickcloud ") else { continue };
            let command = line.split_at(at).1.split(" >").next().unwrap();
            let parsed = Cli::try_parse_from(command.split_whitespace());
            assert!(parsed.is_ok(), "{command}: {}", parsed.unwrap_err());
            seen += 1;
        }
        assert!(seen >= 12, "{seen}");
    }
}
