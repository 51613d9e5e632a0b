//! Text that must not reach a log: secrets, and addresses with credentials inside.
//!
//! Typed bodies derive `Debug`, and a body may be printed by anybody. So the rule sits in the
//! field's type, not in each caller's care.

use std::fmt;
use std::ops::Deref;

/// A password, key or ticket; printed as `***`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Hidden(String);

impl Hidden {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Hidden {
        Hidden(text.into())
    }

    /// The text itself; for the one place that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The text itself, owned.
    pub fn into_inner(self) -> String {
        self.0
    }

    /// True for the empty text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Hidden {
        Hidden(text)
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Hidden {
        Hidden(text.to_owned())
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Secret bytes, on the wire an array of signed numbers; printed as their count.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HiddenBytes(Vec<u8>);

impl HiddenBytes {
    /// Hides `bytes`.
    pub fn new(bytes: Vec<u8>) -> HiddenBytes {
        HiddenBytes(bytes)
    }

    /// The bytes themselves; for the one place that needs them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for HiddenBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*** ({} bytes)", self.0.len())
    }
}

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
    fn debug_shows_no_secret() {
        assert_eq!(format!("{:?}", Hidden::new("hunter2")), "***");
        assert_eq!(format!("{:?}", HiddenBytes::new(vec![1, 2])), "*** (2 bytes)");
    }

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
