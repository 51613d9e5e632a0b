//! Turns to download to one store, shared out between servers and accounts.
//!
//! A turn may last as long as its server is slow. So one server never has more than half of a
//! store's turns and one account never all of them, and whoever has the fewest comes next.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// On whose behalf a download runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub account: i64,
    /// Host and port that the bytes come from.
    pub server: String,
}

/// The turns of one store. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct Turns {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    all: usize,
    running: Vec<Claim>,
    waiting: VecDeque<(Claim, oneshot::Sender<Turn>)>,
}

/// The right to download now; ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    claim: Claim,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        if let Some(at) = state.running.iter().position(|claim| *claim == self.claim) {
            state.running.swap_remove(at);
        }
        let next = state.next(&self.turns);
        drop(state);
        // A turn that nobody takes ends here, and gives the one after it.
        drop(next.map(|(turn, taker)| taker.send(turn)));
    }
}

impl Turns {
    pub fn new(all: usize) -> Self {
        let state = State { all: all.max(1), running: Vec::new(), waiting: VecDeque::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A turn at once, or the place in the queue.
    pub fn take(&self, claim: Claim) -> Result<Turn, oneshot::Receiver<Turn>> {
        let mut state = self.state();
        // Whoever waits could not go on: nobody is overtaken.
        if state.may_run(&claim) {
            state.running.push(claim.clone());
            return Ok(Turn { turns: self.clone(), claim });
        }
        let (taker, waiting) = oneshot::channel();
        state.waiting.retain(|(_, taker)| !taker.is_closed());
        state.waiting.push_back((claim, taker));
        Err(waiting)
    }
}

impl State {
    fn of_server(&self, claim: &Claim) -> usize {
        self.running.iter().filter(|other| other.server == claim.server).count()
    }

    fn of_account(&self, claim: &Claim) -> usize {
        self.running.iter().filter(|other| other.account == claim.account).count()
    }

    fn may_run(&self, claim: &Claim) -> bool {
        let of_one_server = self.all.div_ceil(2);
        let of_one_account = (self.all - (self.all / 4).max(1)).max(1);
        self.running.len() < self.all
            && self.of_server(claim) < of_one_server
            && self.of_account(claim) < of_one_account
    }

    /// Whoever has the fewest turns of those that may go on, the longest waiting first.
    fn next(&mut self, turns: &Turns) -> Option<(Turn, oneshot::Sender<Turn>)> {
        self.waiting.retain(|(_, taker)| !taker.is_closed());
        let waiting = self.waiting.iter().enumerate();
        let (at, _) = waiting
            .filter(|(_, (claim, _))| self.may_run(claim))
            .min_by_key(|(_, (claim, _))| (self.of_account(claim), self.of_server(claim)))?;
        let (claim, taker) = self.waiting.remove(at)?;
        self.running.push(claim.clone());
        Some((Turn { turns: turns.clone(), claim }, taker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(account: i64, server: &str) -> Claim {
        Claim { account, server: server.to_owned() }
    }

    #[tokio::test]
    async fn one_server_and_one_account_leave_turns_to_others() {
        let turns = Turns::new(8);
        let slow: Vec<_> = (0..4).map(|_| turns.take(claim(2, "slow")).unwrap()).collect();
        let queued = turns.take(claim(2, "slow")).unwrap_err();
        let more: Vec<_> = (0..2).map(|_| turns.take(claim(2, "other")).unwrap()).collect();
        assert!(turns.take(claim(2, "third")).is_err(), "the account has six of eight");
        let _third = turns.take(claim(3, "third")).unwrap();
        let _fourth = turns.take(claim(3, "fourth")).unwrap();
        assert!(turns.take(claim(4, "fifth")).is_err(), "all are taken");
        drop(more);
        drop(slow);
        queued.await.unwrap();
    }

    #[tokio::test]
    async fn who_has_the_fewest_comes_next() {
        let turns = Turns::new(2);
        let first = turns.take(claim(2, "a")).unwrap();
        let mut greedy = turns.take(claim(2, "b")).unwrap_err();
        let second = turns.take(claim(3, "c")).unwrap();
        let other = turns.take(claim(4, "d")).unwrap_err();
        drop(second);
        let other = other.await.unwrap();
        assert!(greedy.try_recv().is_err());
        drop(first);
        let greedy = greedy.await.unwrap();
        drop((other, greedy));
        assert!(turns.state().running.is_empty());
    }

    #[tokio::test]
    async fn a_turn_that_nobody_takes_goes_on() {
        let turns = Turns::new(1);
        let first = turns.take(claim(2, "a")).unwrap();
        let gone = turns.take(claim(2, "a")).unwrap_err();
        let last = turns.take(claim(3, "b")).unwrap_err();
        drop(gone);
        drop(first);
        drop(last.await.unwrap());
        assert!(turns.take(claim(2, "a")).is_ok());
    }
}
