//! What a former run of this process left: its records, its unfinished files.
//!
//! A resumable upload goes on (see [`super::pausing`]). Any other cannot, its client is gone: the
//! server is told so at its next question, whether the store is there or not; only an upload that may
//! have been published is looked at first.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::error::UploadError;
use super::record::{Record, Records, State};
use super::run;
use super::table::Uploads;
use crate::ingest::intake::{clean_up, settle};
use crate::ingest::journal::{Journal, Note};
use crate::objects::inventory;
use crate::state_file::StateError;
use crate::stores::{StoreError, Work};

const RETRY: Duration = Duration::from_secs(60);

/// Reads every record; those of uploads that were under way and cannot have been published become
/// failures. Blocks.
pub fn load(records: &Records, journal: &Journal) -> Result<Vec<(String, Record)>, StateError> {
    let notes: BTreeMap<String, Note> = journal.all()?.into_iter().collect();
    let mut all = records.all()?;
    for (id, record) in &mut all {
        let State::Receiving { attempt, resume: None } = &record.state else { continue };
        if notes.get(attempt).is_none_or(|note| note.image.is_none()) {
            record.state = failed();
            records.save(id, record)?;
        }
    }
    Ok(all)
}

fn failed() -> State {
    State::Failed { text: UploadError::Stopped.to_string(), told: false }
}

/// Why a note is looked at again later.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Ingest(#[from] crate::ingest::IngestError),
}

impl Uploads {
    /// Finishes what [`load`] left open and nobody goes on with, and removes from the stores what a former run left there. A
    /// store that is not there now is tried again later.
    pub async fn recover(&self, shutdown: CancellationToken) {
        let cx = self.context();
        let journal = cx.journal.clone();
        let mut notes = match cx.tasks.blocking("read notes", move || journal.all()).await {
            Ok(Ok(notes)) => notes,
            Ok(Err(error)) => {
                let error = bedrock::chain(&error);
                tracing::warn!(error, "cannot read the notes of former uploads");
                return;
            }
            Err(_stopped) => return,
        };
        // What began since then is none of a former run.
        notes.retain(|(attempt, _)| !self.is_of_this_run(attempt));
        loop {
            let mut left = Vec::new();
            for (attempt, note) in notes {
                if let Err(error) = self.look(&attempt, &note).await {
                    let error = bedrock::chain(&error);
                    tracing::warn!(attempt, error, "cannot clean up a former upload, will retry");
                    left.push((attempt, note));
                }
            }
            if left.is_empty() {
                return;
            }
            notes = left;
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    fn is_of_this_run(&self, attempt: &str) -> bool {
        self.each(|upload| upload.attempt == attempt, |_, _| false).into_iter().any(|ours| ours)
    }

    async fn look(&self, attempt: &str, note: &Note) -> Result<(), LookError> {
        let cx = self.context();
        let open = |_id: &str, record: &Record| matches!(&record.state, State::Receiving { attempt: of, .. } if of == attempt);
        let mut records = self
            .each(|_| None, |id, record| open(id, record).then(|| (id.to_owned(), record.clone())));
        let record = records.drain(..).flatten().next();
        let store = cx.stores.open(&note.store, None).await?;
        let listed =
            inventory::listed_image(&store, &Work::new(), note.kind, &note.directory).await?;
        let is_published =
            listed.is_some() && listed.as_deref() == note.image.as_ref().map(|name| name.as_str());
        let state = if is_published {
            let completed = run::listed(cx, &store, note).await?;
            settle(cx, attempt).await;
            completed.map(State::Completed)
        } else {
            clean_up(cx, attempt).await?;
            None
        };
        if let Some((id, record)) = record {
            let record = Record { state: state.unwrap_or_else(failed), ..record };
            self.save(&id, record.clone()).await;
            self.restore(id, record);
        }
        tracing::info!(attempt, path = %note.directory, is_published, "a former upload was cleaned up");
        Ok(())
    }

    /// Removes the files of records that are forgotten.
    pub(super) async fn tidy(&self) {
        let known: Vec<String> = self.each(|upload| upload.id.clone(), |id, _| id.to_owned());
        let records = self.records().clone();
        let work = move || -> Result<(), StateError> {
            for (id, _) in records.all()? {
                if known.binary_search(&id).is_err() {
                    records.remove(&id)?;
                }
            }
            Ok(())
        };
        if let Ok(Err(error)) = self.context().tasks.blocking("tidy records", work).await {
            tracing::warn!(error = bedrock::chain(&error), "cannot remove old records of uploads");
        }
        self.tidy_shared().await;
    }
}
