//! The test picture: what is on it at a moment, what changed between two moments, and its pixels.
//!
//! A moment is a few values, so a viewer's last state is cheap to keep and the difference between
//! two moments is a handful of rectangles. Pixels are painted when somebody asks for them.

use crate::font;

/// A rectangle inside the screen, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rect {
    pub(crate) x: u16,
    pub(crate) y: u16,
    pub(crate) width: u16,
    pub(crate) height: u16,
}

impl Rect {
    pub(crate) fn intersection(self, other: Self) -> Option<Self> {
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        let right = self.right().min(other.right());
        let bottom = self.bottom().min(other.bottom());
        let width = u16::try_from(right.checked_sub(u32::from(x))?).ok()?;
        let height = u16::try_from(bottom.checked_sub(u32::from(y))?).ok()?;
        (width > 0 && height > 0).then_some(Self { x, y, width, height })
    }

    fn right(self) -> u32 {
        u32::from(self.x) + u32::from(self.width)
    }

    fn bottom(self) -> u32 {
        u32::from(self.y) + u32::from(self.height)
    }

    fn contains(self, x: u16, y: u16) -> bool {
        x >= self.x && y >= self.y && u32::from(x) < self.right() && u32::from(y) < self.bottom()
    }
}

/// Side of the moving block.
const BLOCK: u16 = 48;
/// Pixels the block moves in one step.
const STEP: u16 = 8;
/// Side of the four colour patches in the top left corner.
const PATCH: u16 = 16;
const PATCHES: [[u8; 3]; 4] = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]];
const INK: [u8; 3] = [255, 255, 255];
const BLOCK_COLOUR: [u8; 3] = [255, 200, 0];
/// Left edge of the texts.
const MARGIN: u16 = 16;
/// Most characters of the keys that are shown.
pub(crate) const KEYS_SHOWN: usize = 30;

/// One line of text on the screen.
#[derive(Debug, Clone, Copy)]
struct Line {
    y: u16,
    scale: u16,
}

const TITLE: Line = Line { y: 32, scale: 2 };
const CLOCK: Line = Line { y: 64, scale: 6 };
const KEYS: Line = Line { y: 128, scale: 3 };

/// The picture at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scene {
    pub(crate) width: u16,
    pub(crate) height: u16,
    /// Steps the block made.
    pub(crate) step: u32,
    pub(crate) title: String,
    pub(crate) clock: String,
    /// The keys typed last, as text.
    pub(crate) keys: String,
}

impl Scene {
    pub(crate) const fn whole(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.width, height: self.height }
    }

    /// Where the block is: it runs along the bottom, to and fro.
    fn block(&self) -> Rect {
        let room = u32::from(self.width.saturating_sub(BLOCK) / STEP).max(1);
        let phase = self.step % (2 * room);
        let column = if phase < room { phase } else { 2 * room - phase };
        let x = u16::try_from(column).unwrap_or_default().saturating_mul(STEP);
        Rect { x, y: self.height.saturating_sub(BLOCK + 8), width: BLOCK, height: BLOCK }
    }

    fn line(&self, line: Line) -> Rect {
        let height = line.scale * u16::try_from(font::HEIGHT).unwrap_or_default();
        Rect { x: MARGIN, y: line.y, width: self.width.saturating_sub(MARGIN), height }
    }

    /// The rectangles that differ from an earlier moment of the same screen.
    pub(crate) fn damage(&self, earlier: &Self) -> Vec<Rect> {
        let mut damage = Vec::new();
        let mut add = |rect: Rect| damage.extend(rect.intersection(self.whole()));
        let (now, before) = (self.block(), earlier.block());
        if now != before {
            let x = now.x.min(before.x);
            let right = now.right().max(before.right());
            let width = u16::try_from(right - u32::from(x)).unwrap_or(u16::MAX);
            add(Rect { x, width, ..now });
        }
        if self.clock != earlier.clock {
            add(self.line(CLOCK));
        }
        if self.keys != earlier.keys {
            add(self.line(KEYS));
        }
        damage
    }

    /// The colours of a rectangle inside the screen, row by row.
    pub(crate) fn paint(&self, rect: Rect) -> Vec<[u8; 3]> {
        let block = self.block();
        let keys = format!("keys: {}", self.keys);
        let texts = [(TITLE, self.title.as_str()), (CLOCK, self.clock.as_str()), (KEYS, &keys)];
        let texts =
            texts.map(|(line, text)| (self.line(line), line, text.chars().collect::<Vec<_>>()));
        let mut out = Vec::with_capacity(usize::from(rect.width) * usize::from(rect.height));
        for y in (rect.y..).take(rect.height.into()) {
            // Most rows have no text at all.
            let lines: Vec<_> =
                texts.iter().filter(|(area, ..)| area.contains(area.x, y)).collect();
            for x in (rect.x..).take(rect.width.into()) {
                let inked = || {
                    lines.iter().any(|(area, line, text)| {
                        area.contains(x, y)
                            && ink(text, (x - area.x) / line.scale, (y - area.y) / line.scale)
                    })
                };
                out.push(if block.contains(x, y) {
                    BLOCK_COLOUR
                } else if let Some(colour) = self.patch(x, y) {
                    colour
                } else if inked() {
                    INK
                } else {
                    self.background(x, y)
                });
            }
        }
        out
    }

    fn patch(&self, x: u16, y: u16) -> Option<[u8; 3]> {
        if y >= PATCH {
            return None;
        }
        PATCHES.get(usize::from(x / PATCH)).copied()
    }

    /// A gradient that never reaches the colours of ink, block and patches.
    fn background(&self, x: u16, y: u16) -> [u8; 3] {
        let share = |part: u16, whole: u16| {
            u8::try_from(u32::from(part) * 120 / u32::from(whole.max(1))).unwrap_or(120)
        };
        [20 + share(x, self.width), 40, 140 - share(y, self.height)]
    }
}

