//! From the start-up command to Up: who is refused, and in which order a host is set up. The order,
//! the flags and the fields are those of recorded conversations.

use bedrock::chain;
use std::sync::Arc;

use agent_protocol::agent::ReadyAnswer;
use agent_protocol::console::StartConsoleProxyAgentHttpHandlerCommand;
use agent_protocol::frame::FrameHeader;
use agent_protocol::storage::{
    PortConfig, SecStorageFirewallCfgCommand, SecStorageSetupAnswer, SecStorageSetupCommand,
    SecStorageVMSetupCommand,
};
use agent_protocol::{Answer as _, Envelope, UrlText};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::attachment::{Attachment, SendError};
use crate::commands::{self, base};
use crate::config::{ConsoleMode, HostKind, SystemVm};
use crate::connection::Connection;
use crate::core::Core;
use crate::events::EventKind;
use crate::hosts::{Host, HostState, StartupFacts};
use crate::images;
use crate::random;
use crate::script::Point;
use crate::sync::lock;
use crate::{sync_images, transfers};

/// Architectures that a host may have.
const ARCHITECTURES: [&str; 3] = ["i686", "x86_64", "aarch64"];

/// Answers a start-up command at once and begins to connect the host.
pub(crate) async fn startup(
    core: &Arc<Core>,
    connection: &Arc<Connection>,
    header: &FrameHeader,
    facts: StartupFacts,
) {
    let link = connection.link();
    link.identify(&facts.guid);
    let struck = core.strike(link, Point::Startup).await;
    if struck.swallow {
        return;
    }
    let early = Envelope::of(&commands::early_startup_answer(&core.config));
    link.respond(&struck.header(header), -1, &[early]).await;
    if let Some(attachment) = connection.attachment() {
        let host = lock(&core.hosts).get(attachment.host_id()).cloned();
        if let Some(host) = host {
            let late = Envelope::of(&commands::late_startup_answer(&core.config, &host));
            link.respond(header, host.id, &[late]).await;
        }
    }
    let after = core.strike(link, Point::StartupAnswered).await;
    if let Some(details) = struck.refuse.or(after.refuse) {
        core.refuse(link, &details).await;
    } else if !after.swallow {
        let (task_core, task_connection) = (Arc::clone(core), Arc::clone(connection));
        core.tasks.spawn(async move { connect(&task_core, &task_connection, facts).await });
    }
}

async fn connect(core: &Arc<Core>, connection: &Arc<Connection>, facts: StartupFacts) {
    let link = connection.link();
    loop {
        let unlocked = core.unlocked.notified();
        let until = lock(&core.hosts).locked_until(&facts);
        let Some(until) = until else { break };
        let wait = tokio::time::timeout_at(until, unlocked);
        if link.closed().run_until_cancelled(wait).await.is_none() {
            return;
        }
    }
    let (host, attachment) = match admit(core, connection, &facts) {
        Ok(admitted) => admitted,
        Err(details) => return core.refuse(link, &details).await,
    };
    let phase = async {
        let log_id = random::log_id().unwrap_or_default();
        set_up(core, &host, &attachment, &log_id).await;
        ready(core, &host, &attachment, &facts, &log_id).await
    };
    match link.closed().run_until_cancelled(phase).await {
        None => {}
        Some(Ok(())) => {
            core.strike(link, Point::Up).await;
            transfers::continue_waiting(core);
        }
        Some(Err(error)) => link.close(&chain(&error)),
    }
}

