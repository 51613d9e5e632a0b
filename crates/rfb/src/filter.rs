//! What a viewer sends, on its way to the VM: counted, message by message, and without what a
//! view-only viewer may not do.
//!
//! It holds back a message's first bytes until it knows what they are, twelve at most, so that a
//! message is passed on whole or not at all. After bytes it does not understand it gives up for good:
//! then everything passes, or nothing for a view-only viewer.

use crate::init::{FORMAT_LENGTH, PixelFormat};
use crate::message::{Extent, client_type, extent};

/// Keys held down that are remembered; nobody has more fingers.
const KEYS: usize = 32;
/// Longest part of a message that is needed to know it: SetPixelFormat.
const FRONT: usize = 20;

/// What a viewer did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputCounts {
    pub keys: u64,
    pub pointer: u64,
    pub clipboard: u64,
    /// Requests for pictures: sent without anybody touching anything.
    pub update_requests: u64,
}

impl InputCounts {
    /// Everything a person does.
    pub const fn by_person(&self) -> u64 {
        self.keys.saturating_add(self.pointer).saturating_add(self.clipboard)
    }
}

/// A key as a message names it: QEMU's scan code beside the key symbol, 0 without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub symbol: u32,
    pub code: u32,
}

impl Key {
    /// The message that presses or releases it.
    pub fn message(self, down: bool) -> Vec<u8> {
        let pressed = u8::from(down);
        let symbol = self.symbol.to_be_bytes();
        if self.code == 0 {
            return [&[client_type::KEY_EVENT, pressed, 0, 0], symbol.as_slice()].concat();
        }
        let code = self.code.to_be_bytes();
        [&[client_type::QEMU, 0, 0, pressed], symbol.as_slice(), code.as_slice()].concat()
    }
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct MessageFilter {
    counts: InputCounts,
    front: [u8; FRONT],
    filled: usize,
    /// Rest of the message under way, and whether it is passed on.
    skip: u64,
    passing: bool,
    lost: bool,
    down: Vec<Key>,
    format: Option<PixelFormat>,
}

impl MessageFilter {
    /// Passes the next bytes, in pieces of any size, on to `out`.
    pub fn pass(&mut self, mut bytes: &[u8], view_only: bool, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.lost {
                if !view_only {
                    out.extend_from_slice(bytes);
                }
                return;
            }
            if self.skip > 0 {
                let here = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                let (now, later) = bytes.split_at_checked(here).unwrap_or((bytes, &[]));
                if self.passing {
                    out.extend_from_slice(now);
                }
                self.skip -= u64::try_from(here).unwrap_or_default();
                bytes = later;
                continue;
            }
            let missing = self.wanted().saturating_sub(self.filled).min(bytes.len());
            let cells = self.front.iter_mut().skip(self.filled);
            for (cell, byte) in cells.zip(bytes.iter().take(missing)) {
                *cell = *byte;
            }
            self.filled += missing;
            bytes = bytes.get(missing..).unwrap_or_default();
            self.conclude(view_only, out);
        }
    }

    fn front(&self) -> &[u8] {
        self.front.get(..self.filled).unwrap_or_default()
    }

    /// How much of the message has to be there to decide: keys are looked at whole.
    fn wanted(&self) -> usize {
        match (self.front(), extent(self.front())) {
            ([client_type::KEY_EVENT, ..], _) => 8,
            ([client_type::QEMU, 0, ..], _) => 12,
            ([client_type::SET_PIXEL_FORMAT, ..], _) => FRONT,
            (_, Extent::Needs(wanted)) => wanted,
            _ => self.filled,
        }
    }

    /// Decides about the message at the front once it is known.
    fn conclude(&mut self, view_only: bool, out: &mut Vec<u8>) {
        use client_type::*;
        if self.filled < self.wanted() {
            return;
        }
        let front = self.front.get(..self.filled).unwrap_or_default();
        let length = match extent(front) {
            Extent::Needs(_) => return,
            Extent::Unknown => {
                self.lost = true;
                if !view_only {
                    out.extend_from_slice(front);
                }
                return;
            }
            Extent::Whole(length) => length,
        };
        let (counter, touches) = match front {
            [KEY_EVENT, ..] | [QEMU, 0, ..] => (Some(&mut self.counts.keys), true),
            [POINTER_EVENT, ..] => (Some(&mut self.counts.pointer), true),
            [CLIENT_CUT_TEXT, ..] => (Some(&mut self.counts.clipboard), true),
            [FRAMEBUFFER_UPDATE_REQUEST, ..] => (Some(&mut self.counts.update_requests), false),
            // Power, size and sound of the machine are not a watcher's either.
            [XVP | SET_DESKTOP_SIZE, ..] => (None, true),
            _ => (None, false),
        };
        self.passing = !(touches && view_only);
        if self.passing {
            if let Some(counter) = counter {
                *counter = counter.saturating_add(1);
            }
            out.extend_from_slice(front);
            if let Some(format) = format_of(front) {
                self.format = Some(format);
            }
            if let Some((key, down)) = key_of(front) {
                self.hold(key, down);
            }
        }
        self.skip = length.saturating_sub(u64::try_from(self.filled).unwrap_or_default());
        self.filled = 0;
    }

