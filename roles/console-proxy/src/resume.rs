//! Tickets with which a page comes back to its console within the window.
//!
//! A ticket is a moment and a digest over it and the session, under a key that follows from the
//! server's token key: every proxy of the installation can tell a good one, also after a restart,
//! and none has to remember any.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Length of moment and digest in Base64.
const LENGTH: usize = 54;

/// Issues tickets and tells them.
#[derive(Clone)]
pub struct Tickets {
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tickets(***)")
    }
}

impl Tickets {
    pub(crate) const fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self { key }
    }

    fn digest(&self, session: &str, until: u64) -> Option<[u8; 32]> {
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(self.key.as_slice()).ok()?;
        mac.update(&until.to_be_bytes());
        mac.update(session.as_bytes());
        Some(mac.finalize().into_bytes().into())
    }

    /// A ticket for this session, good for `window` from `now_ms` on.
    pub fn issue(&self, session: &str, now_ms: i64, window: Duration) -> String {
        let window = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        let until = u64::try_from(now_ms).unwrap_or_default().saturating_add(window);
        let digest = self.digest(session, until).unwrap_or_default();
        URL_SAFE_NO_PAD.encode([until.to_be_bytes().as_slice(), &digest].concat())
    }

    /// Whether a ticket is one of ours for this session, and still good.
    pub fn is_good(&self, ticket: &str, session: &str, now_ms: i64) -> bool {
        if ticket.len() != LENGTH {
            return false;
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(ticket) else { return false };
        let Some((until, digest)) = bytes.split_first_chunk::<8>() else { return false };
        let until = u64::from_be_bytes(*until);
        let expected = self.digest(session, until);
        let genuine = expected.is_some_and(|expected| expected.ct_eq(digest).into());
        genuine && u64::try_from(now_ms).is_ok_and(|now| now <= until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(byte: u8) -> Tickets {
        Tickets::new(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn a_ticket_is_good_for_its_session_its_time_and_its_installation() {
        let window = Duration::from_secs(60);
        let ticket = tickets(1).issue("s-1", 1_000_000, window);
        let good = |tickets: Tickets, ticket: &str, session: &str, now| {
            tickets.is_good(ticket, session, now)
        };
        assert!(good(tickets(1), &ticket, "s-1", 1_000_000));
        assert!(good(tickets(1), &ticket, "s-1", 1_060_000));
        assert!(!good(tickets(1), &ticket, "s-1", 1_060_001));
        assert!(!good(tickets(1), &ticket, "s-2", 1_000_000));
        assert!(!good(tickets(2), &ticket, "s-1", 1_000_000));
        for at in 0..ticket.len() {
            let letter = if ticket.as_bytes()[at] == b'A' { "B" } else { "A" };
            let mut other = ticket.clone();
            other.replace_range(at..=at, letter);
            // The last letter carries bits that nothing reads.
            assert!(at == ticket.len() - 1 || !good(tickets(1), &other, "s-1", 1_000_000), "{at}");
        }
        assert!(
            !good(tickets(1), "", "s-1", 0)
                && !good(tickets(1), ticket.trim_end_matches('A'), "s-2", 0)
        );
    }
}
