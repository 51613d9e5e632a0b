//! Protocol versions: three exist, peers write many.

use std::fmt;

/// Length of a ProtocolVersion message.
pub const VERSION_LENGTH: usize = 12;

/// The version both sides speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V3,
    V7,
    V8,
}

impl Version {
    /// Reads a ProtocolVersion message. A minor version that does not exist means the highest one
    /// below it, as RFC 6143 asks of unknown versions below 3.7; the private versions 3.889, 4.x
    /// and 5.x are supersets of 3.8.
    pub fn parse(message: [u8; VERSION_LENGTH]) -> Option<Self> {
        let text = std::str::from_utf8(&message).ok()?;
        let (major, minor) = text.strip_prefix("RFB ")?.strip_suffix('\n')?.split_once('.')?;
        let number = |digits: &str| -> Option<u32> {
            let plain = digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok())?
        };
        match (number(major)?, number(minor)?) {
            (3, 0..=6) => Some(Self::V3),
            (3, 7) => Some(Self::V7),
            (3, _) | (4 | 5, _) => Some(Self::V8),
            _ => None,
        }
    }

    /// The ProtocolVersion message.
    pub const fn message(self) -> &'static [u8; VERSION_LENGTH] {
        match self {
            Self::V3 => b"RFB 003.003\n",
            Self::V7 => b"RFB 003.007\n",
            Self::V8 => b"RFB 003.008\n",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V3 => "3.3",
            Self::V7 => "3.7",
            Self::V8 => "3.8",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_minor_versions_mean_the_nearest_known_one() {
        let check = |text: &[u8; 12], expected| assert_eq!(Version::parse(*text), expected);
        check(b"RFB 003.003\n", Some(Version::V3));
        check(b"RFB 003.005\n", Some(Version::V3));
        check(b"RFB 003.006\n", Some(Version::V3));
        check(b"RFB 003.007\n", Some(Version::V7));
        check(b"RFB 003.008\n", Some(Version::V8));
        check(b"RFB 003.889\n", Some(Version::V8));
        check(b"RFB 004.001\n", Some(Version::V8));
        check(b"RFB 005.000\n", Some(Version::V8));
        check(b"RFB 000.000\n", None);
        check(b"RFB +03.008\n", None);
        check(b"HTTP/1.1 400", None);
    }
}
