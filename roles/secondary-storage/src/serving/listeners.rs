//! The addresses that the role serves on, bound, and bound again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http_front::{ANYTHING_ELSE, Files, Registration, Site, Transport, TrustedProxies};
use role::{Resource, RoleContext};
use status_api::Listeners;

use super::certificates::{INTERVAL, ServedCertificates};
use super::config::ServingConfig;
use crate::links::{copy, serve};
use crate::service::KIND;
use crate::uploads::http as uploads;

/// Paths that are this role's on every address.
const OWN: [&str; 3] = [serve::PREFIX, copy::PREFIX, uploads::PREFIX];
/// The same, and whatever no other role wants, for the help page.
const PREFIXES: [&str; 4] = [serve::PREFIX, copy::PREFIX, uploads::PREFIX, ANYTHING_ELSE];

/// How often an address that could not be bound is tried again.
const BIND_RETRY: Duration = Duration::from_secs(10);
const CONDITION: &str = "links";
const CERTIFICATE: &str = "certificate";

/// What no other role may have.
pub fn resources(config: &ServingConfig) -> Vec<Resource> {
    let addresses = config.listen.iter().chain(&config.tls_listen);
    addresses
        .flat_map(|addr| OWN.map(|prefix| Resource::HttpRoute { addr: *addr, prefix }))
        .collect()
}

/// What is served.
#[derive(Clone)]
pub struct Service {
    pub router: Router,
    pub files: Arc<dyn Files>,
    pub certificates: ServedCertificates,
    pub trusted_proxies: TrustedProxies,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

/// Serves on every configured address until shutdown. An address that cannot be bound makes the
/// role degraded, not dead, and is tried again.
pub async fn serve(cx: RoleContext, config: ServingConfig, service: Service) {
    let mut registrations = Vec::new();
    let with_tls = |tls: bool| move |addr: &SocketAddr| (*addr, tls);
    let plain = config.listen.iter().map(with_tls(false));
    let mut missing: Vec<_> = plain.chain(config.tls_listen.iter().map(with_tls(true))).collect();
    loop {
        let (mut failed, mut reasons) = (Vec::new(), Vec::new());
        for (addr, tls) in missing {
            match register(&cx, &service, addr, tls).await {
                Ok(registration) => {
                    let addr = registration.local_addr();
                    tracing::info!(%addr, tls, "serving links");
                    registrations.push((registration, tls));
                }
                Err(error) => {
                    reasons.push(bedrock::chain(&error));
                    failed.push((addr, tls));
                }
            }
        }
        report(&cx, &registrations);
        if failed.is_empty() {
            cx.health.clear_condition(CONDITION);
            cx.shutdown.cancelled().await;
            return;
        }
        let reason = format!("links cannot be fetched: {}", reasons.join(", "));
        tracing::warn!(error = reason, "cannot serve links, will retry");
        cx.health.set_condition(CONDITION, reason);
        missing = failed;
        tokio::select! {
            () = cx.shutdown.cancelled() => return,
            () = tokio::time::sleep(BIND_RETRY) => {}
        }
    }
}

async fn register(
    cx: &RoleContext,
    service: &Service,
    addr: SocketAddr,
    tls: bool,
) -> Result<Registration, http_front::BindError> {
    let certificates = tls.then(|| service.certificates.served());
    let site = Site {
        owner: KIND.short,
        addr,
        prefixes: &PREFIXES,
        router: service.router.clone(),
        tasks: cx.tasks.clone(),
        trusted_proxies: service.trusted_proxies.clone(),
        transport: Transport { certificates, ..Transport::default() },
    };
    cx.http.register_files(site, Arc::clone(&service.files)).await
}

fn report(cx: &RoleContext, registrations: &[(Registration, bool)]) {
    let addresses = registrations.iter().map(|(registration, tls)| {
        let scheme = if *tls { "https" } else { "http" };
        format!("{scheme}://{}", registration.local_addr())
    });
    let listeners = Listeners(addresses.collect());
    cx.health.report(move || listeners.clone());
}

/// Looks at the certificates now and then until shutdown, and says what is wrong with them.
pub async fn renew(cx: RoleContext, certificates: ServedCertificates) {
    loop {
        let fault = certificates.renew().await.err().map(|error| bedrock::chain(&error));
        match fault.or_else(|| certificates.trouble()) {
            Some(reason) => {
                tracing::warn!(error = reason, "look at the certificate of https");
                cx.health.set_condition(CERTIFICATE, reason);
            }
            None => cx.health.clear_condition(CERTIFICATE),
        }
        tokio::select! {
            () = cx.shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}
