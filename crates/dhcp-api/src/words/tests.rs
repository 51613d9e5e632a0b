//! What is a value and what is not.

use super::*;
use proptest::prelude::*;

fn check<T: FromStr<Err = Invalid> + fmt::Display>(input: &str, expected: Option<&str>) {
    let parsed = input.parse::<T>().ok().map(|value| value.to_string());
    assert_eq!(parsed.as_deref(), expected, "{input:?}");
}

#[test]
fn mac_addresses_are_normalised_or_refused() {
    check::<MacAddress>("1E-00-5A-00-01-2B", Some("1e:00:5a:00:01:2b"));
    check::<MacAddress>("1e:00:5a:00:01:2b", Some("1e:00:5a:00:01:2b"));
    for bad in [
        "",
        "1e:00:5a:00:01",
        "1e:00:5a:00:01:2b:33",
        "1e:00:5a:00:01:*",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "01:00:5e:00:00:01",
        "1e:00:5a:00:01:2b ",
        "1e:00:5a:00:01:2g",
        "1:e:5:a:0:1",
        "+1:00:5a:00:01:2b",
    ] {
        check::<MacAddress>(bad, None);
    }
}

#[test]
fn host_names_that_dnsmasq_would_misread_are_refused() {
    check::<HostName>("Web-1", Some("web-1"));
    for bad in [
        "",
        "45m",
        "2h",
        "10",
        "10.77.0.300",
        "ignore",
        "infinite",
        "localhost",
        "data-server",
        "a,b",
        "a\nb",
        "-a",
        "a-",
        "a.b",
        "a#b",
        "set:x",
        "é",
        "a b",
    ] {
        check::<HostName>(bad, None);
    }
    check::<HostName>(&"a".repeat(63), Some(&"a".repeat(63)));
    check::<HostName>(&"a".repeat(64), None);
}

#[test]
fn networks_have_no_host_bits_and_a_sane_size() {
    check::<Cidr>("10.77.0.0/24", Some("10.77.0.0/24"));
    for bad in [
        "10.77.0.1/24",
        "10.77.0.0",
        "10.77.0.0/33",
        "10.0.0.0/7",
        "10.77.0.0/31",
        "10.77.0.0/024",
        "10.77.00.0/24",
        "127.0.0.0/8",
        "224.0.0.0/8",
        "0.0.0.0/8",
        "10.77.0.0/+24",
    ] {
        check::<Cidr>(bad, None);
    }
    let cidr: Cidr = "10.77.0.0/30".parse().unwrap();
    assert_eq!(cidr.broadcast(), Ipv4Addr::new(10, 77, 0, 3));
    assert!(cidr.has_host(Ipv4Addr::new(10, 77, 0, 2)) && !cidr.has_host(cidr.broadcast()));
    assert!(!cidr.has_host(cidr.network()) && !cidr.has_host(Ipv4Addr::new(10, 77, 0, 4)));
}

#[test]
fn domains_records_upstreams_and_interfaces() {
    check::<DomainName>("CS.example", Some("cs.example"));
    for bad in ["", ".", "a..b", "a.", ".a", "10.0.0.1", "a_b", "a,b", "a/b", &"a.".repeat(120)] {
        check::<DomainName>(bad, None);
    }
    check::<RecordName>("_ldap._tcp", Some("_ldap._tcp"));
    check::<RecordName>("@", Some("@"));
    check::<RecordName>("a b", None);
    check::<Upstream>("10.0.0.53#5353", Some("10.0.0.53#5353"));
    check::<Upstream>("::1", Some("::1"));
    check::<Upstream>("10.0.0.53#0", None);
    check::<Upstream>("dns.example", None);
    for nobody in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"] {
        check::<Upstream>(nobody, None);
    }
    check::<InterfaceName>("cloudbr0", Some("cloudbr0"));
    for bad in ["lo", "", "br*", "br 0", "a/b", "aaaaaaaaaaaaaaaa", ".."] {
        check::<InterfaceName>(bad, None);
    }
    check::<LeaseTime>("infinite", Some("infinite"));
    check::<LeaseTime>("119", None);
    check::<LeaseTime>("3600", Some("3600"));
    check::<ResourceId>("nic:6c1c-0d1e", Some("nic:6c1c-0d1e"));
    check::<ResourceId>("../x", None);
}

#[test]
fn names_of_the_reverse_trees_are_absolute() {
    let check = |name: &str, expected: &str| {
        let name: RecordName = name.parse().unwrap();
        assert_eq!(name.within(&"cs.example".parse().unwrap()), expected);
    };
    check("@", "cs.example");
    check("gate", "gate.cs.example");
    check("9.0.77.10.in-addr.arpa", "9.0.77.10.in-addr.arpa");
    check("arpa", "arpa.cs.example");
}

proptest! {
    /// Whatever is accepted survives its own text form and cannot break a line of a file.
    #[test]
    fn accepted_values_are_inert(text in "\\PC{0,40}") {
        fn inert<T: FromStr<Err = Invalid> + fmt::Display + PartialEq + fmt::Debug>(
            text: &str,
            forbidden: &[char],
        ) -> Result<(), TestCaseError> {
            if let Ok(value) = text.parse::<T>() {
                let shown = value.to_string();
                prop_assert_eq!(shown.parse::<T>().ok(), Some(value));
                prop_assert!(!shown.contains(forbidden), "{}", shown);
            }
            Ok(())
        }
        let separators = [',', '\n', '\r', '#', '"', ' ', '\t', '=', '/', '\\'];
        inert::<HostName>(&text, &separators)?;
        inert::<DomainName>(&text, &separators)?;
        inert::<RecordName>(&text, &separators)?;
        inert::<ResourceId>(&text, &separators)?;
        inert::<InterfaceName>(&text, &separators)?;
        inert::<MacAddress>(&text, &separators)?;
    }

    #[test]
    fn every_unicast_mac_round_trips(mut octets: [u8; 6]) {
        octets[0] &= !1;
        prop_assume!(octets != [0; 6]);
        let mac = MacAddress(octets);
        prop_assert_eq!(mac.to_string().parse::<MacAddress>(), Ok(mac));
    }
}
