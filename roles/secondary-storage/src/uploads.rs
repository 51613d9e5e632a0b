//! Uploads by browsers and other clients, signed by the management server.
//!
//! ```text
//! request ─▶ order (signature, expiry, metadata) ─▶ plan (checked values) ─▶ table (one per id)
//!    └ body ─▶ form ─▶ pieces ─▶ the ingest of downloads ─▶ listed object ─▶ record
//! UploadStatusCommand ─▶ table, record
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`http`] | the routes below `/upload`, every answer |
//! | [`order`] | the signed order |
//! | [`plan`] | the order in checked values |
//! | [`multipart`] | HTML forms, pure |
//! | `receive` | the body of a request, with its time limits |
//! | `tus`, `pausing` | uploads that go on where they broke off, over a restart too |
//! | `page` | the page to upload from |
//! | [`table`] | which uploads there are, what the server is told of them |
//! | [`upload`], `run` | one upload, and its work |
//! | [`record`], [`recover`] | what survives a restart |
//! | `shared` | what the other storage hosts of the zone know of an upload |
//! | `quota` | what an account has |
//! | [`keys`] | the keys that sign uploads |
//! | [`config`], `metrics`, `status` | keys of the configuration, figures, what is shown |

pub mod config;
mod error;
pub mod http;
pub mod keys;
pub mod metrics;
pub mod multipart;
pub mod order;
mod page;
mod pausing;
pub mod plan;
mod quota;
mod receive;
pub mod record;
pub mod recover;
mod run;
mod shared;
mod status;
pub mod table;
mod tus;
pub mod upload;

pub use error::UploadError;
pub use table::Uploads;

use std::time::Duration;

use role::RoleContext;

use http::UploadService;

/// Between two looks for records that nobody needs any more.
const TIDY_INTERVAL: Duration = Duration::from_secs(3_600);

/// Starts what goes on beside the requests, for the time of one run. What an earlier run left goes on
/// already.
pub(crate) fn start(service: &UploadService, cx: &RoleContext) {
    let (uploads, shutdown) = (service.uploads.clone(), cx.shutdown.clone());
    cx.tasks.spawn("recover uploads", async move { uploads.recover(shutdown).await });
    let (uploads, shutdown) = (service.uploads.clone(), cx.shutdown.clone());
    cx.tasks.spawn("stop uploads", async move {
        shutdown.cancelled().await;
        uploads.stop().await;
    });
    cx.tasks.spawn_vital("end paused uploads", pausing::end_pauses(service.clone(), cx.clone()));
    let (uploads, shutdown) = (service.uploads.clone(), cx.shutdown.clone());
    cx.tasks.spawn_vital("tidy uploads", async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(TIDY_INTERVAL) => uploads.tidy().await,
            }
        }
    });
    let uploads = service.uploads.clone();
    cx.health.report(move || uploads.status());
}
