//! PURE: what `ss` says about the ports of DHCP and DNS → who has them besides us.

use dhcp_api::words::InterfaceName;

/// Who serves DHCP on exactly this interface. One without an interface is left to the kernel, which
/// refuses dnsmasq the port when they would collide.
pub(crate) fn other_dhcp_server(listeners: &str, interface: &InterfaceName) -> Option<String> {
    let local = format!("%{interface}:67");
    let found = |line: &&str| {
        let mut fields = line.split_whitespace();
        fields.next() == Some("udp") && fields.nth(3).is_some_and(|field| field.ends_with(&local))
    };
    listeners.lines().find(found).map(|line| told(line, 67))
}

/// Who has a port on any address.
pub(crate) fn holder(listeners: &str, port: u16) -> Option<String> {
    let suffix = format!(":{port}");
    let found =
        |line: &&str| line.split_whitespace().nth(4).is_some_and(|local| local.ends_with(&suffix));
    listeners.lines().find(found).map(|line| told(line, port))
}

/// `users:(("dnsmasq",pid=4711,fd=4))` → `dnsmasq (pid 4711) has port 67`. The kernel tells the
/// program only to those who may look into it.
fn told(line: &str, port: u16) -> String {
    let user = line.split_once("users:((\"").and_then(|(_, users)| {
        let (program, rest) = users.split_once("\",pid=")?;
        Some(format!("{program} (pid {})", rest.split(',').next()?))
    });
    format!("{} has port {port}", user.as_deref().unwrap_or("another program"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As iproute2 6.1 of Debian 12 prints it.
    const LISTENERS: &str = "\
udp UNCONN 0      0        10.77.0.1:53 0.0.0.0:* users:((\"dnsmasq\",pid=195,fd=6)) \n\
udp UNCONN 0      0      0.0.0.0%br0:67 0.0.0.0:* users:((\"dnsmasq\",pid=195,fd=4)) \n\
udp UNCONN 0      0      0.0.0.0%br1:67 0.0.0.0:*\n\
tcp LISTEN 0      32     0.0.0.0:53 0.0.0.0:* users:((\"named\",pid=7,fd=7),(\"named\",pid=8,fd=7))\n";

    #[test]
    fn the_holder_of_a_port_is_named() {
        let check = |name: &str, expected: Option<&str>| {
            let found = other_dhcp_server(LISTENERS, &name.parse().unwrap());
            assert_eq!(found.as_deref(), expected, "{name}");
        };
        check("br0", Some("dnsmasq (pid 195) has port 67"));
        check("br1", Some("another program has port 67"));
        check("0", None);
        check("br2", None);
        assert_eq!(holder(LISTENERS, 53).as_deref(), Some("dnsmasq (pid 195) has port 53"));
        assert_eq!(holder("", 53), None);
        assert_eq!(holder("Dnsmasq version 2.90", 67), None);
    }
}
