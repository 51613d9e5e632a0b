//! What every command and every answer has.
//!
//! Apart from the bodies, because envelopes read it from a body of any class.

use std::fmt;

use crate::gson::Dictionary;

/// The fields of every command, last in every body.
#[derive(Clone, PartialEq, Default)]
pub struct CommandBase {
    /// Side channel of texts; `logid` and `job` tie log lines of both sides together.
    pub context_map: Dictionary<String>,
    /// Seconds the sender waits; 0 means its default. Means nothing in an answer.
    pub wait: i32,
    /// Server side only.
    pub bypass_host_maintenance: bool,
    /// For hypervisor extensions, which may put credentials there.
    pub external_details: Option<Dictionary<Dictionary<String>>>,
}

java!(@impl CommandBase {
    "contextMap" context_map,
    "wait" wait,
    "bypassHostMaintenance" bypass_host_maintenance,
    "externalDetails" external_details,
});

impl CommandBase {
    /// A base with a waiting time in seconds.
    pub fn waiting(seconds: i32) -> CommandBase {
        CommandBase { wait: seconds, ..CommandBase::default() }
    }

    /// The server's log context id, eight hex digits as a rule.
    pub fn log_id(&self) -> Option<&str> {
        self.context_map.get("logid").map(String::as_str)
    }

    /// The server's job, such as `job-88/job-89`.
    pub fn job(&self) -> Option<&str> {
        self.context_map.get("job").map(String::as_str)
    }
}

/// Values of `external_details` are left out.
impl fmt::Debug for CommandBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandBase")
            .field("context_map", &self.context_map)
            .field("wait", &self.wait)
            .field("bypass_host_maintenance", &self.bypass_host_maintenance)
            .field("external_details", &self.external_details.as_ref().map(|d| d.len()))
            .finish()
    }
}

/// The fields of every answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerBase {
    /// Success. A missing field means true, as for the server.
    pub result: bool,
    /// Free text.
    pub details: Option<String>,
    /// An answer is a command in the peer's type tree.
    pub command: CommandBase,
}

java!(@impl AnswerBase { "result" result, "details" details, } command);

impl Default for AnswerBase {
    fn default() -> AnswerBase {
        AnswerBase { result: true, details: None, command: CommandBase::default() }
    }
}

impl AnswerBase {
    /// Success without a text.
    pub fn success() -> AnswerBase {
        AnswerBase::default()
    }

    /// Success with a text.
    pub fn success_with(details: impl Into<String>) -> AnswerBase {
        AnswerBase { details: Some(details.into()), ..AnswerBase::default() }
    }

    /// Failure with its reason.
    pub fn failed(details: impl Into<String>) -> AnswerBase {
        AnswerBase { result: false, details: Some(details.into()), ..AnswerBase::default() }
    }
}
