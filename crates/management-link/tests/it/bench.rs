//! The link under test: its configuration, its role, its surroundings.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_protocol::agent::{
    PingStorageCommand, PlainAnswer, StartupCommand, StartupSecondaryStorageCommand,
};
use agent_protocol::{Envelope, unsupported};
use http_front::HttpFront;
use management_link::{
    Agent, CommandContext, LinkConfig, LinkLimits, ManagementConfig, ManagementLink, StartupFacts,
};
use role::{
    BoxFuture, Health, Heartbeat, Host, LinkReport, LinkState, RoleContext, RoleError, RoleKind,
    TaskScope,
};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::{LIMIT, Server};

pub(crate) const GUID: &str = "s-1-VM-NfsSecondaryStorageResource";
const KIND: RoleKind = RoleKind { short: "ss", title: "secondary storage", section: "ss" };

/// Echoes, waits, panics: what the class says.
pub(crate) struct TestAgent {
    /// `test.Waits` takes one permit each.
    pub(crate) gate: Semaphore,
    pub(crate) waiting: tokio::sync::watch::Sender<usize>,
    pub(crate) finished: tokio::sync::watch::Sender<usize>,
    pub(crate) seen: Mutex<Vec<String>>,
}

impl Agent for TestAgent {
    fn startup(&self, facts: &StartupFacts) -> Envelope {
        let startup = StartupCommand {
            data_center: Some(facts.zone.clone()),
            guid: Some(facts.guid.clone()),
            id: facts.host_id,
            ms_host_list: Some(facts.ms_host_list.clone()),
            connection_transferred: facts.connection_transferred,
            arch: Some(facts.arch.to_owned()),
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
        cx: CommandContext,
    ) -> BoxFuture<'static, Envelope> {
        Box::pin(async move {
            match command.class.as_str() {
                "test.Echo" => {
                    let details = command.body.get().to_owned();
                    Envelope::of(&PlainAnswer::success_with(details))
                }
                "test.Waits" => {
                    self.waiting.send_modify(|count| *count += 1);
                    self.gate.acquire().await.unwrap().forget();
                    self.finished.send_modify(|count| *count += 1);
                    Envelope::of(&PlainAnswer::success_with(format!("{:?}", cx.host_id)))
                }
                class if class.ends_with(".DownloadCommand") => std::future::pending().await,
                "test.Download" => {
                    self.waiting.send_modify(|count| *count += 1);
                    cx.answer_now.asked().await;
                    Envelope::of(&PlainAnswer::success_with("in progress".to_owned()))
                }
                "test.Big" => {
                    let body: serde_json::Value = serde_json::from_str(command.body.get()).unwrap();
                    let size = usize::try_from(body["size"].as_u64().unwrap()).unwrap();
                    // Letters that gzip does not make small.
                    let mut state = 1_u32;
                    let letters = (0..size).map(|_| {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        char::from(b'a' + u8::try_from(state >> 28).unwrap())
                    });
                    let answer =
                        Envelope::of(&PlainAnswer::success_with(letters.collect::<String>()));
                    self.finished.send_modify(|count| *count += 1);
                    answer
                }
                "test.Panics" => panic!("on purpose"),
                _ => unsupported(&command),
            }
        })
    }

    fn attached(&self, host_id: i64) {
        self.seen.lock().unwrap().push(format!("attached {host_id}"));
    }

    fn detached(&self) {
        self.seen.lock().unwrap().push("detached".to_owned());
    }
}

pub(crate) struct Bench {
    pub(crate) link: ManagementLink,
    pub(crate) agent: Arc<TestAgent>,
    pub(crate) cx: RoleContext,
    pub(crate) serving: JoinHandle<Result<(), RoleError>>,
    pub(crate) directory: Arc<tempfile::TempDir>,
}

