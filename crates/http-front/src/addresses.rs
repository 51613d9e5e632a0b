//! Connections of each client address, on all listeners of the front together: one that opens
//! thousands takes nobody else's place.
//!
//! Who is counted is who the transport says the client is: the peer, or whom its PROXY header names.
//! A proxy that tells of its clients inside HTTP is not counted at all, since its connections are
//! everybody's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Shared by all listeners of a front. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub(crate) struct Addresses(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<IpAddr, usize>,
    crowded: Option<Crowded>,
}

/// The address that was refused a connection last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded {
    pub address: IpAddr,
    /// Connections that it may have.
    pub limit: usize,
    /// Refusals since the process began, of all addresses.
    pub refused: u64,
}

/// A connection of an address, given back by drop.
#[derive(Debug)]
pub(crate) struct OfAddress(Arc<Inner>, IpAddr);

/// An address has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address} has {limit} connections already")]
pub(crate) struct TooMany {
    pub(crate) address: IpAddr,
    pub(crate) limit: usize,
}

impl Addresses {
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Inner { limit: AtomicUsize::new(limit), state: Mutex::default() }))
    }

    /// Connections beyond a lower limit stay; new ones meet it.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// Counts a connection of this address.
    pub(crate) fn take(&self, address: IpAddr) -> Result<OfAddress, TooMany> {
        let address = counted_as(address);
        let limit = self.0.limit.load(Ordering::Relaxed);
        let mut state = self.0.lock();
        let count = state.open.get(&address).copied().unwrap_or_default();
        if count >= limit {
            let refused = state.crowded.map_or(0, |crowded| crowded.refused).saturating_add(1);
            state.crowded = Some(Crowded { address, limit, refused });
            return Err(TooMany { address, limit });
        }
        state.open.insert(address, count + 1);
        Ok(OfAddress(Arc::clone(&self.0), address))
    }

    /// Who was refused last.
    pub(crate) fn crowded(&self) -> Option<Crowded> {
        self.0.lock().crowded
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if let Some(count) = state.open.get_mut(&self.1) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                state.open.remove(&self.1);
            }
        }
    }
}

/// Who has one IPv6 address has its /64.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        four => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_own_places_and_gives_them_back() {
        let addresses = Addresses::new(2);
        let take = |text: &str| addresses.take(text.parse().unwrap());
        let first = take("192.0.2.1").unwrap();
        // The same address as a listener for both families writes it.
        let _second = take("::ffff:192.0.2.1").unwrap();
        let refused = take("192.0.2.1").unwrap_err();
        assert_eq!(refused.to_string(), "192.0.2.1 has 2 connections already");
        let crowded = Crowded { address: refused.address, limit: 2, refused: 1 };
        assert_eq!(addresses.crowded(), Some(crowded));
        let _other = take("192.0.2.2").unwrap();
        drop(first);
        let _third = take("192.0.2.1").unwrap();
        addresses.set_limit(1);
        assert!(take("192.0.2.2").is_err());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_and_nothing_is_kept_of_those_that_left() {
        let addresses = Addresses::new(1);
        let take = |text: &str| addresses.take(text.parse().unwrap());
        let held = take("2001:db8::1").unwrap();
        assert!(take("2001:db8::2").is_err());
        assert!(take("2001:db8:0:1::1").is_ok());
        drop(held);
        assert!(addresses.0.lock().open.is_empty());
    }
}
