//! Progress as people see it in a terminal.

use super::text::{size, span};

/// `[##########··········]`, filled to `done` of `total`; without a total nobody knows how far it is.
pub(super) fn bar(done: u64, total: Option<u64>, width: usize) -> String {
    let Some(total) = total.filter(|total| *total > 0) else {
        return format!("[{}]", "-".repeat(width));
    };
    let cells = u64::try_from(width).unwrap_or(u64::MAX);
    let filled = u128::from(done.min(total)) * u128::from(cells) / u128::from(total);
    let filled = usize::try_from(filled).unwrap_or(width).min(width);
    format!("[{}{}]", "#".repeat(filled), ".".repeat(width - filled))
}

/// `4.0MiB/s`; a dash while nobody knows.
pub(super) fn speed(bytes_per_second: Option<u64>) -> String {
    bytes_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{}/s", size(rate)))
}

/// How long the rest takes at this speed; a dash while nobody knows.
pub(super) fn left(done: u64, total: Option<u64>, bytes_per_second: Option<u64>) -> String {
    let seconds = total
        .zip(bytes_per_second)
        .and_then(|(total, rate)| total.saturating_sub(done).checked_div(rate));
    seconds.map_or_else(|| "-".to_owned(), |seconds| span(seconds.saturating_mul(1000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_the_work_is_done() {
        assert_eq!(bar(0, Some(10), 4), "[....]");
        assert_eq!(bar(5, Some(10), 4), "[##..]");
        assert_eq!(bar(9, Some(10), 4), "[###.]", "not full before the end");
        assert_eq!(bar(u64::MAX, Some(u64::MAX), 4), "[####]");
        assert_eq!(bar(11, Some(10), 4), "[####]");
        assert_eq!(bar(7, None, 4), "[----]");
        assert_eq!(bar(7, Some(0), 4), "[----]");
    }

    #[test]
    fn speed_and_the_time_that_is_left() {
        assert_eq!((speed(None), speed(Some(2048))), ("-".to_owned(), "2.0KiB/s".to_owned()));
        assert_eq!(left(50, Some(150), Some(10)), "10s");
        assert_eq!(left(50, Some(150), Some(0)), "-");
        assert_eq!(left(50, None, Some(10)), "-");
    }
}
