//! Does the steps of a plan, as far as the API goes, and looks again.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use cloudstack_api::commands::{
    AddNetworkServiceProvider, AsyncCommand, Command, CreateNetworkOffering, DestroySystemVm,
    StartSystemVm, StopSystemVm, UpdateNetworkOffering, UpdateNetworkServiceProvider, UpdateZone,
};
use cloudstack_api::sign::{Details, Parameters, ServiceProviders};
use cloudstack_api::{CallError, Client, JobError, JobWait};
use uuid::Uuid;

use super::database::{Database, DatabaseError};
use super::look::{LookError, Seen, look, webhooks};
use super::network::{offering_name, offering_services};
use super::{Action, SetUp, Step};

/// Why a plan was broken off. What was done before stays done; every step can be taken back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActError {
    #[error(transparent)]
    Look(#[from] LookError),
    #[error("{step}: failed")]
    Step { step: String, source: JobError },
    #[error("{step}: failed")]
    Database { step: String, source: DatabaseError },
    #[error("cannot write {path}")]
    File { path: String, source: std::io::Error },
}

/// How a plan is done.
#[derive(Debug)]
pub(crate) struct Doing<'a> {
    pub(crate) client: &'a mut Client,
    pub(crate) zone: &'a str,
    /// Where statements are run; `None` leaves them to the operator.
    pub(crate) database: Option<&'a Database>,
    /// Where the configuration goes; `None` writes none.
    pub(crate) file: Option<&'a Path>,
    pub(crate) force: bool,
    /// How long the server and the operator are waited for.
    pub(crate) wait: Duration,
    /// Between two looks.
    pub(crate) interval: Duration,
    /// Look at webhooks, too: servers before 4.20 have none.
    pub(crate) webhooks: bool,
}

/// Does what can be done of `plan`, which is made anew after each step, until nothing is left that
/// this program can do; then the rest of the plan.
pub(crate) async fn act(
    doing: &mut Doing<'_>,
    plan: impl Fn(&Seen) -> Vec<Step>,
    mut told: impl FnMut(&str),
) -> Result<Vec<Step>, ActError> {
    let until = Instant::now() + doing.wait;
    let mut waiting = String::new();
    let mut written = false;
    let mut taken = BTreeSet::new();
    loop {
        let mut seen = look(doing.client, doing.zone).await?;
        if doing.webhooks {
            seen.webhooks = webhooks(doing.client).await.map_err(LookError::from)?;
        }
        let steps = planned(doing, &plan, &seen, written);
        let open =
            steps.iter().position(|step| !step.done && (is_ours(step, doing) || step.blocks));
        let Some(step) = open.and_then(|at| steps.get(at)) else {
            return Ok(steps);
        };
        if is_ours(step, doing) {
            if !taken.insert(step.what.clone()) {
                // The server says that it did, and does not show it: no third call will help.
                return Ok(steps);
            }
            written |= matches!(step.action, Action::File { .. });
            take(doing, seen.zone.id, step).await?;
            told(&format!("done: {}: {}", step.what, step.then));
            if let Action::Sql { undo, .. } = &step.action {
                let lines = undo.lines().map(str::trim).collect::<Vec<_>>().join(" ");
                told(&format!("      taken back by: {lines}"));
            }
            continue;
        }
        // Somebody else's turn: worth waiting for, or not.
        if step.action != Action::Wait || Instant::now() >= until {
            return Ok(steps);
        }
        if waiting != step.what {
            waiting.clone_from(&step.what);
            told(&format!("waiting: {}: {} → {}; {}", step.what, step.now, step.then, step.why));
        }
        tokio::time::sleep(doing.interval).await;
    }
}

/// Waits until the last steps of a plan, which are the server's, are done.
pub(crate) async fn settle(
    doing: &mut Doing<'_>,
    plan: impl Fn(&Seen) -> Vec<Step>,
    mut told: impl FnMut(&str),
) -> Result<Vec<Step>, ActError> {
    let until = Instant::now() + doing.wait;
    let mut said = false;
    loop {
        let seen = look(doing.client, doing.zone).await?;
        let steps = planned(doing, &plan, &seen, false);
        let open = |step: &&Step| !step.done;
        let others = steps.iter().filter(open).any(|step| step.action != Action::Wait);
        let Some(step) = steps.iter().find(open) else { return Ok(steps) };
        if others || Instant::now() >= until {
            return Ok(steps);
        }
        if !said {
            told(&format!("waiting: {}: {} → {}", step.what, step.now, step.then));
            said = true;
        }
        tokio::time::sleep(doing.interval).await;
    }
}

