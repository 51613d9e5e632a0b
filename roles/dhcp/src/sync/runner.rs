//! Makes the calls and the transactions that the state machine asks for, and tells how it goes.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bedrock::chain;
use bedrock::files::read_secret;
use cloudstack_api::commands::{
    ListNetworks, ListRouters, ListVirtualMachines, ListVlanIpRanges, ListZones,
};
use cloudstack_api::{CallError, Client, ClientConfig, Credentials, RefusalKind};
use dhcp_api::resource::Source;
use dhcp_api::words::{InterfaceName, Stamp};
use role::RoleContext;
use role::host::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use super::SyncState;
use super::config::SyncConfig;
use super::machine::{
    Action, Call, Event, Failure, Found, Machine, Outcome, Request, Settings, Wake,
};
use crate::desired::{Change, Precondition};
use crate::machine::addresses_of;
use crate::metrics::Metrics;
use crate::store::Store;

/// Machines of a page; the server's own limit unless somebody changed it.
const PAGE: u32 = 500;
/// Wake-ups and requests that wait.
const QUEUE: usize = 64;
/// Between two attempts to read keys that are not there.
const NO_KEYS: Duration = Duration::from_secs(10);

/// What others want of the sync.
#[derive(Debug)]
pub(crate) enum Command {
    Wake(Wake),
    Now { force: bool, dry_run: bool, answer: oneshot::Sender<Result<Outcome, String>> },
}

/// Handle of the sync. Cloneable.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) state: watch::Receiver<SyncState>,
}

/// The task.
#[derive(Debug)]
pub(crate) struct Runner {
    cx: RoleContext,
    config: SyncConfig,
    interface: InterfaceName,
    store: Store,
    metrics: Metrics,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<SyncState>,
}

type Work = Pin<Box<dyn Future<Output = (Option<Client>, Event)> + Send>>;

impl Runner {
    pub(crate) fn new(
        cx: RoleContext,
        config: SyncConfig,
        interface: InterfaceName,
        store: Store,
        metrics: Metrics,
    ) -> (Handle, Self) {
        let (sender, commands) = mpsc::channel(QUEUE);
        let (state, observer) = watch::channel(SyncState {
            started: Instant::now(),
            last_success: None,
            last_error: None,
            held: 0,
            notes: Vec::new(),
            reservations: store.state().synced().len(),
            full_ms: None,
            calls: 0,
            zone: Some(config.zone.clone()),
        });
        let handle = Handle { commands: sender, state: observer };
        (handle, Self { cx, config, interface, store, metrics, commands, state })
    }

    /// Runs until the role stops. What is served does not wait for it.
    pub(crate) async fn run(mut self) {
        let shutdown = self.cx.shutdown.clone();
        shutdown.run_until_cancelled(self.work()).await.unwrap_or_default();
    }

