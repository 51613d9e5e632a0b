//! A volume that lies on a store gets another owner.

use agent_protocol::agent::PlainAnswer;
use agent_protocol::storage::MoveVolumeCommand;
use serde_json::json;

use super::objects::ObjectCommands;
use super::{Handled, HandlerError};
use crate::stores::{EngineError, EntryKind, InstallPath, ObjectKind, StoreError, Work};

impl ObjectCommands {
    /// Renames the volume's directory; the server renames its file's path in its records. A command
    /// that comes again because its answer was lost finds the work done.
    pub async fn move_volume(&self, command: MoveVolumeCommand) -> Handled<PlainAnswer> {
        const NAME: &str = "move a volume";
        let from = volume_directory(command.src_path.as_deref())?;
        let to = volume_directory(command.dest_path.as_deref())?;
        if from.parts().last() != to.parts().last() {
            let text = format!("{from} and {to} are not places of the same volume");
            return Err(HandlerError::Invalid(text));
        }
        let url = command.datastore_uri.as_deref();
        let store = self.access.open(None, url, None).await?;
        if from != to {
            self.vacate(&store, &from).await?;
            let (work, engine) = (Work::new(), store.engine());
            let moving = engine.relocate(&work, from.clone(), to.clone());
            let moved = store.run(NAME, moving).await.map_err(|error| taken(error, &to))?;
            let there = async || store.run(NAME, engine.kind(&work, to.clone())).await;
            if !moved && there().await? != Some(EntryKind::Directory) {
                let text = format!("there is no directory {from} in store {}", store.url());
                return Err(HandlerError::Invalid(text));
            }
            tracing::info!(store = %store.url(), %from, %to, moved, "volume moved");
            self.drop_links(&store, from.clone()).await?;
        }
        let volume = json!({
            "volumeName": command.volume_name.unwrap_or_default(),
            "volumeUuid": command.volume_uuid.unwrap_or_default(),
        });
        let place = store.place();
        let text = format!("Moved volume [{volume}] from [{place}/{from}] to [{place}/{to}].");
        Ok(PlainAnswer::success_with(text))
    }
}

/// Of somebody else: said with the way out.
fn taken(error: StoreError, to: &InstallPath) -> HandlerError {
    match &error {
        StoreError::Operation { source: EngineError::Io(io), .. }
            if io.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            HandlerError::Invalid(format!(
                "the volume is not moved: {to} holds something already; move that away first"
            ))
        }
        _ => error.into(),
    }
}

/// Exactly `volumes/<account>/<volume>`.
fn volume_directory(text: Option<&str>) -> Handled<InstallPath> {
    let path: InstallPath = text.unwrap_or_default().parse()?;
    match ObjectKind::Volume.directory(&path) {
        Some(directory) if directory == path => Ok(path),
        _ => Err(HandlerError::Invalid(format!("{path} is not the directory of a volume"))),
    }
}
