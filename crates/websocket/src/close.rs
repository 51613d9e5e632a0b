//! The body of a close frame (RFC 6455, 5.5.1 and 7.4).

use crate::receiver::FrameError;

/// Longest reason that fits into a control frame beside its code.
const REASON_LIMIT: usize = 123;

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    pub code: u16,
    pub reason: String,
}

impl CloseFrame {
    /// Reads a body; `None` for an empty one, which names no code.
    pub(crate) fn decode(body: &[u8]) -> Result<Option<Self>, FrameError> {
        let Some((code, reason)) = body.split_first_chunk::<2>() else {
            return if body.is_empty() { Ok(None) } else { Err(FrameError::CloseBody) };
        };
        let code = u16::from_be_bytes(*code);
        // 1004, 1005, 1006 and 1015 are never sent; what is below 3000 and unassigned neither.
        if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
            return Err(FrameError::CloseBody);
        }
        let reason = std::str::from_utf8(reason).map_err(|_odd| FrameError::Utf8)?.to_owned();
        Ok(Some(Self { code, reason }))
    }

    /// A body with as much of the reason as fits.
    pub fn encode(code: u16, reason: &str) -> Vec<u8> {
        let mut end = reason.len().min(REASON_LIMIT);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut body = code.to_be_bytes().to_vec();
        body.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
        body
    }
}
