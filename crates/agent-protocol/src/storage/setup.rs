//! Set-up of a storage agent: its stores, its allow-lists, its certificates.

use super::store::DataStoreTO;
use crate::agent::{AnswerBase, CommandBase, PlainAnswer};
use crate::text::UrlText;
use bedrock::Secret;

java! {
    /// Certificate and key of the download listener, PEM.
    Certificates {
        "privKey" priv_key: Option<Secret<String>>,
        "privCert" priv_cert: Option<String>,
        "certChain" cert_chain: Option<String>,
        "rootCACert" root_ca_cert: Option<String>,
    }
}

java! {
    /// Use this store.
    SecStorageSetupCommand = "com.cloud.agent.api.SecStorageSetupCommand" {
        "store" store: Option<DataStoreTO>,
        "secUrl" sec_url: Option<UrlText>,
        "certs" certs: Option<Certificates>,
        /// Key that signs uploads by browser.
        "postUploadKey" post_upload_key: Option<Secret<String>>,
        "nfsVersion" nfs_version: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Where the store is.
    SecStorageSetupAnswer = "com.cloud.agent.api.SecStorageSetupAnswer" {
        /// Name of the store's directory below the mount root; the server builds links with it.
        "_dir" dir: Option<String>,
    }
    extends base: AnswerBase
}

java! {
    /// Settings of the whole agent.
    SecStorageVMSetupCommand = "com.cloud.agent.api.SecStorageVMSetupCommand" {
        /// Networks that downloads may reach although they are private.
        "allowedInternalSites" allowed_internal_sites: Option<Vec<String>>,
        "copyUserName" copy_user_name: Option<String>,
        "copyPassword" copy_password: Option<Secret<String>>,
    }
    extends base: CommandBase
}

java! {
    /// One source that may copy from this agent.
    PortConfig {
        "add" add: bool,
        "sourceIp" source_ip: Option<String>,
        "port" port: Option<String>,
        "intf" intf: Option<String>,
    }
}

java! {
    /// Who may copy from this agent.
    SecStorageFirewallCfgCommand = "com.cloud.agent.api.SecStorageFirewallCfgCommand" {
        /// An empty list is absent on the wire.
        "portConfigs" port_configs: Option<Vec<PortConfig>>,
        /// Add to the list instead of replacing it.
        "isAppendAIp" is_append_a_ip: bool,
    }
    extends base: CommandBase
}

answers!(SecStorageSetupAnswer);
commands! {
    SecStorageSetupCommand.base => SecStorageSetupAnswer, true;
    SecStorageVMSetupCommand.base => PlainAnswer, true;
    SecStorageFirewallCfgCommand.base => PlainAnswer, false;
}
