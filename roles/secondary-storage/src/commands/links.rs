//! Links: made, and taken away with what was copied only for them.

use agent_protocol::agent::{AnswerBase, PlainAnswer};
use agent_protocol::storage::{
    CreateEntityDownloadURLAnswer, CreateEntityDownloadURLCommand, DeleteEntityDownloadURLCommand,
    UploadType,
};

use role::Host;

use super::access::StoreAccess;
use super::{Handled, HandlerError};
use crate::links::{LinkName, Links, Target};
use crate::objects::delete;
use crate::stores::{EntryKind, InstallPath, ObjectKind, Work};

/// Handlers of the commands about links.
#[derive(Debug)]
pub struct LinkCommands {
    pub access: StoreAccess,
    pub links: Links,
    pub host: Host,
}

impl LinkCommands {
    pub async fn create(
        &self,
        command: CreateEntityDownloadURLCommand,
    ) -> Handled<CreateEntityDownloadURLAnswer> {
        let name = LinkName::new(
            command.filepath_in_extract_url.as_deref().unwrap_or_default(),
            command.filename_in_extract_url.as_deref().unwrap_or_default(),
        )?;
        let path: InstallPath = command.install_path.as_deref().unwrap_or_default().parse()?;
        let url = match command.data.as_ref().and_then(|data| data.store()) {
            Some(store) => self.access.url(Some(store), None)?,
            None => self
                .access
                .url_of_directory(command.parent.as_deref(), command.sec_url.as_deref())?,
        };
        let store = self.access.stores.open(&url, command.nfs_version.as_deref()).await?;
        let work = Work::new();
        let kind = store.engine().kind(&work, path.clone());
        if store.run("look for a file", kind).await? != Some(EntryKind::File) {
            let text = format!("Error in finding the file {}/{path}", store.place());
            return Err(HandlerError::Invalid(text));
        }
        let target = Target { store: store.url().clone(), path };
        tracing::info!(store = %target.store, path = %target.path, "link created");
        self.links.add(&name, &target, self.host.clock.unix_ms()).await?;
        Ok(CreateEntityDownloadURLAnswer { base: AnswerBase::success_with("") })
    }

    pub async fn delete(&self, command: DeleteEntityDownloadURLCommand) -> Handled<PlainAnswer> {
        let name = command.extract_url.as_deref().and_then(LinkName::of_url);
        let removed = match name {
            Some(name) => self.links.remove(&name, self.host.clock.unix_ms()).await?,
            None => None,
        };
        if let Some(target) = &removed {
            tracing::info!(store = %target.store, path = %target.path, "link removed");
        }
        self.remove_copy(&command, removed).await?;
        Ok(PlainAnswer::success_with(""))
    }

    /// A volume was copied to the store only to be fetched, and a snapshot may have been: those
    /// copies go with the link. Templates and ISOs stay.
    async fn remove_copy(
        &self,
        command: &DeleteEntityDownloadURLCommand,
        removed: Option<Target>,
    ) -> Handled<()> {
        let Some(path) = command.path.as_deref().filter(|path| !path.is_empty()) else {
            return Ok(());
        };
        let path: InstallPath = match &command.upload_type {
            Some(UploadType::Volume) => {
                let path: InstallPath = path.parse()?;
                let directory = ObjectKind::Volume.directory(&path);
                let is_file_of_volume = directory.is_some_and(|directory| directory != path);
                is_file_of_volume.then_some(path).ok_or_else(|| {
                    HandlerError::Invalid("the path is not a file of a volume".to_owned())
                })?
            }
            Some(UploadType::Snapshot) => {
                let plain = path.strip_suffix("_temp").unwrap_or(path);
                let path: InstallPath = format!("{plain}_temp").parse()?;
                let below = path.parts().first().is_some_and(|part| part.as_str() == "snapshots");
                below
                    .then_some(path)
                    .ok_or_else(|| HandlerError::Invalid("the path is not a snapshot".to_owned()))?
            }
            Some(UploadType::Template | UploadType::Iso | UploadType::Other(_)) | None => {
                return Ok(());
            }
        };
        let url = match removed {
            Some(target) => target.store,
            None => {
                let name = command.parent_path.as_deref();
                self.access.url_of_directory(name, command.sec_url.as_deref())?
            }
        };
        let store = self.access.stores.open(&url, None).await?;
        Ok(delete::remove_file(&store, &path).await?)
    }
}
