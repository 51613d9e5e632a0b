//! The store browser of the server's user interface: one page of a directory.

use std::time::SystemTime;

use agent_protocol::agent::AnswerBase;
use agent_protocol::storage::{ListDataStoreObjectsAnswer, ListDataStoreObjectsCommand};

use super::Handled;
use super::inventory::InventoryCommands;
use crate::stores::{Entry, EntryKind, InstallPath, Store, StoreError, Work};

/// Entries on a page, whatever the server asks for; it asks for 500.
const MAX_PAGE: usize = 10_000;
/// Files of ours in the root and beside objects; nobody else has a use for them.
const OWN: &str = ".quickcloud";

impl InventoryCommands {
    /// Entries in the order of their names, so that pages neither repeat nor leave out any.
    pub async fn browse(
        &self,
        command: ListDataStoreObjectsCommand,
    ) -> Handled<ListDataStoreObjectsAnswer> {
        let version = command.nfs_version.as_deref();
        let store = self.access.open(command.store.as_ref(), None, version).await?;
        let text = command.path.as_deref().unwrap_or_default().trim_matches('/');
        let path: Option<InstallPath> = match text {
            "" => None,
            text => Some(text.parse()?),
        };
        let Some((parent, mut entries)) = look(&store, path).await? else {
            return Ok(page(&store, None, false, 0, &[]));
        };
        entries.retain(|entry| !entry.name.starts_with(OWN));
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let start = usize::try_from(command.start_index).unwrap_or(0).min(entries.len());
        let length = usize::try_from(command.page_size).unwrap_or(0).min(MAX_PAGE);
        let shown = entries.get(start..).unwrap_or_default();
        let shown = shown.get(..length.min(shown.len())).unwrap_or_default();
        Ok(page(&store, parent.as_ref(), true, entries.len(), shown))
    }
}

/// What is in a directory, or the one file that the path names; with the directory that holds it.
async fn look(
    store: &Store,
    path: Option<InstallPath>,
) -> Result<Option<(Option<InstallPath>, Vec<Entry>)>, StoreError> {
    const NAME: &str = "look into a directory";
    let (work, engine) = (Work::new(), store.engine());
    let kind = match &path {
        None => Some(EntryKind::Directory),
        Some(path) => store.run(NAME, engine.kind(&work, path.clone())).await?,
    };
    match (kind, path) {
        (None, _) => Ok(None),
        (Some(EntryKind::Directory), path) => {
            let entries = store.run(NAME, engine.entries(&work, path.clone())).await?;
            Ok(entries.map(|entries| (path, entries)))
        }
        (Some(_), path) => {
            let parent = path.as_ref().and_then(InstallPath::split).map(|(parent, _)| parent);
            let name = path.as_ref().and_then(|path| path.parts().last()).map(ToString::to_string);
            let entries = store.run(NAME, engine.entries(&work, parent.clone())).await?;
            let entries = entries.unwrap_or_default().into_iter();
            let entries = entries.filter(|entry| Some(&entry.name) == name.as_ref());
            Ok(Some((parent, entries.collect())))
        }
    }
}

fn page(
    store: &Store,
    parent: Option<&InstallPath>,
    path_exists: bool,
    count: usize,
    shown: &[Entry],
) -> ListDataStoreObjectsAnswer {
    let path = |entry: &Entry| match parent {
        None => format!("/{}", entry.name),
        Some(parent) => format!("/{parent}/{}", entry.name),
    };
    let place = store.place();
    ListDataStoreObjectsAnswer {
        path_exists,
        count: i32::try_from(count).unwrap_or(i32::MAX),
        names: Some(shown.iter().map(|entry| entry.name.clone()).collect()),
        paths: Some(shown.iter().map(path).collect()),
        abs_paths: Some(shown.iter().map(|entry| format!("{place}{}", path(entry))).collect()),
        is_dirs: Some(shown.iter().map(|entry| entry.kind == EntryKind::Directory).collect()),
        sizes: Some(
            shown.iter().map(|entry| i64::try_from(entry.size).unwrap_or(i64::MAX)).collect(),
        ),
        last_modified: Some(shown.iter().map(|entry| unix_ms(entry.modified)).collect()),
        base: AnswerBase::success(),
    }
}

fn unix_ms(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
