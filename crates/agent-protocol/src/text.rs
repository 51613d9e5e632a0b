//! Addresses with credentials inside, which must not reach a log.
//!
//! Typed bodies derive `Debug`, and a body may be printed by anybody. So the rule sits in the
//! field's type, not in each caller's care: this one for URLs, [`bedrock::Secret`] for the rest.

use std::fmt;
use std::ops::Deref;

/// A URL; user info and query are left out when it is printed with `{:?}`, since both may hold a
/// password (`cifs://host/share?user=…&password=…`).
#[derive(Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct UrlText(String);

impl UrlText {
    /// Wraps `url` as it stands.
    pub fn new(url: impl Into<String>) -> UrlText {
        UrlText(url.into())
    }

    /// The whole URL, credentials included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The URL without user info and query, fit for a log.
    pub fn masked(&self) -> String {
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), self.0.as_str()),
        };
        let (address, query) = match rest.split_once(['?', '#']) {
            // An `@` behind the mark may end a password that holds the mark: show nothing.
            Some((_, query)) if query.contains('@') => return format!("{scheme}***"),
            Some((address, _)) => (address, "?***"),
            None => (rest, ""),
        };
        match address.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}***@{host}{query}"),
            None => format!("{scheme}{address}{query}"),
        }
    }
}

impl Deref for UrlText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<String> for UrlText {
    fn from(url: String) -> UrlText {
        UrlText(url)
    }
}

impl From<&str> for UrlText {
    fn from(url: &str) -> UrlText {
        UrlText(url.to_owned())
    }
}

impl From<UrlText> for String {
    fn from(url: UrlText) -> String {
        url.0
    }
}

impl fmt::Debug for UrlText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.masked(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_printed_without_credentials() {
        for (url, printed) in [
            ("nfs://10.0.0.9/export/sec", "nfs://10.0.0.9/export/sec"),
            ("http://u:hunter2@host/a.iso", "http://***@host/a.iso"),
            ("http://u:hun@ter2@host/a.iso", "http://***@host/a.iso"),
            ("cifs://host/share?user=u&password=hunter2", "cifs://host/share?***"),
            ("http://host/a#hunter2", "http://host/a?***"),
            ("http://u:hun?ter2@host/a", "http://***"),
            ("http://host/a?password=hun@ter2", "http://***"),
            ("u:hunter2@host/a", "***@host/a"),
            ("plain", "plain"),
        ] {
            assert_eq!(UrlText::new(url).masked(), printed);
        }
    }
}
