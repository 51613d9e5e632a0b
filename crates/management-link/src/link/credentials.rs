//! What we are for hypervisor hosts, whose certificates the management server's CA issues as well.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;

use super::{ManagementLink, Shared};
use crate::certificates;
use crate::client_certificate::ClientCertificate;
use crate::trust::Anchors;

/// Our certificate and those of the authorities that we trust.
#[derive(Debug, Clone, Default)]
pub struct HostCredentials {
    /// `None` when the server has issued none and none is configured.
    pub client: Option<Arc<CertifiedKey>>,
    /// Configured, provisioned or remembered ones; empty before a server was ever met.
    pub authorities: Vec<CertificateDer<'static>>,
}

impl ManagementLink {
    /// Reads them from disk, where a renewed certificate is put.
    ///
    /// # Errors
    /// A text that names the file and what is wrong with it.
    pub async fn host_credentials(&self) -> Result<HostCredentials, String> {
        let shared: &Shared = &self.shared;
        let config = shared.config();
        let unwritten = shared.unwritten();
        let read = move || {
            let client = certificates::client_key(&config)?;
            let issuers = client.as_ref().map(|key| key.issuers.clone()).unwrap_or_default();
            let ca_file = config.management.ca_file.as_deref();
            let store =
                config.management.client_certificate.as_ref().and_then(ClientCertificate::store);
            let anchors = Anchors::load(ca_file, config.directory(), &issuers, store)?;
            let authorities = anchors.or_else(&unwritten).into_certificates();
            let client = client.map(|key| key.certified);
            Ok::<_, tls_material::FileError>(HostCredentials { client, authorities })
        };
        let read = shared.cx.tasks.blocking("host credentials", read).await;
        read.map_err(|error| error.to_string())?.map_err(|error| bedrock::chain(&error))
    }
}
