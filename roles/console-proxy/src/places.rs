//! How many consoles are open or opening.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts consoles against a limit that may change meanwhile.
#[derive(Debug, Clone, Default)]
pub(crate) struct Places {
    taken: Arc<watch::Sender<usize>>,
}

/// A console's place, given back by drop.
#[derive(Debug)]
pub(crate) struct Place(Arc<watch::Sender<usize>>);

impl Places {
    /// A place, if fewer than `limit` are taken.
    pub(crate) fn take(&self, limit: usize) -> Option<Place> {
        let taken = self.taken.send_if_modified(|taken| {
            let free = *taken < limit;
            *taken += usize::from(free);
            free
        });
        taken.then(|| Place(Arc::clone(&self.taken)))
    }

    /// Waits until no place is taken.
    pub(crate) async fn all_free(&self) {
        // The sender lives as long as `self`: this cannot fail.
        self.taken.subscribe().wait_for(|taken| *taken == 0).await.ok();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.send_modify(|taken| *taken = taken.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_counted_against_the_limit_of_the_moment() {
        let places = Places::default();
        let (first, second) = (places.take(2).unwrap(), places.take(2).unwrap());
        assert!(places.take(2).is_none() && places.take(1).is_none());
        let third = places.take(3).unwrap();
        drop(first);
        assert!(places.take(1).is_none(), "a lower limit throws nobody out and lets nobody in");
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.all_free().await }
        });
        drop((second, third));
        waiting.await.unwrap();
    }
}
