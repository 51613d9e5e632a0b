//! What browser and console proxy say to each other beside the picture.
//!
//! A page that offers the WebSocket subprotocol [`PROTOCOL`] gets it; from then on text messages in
//! both directions are JSON objects with a `type`, as [`ToPage`] and [`FromPage`] have them. Viewers
//! that do not offer it never see a text message, and must not send one (close code 1003). Unknown
//! members are ignored on both sides, and a page ignores types that it does not know.
//!
//! ```text
//! page → proxy   GET …/websockify?token=T[&extra=E][&resume=R]   offers quickcloud.console.1, binary
//! proxy → page   {"type":"opened","session":7,"ticket":"R1","window_ms":60000,"encrypted":true,"view_only":false,
//!                 "recorded":false}
//!                {"type":"ticket","ticket":"R2"}          from time to time; replaces R1
//!                {"type":"notice","text":"…"}             an operator has something to say
//!                {"type":"view_only","on":true}
//!                {"type":"moving"}                        the host's connection was lost; it is looked for
//!                {"type":"typing","id":3,"done":40,"total":120,"state":"running"}
//!                {"type":"refused","label":"denied","advice":"new_link"}   before the refusal itself
//!                {"type":"replay","at_ms":1200,"length_ms":60000,"paused":false}   of a recording, twice a second
//! page → proxy   {"type":"type","id":3,"pace_ms":25,"events":[[1,65505,42],[1,65,30],[0,65,30],[0,65505,42]]}
//!                {"type":"cancel"}
//!                {"type":"seek","to_ms":30000}  {"type":"pause","on":true}          of a recording
//! ```
//!
//! **Typing.** An event is `[down, keysym, scan code]`, scan code 0 where the guest takes none. The
//! proxy sends them at their pace and tells the progress; on `cancel`, and when the page goes away in
//! the middle, whatever is down is released. One text at a time.
//!
//! **Coming back.** Within the window a page that lost its WebSocket opens it again with the same
//! token and `resume` set to its last ticket: no new link and, at the same proxy, no second question
//! to the management server. Elsewhere, or after a restart, the server is asked where the VM is.
//!
//! | close code | means | what a page does |
//! |---|---|---|
//! | 1000 | the VM closed its screen, or the viewer left | over; may try `resume` once on request |
//! | 1001 | the proxy is being stopped | `resume`, with pauses |
//! | 1002 1003 1007 1009 | the viewer broke the protocol | over |
//! | 1008 | refused, replaced by another window, idle; the reason is the sentence to show | over; `resume` on request |
//! | 1011 | the VM's screen was lost | `resume` on request |
//! | 4000 | the VM moved and was found | `resume` at once |
//! | 4001 | an operator ended it; the reason is the sentence | over, `resume` is refused |
//! | 1006 | the network | `resume`, with pauses, within the window |

use rfb::Key;
use serde::{Deserialize, Serialize};

/// The subprotocol of pages that speak this.
pub(crate) const PROTOCOL: &str = "quickcloud.console.1";
/// Key events of one text, at most.
const EVENTS: usize = 40_000;
/// Milliseconds between keys.
const PACE: std::ops::RangeInclusive<u64> = 2..=1000;
const DEFAULT_PACE: u64 = 25;

/// How typing a text goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TypingState {
    Running,
    Done,
    Cancelled,
    /// Another text is being typed, the viewer may only watch, or the host's protocol is not known.
    Refused,
}

/// What a user does about a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Advice {
    /// Open the console again from the cloud's pages.
    NewLink,
    /// The same again, in a moment.
    Retry,
    /// Nothing: somebody has to change something.
    Operator,
}

/// A message to a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ToPage {
    Opened {
        session: u32,
        /// For `resume`; empty when nothing can be resumed.
        ticket: String,
        window_ms: u64,
        /// The connection to the VM's host is.
        encrypted: bool,
        view_only: bool,
        /// What is shown is kept.
        recorded: bool,
    },
    Ticket {
        ticket: String,
    },
    Notice {
        text: String,
    },
    ViewOnly {
        on: bool,
    },
    Moving,
    Typing {
        id: u32,
        done: usize,
        total: usize,
        state: TypingState,
    },
    Refused {
        label: &'static str,
        advice: Advice,
    },
    /// Where a recording is.
    Replay {
        at_ms: u64,
        length_ms: u64,
        paused: bool,
    },
}

impl ToPage {
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A key going down or up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyEvent {
    pub(crate) key: Key,
    pub(crate) down: bool,
}

/// A text to type, as key events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Typing {
    pub(crate) id: u32,
    pub(crate) pace_ms: u64,
    pub(crate) events: Vec<KeyEvent>,
}

