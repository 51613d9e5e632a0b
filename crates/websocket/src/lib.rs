//! The server's side of RFC 6455 after the opening handshake, as bytes and values.
//!
//! A console sends megabytes and receives keystrokes. So what is sent is a header to be written in
//! front of bytes that stay where they are, and what is received is taken apart in one small buffer.
//! No extension is spoken: every reserved bit is an error.
//!
//! Every rule of RFC 6455, sections 5 and 7, that a server meets is a test of [`receiver`], and the
//! Autobahn suite (`cargo xtask autobahn`) finds its 301 cases without extensions as they should be; of
//! these 4 "non-strict", because a text is judged when it is whole and not at its first wrong byte.
//!
//! | module | what |
//! |---|---|
//! | [`header`] | the head of a frame, written |
//! | [`receiver`] | a client's frames, read |
//! | [`close`] | codes and reasons of the close frame |

pub mod close;
pub mod header;
pub mod receiver;

pub use close::CloseFrame;
pub use header::{Header, Opcode};
pub use receiver::{Event, FrameError, Receiver};
