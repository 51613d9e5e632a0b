//! The handlers of the role on a temporary store.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::storage::{
    DataStoreTO, DownloadAnswer, DownloadCommand, DownloadProgressCommand, DownloadRequest,
    DownloadStatus, ImageFormat, ListTemplateCommand, ResourceType, TemplateObjectTO,
};
use agent_protocol::{Command, Envelope};
use config_reader::Violations;
use management_link::CommandContext;
use role::{ConfigInput, RoleContext};
use secondary_storage::config::SecondaryStorageConfig;
use secondary_storage::service::{Assembled, KIND, assemble, assemble_on};

use crate::images::ImageServer;
use crate::memory::{Memory, MemoryStores};
use crate::nfs_server::NfsServer;

pub const STORE: &str = "nfs://127.0.0.1/export/sec";
pub const NAME: &str = "320-2-3aeb9d60-1176-3215-bb38-fb5279d529d2";
pub const SOON: Duration = Duration::from_secs(60);

/// What stores are made of.
pub trait Kind {
    fn memory() -> Option<Memory>;

    /// The server of the directory, when it is not used as it is.
    fn server(_directory: &Path) -> Option<NfsServer> {
        None
    }
}

#[derive(Debug)]
pub struct OnDirectory;

impl Kind for OnDirectory {
    fn memory() -> Option<Memory> {
        None
    }
}

#[derive(Debug)]
pub struct InMemory;

impl Kind for InMemory {
    fn memory() -> Option<Memory> {
        Some(Memory::default())
    }
}

/// On a server that the directory is the export of.
#[derive(Debug)]
pub struct OnNfs;

impl Kind for OnNfs {
    fn memory() -> Option<Memory> {
        None
    }

    fn server(directory: &Path) -> Option<NfsServer> {
        Some(NfsServer::start(directory))
    }
}

pub struct Bench<K = OnDirectory> {
    pub parts: Assembled,
    pub cx: RoleContext,
    pub config: SecondaryStorageConfig,
    pub images: ImageServer,
    /// Holds store and state.
    pub directory: PathBuf,
    /// The stores, when they are not a directory.
    pub memory: Option<Memory>,
    pub server: Option<NfsServer>,
    /// Removes it at the end, when it is ours.
    pub _temp: tempfile::TempDir,
    pub _kind: PhantomData<K>,
}

pub fn store_to() -> DataStoreTO {
    DataStoreTO::nfs(STORE)
}

pub fn context() -> CommandContext {
    CommandContext {
        log_id: None,
        host_id: Some(3),
        in_sequence: false,
        sequence: 1,
        management_id: 1,
        wait: None,
        answer_now: management_link::AnswerNow::default(),
    }
}

/// The configuration of a store on `server`.
pub fn store_line(server: &NfsServer) -> String {
    let port = server.addr.port();
    format!(
        "stores = [{{ url = \"{STORE}\", engine = \"nfs\", port = {port}, mount_port = {port} }}]\n"
    )
}

/// The role's table: one store in `sec`, state beside it; lines of `more` replace ours.
pub fn section(temp: &Path, more: &str) -> toml::Table {
    std::fs::create_dir_all(temp.join("sec")).unwrap();
    let base = format!(
        "name = \"s-900-VM\"\nguid = \"SecondaryStorage.1\"\nprivate_address = \"127.0.0.1\"\n\
         stores = [{{ url = \"{STORE}\", directory = \"{}\" }}]\nmount_root = \"{}\"\n\
         allowed_sources = [\"127.0.0.1\"]\nretry_delay = \"10ms\"\nretries = 2\n\
         answer_wait = \"100ms\"\nlisten = [\"127.0.0.1:0\"]\n",
        temp.join("sec").display(),
        temp.join("mnt").display(),
    );
    let mut section: toml::Table = base.parse().unwrap();
    section.extend(more.parse::<toml::Table>().unwrap());
    section
}

pub fn config(temp: &Path, more: &str) -> SecondaryStorageConfig {
    let section = section(temp, more);
    let management: toml::Table = "servers = [\"127.0.0.1\"]".parse().unwrap();
    let mut violations = Violations::new();
    let state = temp.join("state");
    let input = ConfigInput { section: &section, management: &management, state_directory: &state };
    let config = SecondaryStorageConfig::read(input, &mut violations);
    assert!(violations.is_empty(), "{:?}", violations.list());
    config.unwrap()
}

