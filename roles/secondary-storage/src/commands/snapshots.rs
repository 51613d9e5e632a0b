//! Snapshots on a store: which files one is made of, and all of a volume's removed.

use agent_protocol::agent::{AnswerBase, PlainAnswer};
use agent_protocol::storage::{
    DeleteSnapshotsDirCommand, QuerySnapshotZoneCopyAnswer, QuerySnapshotZoneCopyCommand,
};

use super::deletions::belongs;
use super::objects::ObjectCommands;
use super::{Handled, HandlerError};
use crate::objects::{delete, verify};
use crate::stores::{EntryKind, FileName, InstallPath, ObjectKind, Store, Work};

const FORM: &str = "snapshots/ACCOUNT/VOLUME";

impl ObjectCommands {
    /// Removes every snapshot of a volume; the server sends it when an account goes. What is not there
    /// is success, with the original's words.
    pub async fn delete_snapshots(
        &self,
        command: DeleteSnapshotsDirCommand,
    ) -> Handled<PlainAnswer> {
        let path: InstallPath = command.directory.as_deref().unwrap_or_default().parse()?;
        let directory =
            ObjectKind::Snapshot.directory(&path).filter(|directory| *directory == path);
        let wrong =
            || HandlerError::Invalid(format!("{path} is not the snapshots of a volume ({FORM})"));
        let directory = directory.ok_or_else(wrong)?;
        let store = self.access.open(command.store.as_ref(), None, None).await?;
        self.vacate(&store, &directory).await?;
        let found = delete::remove_object(&store, ObjectKind::Snapshot, &directory).await?;
        tracing::info!(store = %store.url(), path = %directory, found, "snapshots of a volume deleted");
        self.drop_links(&store, directory.clone()).await?;
        if found {
            return Ok(PlainAnswer::success());
        }
        let name = directory.parts().last().map(ToString::to_string).unwrap_or_default();
        Ok(PlainAnswer::success_with(format!("snapshot directory {name} doesn't exist")))
    }

    /// The files that another zone is to fetch.
    pub async fn snapshot_files(
        &self,
        command: QuerySnapshotZoneCopyCommand,
    ) -> Handled<QuerySnapshotZoneCopyAnswer> {
        let snapshot = command.snapshot.unwrap_or_default();
        let path: InstallPath = snapshot.path.as_deref().unwrap_or_default().parse()?;
        let volume = ObjectKind::Snapshot.directory(&path).filter(|volume| *volume != path);
        let wrong = || HandlerError::Invalid(format!("{path} is not a snapshot ({FORM}/NAME)"));
        let volume = volume.ok_or_else(wrong)?;
        let store = self.access.open(snapshot.data_store.as_ref(), None, None).await?;
        let files = files(&store, &path, &volume).await?;
        if files.is_empty() {
            let text = format!("there is no file of snapshot {path} in store {}", store.url());
            return Err(HandlerError::Invalid(text));
        }
        let files = files.iter().map(ToString::to_string).collect();
        Ok(QuerySnapshotZoneCopyAnswer { files: Some(files), base: AnswerBase::success() })
    }
}

/// The file itself, else everything in the snapshot's own directory, else what belongs to it in the
/// directory that a volume's snapshots share.
async fn files(
    store: &Store,
    path: &InstallPath,
    volume: &InstallPath,
) -> Handled<Vec<InstallPath>> {
    const NAME: &str = "look for the files of a snapshot";
    let (work, engine) = (Work::new(), store.engine());
    if store.run(NAME, engine.kind(&work, path.clone())).await? == Some(EntryKind::File) {
        return Ok(vec![path.clone()]);
    }
    let Some((directory, name)) = path.split() else { return Ok(Vec::new()) };
    let entries = store.run(NAME, engine.entries(&work, Some(directory.clone()))).await?;
    let is_shared = directory == *volume;
    let mut found: Vec<FileName> = entries
        .unwrap_or_default()
        .into_iter()
        .filter(|entry| entry.kind == EntryKind::File && !verify::is_temporary(&entry.name))
        .filter(|entry| !is_shared || belongs(&entry.name, name.as_str()))
        .filter_map(|entry| entry.name.parse().ok())
        .collect();
    found.sort();
    Ok(found.into_iter().map(|name| directory.join(name)).collect())
}
