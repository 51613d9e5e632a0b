//! The two answers without fields of their own.

use crate::Envelope;
use crate::base::AnswerBase;

java! {
    /// The answer without fields of its own (class `Answer`); named apart from the trait.
    PlainAnswer = "com.cloud.agent.api.Answer" {}
    extends base: AnswerBase
}

java! {
    /// The answer to a command that nobody here handles.
    UnsupportedAnswer = "com.cloud.agent.api.UnsupportedAnswer" {}
    extends base: AnswerBase
}

answers!(PlainAnswer, UnsupportedAnswer);

impl PlainAnswer {
    /// Success without a text.
    pub fn success() -> PlainAnswer {
        PlainAnswer::default()
    }

    /// Success with a text.
    pub fn success_with(details: impl Into<String>) -> PlainAnswer {
        PlainAnswer { base: AnswerBase::success_with(details) }
    }

    /// What a command gets that was not run because one before it in the same message failed.
    pub fn stopped_by_previous_failure() -> PlainAnswer {
        PlainAnswer { base: AnswerBase::failed("Stopped by previous failure") }
    }
}

impl UnsupportedAnswer {
    /// The answer to a command of `class`, worded as the original agent words it.
    pub fn to_class(class: &str) -> UnsupportedAnswer {
        UnsupportedAnswer {
            base: AnswerBase::failed(format!(
                "Unsupported command issued: {class}.  \
                 Are you sure you got the right type of server?"
            )),
        }
    }
}

/// The answer to a command of a class nobody here handles, worded as the server expects it.
pub fn unsupported(command: &Envelope) -> Envelope {
    Envelope::of(&UnsupportedAnswer::to_class(&command.class))
}
