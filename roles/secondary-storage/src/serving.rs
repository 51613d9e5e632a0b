//! What the role serves to users and to other storage hosts, and on which addresses.
//!
//! Every listener answers everything: links (`/userdata/`), copies between zones (`/copy/`), and a
//! page that names the certificate. Listeners with TLS share one set of certificates.
//!
//! | module | what |
//! |---|---|
//! | [`config`] | the keys |
//! | [`certificates`] | which certificate is served, and its renewal |
//! | [`listeners`] | addresses bound, and bound again |
//! | [`page`] | the help page and texts for people |

pub mod certificates;
pub mod config;
pub mod listeners;
pub mod page;

use http_front::TrustedProxies;

use crate::live::Live;
use certificates::{ServedCertificates, ServingError};
use config::LiveServing;

/// What a reload changes of what is served. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Reloadable {
    pub(crate) settings: Live<LiveServing>,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) certificates: ServedCertificates,
}

impl Reloadable {
    /// Takes other settings over.
    ///
    /// # Errors
    /// When the certificate cannot be used; the one before stays.
    pub async fn replace(&self, live: LiveServing) -> Result<(), ServingError> {
        self.trusted_proxies.replace(live.trusted_proxies.clone());
        self.settings.replace(live);
        self.certificates.renew().await
    }
}
