//! Where a download comes from: URL, credentials, proxy.

use std::fmt;

use bedrock::Secret;
use percent_encoding::percent_decode_str;
use reqwest::Url;

use crate::redacted::RedactedUrl;
use crate::sources::SourceError;

/// User name and password for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: Secret<String>,
}

/// A web proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxySetting {
    pub host: String,
    pub port: u16,
    pub credentials: Option<Credentials>,
}

const DEFAULT_PROXY_PORT: u16 = 3128;

impl ProxySetting {
    pub fn new(host: &str, port: Option<u16>, credentials: Option<Credentials>) -> Self {
        let port = port.filter(|port| *port != 0).unwrap_or(DEFAULT_PROXY_PORT);
        Self { host: host.trim_matches(['[', ']']).to_owned(), port, credentials }
    }

    pub fn url(&self) -> String {
        if self.host.contains(':') {
            format!("http://[{}]:{}", self.host, self.port)
        } else {
            format!("http://{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for ProxySetting {
    type Err = &'static str;

    /// `http://[user:password@]host[:port]`; the scheme may be left out.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url: Url = full.parse().map_err(|_bad| "not a proxy URL")?;
        if url.scheme() != "http" {
            return Err("a proxy is spoken to by http only: its URL begins with another scheme");
        }
        let host = url.host_str().ok_or("the proxy URL has no host")?;
        // The URL parser drops an explicit :80 as the scheme's default.
        let explicit = full.trim_end_matches('/').ends_with(":80").then_some(80);
        Ok(Self::new(host, url.port().or(explicit), credentials_of(&url)))
    }
}

fn credentials_of(url: &Url) -> Option<Credentials> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    Some(Credentials {
        user: decode(url.username()),
        password: Secret::new(decode(url.password().unwrap_or_default())),
    })
}

/// A checked http or https URL without user info; prints without its query, which may hold a
/// signature.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceUrl {
    url: Url,
    credentials: Option<Credentials>,
}

impl SourceUrl {
    /// User info in the URL becomes credentials for exactly that host and port.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let bad = |reason| SourceError::Url { url: RedactedUrl::of(text), reason };
        let mut url: Url = text.trim().parse().map_err(|_bad| bad("it cannot be parsed"))?;
        if url.cannot_be_a_base() {
            // What stands before its colon may be a user.
            return Err(bad("it begins with none of http://, https://, nfs:// and file://"));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(SourceError::Scheme(url.scheme().to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(bad("it has no host"));
        }
        let credentials = credentials_of(&url);
        url.set_fragment(None);
        if url.set_username("").and_then(|()| url.set_password(None)).is_err() {
            return Err(bad("its user info cannot be used"));
        }
        Ok(Self { url, credentials })
    }

    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Host and port.
    pub fn server(&self) -> String {
        let port = self.url.port_or_known_default().unwrap_or_default();
        format!("{}:{port}", self.url.host_str().unwrap_or_default())
    }

    pub const fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }
}

impl fmt::Debug for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SourceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        RedactedUrl::of(self.url.as_str()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_info_becomes_credentials_and_is_never_shown() {
        let source =
            SourceUrl::parse("https://us%40er:p%3Aw@images.example/a.qcow2?sig=geheim#x").unwrap();
        let credentials = source.credentials().unwrap();
        assert_eq!(
            (credentials.user.as_str(), credentials.password.reveal().as_str()),
            ("us@er", "p:w")
        );
        let shown = format!("{source} {source:?} {credentials:?}");
        assert!(
            !shown.contains("p%3Aw") && !shown.contains("p:w") && !shown.contains("geheim"),
            "{shown}"
        );
        assert_eq!(source.url().as_str(), "https://images.example/a.qcow2?sig=geheim");
        let error = SourceUrl::parse("http://user:geheim@:80/x").unwrap_err().to_string();
        assert!(!error.contains("geheim"), "{error}");
        for odd in
            ["geheim:pw@h/x", "ftp://geheim:geheim@h/x?geheim", "http://geheim@", "//geheim@h"]
        {
            let error = SourceUrl::parse(odd).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("geheim"), "{error}");
        }
    }

    #[test]
    fn only_http_and_https_are_fetched() {
        for bad in ["ftp://h/x", "file:///etc/passwd", "nfs://h/x", "scp://h/x", "x", ""] {
            assert!(SourceUrl::parse(bad).is_err(), "{bad}");
        }
        let short = SourceUrl::parse("http://0x7f.1/x").unwrap();
        assert_eq!(short.url().host_str(), Some("127.0.0.1"), "odd spellings are resolved here");
    }

    #[test]
    fn proxies_have_a_default_port() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<ProxySetting>().unwrap().url(), expected, "{text}");
        };
        check("http://proxy.example", "http://proxy.example:3128");
        check("proxy.example:80", "http://proxy.example:80");
        check("http://u:p@[fd00::1]:8080/", "http://[fd00::1]:8080");
        assert!("https://proxy.example".parse::<ProxySetting>().is_err());
    }
}
