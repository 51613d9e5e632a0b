//! Leases that are not a reservation: found, and taken back.

use std::sync::Arc;

use bedrock::chain;
use dhcp_api::words::Cidr;

use super::{ApplyError, Reconciler};
use crate::files;
use crate::leases;
use crate::release::{ReleaseError, Releaser};
use crate::render::Rendered;

impl Reconciler {
    /// Leases whose (address, MAC) is nobody's reservation.
    pub(super) async fn stale_leases(
        &self,
        rendered: &Rendered,
    ) -> Result<Vec<leases::Lease>, ApplyError> {
        let path = self.settings.layout.leases();
        let leases = self.cx.tasks.blocking("leases", move || leases::read(&path)).await?;
        let leases = leases.map_err(ReleaseError::Leases)?;
        let count = leases.len();
        let stale: Vec<_> = leases
            .into_iter()
            .filter(|lease| !files::is_reserved(&rendered.hosts, lease))
            .collect();
        self.metrics.leases.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.metrics.conflicts.set(i64::try_from(stale.len()).unwrap_or(i64::MAX));
        self.observed.send_modify(|observed| {
            (observed.leases, observed.conflicts) = (count, stale.len());
        });
        Ok(stale)
    }

    /// Takes stale leases back; what cannot be released is removed while dnsmasq is down.
    pub(super) async fn release(
        &mut self,
        stale: Vec<leases::Lease>,
        subnets: Vec<Cidr>,
        rendered: &Arc<Rendered>,
    ) -> Result<(), ApplyError> {
        let count = stale.len();
        let releaser = Releaser {
            interface: self.settings.interface.clone(),
            layout: self.settings.layout.clone(),
        };
        let left = releaser.release(stale.clone(), subnets, &self.cx.tasks).await;
        let left = left.unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "cannot release leases");
            stale
        });
        self.metrics.released.inc_by(u64::try_from(count - left.len()).unwrap_or(0));
        tracing::info!(released = count - left.len(), left = left.len(), "leases taken back");
        if !left.is_empty() {
            self.restart(rendered).await?;
        }
        let left = self.stale_leases(rendered).await?.len();
        if left > 0 {
            tracing::warn!(left, "leases without a reservation remain");
        }
        Ok(())
    }
}
