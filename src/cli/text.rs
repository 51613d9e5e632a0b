//! Tables, times and sizes as people read them in a terminal.

use std::time::Duration;

use config_reader::format_duration;

/// A table of its own, unless it is empty.
pub(in crate::cli) fn section<const N: usize>(
    out: &mut String,
    head: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) {
    let mut rows = rows.peekable();
    if rows.peek().is_some() {
        out.push('\n');
        out.push_str(&table(head, rows));
    }
}

pub(in crate::cli) fn table<const N: usize>(
    head: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut lines: Vec<[String; N]> = vec![head.map(str::to_owned)];
    lines.extend(rows);
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for line in &lines {
        let cells = line.iter().zip(widths);
        let text: Vec<String> = cells.map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(text.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// What the process or its peers say must not move the cursor.
pub(in crate::cli) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

pub(in crate::cli) fn or_dash(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

pub(in crate::cli) fn ago(ms: u64) -> String {
    format!("{} ago", span(ms))
}

/// Milliseconds in a unit people read: 850ms, 42s, 17m, 5h, 3d.
pub(in crate::cli) fn span(ms: u64) -> String {
    const DAY: u64 = 86_400_000;
    let rounded = match ms {
        0..1000 => ms,
        1000..120_000 => ms / 1000 * 1000,
        120_000..7_200_000 => ms / 60_000 * 60_000,
        _ if ms < 2 * DAY => ms / 3_600_000 * 3_600_000,
        _ => return format!("{}d", ms / DAY),
    };
    if (60_000..120_000).contains(&rounded) {
        return format!("{}s", rounded / 1000);
    }
    format_duration(Duration::from_millis(rounded))
}

/// Bytes in a unit people read: 512B, 1.5MiB, 42GiB.
pub(in crate::cli) fn size(bytes: u64) -> String {
    let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift > 0) else {
        return format!("{bytes}B");
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    if tenths >= 100 {
        format!("{}{unit}", tenths / 10)
    } else {
        format!("{}.{}{unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_short() {
        let spans: Vec<String> =
            [0, 999, 1999, 119_999, 120_000, 7_199_999, 7_200_000, 86_400_000 * 3].map(span).into();
        assert_eq!(spans, ["0s", "999ms", "1s", "119s", "2m", "119m", "2h", "3d"]);
        let sizes: Vec<String> = [0, 1023, 1536, 10 << 20, u64::MAX].map(size).into();
        assert_eq!(sizes, ["0B", "1023B", "1.5KiB", "10MiB", "16777215TiB"]);
    }
}
