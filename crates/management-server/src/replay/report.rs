//! What came of a replay.

use std::fmt;

use serde_json::Value;

use super::compare::{Difference, Mismatch, covers};

/// One recorded message and what came in its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Line of the command, or of the agent's recorded request; 0 for a request that the
    /// recording does not have.
    pub line: usize,
    /// Class of the command or request, without its package.
    pub command: String,
    /// The recorded answer or request, with the agent's own values in place; `None` when none was
    /// recorded.
    pub recorded: Option<Value>,
    /// What came; `None` when nothing did.
    pub got: Option<Value>,
    /// What is wrong with its header.
    pub header_faults: Vec<String>,
    /// Differences that nobody excused.
    pub mismatches: Vec<Mismatch>,
    /// Differences on purpose, with their reasons.
    pub excused: Vec<(Mismatch, String)>,
}

impl Exchange {
    /// Whether it came, with a sound header and without a difference that nobody excused.
    pub fn is_clean(&self) -> bool {
        let came = self.got.is_some() || self.recorded.is_none();
        came && self.header_faults.is_empty() && self.mismatches.is_empty()
    }
}

/// What a replay tells its caller while it runs.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// A command was handed to the writer; it may not have left yet.
    Sent {
        /// Line of the command.
        line: usize,
        /// Its class without its package.
        command: &'a str,
    },
    /// A command was answered, or given up; the next one follows.
    Answered(&'a Exchange),
}

/// A command that nobody answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unanswered {
    /// Line of the command; 0 for a question that the recording does not have.
    pub line: usize,
    /// Class of the command, without its package.
    pub command: String,
}

/// The whole report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Commands of the server and the agent's answers.
    pub answers: Vec<Exchange>,
    /// Requests of the agent, in the order they came.
    pub requests: Vec<Exchange>,
    /// Lines of the commands in the order their answers came.
    pub order: Vec<usize>,
    /// Pairs of commands, both open at the same time, whose answers came in another order than
    /// recorded.
    pub reordered: Vec<(usize, usize)>,
    /// Differences that never occurred: the list is longer than needed.
    pub stale: Vec<Difference>,
    /// Commands that were sent before the agent said goodbye and had no answer when the link ended,
    /// in the order of their lines. A server waits for them, in the connect phase with its host
    /// locked. What an agent refused or was not asked to answer is not among them.
    pub unanswered: Vec<Unanswered>,
    /// Why the link ended, when it did before the end of the conversation.
    pub broken: Option<String>,
}

impl Report {
    /// Whether everything came as recorded but for the differences on purpose. The order of
    /// answers and stale differences are looked at separately.
    pub fn is_clean(&self) -> bool {
        let clean = |exchanges: &[Exchange]| exchanges.iter().all(Exchange::is_clean);
        self.broken.is_none() && clean(&self.answers) && clean(&self.requests)
    }

    /// Sorts mismatches into excused ones and others.
    pub(super) fn excuse(
        exchange: &mut Exchange,
        mismatches: Vec<Mismatch>,
        differences: &[Difference],
        used: &mut [bool],
    ) {
        for mismatch in mismatches {
            let reason = differences.iter().zip(used.iter_mut()).find_map(|(difference, used)| {
                covers(&difference.path, &mismatch.path).then(|| {
                    *used = true;
                    difference.reason.clone()
                })
            });
            match reason {
                Some(reason) => exchange.excused.push((mismatch, reason)),
                None => exchange.mismatches.push(mismatch),
            }
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = || self.answers.iter().chain(&self.requests);
        let clean = all().filter(|exchange| exchange.is_clean()).count();
        writeln!(formatter, "{clean} of {} messages as recorded", all().count())?;
        for exchange in all().filter(|exchange| !exchange.is_clean()) {
            writeln!(formatter, "line {} {}:", exchange.line, exchange.command)?;
            if exchange.got.is_none() {
                writeln!(formatter, "  nothing came")?;
            }
            for fault in &exchange.header_faults {
                writeln!(formatter, "  header: {fault}")?;
            }
            for Mismatch { path, recorded, got } in &exchange.mismatches {
                writeln!(formatter, "  {path}: recorded {recorded}, got {got}")?;
            }
        }
        if !self.reordered.is_empty() {
            writeln!(formatter, "answers in another order: {:?}", self.reordered)?;
        }
        for Difference { path, .. } in &self.stale {
            writeln!(formatter, "difference that did not occur: {path}")?;
        }
        for Unanswered { line, command } in &self.unanswered {
            writeln!(formatter, "unanswered at the end of the link: line {line} {command}")?;
        }
        if let Some(reason) = &self.broken {
            writeln!(formatter, "the link ended: {reason}")?;
        }
        Ok(())
    }
}
