//! Set-up of stores and of the host.

use agent_protocol::agent::{AnswerBase, PlainAnswer};
use agent_protocol::storage::{
    SecStorageFirewallCfgCommand, SecStorageSetupAnswer, SecStorageSetupCommand,
    SecStorageVMSetupCommand,
};

use super::{Commands, Handled, HandlerError};
use bedrock::net::Network;

impl Commands {
    /// Opens the store; the answer names its directory, which the server builds links with.
    pub(super) async fn set_up(
        &self,
        command: SecStorageSetupCommand,
    ) -> Handled<SecStorageSetupAnswer> {
        if let Some(root) = command.certs.as_ref().and_then(|certs| certs.root_ca_cert.as_deref()) {
            let added = self.trust.add_pem(root);
            tracing::info!(added, "trusting the server's root certificate for downloads");
        }
        let store = self
            .store(
                command.store.as_ref(),
                command.sec_url.as_deref(),
                command.nfs_version.as_deref(),
            )
            .await?;
        // An opened store may have been lost since: prove that it is there now.
        let space =
            store.run("look at", crate::stores::Lane::Quick, crate::stores::Dir::space).await?;
        store.remember_space(space);
        Ok(SecStorageSetupAnswer {
            dir: Some(store.name().to_owned()),
            base: AnswerBase::success_with("success"),
        })
    }

    pub(super) fn set_up_host(&self, command: &SecStorageVMSetupCommand) -> Handled<PlainAnswer> {
        let sites = command.allowed_internal_sites.as_deref().unwrap_or_default();
        let mut wrong = Vec::new();
        let mut parsed: Vec<Network> = Vec::new();
        for site in sites {
            match site.parse() {
                Ok(cidr) => parsed.push(cidr),
                Err(_bad) => wrong.push(site.as_str()),
            }
        }
        tracing::info!(sites = parsed.len(), "internal sites that downloads may reach");
        self.settings.set_internal_sites(parsed);
        if wrong.is_empty() {
            Ok(PlainAnswer::success_with(""))
        } else {
            Err(HandlerError::Invalid(format!("not networks: {}", wrong.join(", "))))
        }
    }

    /// The list of other hosts that may copy from here. This host serves no copies yet, so there
    /// is nothing to protect.
    pub(super) fn set_up_peers(
        &self,
        command: &SecStorageFirewallCfgCommand,
    ) -> Handled<PlainAnswer> {
        let count = command.port_configs.as_ref().map_or(0, Vec::len);
        tracing::debug!(count, append = command.is_append_a_ip, "other storage hosts");
        Ok(PlainAnswer::success())
    }
}
