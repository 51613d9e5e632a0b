//! A host that is killed at any step of a download and of a deletion: after the next start the
//! object is there whole or not at all, nothing is left beside it, and the download ends well.
//!
//! The step at which the process stops is one of its store: this engine hangs there, before or after
//! the step takes effect, until the process is killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::storage::{DataTO, DeleteCommand, DownloadStatus, ImageFormat};
use bytes::Bytes;
use role::BoxFuture;
use secondary_storage::service::{KIND, assemble_on};
use secondary_storage::stores::directory::open::Directories;
use secondary_storage::stores::engine::{Connected, Engines};
use secondary_storage::stores::{
    Engine, EntryKind, FileName, InstallPath, Listed, Opened, Operation, Part, Space, StoreError,
    StoreUrl, Work,
};

use crate::bench::{Bench, NAME, config};
use crate::images::{ImageServer, raw};

const DIRECTORY: &str = "SS_STOPPED_DIRECTORY";
const URL: &str = "SS_STOPPED_URL";
const STEP: &str = "SS_STOPPED_STEP";
const DELETING: &str = "SS_STOPPED_DELETING";
const REACHED: &str = "reached the step";
/// More than the writer takes at once.
const LENGTH: usize = 3 << 20;

/// A step, and whether the process stops before or after it: `before rename`.
#[derive(Debug, Clone)]
struct Stop(Arc<str>);

impl Stop {
    async fn here(&self, when: &str, step: &str) {
        if *self.0 == *format!("{when} {step}") {
            eprintln!("{REACHED}");
            std::future::pending::<()>().await;
        }
    }

    fn around<T: Send + 'static>(
        &self,
        step: &'static str,
        operation: Operation<T>,
    ) -> Operation<T> {
        let stop = self.clone();
        Box::pin(async move {
            stop.here("before", step).await;
            let outcome = operation.await;
            stop.here("after", step).await;
            outcome
        })
    }
}

#[derive(Debug)]
struct StoppingStores(Directories, Stop);

impl Engines for StoppingStores {
    fn configured(&self) -> Vec<StoreUrl> {
        self.0.configured()
    }

    fn connect(
        &self,
        url: StoreUrl,
        name: Option<String>,
        version: Option<String>,
    ) -> BoxFuture<'static, Result<Connected, StoreError>> {
        let (connecting, stop) = (self.0.connect(url, name, version), self.1.clone());
        Box::pin(async move {
            let Connected { name, engine, notes } = connecting.await?;
            Ok(Connected { name, engine: Arc::new(Stopping { engine, stop }), notes })
        })
    }

    fn connect_limit(&self) -> Duration {
        self.0.connect_limit()
    }

    fn retain(&self, in_use: &dyn Fn(&str) -> bool) {
        self.0.retain(in_use);
    }
}

#[derive(Debug)]
struct Stopping {
    engine: Arc<dyn Engine>,
    stop: Stop,
}

impl Engine for Stopping {
    fn place(&self) -> String {
        self.engine.place()
    }

    fn pin(&self, work: &Work, marker: Option<String>) -> Operation<()> {
        self.engine.pin(work, marker)
    }

    fn probe(&self, work: &Work) -> Operation<Space> {
        self.engine.probe(work)
    }

    fn get(&self, work: &Work, path: InstallPath) -> Operation<Option<Bytes>> {
        self.engine.get(work, path)
    }

    fn put(&self, work: &Work, path: InstallPath, aside: FileName, bytes: Bytes) -> Operation<()> {
        // The marker of the store is put, too.
        let step = if path.parts().len() > 1 { "put" } else { "mark" };
        self.stop.around(step, self.engine.put(work, path, aside, bytes))
    }

    fn ensure(&self, work: &Work, directory: InstallPath) -> Operation<()> {
        self.engine.ensure(work, directory)
    }

    fn kind(&self, work: &Work, path: InstallPath) -> Operation<Option<EntryKind>> {
        self.engine.kind(work, path)
    }

    fn list(&self, work: &Work, tree: InstallPath, index: FileName) -> Operation<Vec<Listed>> {
        self.engine.list(work, tree, index)
    }

    fn open(&self, work: &Work, path: InstallPath) -> Operation<Option<Box<dyn Opened>>> {
        self.engine.open(work, path)
    }

    fn create(
        &self,
        work: &Work,
        directory: InstallPath,
        name: FileName,
    ) -> Operation<Box<dyn Part>> {
        let (creating, stop) = (self.engine.create(work, directory, name), self.stop.clone());
        let creating = self.stop.around("create", creating);
        Box::pin(async move { Ok(Box::new(StoppingPart { part: creating.await?, stop }) as _) })
    }

    fn rename(
        &self,
        work: &Work,
        directory: InstallPath,
        from: FileName,
        to: FileName,
    ) -> Operation<()> {
        self.stop.around("rename", self.engine.rename(work, directory, from, to))
    }

    fn remove_file(&self, work: &Work, path: InstallPath) -> Operation<bool> {
        self.engine.remove_file(work, path)
    }

    fn remove_tree(&self, work: &Work, directory: InstallPath, first: FileName) -> Operation<bool> {
        self.stop.around("remove_tree", self.engine.remove_tree(work, directory, first))
    }

    fn remove_empty(&self, work: &Work, directory: InstallPath) -> Operation<()> {
        self.engine.remove_empty(work, directory)
    }
}

#[derive(Debug)]
struct StoppingPart {
    part: Box<dyn Part>,
    stop: Stop,
}

impl Part for StoppingPart {
    fn write(&mut self, offset: u64, bytes: Bytes) -> Operation<()> {
        let step = if offset == 0 { "first write" } else { "later write" };
        self.stop.around(step, self.part.write(offset, bytes))
    }

