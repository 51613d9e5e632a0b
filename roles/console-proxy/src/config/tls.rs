//! The part of the role's table that is about TLS: towards browsers and towards hosts.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use config_reader::Section;

/// How browsers are served over TLS.
#[derive(Debug, Clone)]
pub(crate) struct BrowserTls {
    pub(crate) listen: Vec<SocketAddr>,
    /// The operator named the listeners: they are served from the start, if need be with a
    /// certificate of our own.
    pub(crate) is_wanted: bool,
    pub(crate) files: Option<CertificateFiles>,
    /// As the server's setting consoleproxy.url.domain has it.
    pub(crate) url_domain: Option<String>,
}

/// A certificate chain and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl BrowserTls {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let given: Vec<SocketAddr> =
            section.list("tls_listen", "give addresses with ports, such as \"0.0.0.0:8443\"");
        let certificate = section.optional_path("certificate_file");
        let key = section.optional_path("certificate_key_file");
        let files = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(CertificateFiles { certificate, key }),
            (None, None) => None,
            (certificate, _) => {
                let (there, missing) = match certificate {
                    Some(_) => ("certificate_file", "certificate_key_file"),
                    None => ("certificate_key_file", "certificate_file"),
                };
                let remedy = format!("give {missing} as well, or leave both out");
                section.violation(there, "is only half of a certificate and its key", remedy);
                None
            }
        };
        let url_domain = url_domain(section);
        let is_wanted = !given.is_empty() || files.is_some();
        let unspecified = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let listen =
            if given.is_empty() { vec![unspecified(443), unspecified(8443)] } else { given };
        Self { listen, is_wanted, files, url_domain }
    }

    /// The host in the server's links, as it makes it of the setting and the proxy's address; `None`
    /// when the setting is not known here.
    pub(crate) fn host_of_links(&self, public: IpAddr) -> Option<String> {
        let domain = self.url_domain.as_deref()?;
        Some(match domain.strip_prefix('*') {
            Some(rest) => format!("{}{rest}", public.to_string().replace('.', "-")),
            None => domain.to_owned(),
        })
    }
}

fn url_domain(section: &mut Section<'_>) -> Option<String> {
    let remedy = "give what consoleproxy.url.domain has, such as \"*.console.example.org\"";
    let text: String = section.optional("url_domain", remedy)?;
    let name = text.strip_prefix("*.").unwrap_or(&text);
    let labels = |name: &str| {
        name.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    if name.len() <= 253 && labels(name) {
        return Some(text);
    }
    section.violation("url_domain", format!("{text:?} is not a name"), remedy);
    None
}

/// Which certificates of VMs' hosts are believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum HostTlsPolicy {
    /// Chain to the CA of the agent's own certificate, dates, name.
    Verify,
    /// The same, but an expired certificate is only told: hosts keep theirs until they restart VMs.
    #[default]
    VerifyIgnoreExpiry,
    /// Encrypted, to whoever answers.
    AcceptAny,
    /// Never encrypted, even where the host offers it.
    Off,
}

impl HostTlsPolicy {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Verify, "verify"),
        (Self::VerifyIgnoreExpiry, "verify-ignore-expiry"),
        (Self::AcceptAny, "accept-any"),
        (Self::Off, "off"),
    ];
}

impl std::fmt::Display for HostTlsPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = Self::ALL.iter().find(|(policy, _)| policy == self);
        f.write_str(word.map_or("", |(_, word)| word))
    }
}

impl std::str::FromStr for HostTlsPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let word = Self::ALL.iter().find(|(_, word)| *word == text);
        word.map(|(policy, _)| *policy).ok_or_else(|| format!("{text:?} is not a policy"))
    }
}

/// How long browsers are told to come back over TLS only; zero tells them nothing.
pub(super) fn hsts(section: &mut Section<'_>) -> Duration {
    section.duration("hsts", Duration::from_secs(30 * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(domain: &str, public: &str) -> Option<String> {
        let tls = BrowserTls {
            listen: Vec::new(),
            is_wanted: false,
            files: None,
            url_domain: Some(domain.to_owned()),
        };
        tls.host_of_links(public.parse().unwrap())
    }

    #[test]
    fn the_host_of_links_is_made_as_the_server_makes_it() {
        let check = |domain: &str, public: &str, expected: &str| {
            assert_eq!(host(domain, public).as_deref(), Some(expected), "{domain}");
        };
        check("*.console.example", "127.0.0.3", "127-0-0-3.console.example");
        check("console.example.org", "192.0.2.10", "console.example.org");
    }

    #[test]
    fn policies_are_read_as_they_are_shown() {
        for (policy, word) in HostTlsPolicy::ALL {
            assert_eq!((policy.to_string().as_str(), word.parse()), (word, Ok(policy)));
        }
        assert!("verified".parse::<HostTlsPolicy>().is_err());
    }
}
