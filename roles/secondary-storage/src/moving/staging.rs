//! Files on their way to their places, noted on disk before they are there.
//!
//! A store is shared, so nothing is removed by its looks: whatever a note names is ours and not
//! finished. It names the hidden files and, once their renames may have begun, what becomes of them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::places::Place;
use super::{MoveError, Moves, Permit};
use crate::objects::inventory;
use crate::state_file::Folder;
use crate::stores::{FileName, InstallPath, ObjectKind, Opened, Part, Store, StoreUrl, Work};

/// The directory of notes, by the id of the work.
pub type Journal = Folder<Note>;

/// How long an answer waits for what is left to be removed.
const PATIENCE: Duration = Duration::from_secs(1);

/// Most files that one command moves; an object has a few.
pub const MAX_FILES: usize = 10_000;

/// What one piece of work is about to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    pub store: StoreUrl,
    /// What the files become and where, when they become a listed object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<(ObjectKind, InstallPath)>,
    pub files: Vec<Staged>,
    /// The renames may have begun.
    #[serde(default)]
    pub publishing: bool,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    pub directory: InstallPath,
    /// Its name until it is whole.
    pub temporary: FileName,
    pub name: FileName,
}

impl Staged {
    pub fn target(&self) -> InstallPath {
        self.directory.join(self.name.clone())
    }
}

/// Files being written. What [`Staging::conclude`] does not publish it removes, or the next
/// start of the process does.
#[derive(Debug)]
pub struct Staging {
    moves: Moves,
    store: Arc<Store>,
    work: Work,
    id: String,
    note: Note,
}

impl Staging {
    /// Notes what will be there. `targets` are directories and names, in the order of publication:
    /// what makes an object listed comes last.
    pub async fn begin(
        moves: &Moves,
        store: &Arc<Store>,
        object: Option<(ObjectKind, InstallPath)>,
        targets: Vec<(InstallPath, FileName)>,
    ) -> Result<Self, MoveError> {
        if targets.len() > MAX_FILES {
            let text = format!("more than {MAX_FILES} files are not moved by one command");
            return Err(MoveError::Refused(text));
        }
        let id = Uuid::new_v4().to_string();
        let staged = targets.into_iter().enumerate().map(|(nth, (directory, name))| {
            let temporary: FileName = format!(".quickcloud-{id}-{nth}").parse()?;
            Ok(Staged { directory, temporary, name })
        });
        let files = staged.collect::<Result<Vec<_>, MoveError>>()?;
        let note = Note { store: store.url().clone(), object, files, publishing: false };
        let (moves, store, work) = (moves.clone(), Arc::clone(store), Work::new());
        let staging = Self { moves, store, work, id, note };
        staging.write_note().await?;
        Ok(staging)
    }

    async fn write_note(&self) -> Result<(), MoveError> {
        let (journal, id) = (self.moves.journal.clone(), self.id.clone());
        let note = self.note.clone();
        let write = move || journal.write(&id, &note);
        Ok(self.moves.tasks.blocking("note a copy", write).await??)
    }

    pub const fn work(&self) -> &Work {
        &self.work
    }

    pub const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub fn files(&self) -> &[Staged] {
        &self.note.files
    }

    fn staged(&self, nth: usize) -> Result<&Staged, MoveError> {
        let missing = || MoveError::Refused(format!("file {nth} was never announced"));
        self.note.files.get(nth).ok_or_else(missing)
    }

    /// The `nth` file, to be written from its beginning.
    pub async fn create(&self, nth: usize) -> Result<Box<dyn Part>, MoveError> {
        let Staged { directory, temporary, .. } = self.staged(nth)?.clone();
        let creating = self.store.engine().create(&self.work, directory, temporary);
        Ok(self.store.run("create a file", creating).await?)
    }

