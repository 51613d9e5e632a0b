//! The smallest agent: registers as secondary storage, pings, supports nothing, stops on ctrl-c.
//!
//! For looking at a registration by hand, against any server:
//! `cargo run -p management-link --example register -- 10.0.0.5:8250 /tmp/state 'zone = "z1"'`
//! (the third argument is more of `[management]`).

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::agent::{PingStorageCommand, StartupCommand, StartupSecondaryStorageCommand};
use agent_protocol::{Envelope, unsupported};
use config_reader::Violations;
use http_front::HttpFront;
use management_link::nic::Nic;
use management_link::{
    Agent, CommandContext, LinkConfig, ManagementConfig, ManagementLink, StartupFacts,
};
use role::{BoxFuture, Heartbeat, Host, RoleContext, RoleKind, TaskScope};
use tokio_util::sync::CancellationToken;

struct Nothing {
    name: String,
}

impl Agent for Nothing {
    fn startup(&self, facts: &StartupFacts) -> Envelope {
        let nic = Nic::of_address(std::net::Ipv4Addr::LOCALHOST.into());
        let some = |text: &str| Some(text.to_owned());
        let startup = StartupCommand {
            host_type: Some(agent_protocol::agent::HostType::SecondaryStorage),
            data_center: some(&facts.zone),
            pod: some(&facts.pod),
            guid: some(&facts.guid),
            name: some(&self.name),
            id: facts.host_id,
            version: some(&facts.version),
            iqn: some("NoIqn"),
            private_ip_address: some(&nic.address),
            private_mac_address: some(&nic.mac),
            private_netmask: some(&nic.netmask),
            resource_name: some(StartupSecondaryStorageCommand::RESOURCE_NAME),
            ms_host_list: some(&facts.ms_host_list),
            connection_transferred: facts.connection_transferred,
            arch: some(facts.arch),
            ..StartupCommand::default()
        };
        Envelope::of(&StartupSecondaryStorageCommand { startup })
    }

    fn ping(&self, host_id: i64) -> Envelope {
        Envelope::of(&PingStorageCommand::new(host_id))
    }

    fn handle(
        self: Arc<Self>,
        command: Envelope,
        _cx: CommandContext,
    ) -> BoxFuture<'static, Envelope> {
        Box::pin(async move { unsupported(&command) })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).init();
    let mut arguments = std::env::args().skip(1);
    let server = arguments.next().unwrap_or_else(|| "127.0.0.1:8250".to_owned());
    let state_directory = PathBuf::from(arguments.next().unwrap_or_else(|| "state".to_owned()));
    let more = arguments.next().unwrap_or_default();
    let table: toml::Table = format!("servers = \"{server}\"\n{more}").parse()?;
    let mut violations = Violations::new();
    let management = ManagementConfig::read(&table, &mut violations);
    for violation in violations.list() {
        tracing::error!("{violation}");
    }
    let management = management.ok_or("no server")?;

    let kind = RoleKind { short: "x", title: "example", section: "example" };
    let tasks = TaskScope::new();
    let cx = RoleContext::new(
        kind,
        CancellationToken::new(),
        tasks.clone(),
        Heartbeat::new(),
        HttpFront::new(tasks),
        Host::system(),
    );
    let name = "s-900-VM".to_owned();
    let guid = format!("{name}-{}", StartupSecondaryStorageCommand::RESOURCE_NAME);
    let link = ManagementLink::new(LinkConfig { management, guid, state_directory }, &cx)?;
    let shutdown = cx.shutdown.clone();
    cx.tasks.spawn("stop", async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            shutdown.cancel();
        }
    });
    let heartbeat = cx.heartbeat.clone();
    cx.tasks.spawn("heartbeat", async move {
        loop {
            let interval =
                heartbeat.links().iter().find_map(|(_, link)| link.report().ping_interval);
            tokio::time::sleep(interval.unwrap_or(Duration::from_secs(1))).await;
            for (_, link) in heartbeat.links() {
                link.ping();
            }
        }
    });
    link.serve(Arc::new(Nothing { name })).await?;
    Ok(())
}