    async fn work(&mut self) {
        let client = loop {
            match client(&self.config, &self.cx).await {
                Ok(client) => break client,
                Err(text) => {
                    self.fail(&text);
                    tokio::time::sleep(NO_KEYS).await;
                }
            }
        };
        let settings = Settings {
            zone: self.config.zone.clone(),
            networks: self.config.networks.clone(),
            domain: self.config.domain.clone(),
            interface: self.interface.clone(),
            full_interval: self.config.full_interval,
            starting_interval: self.config.starting_interval,
            max_delete_percent: self.config.max_delete_percent,
            seed: uuid::Uuid::new_v4().as_u64_pair().0 | 1,
        };
        let mut machine = Machine::new(settings, self.store.state().synced(), Instant::now());
        let (mut client, mut under_way): (Option<Client>, Option<Work>) = (Some(client), None);
        let mut asked: BTreeMap<u64, oneshot::Sender<Result<Outcome, String>>> = BTreeMap::new();
        let mut next_id = 0;
        let mut event = Event::Timer;
        loop {
            for action in machine.step(event, Instant::now()) {
                match action {
                    Action::Call(call) => {
                        if let Some(client) = client.take() {
                            under_way = Some(self.call(client, call));
                        }
                    }
                    Action::Store(change) => under_way = Some(self.store(*change)),
                    Action::Reply(id, outcome) => {
                        let waiting = asked.remove(&id);
                        if let Some(Err(_gone)) = waiting.map(|waiting| waiting.send(outcome)) {
                            tracing::debug!(id, "nobody waits for a sync any more");
                        }
                    }
                }
            }
            self.publish(&mut machine);
            let work = async {
                match &mut under_way {
                    Some(work) => work.await,
                    None => std::future::pending().await,
                }
            };
            let timer = async {
                match machine.deadline() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            event = tokio::select! {
                (kept, event) = work => {
                    under_way = None;
                    client = kept.or(client);
                    event
                }
                command = self.commands.recv() => match command {
                    Some(Command::Wake(wake)) => Event::Woken(wake),
                    Some(Command::Now { force, dry_run, answer }) => {
                        next_id += 1;
                        asked.insert(next_id, answer);
                        Event::Asked(Request { id: next_id, force, dry_run })
                    }
                    // The role is stopping.
                    None => return,
                },
                () = timer => Event::Timer,
            };
        }
    }

    fn call(&self, mut client: Client, call: Call) -> Work {
        let interface = self.interface.clone();
        Box::pin(async move {
            let begun = Instant::now();
            let outcome = ask(&mut client, &call, &interface).await;
            let took = begun.elapsed();
            let outcome = outcome.map_err(|error| failure(&error));
            (Some(client), Event::Answered { call, outcome, took })
        })
    }

    fn store(&self, change: crate::desired::SyncChange) -> Work {
        let (store, metrics) = (self.store.clone(), self.metrics.clone());
        Box::pin(async move {
            let (upserts, deletes) = (change.upsert.len(), change.delete.len());
            let change = Change::Sync(Box::new(change));
            let outcome = store.submit(change, Source::Cloudstack, Precondition::default()).await;
            let outcome = match outcome {
                Ok(applied) => {
                    if applied.changed {
                        tracing::info!(
                            generation = applied.generation,
                            upserts,
                            deletes,
                            "taken over from the management server"
                        );
                        metrics.sync_changed(upserts, deletes);
                    }
                    Ok((store.state().synced(), applied.notes))
                }
                Err(error) => Err(chain(&error)),
            };
            (None, Event::Stored(outcome))
        })
    }

    fn fail(&self, text: &str) {
        self.state.send_if_modified(|state| {
            let is_news = state.last_error.as_deref() != Some(text);
            if is_news {
                tracing::warn!(error = text, "the sync cannot go on");
                state.last_error = Some(text.to_owned());
            }
            is_news
        });
    }

    fn publish(&self, machine: &mut Machine) {
        let succeeded = machine.take_success();
        match machine.error() {
            Some(text) => self.fail(text),
            None => {
                self.state.send_if_modified(|state| {
                    let was = state.last_error.take();
                    if was.is_some() {
                        tracing::info!("the management server answers again");
                    }
                    was.is_some()
                });
            }
        }
        let now_ms = self.cx.host.clock.unix_ms();
        if succeeded {
            self.metrics.sync_success.set(now_ms / 1000);
        }
        self.metrics.sync_held.set(i64::try_from(machine.held()).unwrap_or(i64::MAX));
        let full_ms = machine.full_spent();
        let full_ms = full_ms.map(|spent| u64::try_from(spent.as_millis()).unwrap_or(u64::MAX));
        self.state.send_if_modified(|state| {
            let before = state.clone();
            if succeeded {
                state.last_success = Some((Stamp::from_unix_ms(now_ms), Instant::now()));
            }
            state.held = machine.held();
            state.notes = machine.notes().cloned().collect();
            state.reservations = machine.reservations();
            state.full_ms = full_ms;
            state.calls = machine.calls();
            *state != before
        });
    }
}

async fn ask(
    client: &mut Client,
    call: &Call,
    interface: &InterfaceName,
) -> Result<Found, CallError> {
    let machines = |zone| ListVirtualMachines::of_zone(zone);
    Ok(match call {
        Call::Zones => Found::Zones(client.list(&ListZones::default()).await?),
        Call::Networks(zone) => {
            let command = ListNetworks {
                zone_id: Some(*zone),
                list_all: Some(true),
                project_id: Some(-1),
                kind: Some("Shared".to_owned()),
                traffic_type: Some("Guest".to_owned()),
                ..ListNetworks::default()
            };
            Found::Networks(client.list(&command).await?)
        }
        Call::Ranges(zone) => {
            let command = ListVlanIpRanges {
                zone_id: Some(*zone),
                for_virtual_network: Some(false),
                ..ListVlanIpRanges::default()
            };
            let ranges = client.list(&command).await?;
            // What cannot be seen is not there: the subnet is served all the same.
            Found::Ranges(ranges, addresses_of(interface).unwrap_or_default())
        }
        Call::Routers(zone) => {
            let command = ListRouters {
                zone_id: Some(*zone),
                list_all: Some(true),
                ..ListRouters::default()
            };
            Found::Routers(client.list(&command).await?)
        }
        Call::Plain(zone) => {
            let command = ListVirtualMachines { project_id: None, ..machines(*zone) };
            Found::Machines(client.page(&command, 1, 1).await?)
        }
        Call::Machines(zone, page) => {
            Found::Machines(client.page(&machines(*zone), *page, PAGE).await?)
        }
        Call::Starting(zone) => {
            let state = Some("Starting".to_owned());
            let command = ListVirtualMachines { state, ..machines(*zone) };
            Found::Machines(client.page(&command, 1, PAGE).await?)
        }
        Call::Machine(zone, id) => {
            let command = ListVirtualMachines { id: Some(*id), ..machines(*zone) };
            Found::Machines(client.page(&command, 1, PAGE).await?)
        }
    })
}

/// What failed and what to do about it; whether every other call would fail, too.
fn failure(error: &CallError) -> Failure {
    let kind = error.refusal().map(|refusal| refusal.kind);
    let remedy = match kind {
        Some(RefusalKind::Unauthorized) => {
            "; check api_key_file, secret_key_file, that the user is enabled, and both clocks"
        }
        Some(RefusalKind::NotAllowed) => "; add the rule to the role of the user of the API",
        Some(RefusalKind::SecondFactor) => "; give the sync a user without a second factor",
        _ => "",
    };
    let offline = match error {
        CallError::Connect { .. } | CallError::Timeout { .. } | CallError::Exchange { .. } => true,
        CallError::NotAnAnswer { .. } | CallError::Elsewhere { .. } => true,
        CallError::Refused { .. } => matches!(
            kind,
            Some(
                RefusalKind::Unauthorized
                    | RefusalKind::Throttled
                    | RefusalKind::Internal
                    | RefusalKind::SecondFactor
            )
        ),
        CallError::NoUrl | CallError::Endless { .. } => false,
    };
    Failure { text: format!("{}{remedy}", chain(error)), offline }
}

/// A client with the keys as they are now.
async fn client(config: &SyncConfig, cx: &RoleContext) -> Result<Client, String> {
    let (config, clock) = (config.clone(), Arc::clone(&cx.host.clock));
    let made = cx.tasks.blocking("sync keys", move || make_client(&config, clock)).await;
    made.map_err(|error| chain(&error))?
}

fn make_client(config: &SyncConfig, clock: Arc<dyn Clock>) -> Result<Client, String> {
    let credentials = Credentials {
        api_key: read_secret(&config.api_key_file)?,
        secret_key: read_secret(&config.secret_key_file)?,
    };
    let tls = trust(config)?;
    let now = move || {
        let since = u64::try_from(clock.unix_ms()).unwrap_or_default();
        SystemTime::UNIX_EPOCH + Duration::from_millis(since)
    };
    let client = ClientConfig::new(config.urls.clone(), credentials, tls, now);
    Ok(Client::new(client))
}

fn trust(config: &SyncConfig) -> Result<Arc<rustls::ClientConfig>, String> {
    let own = match &config.ca_file {
        Some(path) => tls_material::read_certificates(path).map_err(|error| chain(&error))?,
        None => Vec::new(),
    };
    let remedy = "give its CA certificate as roles.dhcp.sync.ca_file";
    tls_material::https::client_config(own, remedy).map_err(|error| chain(&error))
}