    fn hold(&mut self, key: Key, down: bool) {
        self.down.retain(|held| *held != key);
        if down && self.down.len() < KEYS {
            self.down.push(key);
        }
    }

    pub const fn counts(&self) -> InputCounts {
        self.counts
    }

    /// The pixel format that was asked for since the last look.
    pub const fn take_format(&mut self) -> Option<PixelFormat> {
        self.format.take()
    }

    /// Whether bytes were met that belong to no known message.
    pub const fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether another message may begin here.
    pub const fn is_between_messages(&self) -> bool {
        !self.lost && self.filled == 0 && self.skip == 0
    }

    /// The keys that are down now, as far as passed on.
    pub fn held(&self) -> &[Key] {
        &self.down
    }
}

fn format_of(message: &[u8]) -> Option<PixelFormat> {
    match message {
        [client_type::SET_PIXEL_FORMAT, _, _, _, format @ ..] => {
            Some(PixelFormat::decode(format.first_chunk::<FORMAT_LENGTH>()?))
        }
        _ => None,
    }
}

fn key_of(message: &[u8]) -> Option<(Key, bool)> {
    let number = |bytes: &[u8; 4]| u32::from_be_bytes(*bytes);
    match message {
        [client_type::KEY_EVENT, down, _, _, symbol @ ..] => {
            let symbol = number(symbol.first_chunk()?);
            Some((Key { symbol, code: 0 }, *down != 0))
        }
        [client_type::QEMU, 0, _, down, rest @ ..] => {
            let (symbol, code) = rest.split_first_chunk::<4>()?;
            let key = Key { symbol: number(symbol), code: number(code.first_chunk()?) };
            Some((key, *down != 0))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PICTURE: [u8; 10] = [3, 0, 0, 0, 0, 0, 0, 1, 0, 1];
    const POINTER: [u8; 6] = [5, 1, 0, 1, 0, 2];

    fn passed(pieces: &[&[u8]], view_only: bool) -> (Vec<u8>, MessageFilter) {
        let (mut filter, mut out) = (MessageFilter::default(), Vec::new());
        for piece in pieces {
            filter.pass(piece, view_only, &mut out);
        }
        (out, filter)
    }

    #[test]
    fn a_watcher_asks_for_pictures_and_touches_nothing() {
        let key = Key { symbol: 0x61, code: 0 }.message(true);
        let extended = Key { symbol: 0x61, code: 30 }.message(true);
        let text = [6, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c'];
        let all = [&PICTURE[..], &key, &extended, &POINTER, &text, &PICTURE].concat();
        for cut in 0..all.len() {
            let pieces = [&all[..cut], &all[cut..]];
            assert_eq!(passed(&pieces, true).0, [PICTURE, PICTURE].concat(), "{cut}");
            assert_eq!(passed(&pieces, false).0, all, "{cut}");
        }
        let (_, filter) = passed(&[&all], true);
        assert_eq!((filter.counts().by_person(), filter.held().len()), (0, 0));
    }

    #[test]
    fn keys_that_are_down_are_known_until_they_are_released() {
        let (shift, a) = (Key { symbol: 0xffe1, code: 42 }, Key { symbol: 0x41, code: 0 });
        let keys = [(shift, true), (a, true), (a, true), (a, false)];
        let bytes: Vec<u8> = keys.iter().flat_map(|(key, down)| key.message(*down)).collect();
        let (out, filter) = passed(&[&bytes], false);
        assert_eq!(out, bytes);
        assert_eq!(filter.held(), [shift]);
        assert!(filter.is_between_messages());
        let (_, filter) = passed(&[&shift.message(true)[..5]], false);
        assert!(!filter.is_between_messages());
    }

    #[test]
    fn the_pixel_format_is_known_once_it_is_passed_on_whole() {
        let asked = PixelFormat { shift: [0, 8, 16], ..PixelFormat::RGB888 };
        let message = [&[0, 0, 0, 0][..], &asked.encode()].concat();
        let (out, mut filter) = passed(&[&message[..7], &message[7..], &PICTURE], false);
        assert_eq!(out, [&message[..], &PICTURE].concat());
        assert_eq!((filter.take_format(), filter.take_format()), (Some(asked), None));
    }

    #[test]
    fn what_is_not_understood_passes_for_all_but_watchers() {
        let bytes = [&PICTURE[..], &[99, 1, 2], &POINTER].concat();
        let (out, filter) = passed(&[&bytes], false);
        assert!(filter.is_lost() && out == bytes);
        assert_eq!(passed(&[&bytes], true).0, PICTURE);
    }
}