/// A link to these servers with waits fit for a test.
pub(crate) fn config(servers: &[&Server]) -> ManagementConfig {
    let ms = Duration::from_millis;
    ManagementConfig {
        servers: servers.iter().map(|server| server.address.to_string().parse().unwrap()).collect(),
        port: 8250,
        zone: "z1".to_owned(),
        pod: "p1".to_owned(),
        ca_file: None,
        client_certificate: None,
        version: "4.22.0.0".to_owned(),
        limits: LinkLimits {
            backoff: ms(20),
            refusal_backoff: ms(40),
            migration_delay: ms(10),
            drain_timeout: Duration::from_secs(5),
            goodbye_timeout: Duration::from_secs(5),
            ..LinkLimits::default()
        },
    }
}

impl Bench {
    pub(crate) fn start(server: &Server) -> Self {
        Self::with(config(&[server]), None)
    }

    /// `directory`: the state of an earlier run.
    pub(crate) fn with(
        management: ManagementConfig,
        directory: Option<Arc<tempfile::TempDir>>,
    ) -> Self {
        let directory = directory.unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
        let tasks = TaskScope::new();
        let cx = RoleContext::new(
            KIND,
            CancellationToken::new(),
            tasks.clone(),
            Heartbeat::new(),
            HttpFront::new(tasks),
            Host::system(),
        );
        cx.health.started();
        let config = LinkConfig {
            management,
            guid: GUID.to_owned(),
            state_directory: directory.path().to_owned(),
        };
        let link = ManagementLink::new(config, &cx).unwrap();
        let agent = Arc::new(TestAgent {
            gate: Semaphore::new(0),
            waiting: tokio::sync::watch::Sender::new(0),
            finished: tokio::sync::watch::Sender::new(0),
            seen: Mutex::default(),
        });
        let (served, served_agent) = (link.clone(), agent.clone());
        let serving = tokio::spawn(async move { served.serve(served_agent).await });
        Self { link, agent, cx, serving, directory }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) async fn reaches(&self, state: LinkState) {
        let mut states = self.link.state();
        let reached = states.wait_for(|current| *current == state);
        tokio::time::timeout(LIMIT, reached)
            .await
            .unwrap_or_else(|_| panic!("{state:?} is not reached: {:?}", self.report()))
            .unwrap();
    }

    pub(crate) async fn attached(&self) {
        self.reaches(LinkState::Attached).await;
    }

    /// Waits for an error in the link's report that holds `text`.
    pub(crate) async fn fails_with(&self, text: &str) -> String {
        let deadline = tokio::time::Instant::now() + LIMIT;
        let mut health = self.cx.health.subscribe();
        loop {
            let error = self.report().last_error.unwrap_or_default();
            if error.contains(text) {
                return error;
            }
            let changed = tokio::time::timeout_at(deadline, health.changed());
            changed.await.unwrap_or_else(|_| panic!("no {text:?}: {:?}", self.report())).unwrap();
        }
    }

    /// Waits for a file of the state directory that holds `text`.
    pub(crate) async fn keeps(&self, name: &str, text: &str) {
        let path = self.path(name);
        let kept = async {
            while !holds(&path, text) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LIMIT, kept).await.unwrap_or_else(|_| panic!("{path:?}: {text}"));
    }

    pub(crate) fn report(&self) -> LinkReport {
        self.link.report()
    }

    pub(crate) fn health(&self) -> Health {
        self.cx.health.health()
    }

    /// What the supervisor's heartbeat does.
    pub(crate) fn beat(&self) {
        for (_, link) in self.cx.heartbeat.links() {
            link.ping();
        }
    }

    /// Stops the role; the server must read or close for it to end.
    pub(crate) async fn stop(self) -> Arc<tempfile::TempDir> {
        self.cx.shutdown.cancel();
        let ended = tokio::time::timeout(LIMIT, self.serving).await;
        ended.expect("the link does not stop").unwrap().unwrap();
        self.cx.tasks.close();
        drop(self.link);
        tokio::time::timeout(LIMIT, self.cx.tasks.wait()).await.expect("a task goes on");
        self.directory
    }
}

fn holds(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|content| content.contains(text))
}

/// Waits until a counter of the agent is there.
pub(crate) async fn reaches(counter: &tokio::sync::watch::Sender<usize>, wanted: usize) {
    let mut counter = counter.subscribe();
    let reached = counter.wait_for(|count| *count >= wanted);
    tokio::time::timeout(LIMIT, reached).await.expect("the count is not reached").unwrap();
}
