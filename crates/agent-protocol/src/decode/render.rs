//! Decoded frames as text for people and as JSON for programs.

use serde::Serialize;
use serde_json::value::RawValue;

use super::DecodedFrame;
use crate::catalogue;

/// How bodies are laid out in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One field a line, indented.
    Pretty,
    /// As sent, without blanks between tokens.
    Compact,
}

/// Levels of indentation; deeper ones are not indented further.
const MAX_INDENT: usize = 32;

#[derive(Serialize)]
struct JsonFrame<'a> {
    frame: u64,
    offset: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    wire_bytes: usize,
    flags: u16,
    flag_names: Vec<&'static str>,
    /// Text: most readers of JSON lose digits of a 64-bit number.
    sequence: String,
    length: u32,
    management_id: i64,
    agent_id: i64,
    via: i64,
    classes: Vec<&'a str>,
    unknown_classes: Vec<&'a str>,
    body: &'a RawValue,
}

impl DecodedFrame {
    /// Names of the classes in the body that this program does not model.
    pub fn unknown_classes(&self) -> impl Iterator<Item = &str> {
        let classes = self.envelopes.iter().map(|envelope| envelope.class.as_str());
        classes.filter(|class| !catalogue::CLASSES.contains(class))
    }

    /// The frame for people: header, flags by name, body; ends with a line break.
    pub fn to_text(&self, layout: Layout) -> String {
        let header = &self.header;
        let names: Vec<_> = header.flags.names().collect();
        let flags = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
        let mut out = format!(
            "frame {} at {}: {} bytes\n  flags      {:#06x} {flags}\n  sequence   {}\n  length     {}\n  \
             management {}\n  agent      {}\n  via        {}\n",
            self.number,
            self.place,
            self.wire_bytes,
            header.flags.bits(),
            header.sequence,
            header.length,
            header.management_id,
            header.agent_id,
            header.via,
        );
        for class in self.unknown_classes() {
            out.push_str(&format!("  unknown    {class}\n"));
        }
        out.push_str("  body       ");
        lay_out(&self.body, layout, "  ", &mut out);
        out.push('\n');
        out
    }

    /// The frame for programs: one JSON object without a line break.
    ///
    /// # Errors
    /// None in practice: the body was parsed before.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut compact = String::with_capacity(self.body.len());
        lay_out(&self.body, Layout::Compact, "", &mut compact);
        let body = RawValue::from_string(compact)?;
        serde_json::to_string(&JsonFrame {
            frame: self.number,
            offset: self.place.offset,
            line: self.place.line,
            wire_bytes: self.wire_bytes,
            flags: self.header.flags.bits(),
            flag_names: self.header.flags.names().collect(),
            sequence: self.header.sequence.to_string(),
            length: self.header.length,
            management_id: self.header.management_id,
            agent_id: self.header.agent_id,
            via: self.header.via,
            classes: self.envelopes.iter().map(|envelope| envelope.class.as_str()).collect(),
            unknown_classes: self.unknown_classes().collect(),
            body: &body,
        })
    }
}

/// Lays valid JSON out anew, token by token: numbers, escapes and key order stay as they came.
fn lay_out(json: &str, layout: Layout, margin: &str, out: &mut String) {
    let mut depth = 0_usize;
    let mut text = false;
    let mut escaped = false;
    let mut opened = false;
    let pretty = layout == Layout::Pretty;
    for c in json.chars() {
        if text {
            out.push(c);
            text = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        if matches!(c, ' ' | '\t' | '\r' | '\n') {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        if closes {
            depth = depth.saturating_sub(1);
        }
        // An empty object or list stays on its line.
        if pretty && opened != closes {
            line_break(depth, margin, out);
        }
        opened = matches!(c, '{' | '[');
        text = c == '"';
        out.push(c);
        match c {
            '{' | '[' => depth = depth.saturating_add(1),
            ',' if pretty => line_break(depth, margin, out),
            ':' if pretty => out.push(' '),
            _ => {}
        }
    }
}

fn line_break(depth: usize, margin: &str, out: &mut String) {
    out.push('\n');
    out.push_str(margin);
    for _ in 0..depth.min(MAX_INDENT) {
        out.push_str("  ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(json: &str, layout: Layout) -> String {
        let mut out = String::new();
        lay_out(json, layout, "", &mut out);
        out
    }

    #[test]
    fn pretty_keeps_every_token() {
        let json =
            r#"[ {"a":{"b":[1.50,{}],"c":"x:,{}[]\"\\"},"d":[] , "e":12345678901234567890123}]"#;
        let expected = r#"[
  {
    "a": {
      "b": [
        1.50,
        {}
      ],
      "c": "x:,{}[]\"\\"
    },
    "d": [],
    "e": 12345678901234567890123
  }
]"#;
        assert_eq!(laid_out(json, Layout::Pretty), expected);
    }

    #[test]
    fn compact_drops_blanks_between_tokens_only() {
        let json = "[ {\"a b\" : \n\"c d\\\" e\"}\t]";
        assert_eq!(laid_out(json, Layout::Compact), r#"[{"a b":"c d\" e"}]"#);
    }

    #[test]
    fn deep_nesting_stays_small() {
        let json = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(laid_out(&json, Layout::Pretty).len() < 10_000 * 2 * (MAX_INDENT + 2) * 2);
    }
}