/// Checks a start-up command, finds or makes its row and binds the link to it. The error is the
/// text of the refusal.
fn admit(
    core: &Core,
    connection: &Connection,
    facts: &StartupFacts,
) -> Result<(Host, Arc<Attachment>), String> {
    let link = connection.link();
    let (zone_id, pod_id) = place(core, facts)?;
    let arch = facts.arch.as_deref().map(str::trim).filter(|arch| !arch.is_empty());
    let arch = arch.unwrap_or("x86_64");
    if !ARCHITECTURES.contains(&arch) {
        return Err(format!("java.lang.IllegalArgumentException: Unsupported arch type: {arch}"));
    }
    let Some(kind) = facts.kind else {
        return Err("No resource state adapter response".to_owned());
    };
    let mut hosts = lock(&core.hosts);
    let host = hosts.admit(facts, kind, zone_id, pod_id, arch.to_owned());
    let attachment = Attachment::new(host.id, core.config.management_id, Arc::clone(link))
        .map_err(|error| error.to_string())?;
    let attachment = Arc::new(attachment);
    let replaced = hosts.attach(Arc::clone(&attachment));
    drop(hosts);
    connection.bind(Arc::clone(&attachment));
    link.record(EventKind::State(HostState::Connecting));
    if let Some(replaced) = replaced {
        core.let_go(&replaced);
        replaced.link().record(EventKind::TakenOver);
        replaced.link().close("another link took the host over");
    }
    Ok((host, attachment))
}

/// Zone and pod of an agent, by name, then by number; an unknown pod is allowed.
fn place(core: &Core, facts: &StartupFacts) -> Result<(i64, Option<i64>), String> {
    let zones = &core.config.zones;
    let is_default = |name: &str| name.eq_ignore_ascii_case("default");
    if is_default(&facts.zone)
        && is_default(&facts.pod)
        && let Some(zone) = zones.first()
    {
        return Ok((zone.id, zone.pods.first().map(|(id, _)| *id)));
    }
    let by_name = zones.iter().find(|zone| zone.name == facts.zone);
    let by_number = || zones.iter().find(|zone| facts.zone.parse() == Ok(zone.id));
    let zone = by_name.or_else(by_number).ok_or_else(|| {
        let address = facts.private_address.as_deref().unwrap_or("null");
        format!(
            "java.lang.IllegalArgumentException: Host {address} sent incorrect data center: {}",
            facts.zone
        )
    })?;
    let by_name = zone.pods.iter().find(|(_, name)| *name == facts.pod);
    let by_number = || zone.pods.iter().find(|(id, _)| facts.pod.parse() == Ok(*id));
    Ok((zone.id, by_name.or_else(by_number).map(|(id, _)| *id)))
}

/// The commands between the start-up answer and the first ready command. Their failures do not
/// fail the connect.
async fn set_up(core: &Arc<Core>, host: &Host, attachment: &Arc<Attachment>, log_id: &str) {
    match host.kind {
        HostKind::SecondaryStorage => {
            if let Some(row) = core.row(host) {
                set_up_stores(core, attachment, log_id).await;
                set_up_firewall(core, host, row, attachment, log_id).await;
                set_up_vm(core, attachment, log_id).await;
            }
            sync_images::run(core, attachment, log_id).await;
        }
        HostKind::ConsoleProxy => {
            let is_static = matches!(core.config.console.mode, ConsoleMode::Static { .. });
            if is_static || core.row(host).is_some() {
                start_console_proxy(core, attachment, log_id).await;
            }
        }
    }
}

async fn set_up_stores(core: &Core, attachment: &Attachment, log_id: &str) {
    let upload_key = lock(&core.images).upload_key();
    for store in &core.config.stores {
        let command = SecStorageSetupCommand {
            store: Some(images::store_object(&store.url)),
            sec_url: Some(store.url.as_str().into()),
            post_upload_key: Some(upload_key.clone()),
            base: base(log_id),
            ..SecStorageSetupCommand::default()
        };
        let answer = core.ask(attachment, &command, core.answer_timeout(0)).await;
        match answer.as_ref().map(|answer| answer.open::<SecStorageSetupAnswer>()) {
            Ok(Ok(answer)) if answer.base.result => {
                lock(&core.images).set_parent(&store.url, answer.dir);
            }
            other => {
                let url = UrlText::from(store.url.as_str());
                tracing::warn!(?url, ?other, "store not set up");
            }
        }
    }
}

