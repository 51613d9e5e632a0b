//! Hosts that are asked without the web proxy.

use std::net::IpAddr;
use std::str::FromStr;

use bedrock::net::Network;

/// One entry: a network, a host, or everything in a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Direct {
    Network(Network),
    /// In lower case, without a dot in front. It holds for the name and for those below it.
    Domain(String),
}

impl FromStr for Direct {
    type Err = &'static str;

    /// `10.0.0.0/8`, `mirror.example`, `.example`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().trim_matches(['[', ']']);
        if let Ok(network) = text.parse::<Network>() {
            return Ok(Self::Network(network));
        }
        let name = text.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
        let is_name = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_name { Ok(Self::Domain(name)) } else { Err("neither a network nor a host") }
    }
}

/// All entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NoProxy(pub Vec<Direct>);

impl NoProxy {
    /// Whether a URL's host is asked without the proxy. A name is not resolved for this: behind a
    /// proxy there may be nobody to resolve it.
    pub fn holds(&self, host: &str) -> bool {
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        self.0.iter().any(|entry| match entry {
            Direct::Network(network) => address.is_some_and(|address| network.contains(address)),
            Direct::Domain(domain) => {
                let below = host.strip_suffix(domain.as_str());
                below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hosts_and_domains_are_asked_directly() {
        let entries = ["10.0.0.0/8", "mirror.example", ".house.test", "*.lab.test", "[fd00::1]"];
        let direct = NoProxy(entries.iter().map(|entry| entry.parse().unwrap()).collect());
        let check = |host: &str, expected: bool| assert_eq!(direct.holds(host), expected, "{host}");
        check("10.1.2.3", true);
        check("11.1.2.3", false);
        check("[fd00::1]", true);
        check("Mirror.Example.", true);
        check("a.mirror.example", true);
        check("notmirror.example", false);
        check("house.test", true);
        check("x.lab.test", true);
        check("elsewhere.example", false);
        assert!(!NoProxy::default().holds("h"));
        for bad in ["", ".", "a b", "http://h"] {
            assert!(bad.parse::<Direct>().is_err(), "{bad}");
        }
    }
}