    /// The `nth` file again, complete.
    pub async fn open(&self, nth: usize) -> Result<Box<dyn Opened>, MoveError> {
        let Staged { directory, temporary, .. } = self.staged(nth)?.clone();
        let path = directory.join(temporary);
        let opening = self.store.engine().open(&self.work, path.clone());
        let opened = self.store.run("open a file", opening).await?;
        let store = self.store.url().to_string();
        opened.ok_or(MoveError::NotThere { path, store })
    }

    /// Ends it: what was written well gets its names, anything else is removed.
    pub(super) async fn conclude<T>(
        mut self,
        written: Result<T, MoveError>,
        permit: &Permit,
    ) -> Result<T, MoveError> {
        let outcome = match written {
            Ok(value) => self.publish().await.map(|()| value),
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(_) => self.settle().await,
            Err(_) => self.abandon(Arc::clone(&permit.place)).await,
        }
        outcome
    }

    /// Gives every file its name, in order.
    async fn publish(&mut self) -> Result<(), MoveError> {
        self.note.publishing = true;
        self.write_note().await?;
        // Remembered first: from now on an empty place is not this store.
        self.moves.stores.remember_held(&self.store).await?;
        for Staged { directory, temporary, name } in &self.note.files {
            let engine = self.store.engine();
            let (from, to) = (temporary.clone(), name.clone());
            let renaming = engine.rename(&self.work, directory.clone(), from, to);
            self.store.run("install", renaming).await?;
        }
        Ok(())
    }

    /// Forgets the note of what is there.
    async fn settle(self) {
        let (journal, id) = (self.moves.journal.clone(), self.id.clone());
        let erased = self.moves.tasks.blocking("erase a note", move || journal.erase(&id)).await;
        if let Ok(Err(error)) = erased {
            let error = bedrock::chain(&error);
            tracing::warn!(id = self.id, error, "cannot erase the note of a copy");
        }
    }

    /// Removes what is there of it, once the store has let go; until then nobody else gets its place. A
    /// store that hangs is not waited for. When that fails the note stays, and the next start of the
    /// process tries again.
    async fn abandon(self, place: Arc<Place>) {
        let tasks = self.moves.tasks.clone();
        let removing = tasks.spawn("remove what a copy left", async move {
            self.work.ended().await;
            if let Err(error) = remove_leftovers(&self.moves, &self.id, &self.note).await {
                let error = bedrock::chain(&error);
                tracing::warn!(id = self.id, error, "cannot remove what a copy left");
            }
            drop(place);
        });
        drop(tokio::time::timeout(PATIENCE, removing).await);
    }
}

/// Removes what an unfinished work left, then its note. Its own work has ended.
pub(super) async fn remove_leftovers(
    moves: &Moves,
    id: &str,
    note: &Note,
) -> Result<(), MoveError> {
    const NAME: &str = "remove leftovers";
    let store = moves.stores.open(&note.store, None).await?;
    let (work, engine) = (Work::new(), store.engine());
    for staged in &note.files {
        let temporary = staged.directory.join(staged.temporary.clone());
        store.run(NAME, engine.remove_file(&work, temporary)).await?;
    }
    // Of an object that is not listed nobody has a use for the first files; what is listed is whole.
    if let Some((kind, directory)) = note.object.as_ref().filter(|_object| note.publishing)
        && inventory::listed_image(&store, &work, *kind, directory).await?.is_none()
    {
        for staged in &note.files {
            store.run(NAME, engine.remove_file(&work, staged.target())).await?;
        }
    }
    let mut directories: Vec<&InstallPath> =
        note.files.iter().map(|file| &file.directory).collect();
    directories.sort_by_key(|directory| std::cmp::Reverse(directory.parts().len()));
    directories.dedup();
    for directory in directories {
        store.run(NAME, engine.remove_empty(&work, directory.clone())).await?;
    }
    let (journal, id) = (moves.journal.clone(), id.to_owned());
    Ok(moves.tasks.blocking("erase a note", move || journal.erase(&id)).await??)
}
