//! The lease file of dnsmasq: who holds which address.
//!
//! dnsmasq rewrites the file in place at every change, so a reader may see a short last line;
//! what is not a whole line is left out. The file is never edited while dnsmasq runs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use dhcp_api::words::MacAddress;

/// Beyond any file of 50,000 leases.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// One IPv4 lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Seconds since 1970; `None` for an infinite lease.
    pub expires: Option<u64>,
    pub mac: MacAddress,
    pub ipv4: Ipv4Addr,
    pub hostname: Option<String>,
    pub client_id: Option<String>,
}

/// Leases by address.
pub type Leases = HashMap<Ipv4Addr, Lease>;

/// Reads every whole line; other lines (IPv6, server id, torn ones) are left out.
pub fn parse(text: &str) -> Vec<Lease> {
    text.split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'))
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &str) -> Option<Lease> {
    let mut fields = line.split(' ');
    let expires: u64 = fields.next()?.parse().ok()?;
    let mac = fields.next()?;
    // Ethernet may be spelled with its hardware type: "01-1e:00:…".
    let mac = mac.strip_prefix("01-").unwrap_or(mac).parse().ok()?;
    let ipv4 = fields.next()?.parse().ok()?;
    let optional = |field: &str| (field != "*").then(|| field.to_owned());
    let hostname = optional(fields.next()?);
    let client_id = optional(fields.next()?);
    Some(Lease { expires: (expires != 0).then_some(expires), mac, ipv4, hostname, client_id })
}

/// Reads the file; an absent file holds no lease.
pub fn read(path: &Path) -> io::Result<Vec<Lease>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_FILE => {
            Err(io::Error::from(io::ErrorKind::FileTooLarge))
        }
        Ok(_) => Ok(parse(&String::from_utf8_lossy(&std::fs::read(path)?))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The file's text without the leases that `is_stale` names. For the time when dnsmasq is down.
pub fn without(text: &str, is_stale: impl Fn(&Lease) -> bool) -> String {
    text.split_inclusive('\n')
        .filter(|line| !parse_line(line.trim_end()).is_some_and(|lease| is_stale(&lease)))
        .collect()
}

/// A DHCPRELEASE of `lease` as its client would send it to the server known as `server_id`
/// (RFC 2131, 4.4.4).
pub fn release_packet(lease: &Lease, server_id: Ipv4Addr, transaction: u32) -> Vec<u8> {
    const COOKIE: [u8; 4] = [99, 130, 83, 99];
    let mut packet = Vec::with_capacity(300);
    // op, hardware type, hardware address length, hops
    packet.extend([1, 1, 6, 0]);
    packet.extend(transaction.to_be_bytes());
    // seconds, flags
    packet.extend([0; 4]);
    packet.extend(lease.ipv4.octets());
    // yiaddr, siaddr, giaddr
    packet.extend([0; 12]);
    packet.extend(lease.mac.octets());
    // rest of the hardware address, server name, file name
    packet.extend([0; 10 + 64 + 128]);
    packet.extend(COOKIE);
    packet.extend([53, 1, 7]);
    packet.extend([54, 4]);
    packet.extend(server_id.octets());
    packet.push(255);
    packet.resize(300, 0);
    packet
}

/// A line as dnsmasq writes it; for tests and logs.
impl std::fmt::Display for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.expires.unwrap_or(0), self.mac, self.ipv4)?;
        for field in [&self.hostname, &self.client_id] {
            f.write_char(' ')?;
            f.write_str(field.as_deref().unwrap_or("*"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "1795342369 1e:00:5a:00:01:2b 10.1.1.50 web-1 01:1e:00:5a:00:01:2b\n\
        0 01-1e:00:5a:00:01:2c 10.1.1.51 * *\n\
        duid 00:01:00:01\n\
        1795342369 7 fd00::1 web-1 00:01\n";

    #[test]
    fn infinite_and_finite_leases_are_read_and_the_rest_left_out() {
        let leases = parse(FILE);
        assert_eq!(leases.len(), 2);
        assert_eq!(leases[0].expires, Some(1_795_342_369));
        assert_eq!(leases[0].hostname.as_deref(), Some("web-1"));
        assert_eq!(leases[1].to_string(), "0 1e:00:5a:00:01:2c 10.1.1.51 * *");
    }

    #[test]
    fn a_torn_file_loses_only_its_last_line() {
        for cut in 0..FILE.len() {
            let whole = FILE[..cut].matches('\n').count().min(2);
            assert_eq!(parse(&FILE[..cut]).len(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn removing_a_lease_keeps_every_other_line() {
        let kept = without(FILE, |lease| lease.ipv4 == Ipv4Addr::new(10, 1, 1, 51));
        assert_eq!(kept.lines().count(), 3);
        assert!(!kept.contains("10.1.1.51") && kept.contains("duid"));
    }

    #[test]
    fn the_release_names_address_mac_and_server() {
        let lease = parse(FILE).remove(0);
        let packet = release_packet(&lease, Ipv4Addr::new(10, 1, 1, 1), 7);
        assert_eq!(packet.len(), 300);
        assert_eq!(packet[12..16], [10, 1, 1, 50]);
        assert_eq!(packet[28..34], [0x1e, 0, 0x5a, 0, 1, 0x2b]);
        assert_eq!(packet[236..249], [99, 130, 83, 99, 53, 1, 7, 54, 4, 10, 1, 1, 1]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}") {
            for lease in parse(&text) {
                prop_assert_eq!(parse(&format!("{lease}\n")), vec![lease]);
            }
        }
    }
}
