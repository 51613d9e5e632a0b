//! Why a client gets an address, or why it does not: everything that is known about it, in the
//! order in which an operator would ask.

use std::net::Ipv4Addr;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use dhcp_api::answer::{ExplainAnswer, Phase};
use dhcp_api::problem::{Problem, ProblemKind};
use dhcp_api::resource::{Reservation, Subnet};
use dhcp_api::words::{HostName, MacAddress};

use super::{Answer, Context};
use crate::desired::{DesiredState, ZoneState, domain_of};
use crate::heard::{Heard, LastMessage};
use crate::leases::Lease;
use crate::observed::Observed;
use crate::render::LineOwner;
use crate::sync::SyncState;

/// What is asked for.
enum Who {
    Mac(MacAddress),
    Address(Ipv4Addr),
    /// A host name, with a domain or without.
    Name(HostName, Option<String>),
}

impl Who {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(mac) = text.parse() {
            return Some(Self::Mac(mac));
        }
        if let Ok(address) = text.parse() {
            return Some(Self::Address(address));
        }
        let text = text.trim_end_matches('.').to_ascii_lowercase();
        let (name, domain) = match text.split_once('.') {
            Some((name, domain)) => (name, Some(domain.to_owned())),
            None => (text.as_str(), None),
        };
        Some(Self::Name(name.parse().ok()?, domain))
    }

    fn fits(&self, zone: &ZoneState, subnet: Option<&Subnet>, reservation: &Reservation) -> bool {
        match self {
            Self::Mac(mac) => reservation.mac == *mac,
            Self::Address(address) => {
                reservation.ipv4 == *address || reservation.secondary_ips.contains(address)
            }
            Self::Name(name, domain) => {
                let in_domain = domain
                    .as_ref()
                    .is_none_or(|domain| domain_of(&zone.zone, subnet).as_str() == domain);
                in_domain && reservation.names().any(|own| own == name)
            }
        }
    }
}

/// Everything an explanation is drawn from.
struct Known<'a> {
    state: &'a DesiredState,
    observed: &'a Observed,
    leases: &'a [Lease],
    heard: &'a Heard,
    sync: Option<&'a SyncState>,
}

pub(super) async fn explain(State(api): Context, Path(who): Path<String>) -> Answer {
    let Some(asked) = Who::parse(&who) else {
        let problem = Problem::new(ProblemKind::NotFound, format!("{who:?} is no client"));
        return Err(problem.remedy("give a MAC address, an IPv4 address or a host name").into());
    };
    let leases = api.leases().await?;
    let (state, observed) = (api.store.state(), api.observed.borrow().clone());
    let sync = api.sync.as_ref().map(|sync| sync.state.borrow().clone());
    let known = Known {
        state: &state,
        observed: &observed,
        leases: &leases,
        heard: &api.heard,
        sync: sync.as_ref(),
    };
    Ok((StatusCode::OK, axum::Json(known.explain(who, &asked))).into_response())
}

