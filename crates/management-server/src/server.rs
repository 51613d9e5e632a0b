//! The handle of an embedded server: start, look, wait, send, stop.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_protocol::{Command, Envelope};
use tokio::net::TcpListener;

use crate::attachment::SendError;
use crate::ca::{CaError, CertificateAuthority};
use crate::config::ServerConfig;
use crate::console::{ConsoleError, ConsoleLink, ConsoleSession, Consoles, ProxyLoad, Vm};
use crate::console_access;
use crate::core::{Core, Struck};
use crate::events::{EventKind, Events, Journal, WaitError};
use crate::host_table::HostTable;
use crate::hosts::{Host, HostState};
use crate::images::{Image, ImageError, ImageLink, Images, NewImage, StoreUsage};
use crate::random::RandomError;
use crate::script::{Action, Script};
use crate::serve;
use crate::sync::lock;
use crate::tasks::Tasks;
use crate::transfers;
use crate::uploads::{self, UploadParameters};

/// How long tasks may take to end at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("listen on {address} for agents")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// No certificate authority.
    #[error(transparent)]
    Authority(#[from] CaError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A running server. Dropping the last clone does not stop it; [`ManagementServer::shutdown`] does.
#[derive(Debug, Clone)]
pub struct ManagementServer {
    core: Arc<Core>,
    address: SocketAddr,
}

impl ManagementServer {
    /// Binds the listener and starts to accept agents.
    ///
    /// # Errors
    /// [`ServerError`] when the address is taken or no key can be made.
    pub async fn start(mut config: ServerConfig) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if config.host_list.is_empty() {
            config.host_list = vec![address.ip().to_string()];
        }
        let authority = match config.authority.take() {
            Some(authority) => authority,
            None => CertificateAuthority::generate()?,
        };
        let core = Arc::new(Core {
            authority,
            tasks: Tasks::default(),
            journal: Arc::new(Journal::new()),
            script: Script::default(),
            hosts: Mutex::new(HostTable::default()),
            consoles: Mutex::new(Consoles::new(config.console.token_key.clone())?),
            images: Mutex::new(Images::new()?),
            unlocked: tokio::sync::Notify::new(),
            config,
        });
        core.tasks.spawn(serve::accept(Arc::clone(&core), listener));
        core.tasks.spawn(watch_pings(Arc::clone(&core)));
        if let Some(interval) = core.config.images.stats_interval {
            core.tasks.spawn(transfers::watch_usage(Arc::clone(&core), interval));
        }
        Ok(Self { core, address })
    }

    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate that the server presents, PEM: the `ca_file` of agents.
    pub fn ca_pem(&self) -> String {
        self.core.authority.pem()
    }

    /// The authority, to issue certificates for agents.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.core.authority
    }

    /// All rows of the host table.
    pub fn hosts(&self) -> Vec<Host> {
        lock(&self.core.hosts).snapshot()
    }

    /// The row of one agent.
    pub fn host(&self, guid: &str) -> Option<Host> {
        lock(&self.core.hosts).find(|host| host.guid == guid)
    }

    /// What happened so far and will happen.
    pub fn events(&self) -> Events {
        self.core.journal.subscribe()
    }

    /// The faults; they may be changed at any time.
    pub fn script(&self) -> &Script {
        &self.core.script
    }

    /// Forgets which hosts are locked, as a restart of the original does; see
    /// [`ServerConfig::lock_unanswered_hosts`].
    pub fn unlock_hosts(&self) {
        lock(&self.core.hosts).unlock_all();
        self.core.unlocked.notify_waiters();
    }

    /// Applies one fault to an agent's link at once.
    ///
    /// # Errors
    /// [`SendError::Detached`] without a link.
    pub async fn strike(&self, guid: &str, action: Action) -> Result<(), SendError> {
        let attachment = self.core.attachment(guid)?;
        self.core.apply(attachment.link(), action, &mut Struck::default()).await;
        Ok(())
    }

    /// Waits until `condition` gives something; it is asked again after every change.
    ///
    /// # Errors
    /// [`WaitError`] when it does not in time.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&Self) -> Option<T>,
    ) -> Result<T, WaitError> {
        self.core.journal.wait(what, timeout, || condition(self)).await
    }

    /// Waits until an agent's row is in a state.
    ///
    /// # Errors
    /// [`WaitError`] when it is not in time.
    pub async fn wait_for_host(
        &self,
        guid: &str,
        state: HostState,
        timeout: Duration,
    ) -> Result<Host, WaitError> {
        let condition = |server: &Self| server.host(guid).filter(|host| host.state == state);
        self.wait_for(&format!("host {guid} in state {state:?}"), timeout, condition).await
    }

    /// Waits until an image's record fits.
    ///
    /// # Errors
    /// [`WaitError`] when it does not in time.
    pub async fn wait_for_image(
        &self,
        id: i64,
        timeout: Duration,
        fits: impl Fn(&Image) -> bool,
    ) -> Result<Image, WaitError> {
        let condition = |server: &Self| server.image(id).filter(|image| fits(image));
        self.wait_for(&format!("image {id} as expected"), timeout, condition).await
    }

    /// Sends any command to an agent and waits for its answer; `in_sequence` commands wait for
    /// the answer of the one before.
    ///
    /// # Errors
    /// [`SendError`] when no answer comes.
    pub async fn send(
        &self,
        guid: &str,
        command: Envelope,
        in_sequence: bool,
        timeout: Duration,
    ) -> Result<Envelope, SendError> {
        let attachment = self.core.attachment(guid)?;
        self.core.ask_raw(&attachment, command, in_sequence, timeout).await
    }

    /// Sends several commands in one message.
    ///
    /// # Errors
    /// [`SendError`] when no answer comes.
    pub async fn send_all(
        &self,
        guid: &str,
        commands: &[Envelope],
        in_sequence: bool,
        timeout: Duration,
    ) -> Result<Vec<Envelope>, SendError> {
        let attachment = self.core.attachment(guid)?;
        attachment.request_all(commands, in_sequence, timeout).await
    }

    /// Sends a typed command and opens its answer.
    ///
    /// # Errors
    /// [`SendError`] when no answer comes, or one of another class.
    pub async fn request<C: Command>(
        &self,
        guid: &str,
        command: &C,
        timeout: Duration,
    ) -> Result<C::Answer, SendError> {
        let attachment = self.core.attachment(guid)?;
        let answer = self.core.ask(&attachment, command, timeout).await?;
        answer.open::<C::Answer>().map_err(|_| SendError::Unexpected {
            class: C::CLASS.to_owned(),
            found: answer.class.clone(),
        })
    }

    /// Whether the agent said yes to a typed command, whatever class its answer has.
    ///
    /// # Errors
    /// [`SendError`] when no answer comes.
    pub async fn succeeds<C: Command>(
        &self,
        guid: &str,
        command: &C,
        timeout: Duration,
    ) -> Result<bool, SendError> {
        let answer = self.send(guid, Envelope::of(command), C::IN_SEQUENCE, timeout).await?;
        Ok(answer.answer_base().is_ok_and(|base| base.result))
    }

    /// Adds a VM whose console can be opened, or replaces the one with its UUID.
    pub fn put_vm(&self, vm: Vm) {
        lock(&self.core.consoles).put(vm);
        self.core.journal.changed();
    }

    /// Removes a VM; false when it was not there.
    pub fn remove_vm(&self, uuid: &str) -> bool {
        let removed = lock(&self.core.consoles).remove(uuid);
        self.core.journal.changed();
        removed
    }

    /// All VMs.
    pub fn vms(&self) -> Vec<Vm> {
        lock(&self.core.consoles).vms()
    }

    /// Makes a link to a VM's console for a browser at `client_address`; `extra` is the security
    /// token that a caller may demand.
    ///
    /// # Errors
    /// [`ConsoleError`] when there is no such VM or no proxy.
    pub async fn console_link(
        &self,
        vm: &str,
        client_address: IpAddr,
        extra: Option<&str>,
    ) -> Result<ConsoleLink, ConsoleError> {
        console_access::link(&self.core, vm, client_address, extra).await
    }

    /// All console sessions, oldest first.
    pub fn console_sessions(&self) -> Vec<ConsoleSession> {
        lock(&self.core.consoles).sessions()
    }

    /// The last report of each proxy, by the number of its VM.
    pub fn proxy_loads(&self) -> BTreeMap<i64, ProxyLoad> {
        lock(&self.core.consoles).loads()
    }

    /// Registers an image and starts its download.
    ///
    /// # Errors
    /// [`ImageError::NoStore`] without a store that has room.
    pub fn register_template(&self, image: NewImage) -> Result<i64, ImageError> {
        transfers::register(&self.core, image)
    }

    /// Makes a record that waits for its file, and what a browser needs to upload that.
    ///
    /// # Errors
    /// [`ImageError`] without a store that has room, or an agent.
    pub fn announce_upload(&self, image: NewImage) -> Result<(i64, UploadParameters), ImageError> {
        uploads::announce(&self.core, image)
    }

    /// One image.
    pub fn image(&self, id: i64) -> Option<Image> {
        lock(&self.core.images).get(id)
    }

    /// All images.
    pub fn images(&self) -> Vec<Image> {
        lock(&self.core.images).all()
    }

    /// Deletes an image on its store and its record.
    ///
    /// # Errors
    /// [`ImageError`] when it is being downloaded or the agent does not delete it.
    pub async fn delete_image(&self, id: i64) -> Result<(), ImageError> {
        transfers::delete(&self.core, id).await
    }

    /// Makes a link to download an image.
    ///
    /// # Errors
    /// [`ImageError`] when it is not there or the agent does not publish it.
    pub async fn create_link(&self, id: i64) -> Result<ImageLink, ImageError> {
        transfers::create_link(&self.core, id).await
    }

    /// Takes the link to an image away.
    ///
    /// # Errors
    /// [`ImageError`] when the agent does not.
    pub async fn delete_link(&self, id: i64) -> Result<(), ImageError> {
        transfers::delete_link(&self.core, id).await
    }

    /// The digest of an image as `{ALG}hex`, computed by the agent.
    ///
    /// # Errors
    /// [`ImageError`] when the agent cannot.
    pub async fn compute_checksum(&self, id: i64, algorithm: &str) -> Result<String, ImageError> {
        transfers::checksum(&self.core, id, algorithm).await
    }

    /// Size of a store by its URL, as the agent reported it last.
    pub fn store_usage(&self, url: &str) -> Option<StoreUsage> {
        lock(&self.core.images).usage(url)
    }

    /// Stops accepting, closes all links and waits for all tasks; false when some did not end in
    /// time.
    pub async fn shutdown(&self) -> bool {
        let ended = self.core.tasks.finish(SHUTDOWN_GRACE).await;
        self.core.journal.changed();
        ended
    }
}

/// Closes links of agents that do not ping.
async fn watch_pings(core: Arc<Core>) {
    let allowed = core.config.ping_timeout;
    let period = core.config.ping_interval.min(allowed / 2).max(Duration::from_millis(5));
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let silent = lock(&core.hosts).silent(allowed);
        for attachment in silent {
            core.let_go(&attachment);
            let state = lock(&core.hosts).detach(&attachment, |_| HostState::Disconnected);
            let link = attachment.link();
            if let Some(state) = state {
                link.record(EventKind::State(state));
            }
            link.close("no ping came in time");
        }
    }
}
