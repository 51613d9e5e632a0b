//! The answer to a command that is not carried out, in the class and shape the server can read.
//!
//! The server casts most answers to the class of the question and looks at one field of it, which
//! is not always `result`. An answer of another class hangs a job of its API for ever (the files
//! of a snapshot), ends in a cast error (a config drive) or counts as success (a template copy
//! since 4.20.3). What each class needs stands beside the class: [`Answer::failed`](crate::Answer)
//! where the answer alone decides, [`Command::failed_answer`](crate::Command) where it repeats
//! something of the command.

use crate::agent::{AgentCommand, unsupported};
use crate::console::ConsoleCommand;
use crate::storage::StorageCommand;
use crate::{AgentRequest, Envelope};

/// The answer that says no to `command`, whatever its class: the right class for every command an
/// agent can meet or send, even when a field of it cannot be read; `UnsupportedAnswer` for a class that
/// nobody here knows. `details` is shown to the operator of the server.
pub fn failed_answer(command: &Envelope, details: &str) -> Envelope {
    AgentCommand::failed_answer_of_class(command, details)
        .or_else(|| StorageCommand::failed_answer_of_class(command, details))
        .or_else(|| ConsoleCommand::failed_answer_of_class(command, details))
        .or_else(|| AgentRequest::failed_answer_of_class(command, details))
        .unwrap_or_else(|| unsupported(command))
}