impl Known<'_> {
    fn explain(&self, who: String, asked: &Who) -> ExplainAnswer {
        let mut answer =
            ExplainAnswer { who, served: false, reservations: vec![], reasons: vec![] };
        for (zone, reservation) in self.state.reservations() {
            let subnet = zone.subnets.get(&reservation.subnet).map(|state| &state.subnet);
            if asked.fits(zone, subnet, reservation) {
                let served = self.reserved(zone, subnet, reservation, &mut answer.reasons);
                answer.served |= served;
                answer.reservations.push(reservation.id.clone());
            }
        }
        if answer.reservations.is_empty() {
            self.unknown(asked, &mut answer.reasons);
        }
        self.machinery(&mut answer);
        answer
    }

    /// What is known of a reservation; whether nothing speaks against it.
    fn reserved(
        &self,
        zone: &ZoneState,
        subnet: Option<&Subnet>,
        reservation: &Reservation,
        reasons: &mut Vec<String>,
    ) -> bool {
        let Reservation { id, content, .. } = reservation;
        let name = content
            .hostname
            .as_ref()
            .map(|name| format!(", called {name}.{}", domain_of(&zone.zone, subnet)));
        let (mac, ipv4, source) = (content.mac, content.ipv4, reservation.meta.source);
        reasons.push(format!(
            "reservation {id} of zone {}, made by {source}: {mac} gets {ipv4}{}",
            zone.zone.id,
            name.unwrap_or_default()
        ));
        let mut served = true;
        let mut against = |text: String| {
            served = false;
            reasons.push(text);
        };
        match subnet {
            Some(subnet) if !subnet.is_enabled() => {
                against(format!("its subnet {} ({}) is disabled", subnet.id, subnet.cidr));
            }
            Some(subnet) => {
                let unserved = format!("subnet {} ({})", subnet.id, subnet.cidr);
                if self.observed.unserved.contains(&unserved) {
                    against(format!("the interface has no address in {unserved}"));
                }
            }
            None => against("its subnet is gone".to_owned()),
        }
        if self.observed.applied < reservation.meta.revision {
            let revision = reservation.meta.revision;
            let applied = self.observed.applied;
            against(format!("it is of generation {revision}, dnsmasq serves {applied}"));
        }
        if let Some(line) = self.observed.rejected_line(LineOwner::Reservation(ipv4)) {
            against(line);
        }
        for lease in self.leases.iter().filter(|lease| lease.ipv4 == ipv4) {
            if lease.mac == mac {
                reasons.push(format!("it holds the lease of {ipv4}"));
            } else {
                served = false;
                reasons.push(format!("{ipv4} is still leased to {}", lease.mac));
            }
        }
        reasons.push(self.told(mac));
        served
    }

    /// Nobody has reserved anything for it.
    fn unknown(&self, asked: &Who, reasons: &mut Vec<String>) {
        reasons.push("there is no reservation, and nobody else gets an answer".to_owned());
        let text = match asked {
            Who::Mac(mac) => {
                reasons.push(self.told(*mac));
                mac.to_string()
            }
            Who::Address(address) => {
                let holder = self.leases.iter().find(|lease| lease.ipv4 == *address);
                if let Some(lease) = holder {
                    reasons.push(format!("{address} is leased to {}", lease.mac));
                }
                let subnets = self.state.subnets();
                let subnet = subnets.map(|(_, s)| &s.subnet).find(|s| s.cidr.contains(*address));
                reasons.push(match subnet {
                    Some(subnet) => format!("it lies in subnet {} ({})", subnet.id, subnet.cidr),
                    None => "it lies in no subnet that is known".to_owned(),
                });
                address.to_string()
            }
            Who::Name(name, _) => name.to_string(),
        };
        for kept in &self.state.quarantine {
            if kept.content.to_string().contains(&text) {
                reasons.push(format!("kept aside: {}: {}", kept.place, kept.reason));
            }
        }
        let notes = self.sync.iter().flat_map(|sync| &sync.notes);
        let notes = notes.filter(|note| note.text.contains(&text));
        reasons.extend(notes.map(|note| format!("the sync says: {}", note.text)));
    }

    /// What serves at all.
    fn machinery(&self, answer: &mut ExplainAnswer) {
        let instance = &self.observed.instance;
        if instance.phase != Phase::Serving {
            answer.served = false;
            let reason = instance.reason.as_deref().unwrap_or("it is starting");
            answer.reasons.push(format!("dnsmasq does not serve: {reason}"));
        }
        if self.observed.no_interface {
            answer.served = false;
            answer.reasons.push("the interface to serve does not exist".to_owned());
        }
        let Some(sync) = self.sync else { return };
        if let Some(error) = &sync.last_error {
            answer.reasons.push(format!("the sync cannot go on: {error}"));
        } else if sync.last_success.is_none() {
            answer.reasons.push("the sync has not read the server's book yet".to_owned());
        }
    }

    fn told(&self, mac: MacAddress) -> String {
        match self.heard.of(mac) {
            Some(LastMessage { kind, ignored: true, at }) => {
                format!("its last message, DHCP{kind}, {} ago, was ignored", short(at.elapsed()))
            }
            Some(LastMessage { kind, at, .. }) => {
                format!("its last message was DHCP{kind}, {} ago", short(at.elapsed()))
            }
            None => "no DHCP message of it was heard: it may configure itself, or what it sends \
                     does not arrive here"
                .to_owned(),
        }
    }
}

fn short(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
