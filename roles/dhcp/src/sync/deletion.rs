//! PURE: when what the server does not list any more is removed.
//!
//! A NIC goes when two complete listings in a row lack it, or one listing and a question for its
//! machine. A listing that lacks too many is not believed at all: a role with fewer rights gives
//! an empty list that looks like success.

use std::collections::BTreeSet;

use dhcp_api::words::ResourceId;

/// So many may go whatever the percentage says.
const FEW: usize = 10;
/// Questions for single machines after one listing.
const MOST_QUESTIONS: usize = 32;

/// What was missing, and how often.
#[derive(Debug, Default)]
pub(super) struct Deletion {
    /// Missing once.
    absent: BTreeSet<ResourceId>,
    /// Deletions that wait for somebody to confirm them.
    pub(super) held: usize,
}

/// What follows from a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) delete: Vec<ResourceId>,
    /// Whose machines to ask for.
    pub(super) ask: Vec<ResourceId>,
}

impl Deletion {
    /// Judges a complete listing that lacks `absent` of `stored` reservations.
    pub(super) fn judge(
        &mut self,
        stored: usize,
        absent: BTreeSet<ResourceId>,
        percent: u8,
        forced: bool,
    ) -> Verdict {
        let limit = FEW.max(stored * usize::from(percent) / 100);
        let is_held = absent.len() > limit && !forced;
        self.held = if is_held { absent.len() } else { 0 };
        if is_held {
            // Not even counted: a listing that is not believed is no witness.
            self.absent.clear();
            return Verdict::default();
        }
        let (delete, once): (BTreeSet<_>, BTreeSet<_>) =
            absent.into_iter().partition(|id| forced || self.absent.contains(id));
        let few = once.len() <= MOST_QUESTIONS;
        let ask = if few { once.iter().cloned().collect() } else { Vec::new() };
        self.absent = once;
        Verdict { delete: delete.into_iter().collect(), ask }
    }

    /// A question for its machine did not find `id`. Whether it goes now.
    pub(super) fn is_gone(&mut self, id: &ResourceId) -> bool {
        if self.absent.remove(id) {
            return true;
        }
        self.absent.insert(id.clone());
        false
    }

    pub(super) fn is_there(&mut self, id: &ResourceId) {
        self.absent.remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<usize>) -> BTreeSet<ResourceId> {
        range.map(|n| format!("nic:{n:04}").parse().unwrap()).collect()
    }

    fn count(verdict: &Verdict) -> (usize, usize) {
        (verdict.delete.len(), verdict.ask.len())
    }

    #[test]
    fn absent_twice_in_a_row_is_gone_and_once_is_not() {
        let mut deletion = Deletion::default();
        assert_eq!(count(&deletion.judge(100, ids(0..2), 20, false)), (0, 2));
        assert_eq!(count(&deletion.judge(100, ids(1..3), 20, false)), (1, 1));
        assert_eq!(count(&deletion.judge(99, ids(0..1), 20, false)), (0, 1), "not in a row");
    }

    #[test]
    fn a_listing_and_a_question_are_two_witnesses() {
        let mut deletion = Deletion::default();
        let id = ids(0..1).pop_first().unwrap();
        assert!(!deletion.is_gone(&id));
        assert!(deletion.is_gone(&id));
        deletion.judge(9, ids(0..1), 20, false);
        deletion.is_there(&id);
        assert!(!deletion.is_gone(&id));
    }

    #[test]
    fn a_listing_that_lacks_too_much_is_held_until_it_is_forced() {
        let mut deletion = Deletion::default();
        for _ in 0..3 {
            assert_eq!(count(&deletion.judge(100, ids(0..21), 20, false)), (0, 0));
            assert_eq!(deletion.held, 21);
        }
        assert_eq!(count(&deletion.judge(100, ids(0..21), 20, true)), (21, 0));
        assert_eq!(deletion.held, 0);
        // Ten may always go, twice as any other; none with a percentage of nothing but ten.
        assert_eq!(count(&deletion.judge(10, ids(0..10), 0, false)), (0, 10));
        assert_eq!(count(&deletion.judge(10, ids(0..10), 0, false)), (10, 0));
        assert_eq!(count(&deletion.judge(11, ids(0..11), 0, false)), (0, 0));
    }
}