/// A message from a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromPage {
    /// Held in a box of its own: the other one is nothing beside it.
    #[doc(hidden)]
    Type(Box<TypingRequest>),
    Cancel,
    /// Of a recording: to go on from there.
    Seek {
        to_ms: u64,
    },
    /// Of a recording: to stop, or to go on.
    Pause {
        on: bool,
    },
    /// A type that this version does not know.
    Unknown,
}

/// A text to type, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TypingRequest(pub(crate) Typing);

/// Why a message is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    #[error("a message is not a JSON object with a type")]
    Shape,
    #[error("a text has more than {EVENTS} key events")]
    TooLong,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Message {
    Type {
        #[serde(default)]
        id: u32,
        #[serde(default)]
        pace_ms: Option<u64>,
        events: Vec<(u8, u32, u32)>,
    },
    Cancel,
    Seek {
        to_ms: u64,
    },
    Pause {
        on: bool,
    },
    #[serde(other)]
    Unknown,
}

impl FromPage {
    /// Reads a text message.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn parse(text: &str) -> Result<Self, ControlError> {
        match serde_json::from_str(text).map_err(|_odd| ControlError::Shape)? {
            Message::Type { events, .. } if events.len() > EVENTS => Err(ControlError::TooLong),
            Message::Type { id, pace_ms, events } => {
                let pace_ms = pace_ms.unwrap_or(DEFAULT_PACE).clamp(*PACE.start(), *PACE.end());
                let event = |(down, symbol, code): (u8, u32, u32)| KeyEvent {
                    key: Key { symbol, code },
                    down: down != 0,
                };
                let events = events.into_iter().map(event).collect();
                Ok(Self::Type(Box::new(TypingRequest(Typing { id, pace_ms, events }))))
            }
            Message::Cancel => Ok(Self::Cancel),
            Message::Seek { to_ms } => Ok(Self::Seek { to_ms }),
            Message::Pause { on } => Ok(Self::Pause { on }),
            Message::Unknown => Ok(Self::Unknown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_the_table_has_them() {
        let check = |message: ToPage, expected: &str| assert_eq!(message.text(), expected);
        check(
            ToPage::Opened {
                session: 7,
                ticket: "R1".into(),
                window_ms: 60_000,
                encrypted: true,
                view_only: false,
                recorded: false,
            },
            r#"{"type":"opened","session":7,"ticket":"R1","window_ms":60000,"encrypted":true,"view_only":false,"recorded":false}"#,
        );
        check(ToPage::Moving, r#"{"type":"moving"}"#);
        check(ToPage::ViewOnly { on: true }, r#"{"type":"view_only","on":true}"#);
        check(
            ToPage::Typing { id: 3, done: 40, total: 120, state: TypingState::Running },
            r#"{"type":"typing","id":3,"done":40,"total":120,"state":"running"}"#,
        );
        check(
            ToPage::Refused { label: "denied", advice: Advice::NewLink },
            r#"{"type":"refused","label":"denied","advice":"new_link"}"#,
        );
    }

    #[test]
    fn a_text_to_type_is_read_and_bounded() {
        let text = r#"{"type":"type","id":3,"later":1,"events":[[1,65505,42],[0,65,0]]}"#;
        let Ok(FromPage::Type(request)) = FromPage::parse(text) else { panic!("{text}") };
        let typing = request.0;
        assert_eq!((typing.id, typing.pace_ms), (3, 25));
        assert_eq!(typing.events[0].key, Key { symbol: 65505, code: 42 });
        assert!(typing.events[0].down && !typing.events[1].down);
        assert_eq!(FromPage::parse(r#"{"type":"cancel"}"#), Ok(FromPage::Cancel));
        assert_eq!(FromPage::parse(r#"{"type":"dance"}"#), Ok(FromPage::Unknown));
        let seek = FromPage::parse(r#"{"type":"seek","to_ms":1200}"#);
        assert_eq!(seek, Ok(FromPage::Seek { to_ms: 1200 }));
        assert_eq!(
            FromPage::parse(r#"{"type":"pause","on":true}"#),
            Ok(FromPage::Pause { on: true })
        );
        let many = format!(r#"{{"type":"type","events":[{}[1,1,1]]}}"#, "[1,1,1],".repeat(EVENTS));
        assert_eq!(FromPage::parse(&many), Err(ControlError::TooLong));
        for bad in ["", "[]", "{}", r#"{"type":"type"}"#, r#"{"type":"type","events":[[1,-1,1]]}"#]
        {
            assert_eq!(FromPage::parse(bad), Err(ControlError::Shape), "{bad}");
        }
    }
}
