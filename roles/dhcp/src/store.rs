//! The desired state on disk, and the one task that changes it.
//!
//! A change is answered only after the state that contains it has been written: to a temporary
//! file, synced, renamed over the old one, directory synced. Whenever the process dies, the file
//! is one whole state. Changes that arrive while one is being written share the next write.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use role::host::Clock;
use role::tasks::BlockingError;
use role::{Host, TaskScope};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::desired::{
    Applied, Change, ChangeError, Circumstances, DesiredState, Precondition, Stored,
};
use crate::history::{self, History};
use dhcp_api::answer::ChangeEntry;
use dhcp_api::resource::Source;
use dhcp_api::words::Stamp;

/// Version of the file; a newer one is refused, never guessed at.
const VERSION: u32 = 1;
/// Changes waiting at the same time; further callers wait.
const QUEUE: usize = 256;
/// A state of 50,000 reservations takes about 35 MiB.
const MAX_FILE: u64 = 256 * 1024 * 1024;

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("cannot read the desired state {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the desired state {} is damaged", path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
    #[error("the desired state {} is gone, and its backup cannot be read", path.display())]
    NoBackup { path: PathBuf },
    #[error("the desired state {} is of version {version}, this program knows {VERSION}", path.display())]
    Version { path: PathBuf, version: u32 },
}

/// Why a change was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(transparent)]
    Refused(#[from] ChangeError),
    #[error("cannot write the desired state")]
    Write(#[source] Arc<io::Error>),
    #[error("cannot write the desired state")]
    Blocking(#[source] BlockingError),
    #[error("cannot read the addresses of this machine")]
    Addresses(#[source] Arc<io::Error>),
    #[error("the role is stopping")]
    Stopping,
}

#[derive(Deserialize)]
struct StoredVersion {
    version: u32,
}

#[derive(Serialize)]
struct Versioned<'a> {
    version: u32,
    #[serde(flatten)]
    state: &'a DesiredState,
}

/// A state that was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    pub state: DesiredState,
    /// Why it is that of the backup, and where the damaged file is.
    pub restored: Option<String>,
}

/// Reads the state; without a file and a backup of it, it is empty. Remains of an interrupted
/// write are removed. A resource that cannot be served is kept aside, so that it stops no other,
/// and instead of a damaged file the state before the last change is taken.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let error = |source| LoadError::Read { path: path.to_owned(), source };
    match fs::remove_file(temporary(path)) {
        Ok(()) => tracing::info!(path = %path.display(), "removed an interrupted write"),
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => {}
        Err(failed) => return Err(error(failed)),
    }
    let problem = match read(path) {
        Ok(Some(state)) => return Ok(Loaded { state, restored: None }),
        Ok(None) => None,
        Err(damaged @ LoadError::Damaged { .. }) => Some(damaged),
        Err(other) => return Err(other),
    };
    let state = match (read(&backup(path)), problem.as_ref()) {
        (Ok(Some(state)), _) => state,
        (Ok(None), None) => return Ok(Loaded::default()),
        (_, Some(_)) | (Err(_), None) => {
            let path = path.to_owned();
            return Err(problem.unwrap_or(LoadError::NoBackup { path }));
        }
    };
    let cause = match problem {
        None => format!("{} is gone", path.display()),
        Some(damaged) => {
            let aside = path.with_extension("damaged.json");
            fs::rename(path, &aside).map_err(error)?;
            format!("{}, and kept as {}", bedrock::chain(&damaged), aside.display())
        }
    };
    // Whole again, whatever comes next.
    save(path, &state).map_err(error)?;
    let generation = state.generation;
    let restored = format!("{cause}; generation {generation} of the backup is served");
    Ok(Loaded { state, restored: Some(restored) })
}

