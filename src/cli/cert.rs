//! `quickcloud cert …`: the certificates between this host and the management servers.

use std::fmt::Write as _;
use std::path::Path;

use clap::{Args, Subcommand};
use cloudstack_api::JobWait;
use cloudstack_api::commands::{ListHosts, ProvisionCertificate};
use config_reader::Violations;
use management_link::own::{CertificateFacts, LinkCertificates, certificates_of, forget};
use management_link::{LinkConfig, ManagementConfig};
use role::{Resource, RoleDescriptor};
use serde_json::{Value, json};

use super::SourceOptions;
use super::check::{complain_of_load, complain_of_violations};
use super::text::plain;
use super::zone::api::ApiOptions;
use crate::config::{self, Config};
use crate::exit::Outcome;
use crate::output::{complain, complain_of, say};

#[derive(Debug, Subcommand)]
pub(super) enum CertCommand {
    /// Shows what is presented to the servers, until when, and whom we trust
    #[command(after_help = SHOW_EXAMPLES)]
    Show(ShowOptions),
    /// Has the server issue another certificate for a host, over the API
    #[command(after_help = RENEW_EXAMPLES)]
    Renew(RenewOptions),
    /// Forgets the certificate that a server gave us, and whom we trusted at first use
    ///
    /// For a server whose CA was replaced. The files stay beside as NAME.old; the next connect
    /// trusts whom it meets, unless management.ca_file is set.
    #[command(after_help = RESET_EXAMPLES)]
    Reset(ResetOptions),
}

const SHOW_EXAMPLES: &str = "\
Examples:
  quickcloud cert show --config /etc/quickcloud/quickcloud.toml
  quickcloud cert show --config /etc/quickcloud/quickcloud.toml --json

Exit code 1 when a certificate has expired.";

const RENEW_EXAMPLES: &str = "\
Examples:
  quickcloud cert renew v-2-VM --url http://10.0.0.5:8080/client/api \\
                  --api-key-file /etc/quickcloud/api.key --secret-key-file /etc/quickcloud/secret.key";

const RESET_EXAMPLES: &str = "\
Examples:
  quickcloud cert reset --config /etc/quickcloud/quickcloud.toml --roles cp --yes";

/// Of every subcommand; a test parses them.
#[cfg(test)]
pub(super) const EXAMPLES: &[&str] = &[SHOW_EXAMPLES, RENEW_EXAMPLES, RESET_EXAMPLES];

#[derive(Debug, Args)]
pub(super) struct ShowOptions {
    #[command(flatten)]
    sources: SourceOptions,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RenewOptions {
    /// The host's name, as the server lists it: s-N-VM, v-N-VM
    host: String,
    #[command(flatten)]
    api: ApiOptions,
}

#[derive(Debug, Args)]
pub(super) struct ResetOptions {
    #[command(flatten)]
    sources: SourceOptions,
    /// Do it
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn cert(command: CertCommand, registry: &[RoleDescriptor]) -> Outcome {
    match command {
        CertCommand::Show(options) => match links(options.sources, registry) {
            Ok(links) => show(&links, options.json),
            Err(outcome) => outcome,
        },
        CertCommand::Renew(options) => renew(&options),
        CertCommand::Reset(options) => match links(options.sources, registry) {
            Ok(links) => reset(&links, options.yes),
            Err(outcome) => outcome,
        },
    }
}

/// The links of the chosen roles by their short names; an error is told already.
fn links(
    options: SourceOptions,
    registry: &[RoleDescriptor],
) -> Result<Vec<(&'static str, LinkConfig)>, Outcome> {
    let sources = options.sources();
    let loaded = config::load(&sources, registry).map_err(|error| complain_of_load(&error))?;
    let Some(config) = &loaded.config else {
        complain_of_violations(&loaded);
        return Err(Outcome::Configuration);
    };
    let (table, _) = config::read_table(&sources).map_err(|error| complain_of_load(&error))?;
    let management = table.get("management").and_then(toml::Value::as_table);
    let management =
        management.and_then(|table| ManagementConfig::read(table, &mut Violations::new()));
    let found = management.map(|management| of_config(config, &management)).unwrap_or_default();
    if found.is_empty() {
        complain("no role that is chosen has a link to a management server\n");
        return Err(Outcome::Failed);
    }
    Ok(found)
}

fn of_config(config: &Config, management: &ManagementConfig) -> Vec<(&'static str, LinkConfig)> {
    let mut links = Vec::new();
    for role in &config.roles {
        let named = role.spec.resources().into_iter().find_map(|resource| match resource {
            Resource::HostName(name) => Some(name),
            _ => None,
        });
        let Some(guid) = named else { continue };
        let kind = role.spec.kind();
        let state_directory = kind.directory(&config.supervisor.state_directory);
        let management = management.clone();
        links.push((kind.short, LinkConfig { management, guid, state_directory }));
    }
    links
}

fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_odd| "?".to_owned(), |at| at.to_string())
}

