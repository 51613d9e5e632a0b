//! Why a source gives no bytes. The text reaches the user, so it says what to do.

use std::net::IpAddr;
use std::time::Duration;

use crate::redacted::RedactedUrl;

/// `Display` is the text for the user, causes included (it goes into one field of an answer).
/// Where the original's text is known it is kept, blanks and all: people search for it.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("{url} is not a usable URL: {reason}")]
    Url { url: RedactedUrl, reason: &'static str },
    #[error(
        "{url} is not a usable URL: its character {place} is {}, which is not seen; remove it, or write it as {} if it is meant", unseen_name(*.character), percent_encoded(*.character)
    )]
    Unseen { url: RedactedUrl, character: char, place: usize },
    #[error(
        "nothing is downloaded by {0:?}; give a URL of http, https or nfs (nfs://HOST/EXPORT/PATH), or file:// for a file of a store of this host{hint}", hint = scheme_hint(.0)
    )]
    Scheme(String),
    #[error("it redirects to a URL of {0:?}; only http and https are followed")]
    RedirectScheme(String),
    #[error("cannot read the file: {0}")]
    File(String),
    #[error("the metalink {url} cannot be used: {reason}")]
    Metalink { url: String, reason: String },
    #[error("it has {announced} bytes instead of {length}")]
    OtherLength { length: u64, announced: u64 },
    #[error("no mirror gives the image: {0}")]
    NoMirror(String),
    #[error(
        "Illegal host specified in URL: {host} has {kind} address ({address}); the administrator can allow it in secstorage.allowed.internal.sites or in allowed_sources of the storage host"
    )]
    Address { host: String, kind: &'static str, address: IpAddr },
    #[error("cannot find the address of {host}: {reason}")]
    Resolve { host: String, reason: String, is_passing: bool },
    #[error("{0}")]
    Connect(String),
    /// No answer, for now.
    #[error("{0}")]
    Lost(String),
    #[error("cannot use the web proxy: {0}")]
    Proxy(String),
    #[error(" HTTP Server returned {0} (expected 200 OK) ")]
    Status(u16),
    /// The same for a status that may pass, with the pause that the server asks for.
    #[error(" HTTP Server returned {status} (expected 200 OK) ")]
    Busy { status: u16, wait: Option<Duration> },
    #[error(
        "Failed to download {url} due to redirection, response code: {status}; redirects are followed when the global setting store.download.follow.redirects is true"
    )]
    RedirectNotFollowed { url: RedactedUrl, status: u16 },
    #[error("Circular redirect to '{0}'")]
    RedirectLoop(RedactedUrl),
    #[error("more than {0} redirects")]
    TooManyRedirects(usize),
    #[error(
        " Failed to receive length of download ; nobody can tell then whether it comes whole: register it with its checksum"
    )]
    NoLength,
    #[error("the server sends the image in the coding {0:?} although it was asked for it as it is")]
    Coding(String),
    #[error("the server sends more than the {announced} bytes it announced")]
    Surplus { announced: u64 },
    #[error(
        "the server is too slow: {bytes} bytes in {} seconds, at least {least} bytes in each second are expected (min_rate)",
        waited.as_secs()
    )]
    TooSlow { bytes: u64, waited: Duration, least: u64 },
    #[error("the connection broke after {received} bytes{}: {reason}", of(*expected))]
    Cut { received: u64, expected: Option<u64>, reason: String },
    #[error("nothing was received for {} seconds (after {received} bytes{})", waited.as_secs(), of(*expected))]
    Stalled { waited: Duration, received: u64, expected: Option<u64> },
    /// What was received so far cannot be continued; asking for all of it anew may help.
    #[error("{0}")]
    Restart(Box<SourceError>),
    #[error("what was left of the download cannot be used")]
    Left,
    #[error("parts of different versions were put together")]
    Patched,
    #[error("the download ended unexpectedly, see the log of the storage host")]
    Internal,
}

/// Refuses characters that nobody sees. The URL parser would drop some of them without a word, and
/// put others into the path: another file than the one that was meant either way.
pub fn all_seen(text: &str) -> Result<(), SourceError> {
    let is_unseen = |c: &char| {
        c.is_control()
            // Without width, marks of the direction of text, and what a file may begin with.
            || matches!(c, '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    let mut numbered = text.trim().chars().zip(1..);
    match numbered.find(|(character, _place)| is_unseen(character)) {
        Some((character, place)) => {
            Err(SourceError::Unseen { url: RedactedUrl::of(text), character, place })
        }
        None => Ok(()),
    }
}

fn unseen_name(character: char) -> String {
    match character {
        '\n' => "a line break (U+000A)".to_owned(),
        '\r' => "a carriage return (U+000D)".to_owned(),
        '\t' => "a tab (U+0009)".to_owned(),
        other => format!("U+{:04X}", u32::from(other)),
    }
}

fn percent_encoded(character: char) -> String {
    let mut buffer = [0; 4];
    let bytes = character.encode_utf8(&mut buffer).bytes();
    bytes.map(|byte| format!("%{byte:02X}")).collect()
}

/// What to do about the usual ones.
fn scheme_hint(scheme: &str) -> &'static str {
    match scheme {
        "ftp" | "ftps" | "sftp" | "scp" => ": most servers of such files give them by https, too",
        "s3" | "swift" => ": sign a URL of https for the object",
        "cifs" | "smb" => ": serve the file by https, or from an export of NFS",
        _ => "",
    }
}

fn of(expected: Option<u64>) -> String {
    expected.map(|total| format!(" of {total}")).unwrap_or_default()
}

impl SourceError {
    /// Another attempt may succeed without anybody changing anything.
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Cut { .. } | Self::Stalled { .. } | Self::Lost(_) | Self::Busy { .. } => true,
            Self::Resolve { is_passing, .. } => *is_passing,
            _ => false,
        }
    }

    /// Whether the content should be asked for anew. Refused at the first try is an answer;
    /// refused later, the server is restarting.
    pub const fn can_begin_again(&self, had_begun: bool) -> bool {
        let is_away = matches!(self, Self::Connect(_) | Self::Resolve { .. } | Self::Proxy(_));
        matches!(self, Self::Restart(_)) || (had_begun && is_away)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_nobody_sees_are_named() {
        let check = |text: &str, expected: &str| {
            let error = all_seen(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("http://h/a\nb.qcow2", "its character 11 is a line break (U+000A)");
        check("http://h/a\r\nb", "a carriage return (U+000D), which is not seen");
        check("nfs://h/a\tb", "a tab (U+0009), which is not seen; remove it, or write it as %09");
        check("http://h/a\u{200b}.iso?sig=geheim", "U+200B");
        check("\u{feff}http://h/a", "its character 1 is U+FEFF");
        check("http://h/\u{202e}osi.a", "write it as %E2%80%AE if it is meant");
        check("http://h/a\0", "U+0000");
        let secret = all_seen("http://u:geheim@h/a\u{7}?geheim").unwrap_err().to_string();
        assert!(!secret.contains("geheim"), "{secret}");
        for good in ["  http://h/a\n", "http://h/größe 1.iso", "http://h/👩\u{200d}💻.iso"] {
            all_seen(good).unwrap();
        }
    }
}