/// The steps of now; whether the file is there, only this side knows.
fn planned(
    doing: &Doing<'_>,
    plan: impl Fn(&Seen) -> Vec<Step>,
    seen: &Seen,
    written: bool,
) -> Vec<Step> {
    let mut steps = plan(seen);
    for step in &mut steps {
        if let (Action::File { full, .. }, Some(path)) = (&step.action, doing.file) {
            step.done |= written || holds(path, full.reveal());
        }
    }
    steps
}

fn is_ours(step: &Step, doing: &Doing<'_>) -> bool {
    match step.action {
        Action::Detail { .. }
        | Action::StopVm(_)
        | Action::StartVm(_)
        | Action::DestroyVm(_)
        | Action::Provider { .. }
        | Action::Offering { .. }
        | Action::SetUp(_) => true,
        Action::File { .. } => doing.file.is_some(),
        Action::Sql { .. } => doing.database.is_some(),
        Action::After | Action::Other | Action::Wait => false,
    }
}

/// Whether the file is as it is to be.
pub(crate) fn holds(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|there| there == text)
}

async fn take(doing: &mut Doing<'_>, zone: Uuid, step: &Step) -> Result<(), ActError> {
    let wait = JobWait::default();
    let outcome = match &step.action {
        Action::Detail { name, value } => {
            let details = Details(vec![((*name).to_owned(), (*value).to_owned())]);
            let command = UpdateZone { id: zone, details, ..UpdateZone::default() };
            doing.client.call(&command).await.map(|_zone| ()).map_err(JobError::from)
        }
        Action::StopVm(id) => doing.client.run(&StopSystemVm { id: *id }, wait).await.map(|_vm| ()),
        Action::StartVm(id) => {
            doing.client.run(&StartSystemVm { id: *id }, wait).await.map(|_vm| ())
        }
        Action::DestroyVm(id) => {
            doing.client.run(&DestroySystemVm { id: *id }, wait).await.map(|_vm| ())
        }
        Action::Provider { network, name, id } => provider(doing, *network, name, *id).await,
        Action::Offering { id, security_groups } => {
            offering(doing, *id, *security_groups).await.map_err(JobError::from)
        }
        Action::SetUp(call) => set_up(doing, call).await,
        Action::File { full, .. } => return write(doing, full.reveal()),
        Action::Sql { statements, .. } => return run_statements(doing, step, statements).await,
        Action::After | Action::Other | Action::Wait => Ok(()),
    };
    outcome.map_err(|source| ActError::Step { step: step.what.clone(), source })
}

async fn run_statements(doing: &Doing<'_>, step: &Step, statements: &str) -> Result<(), ActError> {
    let Some(database) = doing.database else { return Ok(()) };
    let done = database.run(statements).await;
    done.map(|_rows| ()).map_err(|source| ActError::Database { step: step.what.clone(), source })
}

async fn provider(
    doing: &mut Doing<'_>,
    network: Uuid,
    name: &str,
    id: Option<Uuid>,
) -> Result<(), JobError> {
    let wait = JobWait::default();
    let id = match id {
        Some(id) => id,
        None => {
            let command =
                AddNetworkServiceProvider { name: name.to_owned(), physical_network_id: network };
            doing.client.run(&command, wait).await?.id
        }
    };
    let command = UpdateNetworkServiceProvider { id, state: Some("Enabled".to_owned()) };
    doing.client.run(&command, wait).await?;
    Ok(())
}

async fn offering(
    doing: &mut Doing<'_>,
    id: Option<Uuid>,
    security_groups: bool,
) -> Result<(), CallError> {
    let id = match id {
        Some(id) => id,
        None => doing.client.call(&new_offering(security_groups)).await?.id,
    };
    let command = UpdateNetworkOffering { id, state: Some("Enabled".to_owned()) };
    doing.client.call(&command).await?;
    Ok(())
}

fn new_offering(security_groups: bool) -> CreateNetworkOffering {
    let pair = |(service, provider): (&str, &str)| (service.to_owned(), provider.to_owned());
    let providers: Vec<_> = offering_services(security_groups).into_iter().map(pair).collect();
    CreateNetworkOffering {
        name: offering_name(security_groups).to_owned(),
        display_text: "DHCP and DNS by QuickCloud, no router".to_owned(),
        guest_ip_type: "Shared".to_owned(),
        traffic_type: "GUEST".to_owned(),
        specify_vlan: Some(true),
        specify_ip_ranges: Some(true),
        availability: Some("Optional".to_owned()),
        conserve_mode: Some(true),
        supported_services: providers.iter().map(|(service, _)| service.clone()).collect(),
        service_providers: ServiceProviders(providers),
    }
}

