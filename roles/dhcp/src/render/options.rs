//! `base.opts`: the options of subnets and reservations, by tag.

use dhcp_api::option::{DhcpOption, OptionValue, Width};
use dhcp_api::resource::{DnsServers, Subnet};

use super::{LineOwner, Served, Subnets, host_tag, join, line, quoted, subnet_tag};
use crate::desired::{SubnetState, ZoneState, domain_of};

/// The file, and the owner of every line.
pub(super) fn options(subnets: &Subnets<'_>, served: &[Served<'_>]) -> (String, Vec<LineOwner>) {
    let (mut out, mut owners) = (String::new(), Vec::new());
    let mut add = |lines: String, owner| {
        owners.extend(lines.lines().map(|_| owner));
        out.push_str(&lines);
    };
    for (zone, SubnetState { subnet, .. }) in subnets {
        let mut lines = String::new();
        subnet_options(&mut lines, zone, subnet);
        add(lines, LineOwner::Subnet(subnet.cidr));
    }
    for Served { zone, reservation, .. } in served {
        let (tag, mut lines) = (host_tag(reservation), String::new());
        if !reservation.default_route.0 {
            // An empty value suppresses what the subnet says.
            line!(&mut lines, "tag:{tag},3\ntag:{tag},6\ntag:{tag},15");
        }
        for option in zone.options_of(reservation) {
            line!(&mut lines, "tag:{tag},{}", option_text(option));
        }
        add(lines, LineOwner::Reservation(reservation.ipv4));
    }
    (out, owners)
}

fn subnet_options(out: &mut String, zone: &ZoneState, subnet: &Subnet) {
    let tag = subnet_tag(subnet);
    match subnet.gateway {
        Some(gateway) => line!(out, "tag:{tag},option:router,{gateway}"),
        None => line!(out, "tag:{tag},option:router"),
    }
    match subnet.dns_servers.as_ref().unwrap_or(&zone.zone.dns_servers) {
        // dnsmasq puts its own address on that network in.
        DnsServers::Own => line!(out, "tag:{tag},option:dns-server,0.0.0.0"),
        DnsServers::List(list) if list.is_empty() => line!(out, "tag:{tag},option:dns-server"),
        DnsServers::List(list) => line!(out, "tag:{tag},option:dns-server,{}", join(list)),
    }
    line!(out, "tag:{tag},option:domain-name,{}", domain_of(&zone.zone, Some(subnet)));
    let search = subnet.search_domains.as_ref().unwrap_or(&zone.zone.search_domains);
    if !search.is_empty() {
        line!(out, "tag:{tag},option:domain-search,{}", join(search));
    }
    if let Some(mtu) = subnet.mtu {
        line!(out, "tag:{tag},option:mtu,{mtu}");
    }
    if !subnet.ntp_servers.is_empty() {
        line!(out, "tag:{tag},option:ntp-server,{}", join(&subnet.ntp_servers));
    }
    for option in zone.options_of_subnet(subnet) {
        line!(out, "tag:{tag},{}", option_text(option));
    }
}

/// The right-hand side of an option line after its tag: `42,10.1.1.9`. dnsmasq guesses the type of
/// most values by their looks, so every form here is one it cannot mistake: numbers carry their
/// width, texts stand in quotes, and a single byte is a number.
pub(super) fn option_text(option: &DhcpOption) -> String {
    let value = match option.value() {
        OptionValue::Addresses(list) => join(list),
        OptionValue::Number(number, width) => match width {
            Width::U8 => format!("{number}b"),
            Width::U16 => format!("{number}s"),
            Width::I32 => format!("{number}i"),
            // Read as a signed number, whatever it stands for.
            Width::U32 => format!("{}i", low_bits(*number)),
        },
        OptionValue::Flag(flag) => format!("{}b", u8::from(*flag)),
        OptionValue::Text(text) => quoted(text),
        // A domain of digits would be a number or a bad address.
        OptionValue::Domains(list) => {
            list.iter().map(|domain| quoted(domain.as_str())).collect::<Vec<_>>().join(",")
        }
        OptionValue::Routes(list) => {
            let hops = list.iter().map(|(to, prefix, via)| format!("{to}/{prefix},{via}"));
            hops.collect::<Vec<_>>().join(",")
        }
        // Without a colon digits are a decimal number, and letters are text.
        OptionValue::Bytes(bytes) => match bytes.as_slice() {
            [byte] => format!("{byte}b"),
            bytes => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
        },
    };
    if option.code() == 255 {
        return format!("option:server-ip-address,{value}");
    }
    format!("{},{value}", option.code())
}

/// The bits of an unsigned 32-bit number as a signed one.
fn low_bits(number: i64) -> i32 {
    u32::try_from(number).unwrap_or(0).cast_signed()
}
