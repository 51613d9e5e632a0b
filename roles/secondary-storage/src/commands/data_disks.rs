//! Disks of an OVA as templates of their own.

use agent_protocol::agent::AnswerBase;
use agent_protocol::storage::{
    CreateDatadiskTemplateAnswer, CreateDatadiskTemplateCommand, DataTO, GetDatadisksAnswer,
    GetDatadisksCommand, TemplateObjectTO,
};

use super::objects::ObjectCommands;
use super::{Handled, HandlerError};
use crate::moving::data_disks::DiskOrder;
use crate::stores::{InstallPath, ObjectKind};

impl ObjectCommands {
    /// Which disks are there? The server asks after each registration of an OVA.
    pub async fn data_disks(&self, command: GetDatadisksCommand) -> Handled<GetDatadisksAnswer> {
        let template = template(command.data)?;
        let store = self.access.open(template.image_data_store.as_ref(), None, None).await?;
        let path: InstallPath = template.path.as_deref().unwrap_or_default().parse()?;
        let configuration = command.configuration_id.as_deref().filter(|id| !id.is_empty());
        let disks = self.moves.data_disks(&store, &path, configuration).await.map_err(|error| {
            let error = bedrock::chain(&error);
            let text = format!("Failed to get disks from template [{path}] due to [{error}].");
            HandlerError::Invalid(text)
        })?;
        tracing::info!(store = %store.url(), %path, disks = disks.len(), "disks of an OVA told");
        Ok(GetDatadisksAnswer { data_disk_details: Some(disks), base: AnswerBase::success() })
    }

    /// Makes a template of one of them.
    pub async fn disk_template(
        &self,
        command: CreateDatadiskTemplateCommand,
    ) -> Handled<CreateDatadiskTemplateAnswer> {
        let template = template(command.data_disk_template)?;
        let store = self.access.open(template.image_data_store.as_ref(), None, None).await?;
        let (account, id) = (template.account_id, template.id);
        let directory = format!("{}/{account}/{id}", ObjectKind::Template.tree()).parse()?;
        let size = template.size.unwrap_or(0);
        let order = DiskOrder {
            store,
            path: command.path.unwrap_or_default(),
            directory,
            id,
            unique_name: template.unique_name.as_deref().unwrap_or_default().parse()?,
            virtual_size: u64::try_from(size).unwrap_or(0),
            bootable: command.bootable,
        };
        let made = self.moves.disk_template(&order).await;
        let (path, length) = made.map_err(|error| {
            let error = bedrock::chain(&error);
            HandlerError::Invalid(format!("Create Datadisk template failed due to {error}"))
        })?;
        tracing::info!(store = %order.store.url(), disk = order.path, %path, "template made of a disk");
        let template = TemplateObjectTO {
            path: Some(path.to_string()),
            id,
            size: Some(size),
            physical_size: i64::try_from(length).ok(),
            ..TemplateObjectTO::default()
        };
        let base = AnswerBase::success();
        Ok(CreateDatadiskTemplateAnswer { data_disk_template: Some(template), base })
    }
}

fn template(data: Option<DataTO>) -> Handled<TemplateObjectTO> {
    match data {
        Some(DataTO::Template(template)) => Ok(*template),
        _ => Err(HandlerError::Invalid("the command names no template".to_owned())),
    }
}
