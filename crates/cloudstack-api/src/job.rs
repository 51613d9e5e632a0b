//! Calls that go on after their answer: the answer names a job, and the job is asked for.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use crate::answer::Refusal;
use crate::client::{CallError, Client};
use crate::commands::{AsyncCommand, QueryAsyncJob, only};
use crate::xml::{Element, Object, ReadError};

/// Answer to an asynchronous command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started<T> {
    /// It goes on as this job.
    Job(Uuid),
    /// This release did it at once.
    Done(T),
}

impl<T: Object> Started<T> {
    pub(crate) fn read(root: Element<'_, '_>, name: &str) -> Result<Self, ReadError> {
        match root.field("jobid")? {
            Some(id) => Ok(Self::Job(id)),
            None => only(root, name).map(Self::Done),
        }
    }
}

/// How a job is. The result is kept as its document, since its shape depends on the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobState {
    Pending,
    Succeeded {
        /// The element `jobresult` with what is in it.
        result: String,
    },
    Failed(Refusal),
}

impl Object for JobState {
    fn read(root: Element<'_, '_>) -> Result<Self, ReadError> {
        let code: u16 = root.field("jobstatus")?;
        let result = root.one("jobresult")?;
        match code {
            0 => Ok(Self::Pending),
            1 => Ok(Self::Succeeded {
                result: result.map_or_else(|| "<jobresult/>".to_owned(), Element::source),
            }),
            2 => Ok(Self::Failed(failure(root, result)?)),
            other => Err(ReadError::Malformed {
                path: root.path("jobstatus"),
                value: other.to_string(),
                what: "0, 1 or 2",
            }),
        }
    }
}

/// The refusal stands in the result itself or in the one object in it.
fn failure(root: Element<'_, '_>, result: Option<Element<'_, '_>>) -> Result<Refusal, ReadError> {
    if let Some(result) = result {
        for element in std::iter::once(result).chain(result.children()) {
            if let Some(refusal) = Refusal::read(element)? {
                return Ok(refusal);
            }
        }
    }
    let code = root.field::<Option<u16>>("jobresultcode")?.unwrap_or(530);
    let text = result.and_then(Element::text).filter(|text| !text.is_empty());
    Ok(Refusal::new(code, None, text.unwrap_or("the job failed without a reason")))
}

/// How long a job is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobWait {
    /// From the answer to the end.
    pub timeout: Duration,
    /// Before the first question; doubled after each, up to `longest_interval`.
    pub interval: Duration,
    pub longest_interval: Duration,
}

impl Default for JobWait {
    fn default() -> Self {
        Self {
            timeout: Duration::from_mins(10),
            interval: Duration::from_millis(200),
            longest_interval: Duration::from_secs(5),
        }
    }
}

/// Why an asynchronous call did not end well.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("{command} failed as job {job}")]
    Failed { command: &'static str, job: Uuid, source: Refusal },
    /// It goes on at the server; what it does may still happen.
    #[error("{command} is still going on as job {job} after {waited:?}")]
    StillGoing { command: &'static str, job: Uuid, waited: Duration },
    #[error("the result of {command}, job {job}, cannot be read")]
    Result { command: &'static str, job: Uuid, source: ReadError },
}

impl Client {
    /// Starts an asynchronous command and waits for its end. Errors while asking that may pass are
    /// asked over, so that a restart of the server does not lose a job.
    pub async fn run<C: AsyncCommand>(
        &mut self,
        command: &C,
        wait: JobWait,
    ) -> Result<C::Outcome, JobError> {
        let job = match self.call(command).await? {
            Started::Done(outcome) => return Ok(outcome),
            Started::Job(job) => job,
        };
        let (start, mut interval) = (Instant::now(), wait.interval);
        loop {
            tokio::time::sleep(interval).await;
            interval = (interval * 2).min(wait.longest_interval);
            match self.call(&QueryAsyncJob { job_id: job }).await {
                Ok(JobState::Pending) => {}
                Ok(JobState::Failed(source)) => {
                    return Err(JobError::Failed { command: C::NAME, job, source });
                }
                Ok(JobState::Succeeded { result }) => {
                    return crate::xml::with_root(result.as_bytes(), |root| only(root, C::OUTCOME))
                        .map_err(|source| JobError::Result { command: C::NAME, job, source });
                }
                Err(error) if error.is_transient() => {
                    tracing::debug!(%job, error = bedrock::chain(&error), "job not asked for");
                }
                Err(error) => return Err(error.into()),
            }
            let waited = start.elapsed();
            if waited >= wait.timeout {
                return Err(JobError::StillGoing { command: C::NAME, job, waited });
            }
        }
    }
}
