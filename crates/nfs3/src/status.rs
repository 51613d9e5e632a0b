//! Outcomes of NFS calls (RFC 1813 section 2.6).

use std::fmt;
use std::io::ErrorKind;

use crate::xdr::{Decoder, Malformed};

/// A status other than success, as the server gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl Status {
    pub const PERMISSION: Self = Self(1);
    pub const NOT_FOUND: Self = Self(2);
    pub const IO: Self = Self(5);
    pub const ACCESS: Self = Self(13);
    pub const EXISTS: Self = Self(17);
    pub const NOT_DIRECTORY: Self = Self(20);
    pub const IS_DIRECTORY: Self = Self(21);
    pub const INVALID: Self = Self(22);
    pub const TOO_LARGE: Self = Self(27);
    pub const NO_SPACE: Self = Self(28);
    pub const READ_ONLY: Self = Self(30);
    pub const TOO_MANY_LINKS: Self = Self(31);
    pub const NAME_TOO_LONG: Self = Self(63);
    pub const NOT_EMPTY: Self = Self(66);
    pub const QUOTA: Self = Self(69);
    pub const STALE: Self = Self(70);
    pub const BAD_HANDLE: Self = Self(10001);
    pub const BAD_COOKIE: Self = Self(10003);
    pub const NOT_SUPPORTED: Self = Self(10004);
    pub const TOO_SMALL: Self = Self(10005);
    pub const SERVER_FAULT: Self = Self(10006);
    /// The server will do it, later.
    pub const LATER: Self = Self(10008);

    /// The handle in the call means nothing to the server any more.
    pub fn is_stale(self) -> bool {
        self == Self::STALE || self == Self::BAD_HANDLE
    }

    pub fn kind(self) -> ErrorKind {
        match self {
            Self::PERMISSION | Self::ACCESS => ErrorKind::PermissionDenied,
            Self::NOT_FOUND => ErrorKind::NotFound,
            Self::EXISTS => ErrorKind::AlreadyExists,
            Self::NOT_DIRECTORY => ErrorKind::NotADirectory,
            Self::IS_DIRECTORY => ErrorKind::IsADirectory,
            Self::INVALID | Self::NAME_TOO_LONG => ErrorKind::InvalidInput,
            Self::TOO_LARGE => ErrorKind::FileTooLarge,
            Self::NO_SPACE => ErrorKind::StorageFull,
            Self::READ_ONLY => ErrorKind::ReadOnlyFilesystem,
            Self::NOT_EMPTY => ErrorKind::DirectoryNotEmpty,
            Self::QUOTA => ErrorKind::QuotaExceeded,
            Self::STALE | Self::BAD_HANDLE => ErrorKind::StaleNetworkFileHandle,
            Self::NOT_SUPPORTED => ErrorKind::Unsupported,
            _ => ErrorKind::Other,
        }
    }

    const fn text(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "operation not permitted",
            2 => "no such file or directory",
            5 => "input/output error of the server's disk",
            6 | 19 => "no such device",
            13 => "permission denied",
            17 => "it exists already",
            18 => "not on one file system",
            20 => "not a directory",
            21 => "it is a directory",
            22 => "invalid argument",
            27 => "file too large",
            28 => "no space left on the server",
            30 => "the export is read-only",
            31 => "too many links",
            63 => "name too long",
            66 => "directory not empty",
            69 => "quota exceeded",
            70 => "stale file handle",
            71 => "too many levels of remote",
            10_001 => "bad file handle",
            10_002 => "not synchronized",
            10_003 => "stale position in a directory",
            10_004 => "not supported by the server",
            10_005 => "buffer too small",
            10_006 => "fault of the server",
            10_007 => "type not supported by the server",
            10_008 => "the server is not ready yet",
            _ => return None,
        })
    }

    /// Success, or the status.
    pub fn decode(reply: &mut Decoder) -> Result<Result<(), Self>, Malformed> {
        Ok(match reply.u32()? {
            0 => Ok(()),
            status => Err(Self(status)),
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => write!(f, "NFS status {}", self.0),
        }
    }
}