/// Whether the point of a text is inked; coordinates in points of the font.
fn ink(text: &[char], x: u16, y: u16) -> bool {
    let (x, y) = (usize::from(x), usize::from(y));
    let letter = text.get(x / (font::WIDTH + 1));
    letter.is_some_and(|letter| font::point(*letter, x % (font::WIDTH + 1), y))
}

/// A key symbol as it is shown: the character it types, or its number.
pub(crate) fn key_text(keysym: u32) -> String {
    match keysym {
        0x20..=0x7e => char::from_u32(keysym).map(String::from).unwrap_or_default(),
        0xff08 => "<BS>".to_owned(),
        0xff09 => "<Tab>".to_owned(),
        0xff0d => "<Enter>".to_owned(),
        0xff1b => "<Esc>".to_owned(),
        0xffe1 | 0xffe2 => String::new(),
        0xffe3 | 0xffe4 => "<Ctrl>".to_owned(),
        0xffe9 | 0xffea => "<Alt>".to_owned(),
        0xffff => "<Del>".to_owned(),
        other => format!("<{other:x}>"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(step: u32, clock: &str, keys: &str) -> Scene {
        Scene {
            width: 320,
            height: 240,
            step,
            title: "t".into(),
            clock: clock.into(),
            keys: keys.into(),
        }
    }

    /// Damage is right exactly when repainting it turns the earlier picture into the later one.
    #[test]
    fn repainting_the_damage_gives_the_later_picture() {
        let moments =
            [scene(0, "10:00:00", ""), scene(1, "10:00:01", "a"), scene(90, "10:00:01", "ab")];
        for earlier in &moments {
            for later in &moments {
                let mut picture = earlier.paint(earlier.whole());
                for rect in later.damage(earlier) {
                    let pixels = later.paint(rect);
                    for (row, line) in pixels.chunks(rect.width.into()).enumerate() {
                        let start = (usize::from(rect.y) + row) * 320 + usize::from(rect.x);
                        picture[start..start + line.len()].copy_from_slice(line);
                    }
                }
                assert!(picture == later.paint(later.whole()));
            }
        }
    }

    #[test]
    fn the_block_stays_inside_and_turns_round() {
        let seen: std::collections::BTreeSet<u16> =
            (0..200).map(|s| scene(s, "", "").block().x).collect();
        assert_eq!((seen.first(), seen.last()), (Some(&0), Some(&272)));
    }

    #[test]
    fn tiny_screens_are_painted_too() {
        let tiny = Scene { width: 3, height: 2, ..scene(5, "1", "a") };
        assert_eq!(tiny.paint(tiny.whole()).len(), 6);
        assert!(tiny.damage(&Scene { step: 0, ..tiny.clone() }).iter().all(|r| r.x < 3 && r.y < 2));
    }

    #[test]
    fn keys_read_as_typed() {
        let text: String = [0x48, 0x69, 0xffe1, 0xff0d, 0xffff].map(key_text).concat();
        assert_eq!(text, "Hi<Enter><Del>");
    }
}