/// One file; `None` when it is absent.
fn read(path: &Path) -> Result<Option<DesiredState>, LoadError> {
    let error = |source| LoadError::Read { path: path.to_owned(), source };
    let text = match fs::metadata(path) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(failed) => return Err(error(failed)),
        Ok(metadata) if metadata.len() > MAX_FILE => {
            return Err(error(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        Ok(_) => fs::read(path).map_err(error)?,
    };
    let damaged = |source| LoadError::Damaged { path: path.to_owned(), source };
    let StoredVersion { version } = serde_json::from_slice(&text).map_err(damaged)?;
    if version != VERSION {
        return Err(LoadError::Version { path: path.to_owned(), version });
    }
    let stored: Stored = serde_json::from_slice(&text).map_err(damaged)?;
    Ok(Some(stored.admit()))
}

/// The state before the last change.
fn backup(path: &Path) -> PathBuf {
    path.with_extension("backup.json")
}

fn temporary(path: &Path) -> PathBuf {
    path.with_extension("json.tmp")
}

/// Replaces the file by `state`, durably; the one before becomes the backup.
fn save(path: &Path, state: &DesiredState) -> io::Result<()> {
    if let Err(error) = keep_backup(path) {
        tracing::debug!(%error, path = %path.display(), "no backup of the desired state is kept");
    }
    bedrock::files::replace(
        path,
        &serde_json::to_vec(&Versioned { version: VERSION, state })?,
        0o600,
    )
}

/// A second name for the file that is about to be replaced: no byte is copied.
fn keep_backup(path: &Path) -> io::Result<()> {
    let (temporary, backup) = (path.with_extension("backup.tmp"), backup(path));
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::hard_link(path, &temporary) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::rename(&temporary, &backup),
    }
}

struct Submission {
    change: Change,
    by: Source,
    precondition: Precondition,
    answer: oneshot::Sender<Result<Applied, StoreError>>,
}

/// Handle of the store. Cloneable.
#[derive(Debug, Clone)]
pub struct Store {
    submissions: mpsc::Sender<Submission>,
    state: watch::Receiver<Arc<DesiredState>>,
}

/// The receiving end; run by [`StoreTask::run`].
#[derive(Debug)]
pub struct StoreTask {
    path: PathBuf,
    submissions: mpsc::Receiver<Submission>,
    state: watch::Sender<Arc<DesiredState>>,
    history: History,
}

impl std::fmt::Debug for Submission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submission").finish_non_exhaustive()
    }
}

impl Store {
    /// A store at `path` that holds `state`.
    pub(crate) fn new(path: PathBuf, state: DesiredState, history: History) -> (Self, StoreTask) {
        let (submissions, queue) = mpsc::channel(QUEUE);
        let (sender, state) = watch::channel(Arc::new(state));
        (
            Self { submissions, state },
            StoreTask { path, submissions: queue, state: sender, history },
        )
    }

    /// The state as last stored.
    pub fn state(&self) -> Arc<DesiredState> {
        Arc::clone(&self.state.borrow())
    }

    /// Wakes up at every stored change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<DesiredState>> {
        self.state.clone()
    }

    /// Applies a change that `by` wants; durable once this returns `Ok`.
    pub async fn submit(
        &self,
        change: Change,
        by: Source,
        precondition: Precondition,
    ) -> Result<Applied, StoreError> {
        let (answer, outcome) = oneshot::channel();
        self.submissions
            .send(Submission { change, by, precondition, answer })
            .await
            .map_err(|_closed| StoreError::Stopping)?;
        outcome.await.map_err(|_dropped| StoreError::Stopping)?
    }
}

impl StoreTask {
    /// Serves submissions until every [`Store`] is gone.
    pub async fn run(mut self, host: Host, tasks: TaskScope) {
        while let Some(first) = self.submissions.recv().await {
            let mut batch = vec![first];
            while batch.len() < QUEUE
                && let Ok(next) = self.submissions.try_recv()
            {
                batch.push(next);
            }
            self.commit(batch, &*host.clock, &tasks).await;
        }
    }

    async fn commit(&self, batch: Vec<Submission>, clock: &dyn Clock, tasks: &TaskScope) {
        let facts = match local_addresses() {
            Ok(local) => Circumstances { now_ms: clock.unix_ms(), local },
            // Without them a guest might get one of our own.
            Err(error) => {
                let error = Arc::new(error);
                for Submission { answer, .. } in batch {
                    if answer.send(Err(StoreError::Addresses(Arc::clone(&error)))).is_err() {
                        tracing::debug!("the caller of a change is gone");
                    }
                }
                return;
            }
        };
        let before = Arc::clone(&self.state.borrow());
        let mut state = DesiredState::clone(&before);
        let mut answers = Vec::with_capacity(batch.len());
        let mut entries = Vec::new();
        let at = Stamp::from_unix_ms(facts.now_ms);
        for Submission { change, by, precondition, answer } in batch {
            let what = change.summary();
            let outcome = state.apply(change, by, precondition, &facts);
            if let Ok(Applied { changed: true, generation: id, .. }) = outcome {
                entries.push(ChangeEntry { id, at, by, what });
            }
            answers.push((answer, outcome));
        }
        let mut written = Ok(());
        if state.generation != before.generation {
            let state = Arc::new(state);
            let (path, copy) = (self.path.clone(), Arc::clone(&state));
            let (log, told) = (self.history.path().to_owned(), entries.clone());
            let write = move || save(&path, &copy).map(|()| history::append(&log, &told));
            written = match tasks.blocking("store", write).await {
                Ok(Ok(())) => {
                    self.history.add(entries);
                    self.state.send_replace(state);
                    Ok(())
                }
                Ok(Err(error)) => Err(Failed::Io(Arc::new(error))),
                Err(error) => Err(Failed::Blocking(error)),
            };
        }
        for (answer, outcome) in answers {
            let outcome = match (outcome, &written) {
                (Err(refused), _) => Err(StoreError::Refused(refused)),
                // A repetition needs no write.
                (Ok(applied), _) if !applied.changed => Ok(applied),
                (Ok(applied), Ok(())) => Ok(applied),
                (Ok(_), Err(Failed::Io(error))) => Err(StoreError::Write(Arc::clone(error))),
                (Ok(_), Err(Failed::Blocking(error))) => Err(StoreError::Blocking(error.clone())),
            };
            if answer.send(outcome).is_err() {
                tracing::debug!("the caller of a change is gone");
            }
        }
    }
}

