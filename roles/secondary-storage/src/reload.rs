//! Taking over another configuration while the role runs.

use management_link::ManagementLink;
use role::RoleContext;

use crate::service::{Assembled, SecondaryStorageSpec};

/// What a reload puts in force: whatever is looked up anew for each download or link. The others
/// decide what is bound, mounted, registered or started once.
pub const RELOADABLE: &[&str] = &[
    "roles.secondary_storage.allowed_sources",
    "roles.secondary_storage.size_limit",
    "roles.secondary_storage.decompressed_limit",
    "roles.secondary_storage.connect_timeout",
    "roles.secondary_storage.stall_timeout",
    "roles.secondary_storage.download_timeout",
    "roles.secondary_storage.min_rate",
    "roles.secondary_storage.min_rate_window",
    "roles.secondary_storage.retries",
    "roles.secondary_storage.retry_delay",
    "roles.secondary_storage.answer_wait",
    "roles.secondary_storage.link_lifetime",
    CERTIFICATE_FILE,
    "roles.secondary_storage.certificate_key_file",
    "roles.secondary_storage.trusted_proxies",
    "roles.secondary_storage.copy_allowed",
    "roles.secondary_storage.copy_user",
    "roles.secondary_storage.copy_password",
    "roles.secondary_storage.upload_key",
    "roles.secondary_storage.max_uploads",
    "roles.secondary_storage.upload_origins",
    "roles.secondary_storage.upload_pause",
    "roles.secondary_storage.proxy",
    "roles.secondary_storage.no_proxy",
    "roles.secondary_storage.parallel_ranges",
    "roles.secondary_storage.mount_root",
    "roles.secondary_storage.stores",
    "roles.secondary_storage.nfs_options",
    "roles.secondary_storage.mount_timeout",
    "roles.secondary_storage.store_timeout",
    "roles.secondary_storage.file_mode",
    "roles.secondary_storage.directory_mode",
    "roles.secondary_storage.min_free",
    "roles.secondary_storage.store_engine",
    CA_FILE,
];

const CERTIFICATE_FILE: &str = "roles.secondary_storage.certificate_file";
const CA_FILE: &str = "roles.secondary_storage.ca_file";

/// Handles reloads of this run from now on. What runs already keeps the values it began with.
pub fn handle(cx: &RoleContext, parts: &Assembled, link: &ManagementLink) {
    let (settings, lifetime) = (parts.settings.clone(), parts.link_lifetime.clone());
    let (trust, tasks) = (parts.trust.clone(), cx.tasks.clone());
    let stores = parts.stores.clone();
    let serving = parts.serving.clone();
    let uploads = parts.upload_settings.clone();
    let link = link.clone();
    cx.reload.handle(move |spec: std::sync::Arc<SecondaryStorageSpec>| {
        let (settings, lifetime) = (settings.clone(), lifetime.clone());
        let (trust, tasks) = (trust.clone(), tasks.clone());
        let (link, stores, serving) = (link.clone(), stores.clone(), serving.clone());
        let uploads = uploads.clone();
        async move {
            let config = spec.config().clone();
            let mut report = link.reload(config.link.management).await;
            let file = config.downloads.ca_file.clone();
            // Read again although the key may be the same: the file may have changed.
            let read = move || trust.reload(file.as_deref());
            match tasks.blocking("read certificates", read).await {
                Ok(Ok(())) => report.apply("certificates that downloads trust"),
                Ok(Err(error)) => report.fail(CA_FILE, bedrock::chain(&error)),
                Err(error) => report.fail(CA_FILE, bedrock::chain(&error)),
            }
            settings.replace(config.downloads);
            uploads.replace(config.uploads);
            lifetime.replace(config.link_lifetime);
            stores.reconfigure(config.stores);
            // The certificate's files are read again although the keys may be the same.
            match serving.replace(config.serving.live).await {
                Ok(()) => report.apply("certificate and access of links and copies"),
                Err(error) => report.fail(CERTIFICATE_FILE, bedrock::chain(&error)),
            }
            report
        }
    });
}
