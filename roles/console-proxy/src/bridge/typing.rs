//! Typing a text on behalf of a page: at its pace, between the viewer's own messages, to be stopped
//! at any key.

use std::collections::VecDeque;
use std::time::Duration;

use rfb::Key;
use tokio::time::Instant;

use crate::control::{KeyEvent, ToPage, Typing, TypingState};

/// How often the page hears of the progress.
const PROGRESS: Duration = Duration::from_millis(250);

/// A text under way.
#[derive(Debug)]
pub(super) struct Typist {
    id: u32,
    pace: Duration,
    left: VecDeque<KeyEvent>,
    total: usize,
    held: Vec<Key>,
    next: Instant,
    told: Instant,
}

impl Typist {
    pub(super) fn new(typing: Typing, now: Instant) -> Self {
        Self {
            id: typing.id,
            pace: Duration::from_millis(typing.pace_ms),
            total: typing.events.len(),
            left: typing.events.into(),
            held: Vec::new(),
            next: now,
            told: now,
        }
    }

    /// When the next key is due.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn is_over(&self) -> bool {
        self.left.is_empty()
    }

    /// The messages that are due: up to the next key that goes down, and that one.
    pub(super) fn step(&mut self, now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(KeyEvent { key, down }) = self.left.pop_front() {
            out.extend_from_slice(&key.message(down));
            self.held.retain(|held| *held != key);
            if down {
                self.held.push(key);
                break;
            }
        }
        self.next = now + self.pace;
        out
    }

    /// The messages that release what is down.
    pub(super) fn release(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        held.into_iter().flat_map(|key| key.message(false)).collect()
    }

    pub(super) fn held(&self) -> &[Key] {
        &self.held
    }

    pub(super) fn told(&self, state: TypingState) -> ToPage {
        let done = self.total - self.left.len();
        ToPage::Typing { id: self.id, done, total: self.total, state }
    }

    /// The progress, when it is time to tell it.
    pub(super) fn progress(&mut self, now: Instant) -> Option<ToPage> {
        (now.duration_since(self.told) >= PROGRESS).then(|| {
            self.told = now;
            self.told(TypingState::Running)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIFT: Key = Key { symbol: 0xffe1, code: 42 };
    const A: Key = Key { symbol: 0x41, code: 30 };

    #[tokio::test(start_paused = true)]
    async fn keys_go_down_at_their_pace_and_what_is_down_is_released() {
        let event = |key, down| KeyEvent { key, down };
        let events = vec![event(SHIFT, true), event(A, true), event(A, false), event(SHIFT, false)];
        let now = Instant::now();
        let typing = Typing { id: 1, pace_ms: 25, events };
        let mut typist = Typist::new(typing.clone(), now);
        assert_eq!(typist.step(now), SHIFT.message(true));
        assert_eq!(typist.next(), now + Duration::from_millis(25));
        assert_eq!(typist.step(now), A.message(true));
        assert_eq!(typist.held(), [SHIFT, A]);
        assert_eq!(typist.step(now), [A.message(false), SHIFT.message(false)].concat());
        assert!(typist.is_over() && typist.held().is_empty());
        // Stopped in the middle.
        let mut typist = Typist::new(typing, now);
        typist.step(now);
        typist.step(now);
        assert_eq!(typist.release(), [SHIFT.message(false), A.message(false)].concat());
        assert_eq!(typist.progress(now), None);
        let later = now + PROGRESS;
        let running = ToPage::Typing { id: 1, done: 2, total: 4, state: TypingState::Running };
        assert_eq!(typist.progress(later), Some(running));
    }
}
