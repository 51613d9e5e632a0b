//! Leases: what dnsmasq has given out, and taking one back.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use dhcp_api::answer::{LeaseAnswer, Phase};
use dhcp_api::problem::ProblemKind;
use dhcp_api::words::{MacAddress, ResourceId};
use serde::Deserialize;

use super::collections::{Window, query};
use super::problem::Refusal;
use super::reservations::wanted;
use super::{Answer, Api, Context, key};
use crate::leases::{self, Lease, Leases};

/// Query of the collection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    subnet: Option<String>,
    mac: Option<String>,
    ip: Option<String>,
    conflict: Option<bool>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Query of a release.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Guard {
    mac: Option<String>,
}

impl Api {
    /// The leases as dnsmasq's file says now.
    pub(super) async fn leases(&self) -> Result<Vec<Lease>, Refusal> {
        let path = self.releaser.layout.leases();
        let read = self.tasks.blocking("leases", move || leases::read(&path)).await;
        let failed = |text: String| Refusal::new(ProblemKind::Storage, text);
        read.map_err(|error| failed(error.to_string()))?
            .map_err(|error| failed(format!("cannot read the leases: {error}")))
    }
}

impl Api {
    /// As [`Self::leases`], by address: a lease has one, and an address one lease.
    pub(super) async fn leases_by_address(&self) -> Result<Leases, Refusal> {
        let leases = self.leases().await?.into_iter();
        Ok(leases.map(|lease| (lease.ipv4, lease)).collect())
    }
}

pub(super) async fn list(
    State(api): Context,
    Path(zone): Path<String>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Answer {
    let filter = query(filter)?;
    let page = Window::new(filter.limit, filter.cursor)?;
    let zone: ResourceId = key("zone", &zone)?;
    let mac: Option<MacAddress> = wanted("mac", filter.mac.as_deref())?;
    let address: Option<Ipv4Addr> = wanted("ip", filter.ip.as_deref())?;
    let subnet: Option<ResourceId> = wanted("subnet", filter.subnet.as_deref())?;
    let leases = api.leases().await?;
    let state = api.store.state();
    let zone = state.zone(&zone)?;
    let owners: HashMap<_, _> =
        zone.reservations.values().map(|kept| ((kept.ipv4, kept.mac), &kept.id)).collect();
    let mut items: Vec<(String, LeaseAnswer)> = leases
        .iter()
        .filter(|lease| mac.is_none_or(|mac| lease.mac == mac))
        .filter(|lease| address.is_none_or(|address| lease.ipv4 == address))
        .filter(|lease| {
            zone.subnets.values().any(|state| {
                let wanted = subnet.as_ref().is_none_or(|subnet| state.subnet.id == *subnet);
                wanted && state.subnet.cidr.contains(lease.ipv4)
            })
        })
        .filter_map(|lease| {
            let owner = owners.get(&(lease.ipv4, lease.mac)).map(|id| (*id).clone());
            let conflict = owner.is_none();
            filter.conflict.is_none_or(|wanted| wanted == conflict).then(|| {
                let answer = LeaseAnswer {
                    ipv4: lease.ipv4,
                    mac: lease.mac,
                    hostname: lease.hostname.clone(),
                    client_id: lease.client_id.clone(),
                    expires_at: lease.expires,
                    reservation: owner,
                    conflict,
                };
                (sortable(lease.ipv4), answer)
            })
        })
        .collect();
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(page.of(state.generation, items.into_iter()))
}

/// Text whose order is that of the addresses.
fn sortable(address: Ipv4Addr) -> String {
    format!("{:08x}", address.to_bits())
}

pub(super) async fn release(
    State(api): Context,
    Path((zone, address)): Path<(String, String)>,
    guard: Result<Query<Guard>, QueryRejection>,
) -> Answer {
    let address: Ipv4Addr = key("lease", &address)?;
    let mac: Option<MacAddress> = wanted("mac", query(guard)?.mac.as_deref())?;
    let state = api.store.state();
    let zone = state.zone(&key("zone", &zone)?)?;
    let in_zone = zone.subnets.values().any(|state| state.subnet.cidr.contains(address));
    let leases = api.leases().await?;
    let lease = leases
        .into_iter()
        .filter(|_| in_zone)
        .find(|lease| lease.ipv4 == address && mac.is_none_or(|mac| lease.mac == mac))
        .ok_or_else(|| super::missing("lease", &address))?;
    if api.observed.borrow().instance.phase != Phase::Serving {
        let text = "dnsmasq is down and cannot release anything";
        return Err(Refusal::new(ProblemKind::InstanceDown, text));
    }
    let subnets = state.subnets().map(|(_, subnet)| subnet.subnet.cidr).collect();
    match api.releaser.release(vec![lease], subnets, &api.tasks).await {
        Ok(left) if left.is_empty() => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(_) => Err(Refusal::new(
            ProblemKind::ApplyFailed,
            format!("dnsmasq keeps the lease of {address}"),
        )),
        Err(error) => Err(Refusal::new(ProblemKind::ApplyFailed, bedrock::chain(&error))),
    }
}
