//! How the process ends: one list of exit codes, one function that maps.

use std::process::ExitCode;

/// Every way this program ends. The numbers are those of `sysexits.h`; the unit file lists 64 and
/// 78 under `RestartPreventExitStatus`, because starting again cannot help there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Did what was asked.
    Clean,
    /// Ended, but not as asked: something had to be aborted, or the input was malformed.
    Failed,
    /// The command line is wrong.
    Usage,
    /// The machine lacks what the roles need, or nothing answers.
    Unavailable,
    /// A role failed for good.
    RoleFailed,
    /// The operating system refused what the supervisor itself needs.
    System,
    /// Another process uses the state directory.
    InUse,
    /// The configuration is wrong.
    Configuration,
}

impl Outcome {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::RoleFailed => 70,
            Self::System => 71,
            Self::InUse => 75,
            Self::Configuration => 78,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_are_those_the_unit_file_and_scripts_know() {
        let listed = [
            (Outcome::Clean, 0),
            (Outcome::Failed, 1),
            (Outcome::Usage, 64),
            (Outcome::Unavailable, 69),
            (Outcome::RoleFailed, 70),
            (Outcome::System, 71),
            (Outcome::InUse, 75),
            (Outcome::Configuration, 78),
        ];
        for (outcome, code) in listed {
            assert_eq!(outcome.code(), code, "{outcome:?}");
        }
    }
}
