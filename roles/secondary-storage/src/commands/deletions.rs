//! Deletion of what shares its directory with others: snapshots, backups.
//!
//! The server's paths come from its database and name no more than a beginning. What is removed is
//! therefore decided by names that are compared here, in a directory whose form is checked: two
//! numbers below the tree. Nothing outside it, and never a whole tree, can be meant.

use agent_protocol::agent::PlainAnswer;
use agent_protocol::storage::{BackupDeltaTO, SnapshotObjectTO};

use super::objects::ObjectCommands;
use super::{Handled, HandlerError};
use crate::objects::delete;
use crate::stores::{EntryKind, InstallPath, ObjectKind, Store, Work};

/// Where KVM keeps what it needs to go on with incremental snapshots.
const CHECKPOINTS: &str = "checkpoints";
/// Files of KVM's backups, and pictures of their validation (4.23).
const BACKUPS: &str = "backups";

impl ObjectCommands {
    pub(super) async fn delete_snapshot(
        &self,
        snapshot: &SnapshotObjectTO,
    ) -> Handled<PlainAnswer> {
        let Some(path) = snapshot.path.as_deref().filter(|path| !path.is_empty()) else {
            return Ok(PlainAnswer::success());
        };
        let path: InstallPath = path.parse()?;
        let checkpoint = match snapshot.checkpoint_path.as_deref() {
            None | Some("") => None,
            Some(text) => Some(checkpoint(text)?),
        };
        let store = self.access.open(snapshot.data_store.as_ref(), None, None).await?;
        let details = remove_snapshot(&store, &path).await?;
        if let Some(checkpoint) = checkpoint {
            delete::remove_any(&store, &checkpoint).await?;
        }
        tracing::info!(store = %store.url(), %path, "snapshot deleted");
        self.drop_links(&store, path).await?;
        Ok(details.map_or_else(PlainAnswer::success, PlainAnswer::success_with))
    }

    /// The server removes the rows whatever the class of a success, and keeps them after a failure.
    pub(super) async fn delete_backup(&self, delta: &BackupDeltaTO) -> Handled<PlainAnswer> {
        let paths = [delta.path.as_deref(), delta.screenshot_path.as_deref()];
        let paths = paths.into_iter().flatten().filter(|path| !path.is_empty());
        let paths = paths.map(backup_file).collect::<Handled<Vec<_>>>()?;
        if paths.is_empty() {
            return Err(HandlerError::Invalid("the backup names no file".to_owned()));
        }
        let store = self.access.open(delta.data_store_to.as_ref(), None, None).await?;
        for path in paths {
            delete::remove_file(&store, &path).await?;
            tracing::info!(store = %store.url(), %path, backup = delta.id, "backup deleted");
            self.drop_links(&store, path).await?;
        }
        Ok(PlainAnswer::success())
    }
}

/// `backups/<account>/<volume>/<name>`.
fn backup_file(text: &str) -> Handled<InstallPath> {
    let path: InstallPath = text.parse()?;
    if is_in_numbered(&path, BACKUPS) && path.parts().len() == 4 {
        return Ok(path);
    }
    let text = format!("{path} is not a backup's file ({BACKUPS}/ACCOUNT/VOLUME/NAME)");
    Err(HandlerError::Invalid(text))
}

/// The path below the store in one that begins with where a hypervisor host had mounted it.
fn checkpoint(text: &str) -> Handled<InstallPath> {
    let wrong = || {
        HandlerError::Invalid(format!(
            "{text:?} is not a checkpoint ({CHECKPOINTS}/ACCOUNT/VOLUME/NAME)"
        ))
    };
    let below = text.find(CHECKPOINTS).and_then(|at| text.get(at..)).ok_or_else(wrong)?;
    let path: InstallPath = below.parse()?;
    let is_one = is_in_numbered(&path, CHECKPOINTS) && path.parts().len() == 4;
    if is_one { Ok(path) } else { Err(wrong()) }
}

