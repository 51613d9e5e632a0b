//! Set-up of stores and of the host.

use std::net::IpAddr;

use agent_protocol::agent::{AnswerBase, PlainAnswer};
use agent_protocol::storage::{
    SecStorageFirewallCfgCommand, SecStorageSetupAnswer, SecStorageSetupCommand,
    SecStorageVMSetupCommand,
};
use bedrock::net::Network;
use role::TaskScope;

use super::access::StoreAccess;
use super::{Handled, HandlerError};
use crate::links::copy::CopyRules;
use crate::serving::certificates::ServedCertificates;
use crate::setup::ServerSettings;
use crate::sources::http::trust::Trust;
use crate::uploads::keys::Keys;

/// Handlers of the set-up commands.
#[derive(Debug)]
pub struct SetupCommands {
    pub access: StoreAccess,
    pub trust: Trust,
    pub server: ServerSettings,
    pub copy: CopyRules,
    pub certificates: ServedCertificates,
    pub upload_keys: Keys,
    pub tasks: TaskScope,
}

impl SetupCommands {
    /// Opens the store; the answer names its directory, which the server builds links with.
    pub async fn store(&self, command: SecStorageSetupCommand) -> Handled<SecStorageSetupAnswer> {
        if let Some(root) = command.certs.as_ref().and_then(|certs| certs.root_ca_cert.as_deref()) {
            let added = self.trust.add_pem(root);
            tracing::info!(added, "trusting the server's root certificate for downloads");
        }
        if let Some(certs) = &command.certs
            && let Err(error) = self.certificates.take(certs).await
        {
            // The store is set up nevertheless; what was served before is served still.
            let error = bedrock::chain(&error);
            tracing::warn!(error, "cannot serve the certificate that the server sent");
        }
        // Also when the store cannot be opened: it is the same key for all of them.
        if let Some(key) = command.post_upload_key {
            let keys = self.upload_keys.clone();
            self.tasks.blocking("remember the upload key", move || keys.take(&key)).await??;
        }
        let (fallback, version) = (command.sec_url.as_deref(), command.nfs_version.as_deref());
        let store = self.access.open(command.store.as_ref(), fallback, version).await?;
        // An opened store may have been lost since: prove that it is there now.
        store.probe().await?;
        Ok(SecStorageSetupAnswer {
            dir: Some(store.name().to_owned()),
            base: AnswerBase::success_with("success"),
        })
    }

    pub fn host(&self, command: &SecStorageVMSetupCommand) -> Handled<PlainAnswer> {
        let sites = command.allowed_internal_sites.as_deref().unwrap_or_default();
        let (sites, wrong) = parse_all::<Network>(sites.iter().map(AsRef::as_ref));
        tracing::info!(sites = sites.len(), "internal sites that downloads may reach");
        self.server.set_internal_sites(sites);
        self.copy.take(command.copy_user_name.as_deref(), command.copy_password.as_ref());
        if wrong.is_empty() {
            Ok(PlainAnswer::success_with(""))
        } else {
            Err(HandlerError::Invalid(format!("not networks: {}", wrong.join(", "))))
        }
    }

    /// The list of other hosts that may copy from here.
    pub async fn peers(&self, command: SecStorageFirewallCfgCommand) -> Handled<PlainAnswer> {
        let configs = command.port_configs.unwrap_or_default();
        let added = configs.iter().filter(|config| config.add);
        let named = added.filter_map(|config| config.source_ip.as_deref());
        let (peers, wrong) = parse_all::<IpAddr>(named);
        let (server, add) = (self.server.clone(), command.is_append_a_ip);
        tracing::debug!(count = peers.len(), add, "other storage hosts");
        self.tasks.blocking("remember peers", move || server.set_peers(peers, add)).await??;
        if wrong.is_empty() {
            Ok(PlainAnswer::success())
        } else {
            Err(HandlerError::Invalid(format!("not addresses: {}", wrong.join(", "))))
        }
    }
}

/// What can be parsed, and what cannot.
fn parse_all<'a, T: std::str::FromStr>(
    texts: impl Iterator<Item = &'a str>,
) -> (Vec<T>, Vec<&'a str>) {
    let (mut parsed, mut wrong) = (Vec::new(), Vec::new());
    for text in texts {
        match text.parse() {
            Ok(value) => parsed.push(value),
            Err(_bad) => wrong.push(text),
        }
    }
    (parsed, wrong)
}