async fn assembled(
    memory: &Option<Memory>,
    config: &SecondaryStorageConfig,
    cx: &RoleContext,
) -> Assembled {
    let assembled = match memory {
        Some(memory) => assemble_on(Arc::new(MemoryStores(memory.clone())), config, cx).await,
        None => assemble(config, cx).await,
    };
    assembled.unwrap()
}

impl<K: Kind> Bench<K> {
    pub async fn new() -> Self {
        Self::with("").await
    }

    /// `more` are lines of configuration.
    pub async fn with(more: &str) -> Self {
        Self::configured(more, |_config| {}).await
    }

    pub async fn configured(more: &str, change: impl FnOnce(&mut SecondaryStorageConfig)) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let server = K::server(&temp.path().join("sec"));
        let nfs = server.as_ref().map(store_line).unwrap_or_default();
        let mut config = config(temp.path(), &format!("{nfs}{more}"));
        change(&mut config);
        let cx = testkit::context(KIND);
        let memory = K::memory();
        let parts = assembled(&memory, &config, &cx).await;
        let (directory, images) = (temp.path().to_owned(), ImageServer::start().await);
        Self {
            parts,
            cx,
            config,
            images,
            directory,
            memory,
            server,
            _temp: temp,
            _kind: PhantomData,
        }
    }

    /// The same host after its process ended and started again.
    pub async fn restarted(self) -> Self {
        self.restarted_after(|| {}).await
    }

    /// The same, with something done in between.
    pub async fn restarted_after(self, meanwhile: impl FnOnce()) -> Self {
        self.cx.tasks.close();
        self.cx.tasks.kill();
        self.cx.tasks.wait().await;
        meanwhile();
        let cx = testkit::context(KIND);
        let parts = assembled(&self.memory, &self.config, &cx).await;
        parts.commands.downloads.restore().await;
        Self { parts, cx, ..self }
    }

    pub fn store(&self, path: &str) -> PathBuf {
        self.directory.join("sec").join(path)
    }

    /// The same as answers show it.
    pub fn place(&self, path: &str) -> String {
        match &self.server {
            Some(_) => format!("127.0.0.1:/export/sec/{path}"),
            None => self.store(path).display().to_string(),
        }
    }

    /// A file of the store.
    pub fn read(&self, path: &str) -> Vec<u8> {
        match &self.memory {
            Some(memory) => memory.read(path).unwrap(),
            None => std::fs::read(self.store(path)).unwrap(),
        }
    }

    /// Another host of the zone, with a state of its own on the same store.
    pub async fn beside(&self, name: &str) -> Self {
        let mut config = self.config.clone();
        config.state_directory = self.directory.join(name);
        let cx = testkit::context(KIND);
        let parts = assembled(&self.memory, &config, &cx).await;
        parts.stores.open_configured().await;
        Self {
            parts,
            cx,
            config,
            images: self.images.clone(),
            directory: self.directory.clone(),
            memory: self.memory.clone(),
            server: None,
            _temp: tempfile::tempdir().unwrap(),
            _kind: PhantomData,
        }
    }

    /// Every file below the store's root, sorted, but what hosts keep there for each other.
    pub fn files(&self) -> Vec<String> {
        let mut files = match &self.memory {
            Some(memory) => memory.files(),
            None => self.files_of_directory(),
        };
        files.retain(|file| file != ".quickcloud-store" && !file.starts_with(".quickcloud/"));
        files.sort();
        files
    }

    fn files_of_directory(&self) -> Vec<String> {
        let root = self.store("");
        let mut files = Vec::new();
        let mut waiting = vec![root.clone()];
        while let Some(directory) = waiting.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    waiting.push(path);
                } else {
                    files.push(path.strip_prefix(&root).unwrap().display().to_string());
                }
            }
        }
        files
    }

    /// Removed files of the store that this process still holds open.
    pub fn held_open(&self) -> Vec<String> {
        if let Some(memory) = &self.memory {
            return (0..memory.parts()).map(|part| format!("part {part}")).collect();
        }
        let root = self.store("").display().to_string();
        let open = std::fs::read_dir("/proc/self/fd").unwrap();
        let targets = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let names = targets.map(|target| target.display().to_string());
        names.filter(|name| name.starts_with(&root) && name.ends_with(" (deleted)")).collect()
    }

    pub async fn raw(&self, envelope: Envelope) -> Envelope {
        tokio::time::timeout(SOON, self.parts.commands.handle(envelope, &context())).await.unwrap()
    }

    pub async fn ask<C: Command>(&self, command: &C) -> C::Answer {
        self.raw(Envelope::of(command)).await.open::<C::Answer>().unwrap()
    }

    /// A template of id 320 from `path` of the image server.
    pub fn download(&self, path: &str, format: ImageFormat) -> DownloadCommand {
        DownloadCommand {
            hvm: true,
            description: Some("a template".to_owned()),
            max_download_size_in_bytes: Some(53_687_091_200),
            id: 320,
            resource_type: Some(ResourceType::Template),
            install_path: Some("template/tmpl/2/320".to_owned()),
            store: Some(store_to()),
            url: Some(self.images.url(path).into()),
            format: Some(format),
            account_id: 2,
            name: Some(NAME.to_owned()),
            sec_url: Some(STORE.into()),
            ..DownloadCommand::default()
        }
    }

    pub fn progress(
        command: &DownloadCommand,
        answer: &DownloadAnswer,
        request: DownloadRequest,
    ) -> DownloadProgressCommand {
        DownloadProgressCommand {
            job_id: answer.job_id.clone(),
            request: Some(request),
            download: command.clone(),
        }
    }

    /// Starts a download and asks until it is over.
    pub async fn finish(&self, command: &DownloadCommand) -> DownloadAnswer {
        self.until_over(command, self.ask(command).await).await
    }

    /// Starts a gated download and asks once its first half is there.
    pub async fn half_way(&self, command: &DownloadCommand) -> DownloadAnswer {
        let answer = self.ask(command).await;
        let job = self.parts.downloads.get(answer.job_id.as_deref().unwrap()).unwrap();
        let half = || job.expected().is_some_and(|all| job.received() == all / 2).then_some(());
        testkit::eventually("half way", SOON, half).await;
        let poll = Self::progress(command, &answer, DownloadRequest::GetStatus);
        let answer = self.ask(&poll).await;
        assert_eq!(answer.download_pct, 50, "{answer:?}");
        answer
    }

    /// Waits until a download is over; gives the last answer.
    pub async fn until_over(
        &self,
        command: &DownloadCommand,
        answer: DownloadAnswer,
    ) -> DownloadAnswer {
        let running = |answer: &DownloadAnswer| {
            matches!(
                answer.download_status,
                Some(DownloadStatus::DownloadInProgress | DownloadStatus::NotDownloaded)
            )
        };
        if !running(&answer) {
            return answer;
        }
        // Under an old id the server may be asking for the job that took its place: wait for all.
        for status in self.parts.downloads.status() {
            let job = self.parts.downloads.get(&status.job).unwrap();
            assert!(job.wait(SOON).await, "never over: {answer:?}");
        }
        let poll = Self::progress(command, &answer, DownloadRequest::GetStatus);
        let answer = self.ask(&poll).await;
        assert!(!running(&answer), "{answer:?}");
        answer
    }

    /// Unique names of the listed templates.
    pub async fn listed(&self) -> Vec<String> {
        let command =
            ListTemplateCommand { store: Some(store_to()), ..ListTemplateCommand::default() };
        let answer = self.ask(&command).await;
        assert!(answer.base.result, "{:?}", answer.base.details);
        answer.template_infos.unwrap().into_iter().map(|(name, _)| name).collect()
    }

    /// The install path of the one listed template.
    pub async fn listed_path(&self) -> String {
        let command =
            ListTemplateCommand { store: Some(store_to()), ..ListTemplateCommand::default() };
        let infos = self.ask(&command).await.template_infos.unwrap();
        infos.into_iter().next().unwrap().1.install_path.unwrap()
    }

    /// What the server would name in a link or a deletion.
    pub fn template(path: &str, id: i64) -> TemplateObjectTO {
        TemplateObjectTO {
            path: Some(path.to_owned()),
            id,
            image_data_store: Some(store_to()),
            ..TemplateObjectTO::default()
        }
    }
}

pub fn error_of(answer: &DownloadAnswer) -> &str {
    assert_eq!(answer.download_status, Some(DownloadStatus::DownloadError), "{answer:?}");
    assert!(answer.job_id.is_some(), "the server drops an answer without a job");
    assert!(answer.install_path.is_some(), "the server forgets the path without it");
    assert_eq!(answer.error_string, answer.base.details);
    assert!(answer.base.result);
    answer.error_string.as_deref().unwrap()
}