/// Tells the other storage hosts of this one, then this one of the others.
async fn set_up_firewall(
    core: &Core,
    host: &Host,
    row: &SystemVm,
    attachment: &Attachment,
    log_id: &str,
) {
    let others = lock(&core.hosts)
        .all_attached(|other| other.kind == HostKind::SecondaryStorage && other.id != host.id);
    let entry = |address: &str| PortConfig {
        add: true,
        source_ip: Some(address.to_owned()),
        port: Some("80".to_owned()),
        intf: Some("eth2".to_owned()),
    };
    let command = |entries: Vec<PortConfig>, append| SecStorageFirewallCfgCommand {
        port_configs: (!entries.is_empty()).then_some(entries),
        is_append_a_ip: append,
        base: base(log_id),
    };
    for (other, other_attachment) in &others {
        let append = command(vec![entry(&row.public_address)], true);
        if let Err(error) = core.ask(other_attachment, &append, core.answer_timeout(0)).await {
            tracing::warn!(host = other.id, %error, "storage host not told of a new one");
            return;
        }
    }
    let entries = others
        .iter()
        .filter_map(|(other, _)| Some(entry(other.public_address.as_deref()?)))
        .collect();
    log_failure(core.ask(attachment, &command(entries, false), core.answer_timeout(0)).await);
}

async fn set_up_vm(core: &Core, attachment: &Attachment, log_id: &str) {
    let copy_password = lock(&core.images).copy_password();
    let command = SecStorageVMSetupCommand {
        allowed_internal_sites: Some(core.config.images.allowed_internal_sites.clone()),
        copy_user_name: Some("cloud".to_owned()),
        copy_password: Some(copy_password),
        base: base(log_id),
    };
    log_failure(core.ask(attachment, &command, core.answer_timeout(0)).await);
}

async fn start_console_proxy(core: &Core, attachment: &Attachment, log_id: &str) {
    let Ok(keystore_password) = random::bytes::<16>() else { return };
    let encryptor_password = lock(&core.consoles).key().encryptor_password();
    let (bits, password) = match core.config.console.key_store.clone() {
        Some((bits, password)) => (Some(bits.into()), password),
        None => (None, STANDARD.encode(keystore_password)),
    };
    let command = StartConsoleProxyAgentHttpHandlerCommand {
        keystore_bits: bits,
        keystore_password: Some(password.into()),
        encryptor_password: Some(encryptor_password.into()),
        is_source_ip_check_enabled: core.config.console.source_address_check,
        base: base(log_id),
    };
    log_failure(core.ask(attachment, &command, core.answer_timeout(0)).await);
}

/// The two ready commands; the host is up after the first.
async fn ready(
    core: &Core,
    host: &Host,
    attachment: &Arc<Attachment>,
    facts: &StartupFacts,
    log_id: &str,
) -> Result<(), SendError> {
    let first = commands::first_ready(&core.config, host, log_id);
    let answer =
        core.ask(attachment, &first, core.answer_timeout(i64::from(first.base.wait))).await?;
    let accepted = answer.open::<ReadyAnswer>().is_ok_and(|answer| answer.answer_base().result);
    if !accepted {
        let class = agent_protocol::agent::ReadyCommand::default();
        return Err(SendError::Unexpected {
            class: Envelope::of(&class).class,
            found: answer.class,
        });
    }
    if !lock(&core.hosts).ready(attachment) {
        return Ok(());
    }
    attachment.link().record(EventKind::State(HostState::Up));
    let second = commands::second_ready(&core.config, host, facts.host_list.as_deref(), log_id);
    log_failure(core.ask(attachment, &second, core.answer_timeout(0)).await);
    Ok(())
}

fn log_failure(answer: Result<Envelope, SendError>) {
    match answer {
        Ok(answer) => {
            let base = answer.answer_base().unwrap_or_default();
            if !base.result {
                tracing::warn!(class = answer.class, details = ?base.details, "agent says no");
            }
        }
        Err(error) => tracing::warn!(error = chain(&error), "command of the connect phase failed"),
    }
}