/// `<tree>/<number>/<number>/<something>`.
fn is_in_numbered(path: &InstallPath, tree: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match path.parts() {
        [first, account, volume, _name, ..] => {
            first.as_str() == tree && is_number(account.as_str()) && is_number(volume.as_str())
        }
        _ => false,
    }
}

/// Removes everything that belongs to the snapshot `path` names: hypervisors add endings, and
/// `VHD-` in front. Details are what the original answers when there is nothing.
async fn remove_snapshot(store: &Store, path: &InstallPath) -> Handled<Option<String>> {
    const NAME: &str = "delete a snapshot";
    let (work, engine) = (Work::new(), store.engine());
    let found = store.run(NAME, engine.kind(&work, path.clone())).await?;
    let form = "snapshots/ACCOUNT/VOLUME/NAME";
    let Some((directory, name)) = path.split() else {
        return Err(HandlerError::Invalid(format!("{path} is not a snapshot ({form})")));
    };
    let gone = |parent: &InstallPath| {
        let parent = parent.parts().last().map(ToString::to_string).unwrap_or_default();
        Ok(Some(format!("snapshot directory {parent} doesn't exist")))
    };
    if !is_in_numbered(path, "snapshots") {
        // Servers with a simulated hypervisor name no account; nothing was ever stored for those.
        return match found {
            None => gone(&directory),
            Some(_) => Err(HandlerError::Invalid(format!("{path} is not a snapshot ({form})"))),
        };
    }
    if found == Some(EntryKind::Directory) {
        // Of a staging store; the snapshot was deleted where it was kept.
        return Ok(None);
    }
    let Some(entries) = store.run(NAME, engine.entries(&work, Some(directory.clone()))).await?
    else {
        return gone(&directory);
    };
    let names = entries.iter().map(|entry| entry.name.as_str());
    for belonging in names.filter(|other| belongs(other, name.as_str())) {
        delete::remove_any(store, &directory.join(belonging.parse()?)).await?;
    }
    // The last snapshot takes the directory of its volume along, as the original does.
    let is_volume = ObjectKind::Snapshot.directory(&directory).is_some();
    if is_volume {
        store.run(NAME, engine.remove_empty(&work, directory)).await?;
    }
    Ok(None)
}

/// Whether a file is of the snapshot `name`: it is called so, or `VHD-` stands before it, an ending
/// or a word after it. A name that only holds it by chance is another snapshot's.
pub(super) fn belongs(file: &str, name: &str) -> bool {
    let rest = file.strip_prefix(name);
    let rest = rest.or_else(|| file.strip_prefix("VHD-").and_then(|file| file.strip_prefix(name)));
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_snapshot_are_told_from_those_of_another() {
        let name = "0e7f2b1c-3d51-4a0e-8c4b-2b9b3d8f6a77";
        for own in ["", ".vhd", "_temp", ".ovf", ".qcow2"] {
            assert!(belongs(&format!("{name}{own}"), name), "{own}");
        }
        assert!(belongs(&format!("VHD-{name}.vhd"), name));
        for other in ["1", "a", "-1"] {
            assert!(!belongs(&format!("{name}{other}"), name), "{other}");
        }
        assert!(!belongs("12", "1") && !belongs("21", "1") && !belongs("", "1"));
    }

    #[test]
    fn only_numbered_places_of_backups_and_checkpoints_are_taken() {
        let path = "backups/2/31/0e7f-screenshot-2026-07-24T10:22:11.123456+02:00.png";
        assert_eq!(backup_file(path).unwrap().to_string(), path);
        for bad in
            ["backups", "backups/2/31", "backups/2/x/a", "volumes/2/31/a", "backups/2/31/a/b"]
        {
            assert!(backup_file(bad).is_err(), "{bad}");
        }
        let found = checkpoint("/mnt/1c1f6d7c/checkpoints/2/31/c").unwrap();
        assert_eq!(found.to_string(), "checkpoints/2/31/c");
        for bad in ["/mnt/x/2/31/c", "checkpoints/2/31", "checkpoints/../31/c/d", "checkpoints"] {
            assert!(checkpoint(bad).is_err(), "{bad}");
        }
    }
}
