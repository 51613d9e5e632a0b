//! How a VM's VNC server is reached, as a console token or the management server says it.

use std::fmt;

use bedrock::Secret;
use bedrock::net::HostPort;

/// Where a VM's VNC server is. URLs and sessions are credentials and never printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// RFB over TCP.
    Tcp { host: String, port: u16 },
    /// An HTTP CONNECT to a XenServer host, with a session of its API.
    Tunnel { url: Secret<String>, session: Secret<String> },
    /// A WebSocket of an ESXi host.
    WebSocket { url: Secret<String> },
    /// Remote desktop of a Hyper-V host.
    HyperV { host: String },
}

/// An [`Upstream`] without its particulars, for words and counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamKind {
    Tcp,
    Tunnel,
    WebSocket,
    HyperV,
}

impl Upstream {
    /// RFB over TCP, if these can be dialled. A host in brackets is an address.
    pub fn tcp(host: &str, port: i32) -> Option<Self> {
        let host = host.trim();
        let inside = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = inside.unwrap_or(host);
        let port = u16::try_from(port).ok().filter(|port| *port > 0)?;
        (!host.is_empty()).then(|| Self::Tcp { host: host.to_owned(), port })
    }

    /// An HTTP tunnel, if both are given.
    pub fn tunnel(url: &str, session: &str) -> Option<Self> {
        let filled = !url.trim().is_empty() && !session.trim().is_empty();
        filled.then(|| Self::Tunnel {
            url: Secret::new(url.to_owned()),
            session: Secret::new(session.to_owned()),
        })
    }

    /// Reached by a ticket that works once.
    pub const fn is_ticket(&self) -> bool {
        matches!(self, Self::WebSocket { .. })
    }

    pub const fn kind(&self) -> UpstreamKind {
        match self {
            Self::Tcp { .. } => UpstreamKind::Tcp,
            Self::Tunnel { .. } => UpstreamKind::Tunnel,
            Self::WebSocket { .. } => UpstreamKind::WebSocket,
            Self::HyperV { .. } => UpstreamKind::HyperV,
        }
    }
}

/// A ticket for a screen of an ESXi host, out of the URL in a console token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub host: String,
    pub port: u16,
}

impl Ticket {
    /// `wss://HOST[:443]/ticket/ID`, and nothing else: whatever a token says, we are not sent to
    /// other services of other machines.
    pub fn parse(url: &str) -> Option<Self> {
        let (authority, id) = url.strip_prefix("wss://")?.split_once("/ticket/")?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
        if id.is_empty() || id.len() > 512 || !id.chars().all(plain) {
            return None;
        }
        let HostPort { host, port } = authority.parse().ok()?;
        let named = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
        if host.is_empty() || !host.chars().all(named) || !matches!(port, None | Some(443)) {
            return None;
        }
        Some(Self { host, port: 443 })
    }
}

/// For the log and `/status`: an address, or only the kind where the rest is a credential.
impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => HostPort { host: host.clone(), port: Some(*port) }.fmt(f),
            Self::HyperV { host } => HostPort { host: host.clone(), port: None }.fmt(f),
            Self::Tunnel { .. } | Self::WebSocket { .. } => self.kind().fmt(f),
        }
    }
}

impl fmt::Display for UpstreamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "RFB over TCP",
            Self::Tunnel => "HTTP tunnel of a XenServer host",
            Self::WebSocket => "WebSocket of a VMware host",
            Self::HyperV => "remote desktop of a Hyper-V host",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_dialled_without_brackets_and_shown_with_them() {
        let check = |host: &str, port: i32, shown: Option<&str>| {
            let upstream = Upstream::tcp(host, port);
            assert_eq!(upstream.map(|u| u.to_string()).as_deref(), shown, "{host} {port}");
        };
        check("192.0.2.21", 5901, Some("192.0.2.21:5901"));
        check("kvm-1.example.org", 5901, Some("kvm-1.example.org:5901"));
        check("2001:db8:0:0:0:0:0:1", 5901, Some("[2001:db8:0:0:0:0:0:1]:5901"));
        check("[2001:db8::1]", 5901, Some("[2001:db8::1]:5901"));
        check("fe80::1%eth0", 5901, Some("[fe80::1%eth0]:5901"));
        for (host, port) in
            [("", 5901), (" ", 5901), ("[]", 5901), ("h", 0), ("h", -1), ("h", 65_536)]
        {
            check(host, port, None);
        }
    }

    #[test]
    fn a_ticket_leads_to_a_host_and_nowhere_else() {
        let host = |url: &str| Ticket::parse(url).map(|ticket| (ticket.host, ticket.port));
        let good = |host: &str| Some((host.to_owned(), 443));
        assert_eq!(host("wss://10.0.0.9:443/ticket/5f1c-0a"), good("10.0.0.9"));
        assert_eq!(host("wss://esxi.example.org/ticket/a"), good("esxi.example.org"));
        assert_eq!(host("wss://[2001:db8::9]:443/ticket/a"), good("2001:db8::9"));
        for bad in [
            "ws://10.0.0.9/ticket/a",
            "https://10.0.0.9/ticket/a",
            "wss://10.0.0.9:8443/ticket/a",
            "wss://u:p@10.0.0.9/ticket/a",
            "wss://10.0.0.9/ticket/",
            "wss://10.0.0.9/ticket/a/b",
            "wss://10.0.0.9/ticket/a?x",
            "wss://10.0.0.9/ticket/a%0d",
            "wss://10.0.0.9/x/ticket/a",
            "wss:///ticket/a",
            "",
        ] {
            assert_eq!(host(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_a_credential_is_shown_as_its_kind() {
        let tunnel = Upstream::tunnel("https://10.0.0.5/console?uuid=x", "OpaqueRef:1").unwrap();
        let socket = Upstream::WebSocket { url: Secret::new("wss://h/ticket/1".to_owned()) };
        for (upstream, shown) in
            [(tunnel, "HTTP tunnel of a XenServer host"), (socket, "WebSocket of a VMware host")]
        {
            assert_eq!(upstream.to_string(), shown);
            let debug = format!("{upstream:?}");
            assert!(!debug.contains("://") && !debug.contains("OpaqueRef"), "{debug}");
        }
        assert_eq!(Upstream::tunnel("https://10.0.0.5/", " "), None);
    }
}
