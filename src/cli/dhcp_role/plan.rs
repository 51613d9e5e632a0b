//! `quickcloud dhcp plan`: the offering and the network that leave DHCP and DNS to this role.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use bedrock::files::read_secret;
use clap::Args;

use crate::cli::zone::api::ApiOptions;
use crate::cli::zone::{INTERVAL, finish, seen, show, told};
use crate::exit::Outcome;
use crate::output::{complain, complain_of};
use crate::zone::Step;
use crate::zone::act::{Doing, act};
use crate::zone::look::{Seen, webhooks};
use crate::zone::network::{NetworkWish, Range, network};
use crate::zone::webhook::{PayloadUrl, WebhookWish, step};

pub(super) const EXAMPLES: &str = "\
Examples:
  quickcloud dhcp plan z1 --config /etc/quickcloud/quickcloud.toml
  quickcloud dhcp plan z1 --dns 10.1.1.2 --domain cs.example --range pod1=10.1.1.1/24,10.1.1.20-10.1.1.250
  quickcloud dhcp plan z1 --dns 10.1.1.2 --range 10.1.1.1/24,10.1.1.20-10.1.1.250 --host-cache --apply
  quickcloud dhcp plan z1 --webhook http://10.1.1.2:8252/v1/webhooks/cloudstack \\
                  --webhook-secret-file /etc/quickcloud/webhook-secret --apply

The API is that of --url and the two key files, or CLOUDSTACK_ENDPOINT, CLOUDSTACK_KEY and
CLOUDSTACK_SECRET, or roles.dhcp.sync of --config. The user needs the role of a root administrator.";

#[derive(Debug, Args)]
pub(in crate::cli) struct PlanOptions {
    /// Name or id of the zone
    zone: String,
    #[command(flatten)]
    api: ApiOptions,
    /// Name of the guest network; any without a router by default, else one is made as "guest"
    #[arg(long)]
    network: Option<String>,
    /// Its DNS domain; the server makes one up by default
    #[arg(long)]
    domain: Option<String>,
    /// Address of this host in it, which guests then ask for names; the zone's servers by default
    #[arg(long, value_name = "ADDRESS")]
    dns: Option<Ipv4Addr>,
    /// VLAN of a network in an advanced zone
    #[arg(long, value_name = "untagged|NUMBER", value_parser = vlan)]
    vlan: Option<String>,
    /// Addresses for guests. Repeatable; the pod may be left out where there is one
    #[arg(long = "range", value_name = "[POD=]GATEWAY/PREFIX,FIRST-LAST")]
    ranges: Vec<Range>,
    /// Make a pod with these management addresses
    #[arg(long, value_name = "NAME=GATEWAY/PREFIX,FIRST-LAST")]
    pod: Option<Range>,
    /// Let KVM hosts write configuration drives themselves
    #[arg(long)]
    host_cache: bool,
    /// Let the server's events wake the sync: the URL of roles.dhcp.sync.webhook_listen as the server
    /// reaches it, http://10.1.1.2:8252/v1/webhooks/cloudstack
    #[arg(long, value_name = "URL", requires = "webhook_secret_file")]
    webhook: Option<PayloadUrl>,
    /// The secret that events are signed with, as in roles.dhcp.sync
    #[arg(long, value_name = "FILE")]
    webhook_secret_file: Option<PathBuf>,
    /// Do it
    #[arg(long)]
    apply: bool,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

impl PlanOptions {
    fn webhook(&self) -> Option<Result<WebhookWish, String>> {
        let (url, file) = (self.webhook.clone()?, self.webhook_secret_file.as_ref()?);
        Some(read_secret(file).map(|secret| WebhookWish { url, secret }))
    }
}

fn vlan(text: &str) -> Result<String, String> {
    let number = text.parse::<u16>().is_ok_and(|number| (1..=4094).contains(&number));
    match number || text == "untagged" {
        true => Ok(text.to_owned()),
        false => Err("give \"untagged\" or 1 to 4094".to_owned()),
    }
}

pub(super) fn plan(options: &PlanOptions) -> Outcome {
    if let Some(problem) = problem(options) {
        complain(&format!("error: {problem}\n"));
        return Outcome::Usage;
    }
    match crate::runtime::single_threaded() {
        Ok(runtime) => runtime.block_on(carry_out(options)),
        Err(error) => {
            complain_of(&error);
            Outcome::System
        }
    }
}

/// What would give one address to two.
fn problem(options: &PlanOptions) -> Option<String> {
    let taken = options.dns.and_then(|own| {
        let range = options.ranges.iter().find(|range| range.contains(own))?;
        Some(format!("--range {range} would give {own}, which is --dns, to a guest; leave it out"))
    });
    taken.or_else(|| {
        options.ranges.iter().enumerate().find_map(|(at, range)| {
            let mut before = options.ranges.iter().take(at);
            let other = before.find(|o| o.first <= range.last && range.first <= o.last)?;
            Some(format!("--range {range} overlaps --range {other}"))
        })
    })
}

async fn carry_out(options: &PlanOptions) -> Outcome {
    let (mut client, _, mut seen) = match seen(&options.api, &options.zone).await {
        Ok(found) => found,
        Err(outcome) => return outcome,
    };
    let webhook = match options.webhook().transpose() {
        Ok(webhook) => webhook,
        Err(problem) => {
            complain(&format!("error: {problem}\n"));
            return Outcome::Usage;
        }
    };
    if webhook.is_some() {
        match webhooks(&mut client).await {
            Ok(found) => seen.webhooks = found,
            Err(error) => {
                complain_of(&error);
                complain(
                    "servers have webhooks from 4.20 on; without --webhook the rest is done\n",
                );
                return Outcome::Failed;
            }
        }
    }
    let wish = NetworkWish {
        make: true,
        name: options.network.clone(),
        domain: options.domain.clone(),
        dns: options.dns,
        vlan: options.vlan.clone(),
        pod: options.pod.clone(),
        ranges: options.ranges.clone(),
        host_cache: options.host_cache,
    };
    let plan = |seen: &Seen| -> Vec<Step> {
        let mut steps = Vec::new();
        network(seen, &wish, &mut steps);
        steps.extend(webhook.as_ref().map(|wish| step(seen, wish)));
        steps
    };
    if !options.apply {
        return show::plan(&seen, &plan(&seen), options.json, None);
    }
    let mut doing = Doing {
        client: &mut client,
        zone: &options.zone,
        file: None,
        force: false,
        wait: Duration::ZERO,
        interval: INTERVAL,
        webhooks: webhook.is_some(),
        database: None,
    };
    let done = act(&mut doing, plan, told).await;
    finish(done, &seen, options.json, None, None)
}
