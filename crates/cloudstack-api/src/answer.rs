//! An answer, or why there is none.

use std::fmt;

use crate::commands::Command;
use crate::xml::{Element, ReadError, with_root};

/// Why the server did not do what was asked, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} ({code}): {text}")]
pub struct Refusal {
    pub kind: RefusalKind,
    /// Error code of the API, which is also the HTTP status.
    pub code: u16,
    /// A finer code that some refusals carry.
    pub cs_code: Option<u32>,
    /// What the server said, on one line; bounded.
    pub text: String,
}

/// The refusals that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// 401: key, signature or expiry, or a command that this server does not know.
    Unauthorized,
    /// 429: too many calls; later ones are answered.
    Throttled,
    /// 431: a parameter is wrong, or names nothing that exists.
    Parameter,
    /// 432: the caller's role does not allow the command.
    NotAllowed,
    /// 511: the account needs a second factor, which a key pair cannot give.
    SecondFactor,
    /// 530: an error of the server itself.
    Internal,
    /// 531: the object is not the caller's.
    NotOwner,
    /// 533, 534, 535: no capacity or resource left.
    Capacity,
    /// Any other.
    Other,
}

impl From<u16> for RefusalKind {
    fn from(code: u16) -> Self {
        match code {
            401 => Self::Unauthorized,
            429 => Self::Throttled,
            431 => Self::Parameter,
            432 => Self::NotAllowed,
            511 => Self::SecondFactor,
            530 => Self::Internal,
            531 => Self::NotOwner,
            533..=535 => Self::Capacity,
            _ => Self::Other,
        }
    }
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unauthorized => "the credentials are not accepted",
            Self::Throttled => "too many calls",
            Self::Parameter => "a parameter is not accepted",
            Self::NotAllowed => "the role of the user does not allow the command",
            Self::SecondFactor => "the account needs a second factor",
            Self::Internal => "internal error of the server",
            Self::NotOwner => "the object belongs to somebody else",
            Self::Capacity => "no capacity is left",
            Self::Other => "the server refused",
        })
    }
}

impl RefusalKind {
    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Throttled | Self::Internal)
    }
}

/// Longest text of the server that is kept.
const TEXT: usize = 2000;

impl Refusal {
    /// The refusal that an element holds, when it holds one.
    pub(crate) fn read(element: Element<'_, '_>) -> Result<Option<Self>, ReadError> {
        let Some(code) = element.field::<Option<u16>>("errorcode")? else { return Ok(None) };
        let text: Option<String> = element.field("errortext")?;
        Ok(Some(Self::new(code, element.field("cserrorcode")?, &text.unwrap_or_default())))
    }

    pub(crate) fn new(code: u16, cs_code: Option<u32>, text: &str) -> Self {
        let text = text.replace(char::is_control, " ").chars().take(TEXT).collect();
        Self { kind: code.into(), code, cs_code, text }
    }
}

/// Reads the answer to `C`: what was asked for, or a refusal. Anything else is an error, so that
/// a page of a proxy, a cut document or another command's answer never counts as an empty list.
pub fn read<C: Command>(bytes: &[u8]) -> Result<Result<C::Answer, Refusal>, ReadError> {
    let expected = C::NAME.to_ascii_lowercase() + "response";
    with_root(bytes, |root| {
        let is_error = root.name() == "errorresponse";
        if (is_error || root.name() == expected)
            && let Some(refusal) = Refusal::read(root)?
        {
            return Ok(Err(refusal));
        }
        if root.name() != expected {
            return Err(ReadError::WrongRoot { expected, found: root.name().to_owned() });
        }
        C::read(root).map(Ok)
    })
}
