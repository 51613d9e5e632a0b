//! How many consoles are open or opening.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;

/// Counts consoles, in all and by address, against limits that may change meanwhile.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    taken: Arc<watch::Sender<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by: HashMap<IpAddr, usize>,
}

/// A console's place, given back by drop.
#[derive(Debug)]
pub(crate) struct Place(Arc<watch::Sender<Taken>>, IpAddr);

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoPlace {
    InAll,
    ForAddress,
}

impl Places {
    /// A place, if fewer than `limit` are taken, and fewer than `per_address` by this one.
    pub(crate) fn take(
        &self,
        client: IpAddr,
        limit: usize,
        per_address: usize,
    ) -> Result<Place, NoPlace> {
        let mut refused = None;
        self.taken.send_if_modified(|taken| {
            let own = taken.by.get(&client).copied().unwrap_or_default();
            refused = match (taken.all < limit, own < per_address) {
                (true, true) => None,
                (true, false) => Some(NoPlace::ForAddress),
                (false, _) => Some(NoPlace::InAll),
            };
            if refused.is_none() {
                taken.all += 1;
                *taken.by.entry(client).or_default() += 1;
            }
            refused.is_none()
        });
        refused.map_or_else(|| Ok(Place(Arc::clone(&self.taken), client)), Err)
    }

    /// Waits until no place is taken.
    pub(crate) async fn all_free(&self) {
        // The sender lives as long as `self`: this cannot fail.
        self.taken.subscribe().wait_for(|taken| taken.all == 0).await.ok();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let client = self.1;
        self.0.send_modify(|taken| {
            taken.all = taken.all.saturating_sub(1);
            if let Some(own) = taken.by.get_mut(&client) {
                *own = own.saturating_sub(1);
                if *own == 0 {
                    taken.by.remove(&client);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn places_are_counted_against_the_limit_of_the_moment() {
        let places = Places::default();
        let take = |limit| places.take(HERE, limit, 100);
        let (first, second) = (take(2).unwrap(), take(2).unwrap());
        assert!(take(2).is_err() && take(1).is_err());
        let third = take(3).unwrap();
        drop(first);
        assert!(take(1).is_err(), "a lower limit throws nobody out and lets nobody in");
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.all_free().await }
        });
        drop((second, third));
        waiting.await.unwrap();
    }

    #[test]
    fn an_address_has_its_own_limit_and_takes_nothing_from_others() {
        let places = Places::default();
        let other = [10, 0, 0, 1].into();
        let first = places.take(HERE, 10, 1).unwrap();
        assert_eq!(places.take(HERE, 10, 1).err(), Some(NoPlace::ForAddress));
        let _second = places.take(other, 10, 1).unwrap();
        drop(first);
        let _third = places.take(HERE, 10, 1).unwrap();
        assert_eq!(places.take([10, 0, 0, 2].into(), 2, 1).err(), Some(NoPlace::InAll));
    }
}
