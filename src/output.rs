//! Text for people and scripts: answers to stdout, complaints to stderr.

use std::io::Write;

use crate::exit::Outcome;

/// Writes an answer. A reader that went away (`| head`) is not a failure of ours.
pub(crate) fn say(text: &str) -> Outcome {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Outcome::Clean,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Outcome::Clean,
        Err(error) => {
            complain(&format!("error: cannot write to standard output: {error}\n"));
            Outcome::System
        }
    }
}

/// Writes a complaint. When even that fails there is nobody left to tell.
pub(crate) fn complain(text: &str) {
    std::io::stderr().lock().write_all(text.as_bytes()).unwrap_or_default();
}

/// One complaint with its causes.
pub(crate) fn complain_of(error: &dyn std::error::Error) {
    complain(&format!("error: {}\n", bedrock::chain(error)));
}