    fn sync(&mut self) -> Operation<()> {
        self.part.sync()
    }

    fn finish(self: Box<Self>) -> Operation<Box<dyn Opened>> {
        let Self { part, stop } = *self;
        stop.around("finish", part.finish())
    }
}

/// In the process that gets killed, the variables say where and how far it comes.
#[tokio::test]
async fn a_download_and_a_deletion_pass_every_step() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        let temp = tempfile::tempdir().unwrap();
        let bench: Bench = Bench::at(temp.path()).await;
        bench.images.put("a.raw", raw(LENGTH));
        return both(&bench, bench.images.url("golden/a.raw"), true).await;
    };
    let config = config(Path::new(&directory), "");
    let cx = testkit::context(KIND);
    let directories = Directories::new(config.stores.clone(), cx.host.clone());
    let stop = Stop(std::env::var(STEP).unwrap().into());
    let stores = Arc::new(StoppingStores(directories, stop));
    let parts = assemble_on(stores, &config, &cx).await.unwrap();
    let bench: Bench = Bench { parts, ..Bench::at(Path::new(&directory)).await };
    both(&bench, std::env::var(URL).unwrap(), std::env::var(DELETING).is_ok()).await;
    panic!("the step was not reached");
}

async fn both(bench: &Bench, url: String, is_deleted: bool) {
    let mut command = bench.download("", ImageFormat::Raw);
    command.url = Some(url.as_str().into());
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    if is_deleted {
        assert!(bench.ask(&deletion()).await.base.result);
        assert_eq!(bench.files(), Vec::<String>::new());
    }
}

fn deletion() -> DeleteCommand {
    let data = Some(DataTO::from(Bench::<crate::bench::OnDirectory>::template(
        "template/tmpl/2/320",
        320,
    )));
    DeleteCommand { data, ..DeleteCommand::default() }
}

/// Runs a host in a process of its own and kills it when it has reached the step.
async fn kill_at(step: &str, directory: &Path, url: String, is_deleting: bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "stopped::a_download_and_a_deletion_pass_every_step", "--nocapture"]);
    command.env(DIRECTORY, directory).env(URL, url).env(STEP, step);
    if is_deleting {
        command.env(DELETING, "yes");
    }
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let said = tokio::task::spawn_blocking(move || {
        let mut said = String::new();
        let lines = BufReader::new(stderr.take(1 << 20)).lines();
        for line in lines.map_while(Result::ok) {
            said.push_str(&line);
            if line == REACHED {
                break;
            }
        }
        // SIGKILL: no handler runs, nothing is flushed.
        child.kill().unwrap();
        child.wait().unwrap();
        said
    });
    let said = said.await.unwrap();
    assert!(said.ends_with(REACHED), "{step}: {said}");
}

#[tokio::test]
async fn a_host_killed_at_any_step_of_a_download_ends_it_after_its_next_start() {
    let steps = ["create", "first write", "later write", "finish", "rename", "put"];
    let steps = steps.iter().flat_map(|step| [format!("before {step}"), format!("after {step}")]);
    for step in steps {
        let temp = tempfile::tempdir().unwrap();
        let images = ImageServer::start().await;
        images.put("a.raw", raw(LENGTH));
        kill_at(&step, temp.path(), images.url("golden/a.raw"), false).await;
        let bench: Bench = Bench::at(temp.path()).await;
        let listed = bench.listed().await;
        let is_published = step == "after put";
        assert_eq!(listed.len(), usize::from(is_published), "{step}: whole or not at all");
        bench.parts.commands.downloads.restore().await;
        bench.parts.downloads.recover(bench.cx.shutdown.clone()).await;
        let status = bench.parts.downloads.status().remove(0);
        let job = bench.parts.downloads.get(&status.job).unwrap();
        assert!(job.wait(crate::bench::SOON).await, "{step}");
        assert_eq!(
            job.phase(),
            secondary_storage::ingest::Phase::Done,
            "{step}: {:?}",
            job.report()
        );
        assert_eq!(bench.listed().await, [NAME], "{step}");
        assert!(job.report().checksum.unwrap().starts_with("{SHA-512}"), "{step}");
        if step.ends_with("rename") || step.ends_with("put") {
            assert_eq!(images.requests("golden/a.raw"), 1, "{step}: nothing is asked for again");
        }
        assert!(bench.read(&job.report().install_path) == raw(LENGTH), "{step}");
        assert_eq!(bench.files().len(), 2, "{step}: {:?}", bench.files());
        let notes = temp.path().join("state/ss/downloads");
        assert_eq!(std::fs::read_dir(notes).unwrap().count(), 0, "{step}");
    }
}

#[tokio::test]
async fn a_host_killed_in_a_deletion_has_the_object_whole_or_not_at_all() {
    for step in ["before remove_tree", "after remove_tree"] {
        let temp = tempfile::tempdir().unwrap();
        let images = ImageServer::start().await;
        images.put("a.raw", raw(LENGTH));
        kill_at(step, temp.path(), images.url("golden/a.raw"), true).await;
        let bench: Bench = Bench::at(temp.path()).await;
        bench.parts.commands.downloads.restore().await;
        let whole = step.starts_with("before");
        assert_eq!(bench.listed().await.len(), usize::from(whole), "{step}");
        assert_eq!(bench.files().len(), if whole { 2 } else { 0 }, "{step}: {:?}", bench.files());
        // The server asks again.
        assert!(bench.ask(&deletion()).await.base.result, "{step}");
        assert_eq!(bench.files(), Vec::<String>::new(), "{step}");
    }
}
