//! Memory for the windows of decoders, bounded for all downloads together.
//!
//! Most files need little. What was made with the highest levels needs up to 128 MiB, and several
//! of these at once would need more than the whole process otherwise has: they wait for each other.

use std::sync::{Condvar, Mutex, PoisonError};

/// Memory for the window of one file. What xz -9 and zstd --ultra -22 make needs half of it and all of
/// it; a header may ask for gigabytes.
pub(super) const LIMIT: u64 = 1 << LIMIT_LOG;
pub(super) const LIMIT_LOG: u32 = 27;
/// The rest of a decoder's memory.
pub(super) const BESIDES: u64 = 2 << 20;
/// Nobody waits for so little: the number of downloads bounds it.
const LITTLE: u64 = 16 << 20;
/// Bytes of a file that tell its window.
pub(super) const HEAD: usize = 64;

/// What is left for windows that are not little: one of the largest, or two of half that size.
static LEFT: Mutex<u64> = Mutex::new(LIMIT + 2 * BESIDES);
static GIVEN_BACK: Condvar = Condvar::new();

/// The memory of one decoder; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Window(u64);

impl Window {
    /// Waits until there is memory for a window of so many bytes. `None`: it is not known.
    pub(super) fn wait_for(bytes: Option<u64>) -> Self {
        let bytes = bytes.unwrap_or(LIMIT);
        // What is too much is refused by the decoder, in its words.
        if bytes <= LITTLE || bytes > LIMIT {
            return Self(0);
        }
        let share = bytes + BESIDES;
        let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        if *left < share {
            tracing::info!(bytes, "waiting for the memory of another file's window");
        }
        while *left < share {
            left = GIVEN_BACK.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        *left -= share;
        Self(share)
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        *LEFT.lock().unwrap_or_else(PoisonError::into_inner) += self.0;
        GIVEN_BACK.notify_all();
    }
}

/// The dictionary that the first block of a stream of xz asks for (xz-file-format 1.2, sections 3.1
/// and 5.3.1); the other blocks have the same in what programs make.
pub(super) fn of_xz(stream: &[u8]) -> Option<u64> {
    const LZMA2: u64 = 0x21;
    let [_size, flags, rest @ ..] = stream.get(12..)? else { return None };
    let mut fields = rest;
    for bit in [0x40, 0x80] {
        if flags & bit != 0 {
            number(&mut fields)?;
        }
    }
    for _filter in 0..=flags & 3 {
        let (id, length) = (number(&mut fields)?, number(&mut fields)?);
        let (properties, rest) = fields.split_at_checked(usize::try_from(length).ok()?)?;
        if id == LZMA2 {
            let bits = u32::from(*properties.first()?);
            return match bits {
                0..40 => Some(u64::from(2 | bits & 1) << (bits / 2 + 11)),
                _ => Some(u64::from(u32::MAX)),
            };
        }
        fields = rest;
    }
    None
}

/// A number of seven bits in each byte, the lowest first.
fn number(fields: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = fields.split_first()?;
        *fields = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The window of a frame of zstd (RFC 8878, section 3.1.1.1).
pub(super) fn of_zstd(frame: &[u8]) -> Option<u64> {
    let [descriptor, rest @ ..] = frame.get(4..)? else { return None };
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1_u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // One segment: the window is the content.
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied()?;
    let (length, more) = match descriptor >> 6 {
        0 => (1, 0),
        1 => (2, 256),
        2 => (4, 0),
        _ => (8, 0),
    };
    let size = rest.get(dictionary..)?.get(..length)?;
    Some(size.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)) + more)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use liblzma::stream::{Check, Filters, LzmaOptions, Stream};

    use super::*;

    #[test]
    fn windows_are_those_that_the_encoders_were_given() {
        for (level, window) in [(0, 256 << 10), (6, 8 << 20), (9, 64 << 20)] {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), level);
            encoder.write_all(b"image").unwrap();
            assert_eq!(of_xz(&encoder.finish().unwrap()), Some(window), "xz -{level}");
        }
        let mut filters = Filters::new();
        filters.x86();
        filters.lzma2(LzmaOptions::new_preset(1).unwrap().dict_size(3 << 20));
        let stream = Stream::new_stream_encoder(&filters, Check::None).unwrap();
        let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        encoder.write_all(b"image").unwrap();
        assert_eq!(of_xz(&encoder.finish().unwrap()), Some(3 << 20), "behind another filter");
        for log in [10, 23, 27] {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.write_all(b"image").unwrap();
            assert_eq!(of_zstd(&encoder.finish().unwrap()), Some(1 << log), "zstd {log}");
        }
        for length in [5, 300, 70_000] {
            let frame = zstd::bulk::compress(&vec![7; length], 1).unwrap();
            assert_eq!(of_zstd(&frame), Some(length as u64), "one segment");
        }
        for cut in 0..20 {
            of_xz(&[0xff; 20][..cut]);
            of_zstd(&[0xff; 20][..cut]);
        }
    }

    #[test]
    fn large_windows_wait_for_each_other_and_little_ones_for_nobody() {
        let first = Window::wait_for(Some(LIMIT));
        let little = Window::wait_for(Some(8 << 20));
        let (begun, ended) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let second = std::thread::spawn(move || {
            begun.0.send(()).unwrap();
            let _window = Window::wait_for(None);
            ended.0.send(()).unwrap();
        });
        begun.1.recv().unwrap();
        assert!(ended.1.try_recv().is_err(), "the memory is taken");
        drop(little);
        drop(first);
        ended.1.recv().unwrap();
        second.join().unwrap();
        // More than any file may have is the decoder's to refuse.
        assert_eq!(Window::wait_for(Some(u64::MAX)).0, 0);
    }
}
