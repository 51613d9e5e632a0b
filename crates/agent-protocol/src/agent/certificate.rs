//! Certificates that the server makes for the agent.

use bedrock::Secret;

use super::answers::PlainAnswer;
use crate::base::{AnswerBase, CommandBase};
use crate::gson::Dictionary;

java! {
    /// Make a key and a certificate request.
    SetupKeyStoreCommand = "org.apache.cloudstack.ca.SetupKeyStoreCommand" {
        "validityDays" validity_days: i32,
        /// For a key store on disk; used only when there is none yet.
        "keystorePassword" keystore_password: Option<Secret<String>>,
        /// False: meant for a VM behind a hypervisor agent.
        "handleByAgent" handle_by_agent: bool,
        "accessDetails" access_details: Dictionary<String>,
        "routerAccessIp" router_access_ip: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// The certificate request.
    SetupKeystoreAnswer = "org.apache.cloudstack.ca.SetupKeystoreAnswer" {
        /// PKCS#10 in PEM.
        "csr" csr: Option<String>,
    }
    extends base: AnswerBase
}

java! {
    /// Install a certificate for the next connection.
    SetupCertificateCommand = "org.apache.cloudstack.ca.SetupCertificateCommand" {
        /// PEM, one certificate.
        "certificate" certificate: Option<String>,
        /// PEM, PKCS#8; empty when the agent made the key.
        "privateKey" private_key: Option<Secret<String>>,
        /// PEM, one or more.
        "caCertificates" ca_certificates: Option<String>,
        /// False: meant for a VM behind a hypervisor agent.
        "handleByAgent" handle_by_agent: bool,
        "accessDetails" access_details: Dictionary<String>,
        "routerAccessIp" router_access_ip: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Whether the certificate was installed.
    SetupCertificateAnswer = "org.apache.cloudstack.ca.SetupCertificateAnswer" {}
    extends base: AnswerBase
}

java! {
    /// Used inside the original agent only, never seen on the wire.
    PostCertificateRenewalCommand = "org.apache.cloudstack.ca.PostCertificateRenewalCommand" {}
    extends base: CommandBase
}

answers!(SetupKeystoreAnswer, SetupCertificateAnswer);
commands! {
    SetupKeyStoreCommand.base => SetupKeystoreAnswer, false;
    SetupCertificateCommand.base => SetupCertificateAnswer, false;
    PostCertificateRenewalCommand.base => PlainAnswer, false;
}
