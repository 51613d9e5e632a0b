//! Where browsers come in: plain listeners from the start, TLS as soon as there is a certificate.
//!
//! Every listener answers everything. A TLS listener that cannot be had makes the role degraded, and
//! it is tried again: the port may be another program's for a while, and plain consoles go on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_front::{BindError, Registration, Site, Transport};
use role::{RoleContext, RoleError};
use status_api::Listeners;

use crate::certificate::{self, BrowserCertificate, Source};
use crate::context::ConsoleContext;
use crate::service::KIND;
use crate::web;

/// How long a port that another program has is left alone.
const AGAIN: Duration = Duration::from_secs(10);
const CONDITION: &str = "tls-listen";

/// Addresses and their registrations.
pub(crate) struct Doors {
    /// `None` = closed for good.
    open: Mutex<Option<Vec<(String, Registration)>>>,
}

/// Closes them when the run is over, also by a panic: whoever else holds the doors keeps no port.
pub(crate) struct Closing(Arc<Doors>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Doors {
    /// Opens the plain ones.
    ///
    /// # Errors
    /// When one cannot be had.
    pub(crate) async fn open(
        context: &Arc<ConsoleContext>,
        cx: &RoleContext,
    ) -> Result<(Arc<Self>, Closing), RoleError> {
        let doors = Arc::new(Self { open: Mutex::new(Some(Vec::new())) });
        let closing = Closing(Arc::clone(&doors));
        for addr in &context.config.listen {
            let opened = doors.register(*addr, context, cx, false).await;
            opened.map_err(|error| {
                if error.source.kind() == std::io::ErrorKind::PermissionDenied {
                    RoleError::misconfigured("cannot serve consoles", error)
                } else {
                    RoleError::dependency("cannot serve consoles", error)
                }
            })?;
        }
        cx.health.report({
            let doors = Arc::clone(&doors);
            move || Listeners(doors.addresses())
        });
        Ok((doors, closing))
    }

    fn addresses(&self) -> Vec<String> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().flatten().map(|(shown, _)| shown.clone()).collect()
    }

    /// Lets nothing more in.
    pub(crate) fn close(&self) {
        let registrations = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(registrations);
    }

    async fn register(
        &self,
        addr: SocketAddr,
        context: &Arc<ConsoleContext>,
        cx: &RoleContext,
        tls: bool,
    ) -> Result<(), BindError> {
        let certificates = if tls { Some(context.certificate.first().await) } else { None };
        let site = Site {
            owner: KIND.short,
            addr,
            prefixes: &["/"],
            router: web::router(Arc::clone(context), tls),
            tasks: cx.tasks.clone(),
            trusted_proxies: context.trusted_proxies.clone(),
            transport: Transport {
                certificates,
                proxy_protocol: context.config.proxy_protocol.clone(),
            },
        };
        let registration = cx.http.register(site).await?;
        let local = registration.local_addr();
        tracing::info!(addr = %local, tls, "serving consoles");
        let shown = format!("{local}{}", if tls { " (TLS)" } else { "" });
        if let Some(open) = &mut *self.open.lock().unwrap_or_else(PoisonError::into_inner) {
            open.push((shown, registration));
        }
        Ok(())
    }

    /// Opens the TLS ones once there is a certificate, and goes on trying until the role stops.
    pub(crate) async fn open_tls(self: Arc<Self>, context: Arc<ConsoleContext>, cx: RoleContext) {
        let stop = context.stop.clone();
        stop.run_until_cancelled(self.keep_opening(&context, &cx)).await;
    }

    async fn keep_opening(&self, context: &Arc<ConsoleContext>, cx: &RoleContext) {
        let mut missing = context.config.tls.listen.clone();
        while !missing.is_empty() {
            let mut refused = Vec::new();
            let mut reasons = Vec::new();
            for addr in missing {
                if let Err(error) = self.register(addr, context, cx, true).await {
                    reasons.push(bedrock::chain(&error));
                    refused.push(addr);
                }
            }
            missing = refused;
            if missing.is_empty() {
                cx.health.clear_condition(CONDITION);
                return;
            }
            cx.health.set_condition(CONDITION, reasons.join("; "));
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// Starts whatever brings certificates other than the management server.
pub(crate) fn bring_certificates(context: &Arc<ConsoleContext>, cx: &RoleContext) {
    let certificate = &context.certificate;
    if context.config.tls.is_wanted {
        let (context, health) = (Arc::clone(context), cx.health.clone());
        cx.tasks.spawn("self-signed certificate", async move {
            if let Err(error) = offer_own(&context).await {
                tracing::error!(error, "no certificate of our own");
                health.set_condition("self-signed", error);
            }
        });
    }
    if let Some(files) = context.config.tls.files.clone() {
        let (certificate, tasks) = (Arc::clone(certificate), cx.tasks.clone());
        let keeping = certificate::keep_files(files, certificate, tasks, cx.health.clone());
        let stop = context.stop.clone();
        cx.tasks.spawn_vital("certificate files", async move {
            stop.run_until_cancelled(keeping).await;
        });
    }
}

async fn offer_own(context: &ConsoleContext) -> Result<(), String> {
    let config = &context.config;
    let mut names: Vec<String> =
        config.tls.host_of_links(config.identity.public_address).into_iter().collect();
    for address in [config.identity.public_address, config.identity.private_address] {
        if !names.contains(&address.to_string()) {
            names.push(address.to_string());
        }
    }
    let file = config.state_directory.join("self-signed.pem");
    let now = jiff::Timestamp::now().into();
    let make = move || tls_material::own_pair(&file, &names, now);
    let made = context.tasks.blocking("self-signed certificate", make).await;
    let pair = made.map_err(|error| error.to_string())?.map_err(|error| bedrock::chain(&error))?;
    let offered = context.certificate.offer(Source::Own, Some(pair));
    offered.map_err(|error| bedrock::chain(&error))
}

/// Reads the operator's files again, as a reload asks.
pub(crate) async fn read_again(context: &Arc<ConsoleContext>) -> Option<Result<(), String>> {
    let files = context.config.tls.files.clone()?;
    let certificate: Arc<BrowserCertificate> = Arc::clone(&context.certificate);
    let read = move || certificate::read_files(&files, &certificate);
    let outcome = context.tasks.blocking("certificate files", read).await;
    Some(outcome.unwrap_or_else(|error| Err(error.to_string())))
}
