//! `base.names`: every name; what comes while dnsmasq runs lies in `names.d` until the next reload.

use std::collections::HashSet;
use std::net::IpAddr;

use dhcp_api::record::RecordValue;

use super::{Served, line};
use crate::desired::{DesiredState, RecordKey, domain_of};
use crate::sync::with_address;

/// Names of reservations and of A and AAAA records. The full name stands first, so that it is the
/// answer to a reverse query; a bare name that several domains have goes to the first.
pub(super) fn names(
    state: &DesiredState,
    served: &[Served<'_>],
    is_given: &impl Fn(&RecordKey) -> bool,
) -> String {
    let mut out = String::new();
    let mut bare = HashSet::new();
    for Served { zone, subnet, reservation } in served {
        let domain = domain_of(&zone.zone, Some(subnet));
        let mut names = String::new();
        for name in reservation.names() {
            names.push_str(&format!(" {name}.{domain}"));
            if bare.insert(name) {
                names.push_str(&format!(" {name}"));
            }
        }
        if names.is_empty() {
            continue;
        }
        line!(&mut out, "{}{names}", reservation.ipv4);
        if let Some(ipv6) = reservation.ipv6 {
            line!(&mut out, "{ipv6}{names}");
        }
    }
    secondary(&mut out, served);
    for zone in state.zones.values() {
        for record in zone.records.values() {
            if !is_given(&(zone.zone.id.clone(), record.name.clone(), record.kind)) {
                continue;
            }
            let name = record.name.within(&zone.zone.domain);
            for value in &record.values {
                let address: IpAddr = match value {
                    RecordValue::V4(address) => (*address).into(),
                    RecordValue::V6(address) => (*address).into(),
                    RecordValue::Domain(_) | RecordValue::Text(_) | RecordValue::Srv { .. } => {
                        continue;
                    }
                };
                line!(&mut out, "{address} {name}");
            }
        }
    }
    out
}

/// Further addresses of a NIC, which are configured inside the guest: the name with the whole
/// address behind it, unless somebody has that name or address himself.
fn secondary(out: &mut String, served: &[Served<'_>]) {
    let addresses: HashSet<_> = served.iter().map(|served| served.reservation.ipv4).collect();
    let names: HashSet<_> = served.iter().flat_map(|served| served.reservation.names()).collect();
    for Served { zone, subnet, reservation } in served {
        let Some(hostname) = &reservation.hostname else { continue };
        for address in reservation.secondary_ips.iter().filter(|ip| !addresses.contains(*ip)) {
            let name = with_address(hostname, *address, 4).filter(|name| !names.contains(name));
            if let Some(name) = name {
                line!(out, "{address} {name}.{}", domain_of(&zone.zone, Some(subnet)));
            }
        }
    }
}
