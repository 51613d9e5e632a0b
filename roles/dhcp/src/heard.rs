//! What clients said and were told, as dnsmasq logs it: the last message of every client, because
//! who asks and gets nothing is the first question when a guest has no address, and the last lines
//! about anybody, for who wants to watch one.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dhcp_api::words::MacAddress;

/// Clients that are remembered; then the one that was silent longest is forgotten.
const MOST: usize = 4096;
/// Lines that are remembered.
const LINES: usize = 4096;

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LastMessage {
    /// `DISCOVER`, `REQUEST`, …
    pub(crate) kind: &'static str,
    /// dnsmasq does not answer to it.
    pub(crate) ignored: bool,
    pub(crate) at: Instant,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Later lines have larger ones.
    pub(crate) number: u64,
    pub(crate) at: Instant,
    pub(crate) text: String,
}

#[derive(Debug, Default)]
struct Known {
    last: HashMap<MacAddress, LastMessage>,
    lines: VecDeque<Line>,
    /// Of the last line.
    number: u64,
}

/// What was heard. Cloneable; clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Known>>);

impl Heard {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, mac: MacAddress, kind: &'static str, ignored: bool) {
        let last = &mut self.known().last;
        if last.len() >= MOST && !last.contains_key(&mac) {
            let silent = last.iter().min_by_key(|(_, last)| last.at).map(|(mac, _)| *mac);
            silent.map(|mac| last.remove(&mac));
        }
        last.insert(mac, LastMessage { kind, ignored, at: Instant::now() });
    }

    pub(crate) fn of(&self, mac: MacAddress) -> Option<LastMessage> {
        self.known().last.get(&mac).copied()
    }

    /// A line about some client or address.
    pub(crate) fn line(&self, text: &str) {
        let mut known = self.known();
        if known.lines.len() >= LINES {
            known.lines.pop_front();
        }
        known.number += 1;
        let line = Line { number: known.number, at: Instant::now(), text: text.to_owned() };
        known.lines.push_back(line);
    }

    /// Lines after number `after` that name the MAC or one of the addresses, and the number of the
    /// last line.
    pub(crate) fn about(
        &self,
        mac: MacAddress,
        addresses: &[Ipv4Addr],
        after: u64,
    ) -> (Vec<Line>, u64) {
        let words: Vec<String> = std::iter::once(mac.to_string())
            .chain(addresses.iter().map(ToString::to_string))
            .collect();
        let known = self.known();
        let is_meant = |line: &&Line| {
            line.number > after && line.text.split(' ').any(|word| words.iter().any(|w| w == word))
        };
        (known.lines.iter().filter(is_meant).cloned().collect(), known.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: usize) -> MacAddress {
        let [.., a, b] = number.to_be_bytes();
        format!("02:00:00:00:{a:02x}:{b:02x}").parse().unwrap()
    }

    #[test]
    fn the_last_message_of_so_many_clients_is_known() {
        let heard = Heard::default();
        for number in 0..=MOST {
            heard.note(mac(number), "DISCOVER", true);
        }
        heard.note(mac(5), "ACK", false);
        assert_eq!(heard.of(mac(0)), None);
        assert_eq!(heard.of(mac(5)).map(|last| (last.kind, last.ignored)), Some(("ACK", false)));
        assert!(heard.of(mac(MOST)).is_some());
    }

    #[test]
    fn lines_about_a_client_name_it_or_its_address() {
        let heard = Heard::default();
        let address = Ipv4Addr::new(10, 77, 0, 5);
        heard.line("DHCPDISCOVER(br0) 02:00:00:00:00:01");
        heard.line("DHCPACK(br0) 10.77.0.51 02:00:00:00:00:02");
        heard.line("not using configured address 10.77.0.5 because it is leased to x");
        let texts = |after| -> (Vec<u64>, u64) {
            let (lines, last) = heard.about(mac(1), &[address], after);
            (lines.iter().map(|line| line.number).collect(), last)
        };
        assert_eq!(texts(0), (vec![1, 3], 3));
        assert_eq!(texts(1), (vec![3], 3));
        assert_eq!(texts(3), (vec![], 3));
        for _ in 0..LINES {
            heard.line("DHCPACK(br0) 10.77.0.51 02:00:00:00:00:02");
        }
        assert_eq!(heard.about(mac(1), &[address], 0).0, [], "what is too old is forgotten");
    }
}
