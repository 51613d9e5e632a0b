//! Links: made, and taken away with what was copied only for them.

use agent_protocol::agent::{AnswerBase, PlainAnswer};
use agent_protocol::storage::{
    CreateEntityDownloadURLAnswer, CreateEntityDownloadURLCommand, DeleteEntityDownloadURLCommand,
    UploadType,
};

use super::{Commands, Handled, HandlerError};
use crate::links::{LinkName, Target};
use crate::objects::delete;
use crate::stores::dir::EntryKind;
use crate::stores::{InstallPath, Lane, ObjectKind, StoreError, StoreUrl};

impl Commands {
    pub(super) async fn create_link(
        &self,
        command: CreateEntityDownloadURLCommand,
    ) -> Handled<CreateEntityDownloadURLAnswer> {
        let name = LinkName::new(
            command.filepath_in_extract_url.as_deref().unwrap_or_default(),
            command.filename_in_extract_url.as_deref().unwrap_or_default(),
        )?;
        let path: InstallPath = command.install_path.as_deref().unwrap_or_default().parse()?;
        let url = match command.data.as_ref().and_then(|data| data.store()) {
            Some(store) => self.store_url(Some(store), None)?,
            None => {
                self.store_of_directory(command.parent.as_deref(), command.sec_url.as_deref())?
            }
        };
        let store = self.stores.open(&url, command.nfs_version.as_deref()).await?;
        let looked_for = path.clone();
        let found = store
            .run("look for a file", Lane::Quick, move |root| {
                let (dir, name) = root.parent_of(&looked_for)?;
                dir.stat(name)
            })
            .await;
        let is_file = match found {
            Ok(stat) => stat.kind == EntryKind::File,
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                false
            }
            Err(error) => return Err(error.into()),
        };
        if !is_file {
            let absolute = store.root().join(path.to_string());
            let text = format!("Error in finding the file {}", absolute.display());
            return Err(HandlerError::Invalid(text));
        }
        let target = Target { store: store.url().clone(), path };
        tracing::info!(store = %target.store, path = %target.path, "link created");
        let (links, now) = (self.links.clone(), self.host.clock.unix_ms());
        self.tasks.blocking("add a link", move || links.add(&name, &target, now)).await??;
        Ok(CreateEntityDownloadURLAnswer { base: AnswerBase::success_with("") })
    }

    pub(super) async fn delete_link(
        &self,
        command: DeleteEntityDownloadURLCommand,
    ) -> Handled<PlainAnswer> {
        let name = command.extract_url.as_deref().and_then(LinkName::of_url);
        let removed = match name {
            Some(name) => {
                let links = self.links.clone();
                self.tasks.blocking("remove a link", move || links.remove(&name)).await??
            }
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
                self.store_of_directory(command.parent_path.as_deref(), command.sec_url.as_deref())?
            }
        };
        let store = self.stores.open(&url, None).await?;
        Ok(store.run("delete", Lane::Quick, move |root| delete::remove_file(root, &path)).await?)
    }

    /// By the directory name in the server's records; the server has none for a host without a
    /// system VM's row.
    fn store_of_directory(
        &self,
        name: Option<&str>,
        url: Option<&str>,
    ) -> Result<StoreUrl, HandlerError> {
        let by_name = name.and_then(|name| self.stores.url_of_directory(name.trim_matches('/')));
        match by_name {
            Some(url) => Ok(url),
            None => self.store_url(None, url),
        }
    }
}
