//! The last DHCP message of every client, as dnsmasq told it: who asks and gets nothing is the
//! first question when a guest has no address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use dhcp_api::words::MacAddress;

/// Clients that are remembered; then the one that was silent longest is forgotten.
const MOST: usize = 4096;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastMessage {
    /// `DISCOVER`, `REQUEST`, …
    pub(crate) kind: &'static str,
    /// dnsmasq does not answer to it.
    pub(crate) ignored: bool,
    pub(crate) at: Instant,
}

/// What was heard of whom. Cloneable; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<HashMap<MacAddress, LastMessage>>>);

impl Heard {
    pub(crate) fn note(&self, mac: MacAddress, kind: &'static str, ignored: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST && !known.contains_key(&mac) {
            let silent = known.iter().min_by_key(|(_, last)| last.at).map(|(mac, _)| *mac);
            silent.map(|mac| known.remove(&mac));
        }
        known.insert(mac, LastMessage { kind, ignored, at: Instant::now() });
    }

    pub(crate) fn of(&self, mac: MacAddress) -> Option<LastMessage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&mac).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_message_of_so_many_clients_is_known() {
        let heard = Heard::default();
        let mac = |number: usize| -> MacAddress {
            let [.., a, b] = number.to_be_bytes();
            format!("02:00:00:00:{a:02x}:{b:02x}").parse().unwrap()
        };
        for number in 0..=MOST {
            heard.note(mac(number), "DISCOVER", true);
        }
        heard.note(mac(5), "ACK", false);
        assert_eq!(heard.of(mac(0)), None);
        assert_eq!(heard.of(mac(5)).map(|last| (last.kind, last.ignored)), Some(("ACK", false)));
        assert!(heard.of(mac(MOST)).is_some());
    }
}