async fn set_up(doing: &mut Doing<'_>, call: &SetUp) -> Result<(), JobError> {
    match call {
        SetUp::PhysicalNetwork(command) => run(doing, command).await,
        SetUp::Traffic(command) => run(doing, command).await,
        SetUp::EnablePhysical(command) => run(doing, command).await,
        SetUp::Pod(command) => doing.client.call(command).await.map(drop).map_err(JobError::from),
        SetUp::Network(command) => {
            doing.client.call(command.as_ref()).await.map(drop).map_err(JobError::from)
        }
        SetUp::Range(command) => {
            doing.client.call(command.as_ref()).await.map(drop).map_err(JobError::from)
        }
        SetUp::Setting(command) => {
            doing.client.call(command).await.map(drop).map_err(JobError::from)
        }
        SetUp::Webhook(command) => {
            doing.client.call(command.as_ref()).await.map(drop).map_err(JobError::from)
        }
        SetUp::ChangeWebhook(command) => {
            doing.client.call(command.as_ref()).await.map(drop).map_err(JobError::from)
        }
    }
}

async fn run(doing: &mut Doing<'_>, command: &impl AsyncCommand) -> Result<(), JobError> {
    doing.client.run(command, JobWait::default()).await.map(drop)
}

/// The calls of a step, as they go out but for key and signature; for a plan. Those of a step that
/// needs what an earlier one makes are not known yet.
pub(crate) fn calls(action: &Action, zone: Uuid) -> Vec<String> {
    match action {
        Action::Detail { name, value } => {
            let details = Details(vec![((*name).to_owned(), (*value).to_owned())]);
            vec![shown(&UpdateZone { id: zone, details, ..UpdateZone::default() })]
        }
        Action::StopVm(id) => vec![shown(&StopSystemVm { id: *id })],
        Action::StartVm(id) => vec![shown(&StartSystemVm { id: *id })],
        Action::DestroyVm(id) => vec![shown(&DestroySystemVm { id: *id })],
        Action::Provider { network, name, id } => {
            let enabled = |id: &str| format!("updateNetworkServiceProvider id={id} state=Enabled");
            match id {
                Some(id) => vec![enabled(&id.to_string())],
                None => {
                    let (name, physical_network_id) = ((*name).to_owned(), *network);
                    let add = AddNetworkServiceProvider { name, physical_network_id };
                    vec![shown(&add), enabled("…")]
                }
            }
        }
        Action::Offering { id, security_groups } => {
            let enabled = |id: &str| format!("updateNetworkOffering id={id} state=Enabled");
            match id {
                Some(id) => vec![enabled(&id.to_string())],
                None => vec![shown(&new_offering(*security_groups)), enabled("…")],
            }
        }
        Action::SetUp(call) => vec![match call {
            SetUp::PhysicalNetwork(command) => shown(command),
            SetUp::Traffic(command) => shown(command),
            SetUp::EnablePhysical(command) => shown(command),
            SetUp::Pod(command) => shown(command),
            SetUp::Network(command) => shown(command.as_ref()),
            SetUp::Range(command) => shown(command.as_ref()),
            SetUp::Setting(command) => shown(command),
            SetUp::Webhook(command) => shown(command.as_ref()),
            SetUp::ChangeWebhook(command) => shown(command.as_ref()),
        }],
        Action::Sql { .. } | Action::File { .. } | Action::After | Action::Other | Action::Wait => {
            Vec::new()
        }
    }
}

fn shown<C: Command>(command: &C) -> String {
    let mut parameters = Parameters::default();
    command.parameters(&mut parameters);
    let quoted = |name: &str, value: &str| match (name, value.contains(char::is_whitespace)) {
        // The one secret among the parameters of these commands.
        ("secretkey", _) => "…".to_owned(),
        (_, true) => format!("'{value}'"),
        (_, false) => value.to_owned(),
    };
    let pairs = parameters.iter().map(|(name, value)| format!(" {name}={}", quoted(name, value)));
    C::NAME.to_owned() + &pairs.collect::<String>()
}

fn write(doing: &Doing<'_>, text: &str) -> Result<(), ActError> {
    let Some(path) = doing.file else { return Ok(()) };
    let failed = |source| ActError::File { path: path.display().to_string(), source };
    if !doing.force && std::fs::symlink_metadata(path).is_ok() {
        let error = "it exists and says something else; --force replaces it";
        return Err(failed(std::io::Error::new(std::io::ErrorKind::AlreadyExists, error)));
    }
    bedrock::files::replace(path, text.as_bytes(), 0o640).map_err(failed)
}