enum Failed {
    Io(Arc<io::Error>),
    Blocking(BlockingError),
}

/// IPv4 addresses of every interface of the machine.
pub(crate) fn local_addresses() -> io::Result<Vec<Ipv4Addr>> {
    let all = crate::machine::interface_addresses()?.into_iter();
    Ok(all.map(|(_, address)| address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::tests::{put_subnet, reservation, zone};

    fn populated() -> DesiredState {
        let mut state = DesiredState::default();
        let facts = Circumstances::default();
        state
            .apply(
                Change::PutZone(Box::new(zone("z1"))),
                Source::Api,
                Precondition::default(),
                &facts,
            )
            .unwrap();
        put_subnet(&mut state, "z1", "s1", "10.77.0.0/24").unwrap();
        let reservation = Box::new(reservation("r1", "02:00:00:00:00:01", "10.77.0.50"));
        let change = Change::PutReservation { zone: "z1".parse().unwrap(), reservation };
        state.apply(change, Source::Api, Precondition::default(), &facts).unwrap();
        state
    }

    #[test]
    fn a_state_survives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("desired.json");
        assert_eq!(load(&path).unwrap(), Loaded::default());
        let state = populated();
        save(&path, &state).unwrap();
        assert_eq!(load(&path).unwrap(), Loaded { state, restored: None });
    }

    #[test]
    fn instead_of_a_damaged_or_lost_file_the_state_before_the_last_change_is_served() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("desired.json");
        let before = populated();
        let mut after = before.clone();
        after.generation += 1;
        save(&path, &before).unwrap();
        save(&path, &after).unwrap();
        for damage in ["", "{\"version\":1,", "\0\0\0"] {
            fs::write(&path, damage).unwrap();
            let loaded = load(&path).unwrap();
            assert_eq!(loaded.state, before);
            let text = loaded.restored.unwrap();
            assert!(text.contains("is damaged") && text.contains("desired.damaged.json"), "{text}");
            assert_eq!(fs::read_to_string(path.with_extension("damaged.json")).unwrap(), damage);
            // Whole again.
            assert_eq!(load(&path).unwrap(), Loaded { state: before.clone(), restored: None });
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(load(&path).unwrap().state, before);
        // Damage that reached both is for people.
        fs::write(&path, "{").unwrap();
        fs::write(backup(&path), "{").unwrap();
        assert!(matches!(load(&path), Err(LoadError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(load(&path), Err(LoadError::NoBackup { .. })));
    }

    /// Every prefix of the file that a write could leave behind is only ever the temporary one.
    #[test]
    fn an_interrupted_write_leaves_the_old_state() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("desired.json");
        let state = populated();
        save(&path, &state).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(temporary(&path), &whole[..length]).unwrap();
            assert_eq!(load(&path).unwrap().state, state);
            assert!(!temporary(&path).exists());
        }
    }

    #[test]
    fn damage_and_a_newer_version_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("desired.json");
        let state = populated();
        save(&path, &state).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(matches!(load(&path), Err(LoadError::Damaged { .. })));
        fs::write(&path, whole.replacen("\"version\":1", "\"version\":2", 1)).unwrap();
        assert!(matches!(load(&path), Err(LoadError::Version { version: 2, .. })));
    }

    #[tokio::test]
    async fn a_change_that_cannot_be_written_did_not_happen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gone").join("desired.json");
        let history = History::load(directory.path().join("changes.jsonl"));
        let (store, task) = Store::new(path.clone(), DesiredState::default(), history.clone());
        let tasks = TaskScope::new();
        tasks.spawn("store", task.run(Host::system(), tasks.clone()));
        let put = || Change::PutZone(Box::new(zone("z1")));
        let outcome = store.submit(put(), Source::Api, Precondition::default()).await;
        assert!(matches!(outcome, Err(StoreError::Write(_))), "{outcome:?}");
        assert_eq!(store.state().generation, 0);
        fs::create_dir(directory.path().join("gone")).unwrap();
        assert!(store.submit(put(), Source::Api, Precondition::default()).await.unwrap().created);
        assert_eq!(load(&path).unwrap().state, *store.state());
        let told: Vec<_> = history.newest(9).into_iter().map(|e| (e.id, e.what)).collect();
        assert_eq!(told, [(1, "put zone z1".to_owned())]);
    }
}
