//! Config drives of VMs.

use agent_protocol::agent::AnswerBase;
use agent_protocol::storage::{
    ConfigDriveLocation, DataStoreTO, HandleConfigDriveIsoAnswer, HandleConfigDriveIsoCommand,
};

use super::access::StoreAccess;
use super::{Handled, HandlerError};
use crate::moving::Moves;
use crate::moving::config_drive::{DrivePath, INVALID};

/// Handler of the command about config drives.
#[derive(Debug)]
pub struct DriveCommands {
    pub access: StoreAccess,
    pub moves: Moves,
}

impl DriveCommands {
    /// Writes or removes one. A drive that is not there counts as removed: the server asks three times
    /// when it destroys a VM, and also for a VM that never started.
    pub async fn handle(
        &self,
        command: HandleConfigDriveIsoCommand,
    ) -> Handled<HandleConfigDriveIsoAnswer> {
        if !matches!(command.dest_store, None | Some(DataStoreTO::Nfs(_))) {
            // The original's words.
            return Err(HandlerError::NotSupported("Not implemented yet"));
        }
        let drive = DrivePath::parse(command.iso_file.as_deref().unwrap_or_default())?;
        let base = if command.create {
            let invalid = || HandlerError::Invalid(INVALID.to_owned());
            let image = command.iso_data.ok_or_else(invalid)?;
            let store = self.access.open(command.dest_store.as_ref(), None, None).await?;
            let length = self.moves.write_drive(&store, &drive, image).await?;
            tracing::info!(store = %store.url(), path = %drive.path(), length, "config drive saved");
            AnswerBase::success_with("Successfully saved config drive at secondary storage")
        } else {
            let store = self.access.open(command.dest_store.as_ref(), None, None).await?;
            let found = self.moves.remove_drive(&store, &drive).await?;
            tracing::info!(store = %store.url(), path = %drive.path(), found, "config drive deleted");
            AnswerBase::success()
        };
        Ok(HandleConfigDriveIsoAnswer { location: Some(ConfigDriveLocation::Secondary), base })
    }
}