fn show(links: &[(&'static str, LinkConfig)], json: bool) -> Outcome {
    let now = jiff::Timestamp::now().as_second();
    let mut outcome = Outcome::Clean;
    let (mut text, mut list) = (String::new(), Vec::new());
    for (role, link) in links {
        match certificates_of(link) {
            Ok(found) => {
                let expired =
                    |facts: &CertificateFacts| facts.expires.is_some_and(|end| end <= now);
                if found.own.iter().any(expired) {
                    outcome = Outcome::Failed;
                }
                render(&mut text, role, link, &found, now);
                list.push(as_json(role, &found));
            }
            Err(error) => {
                outcome = Outcome::Failed;
                let problem = bedrock::chain(&error);
                // Writing to a String cannot fail.
                writeln!(text, "{role}: {problem}").unwrap_or_default();
                list.push(json!({"role": role, "error": problem}));
            }
        }
    }
    let said = if json { say(&format!("{:#}\n", Value::Array(list))) } else { say(&text) };
    if said == Outcome::Clean { outcome } else { said }
}

fn render(text: &mut String, role: &str, link: &LinkConfig, found: &LinkCertificates, now: i64) {
    let mut line = |words: &str, facts: &CertificateFacts| {
        let names = plain(&facts.names.join(", "));
        let end = facts.expires.map_or_else(
            || "an unreadable end".to_owned(),
            |end| {
                let days = (end - now).div_euclid(86_400);
                match days {
                    ..0 => format!("EXPIRED {}", date(end)),
                    _ => format!("until {} ({days} days)", date(end)),
                }
            },
        );
        writeln!(text, "{role}  {words} {names}, {end}\n      SHA-256 {}", facts.fingerprint)
            .unwrap_or_default();
    };
    match &found.own {
        Some(facts) => line("presents", facts),
        None => writeln!(text, "{role}  presents no certificate; only a strict server wants one")
            .unwrap_or_default(),
    }
    let mut line = |facts: &CertificateFacts| {
        let end = facts.expires.map_or_else(String::new, date);
        writeln!(text, "{role}  trusts SHA-256 {} (until {end})", facts.fingerprint)
            .unwrap_or_default();
    };
    found.trusted.iter().for_each(&mut line);
    if found.trusted.is_empty() {
        let state = link.state_directory.display();
        writeln!(text, "{role}  trusts the first server it meets, and remembers it in {state}")
            .unwrap_or_default();
    }
}

fn as_json(role: &str, found: &LinkCertificates) -> Value {
    let facts = |facts: &CertificateFacts| {
        json!({"names": facts.names, "fingerprint": facts.fingerprint,
               "issued": date(facts.issued), "expires": facts.expires.map(date)})
    };
    json!({"role": role, "own": found.own.as_ref().map(facts),
           "trusted": found.trusted.iter().map(facts).collect::<Vec<_>>()})
}

fn reset(links: &[(&'static str, LinkConfig)], yes: bool) -> Outcome {
    if !yes {
        complain("nothing is changed: add --yes; the next connect trusts whom it meets then\n");
        return Outcome::Usage;
    }
    let mut text = String::new();
    for (role, link) in links {
        match forget(link) {
            Ok(moved) if moved.is_empty() => {
                writeln!(text, "{role}: nothing was remembered").unwrap_or_default();
            }
            Ok(moved) => {
                let names: Vec<&str> =
                    moved.iter().filter_map(|path| Path::new(path).file_name()?.to_str()).collect();
                writeln!(text, "{role}: {} set aside as .old", names.join(", "))
                    .unwrap_or_default();
            }
            Err(error) => {
                complain_of(&error);
                return Outcome::Failed;
            }
        }
    }
    text.push_str("It holds from the next connect on: systemctl restart quickcloud\n");
    say(&text)
}

fn renew(options: &RenewOptions) -> Outcome {
    let client = options.api.access().and_then(|access| access.client());
    let mut client = match client {
        Ok(client) => client,
        Err(problem) => {
            complain(&format!("error: {problem}\n"));
            return Outcome::Usage;
        }
    };
    let runtime = match crate::runtime::single_threaded() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    runtime.block_on(async {
        let wanted = ListHosts { name: Some(options.host.clone()), ..ListHosts::default() };
        let hosts = match client.list(&wanted).await {
            Ok(listing) => listing.items,
            Err(error) => {
                complain_of(&error);
                return Outcome::Failed;
            }
        };
        let Some(host) = hosts.into_iter().find(|host| host.name == options.host) else {
            complain(&format!("error: the server has no host {:?}\n", options.host));
            return Outcome::Failed;
        };
        let command = ProvisionCertificate { host_id: host.id, reconnect: Some(true) };
        match client.run(&command, JobWait::default()).await {
            Ok(_done) => say(&format!("{} has a new certificate\n", plain(&host.name))),
            Err(error) => {
                complain_of(&error);
                Outcome::Failed
            }
        }
    })
}
