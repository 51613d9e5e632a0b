//! `quickcloud ss …`: what the secondary storage of the running process does, and what it should.
//! One submodule per subject; each but `inspect` asks the role's routes below `/roles/ss/` of the admin API.

mod inspect;
mod jobs;
mod links;
mod stores;
mod upload;
mod uploads;

use clap::Subcommand;

use crate::exit::Outcome;

#[derive(Debug, Subcommand)]
pub(super) enum SsCommand {
    /// Shows the downloads: how far they are, and how the last ones ended
    #[command(after_help = jobs::EXAMPLES)]
    Jobs(super::view::ViewOptions),
    /// Does a download that failed or was cancelled again
    #[command(after_help = jobs::RETRY_EXAMPLES)]
    Retry(jobs::JobOptions),
    /// Stops a download and removes what there is of it
    #[command(after_help = jobs::CANCEL_EXAMPLES)]
    Cancel(jobs::JobOptions),
    /// Shows the stores: where they are, how full, and what is wrong with them
    #[command(after_help = stores::EXAMPLES)]
    Stores(super::view::ViewOptions),
    /// Looks at everything on the stores; removes leftovers if told to
    #[command(after_help = stores::VERIFY_EXAMPLES)]
    Verify(stores::VerifyOptions),
    /// Shows the download links of the zone
    #[command(after_help = links::EXAMPLES)]
    Links(super::view::ViewOptions),
    /// Takes a download link away
    #[command(after_help = links::UNLINK_EXAMPLES)]
    Unlink(links::LinkOptions),
    /// Uploads a template, ISO or volume with the signed values of the API
    ///
    /// Goes on where it broke off. Needs no running process on this machine.
    #[command(after_help = upload::EXAMPLES)]
    Upload(upload::UploadOptions),
    /// Shows the uploads: how far they are, and how the last ones ended
    #[command(after_help = uploads::EXAMPLES)]
    Uploads(super::view::ViewOptions),
    /// Ends an upload and removes what there is of it
    #[command(after_help = uploads::CANCEL_EXAMPLES)]
    CancelUpload(uploads::CancelOptions),
    /// Says what an image is and whether it would be installed
    #[command(after_help = inspect::EXAMPLES)]
    Inspect(inspect::InspectOptions),
}

/// Of every subcommand; a test parses them.
#[cfg(test)]
pub(super) const EXAMPLES: &[&str] = &[
    jobs::EXAMPLES,
    jobs::RETRY_EXAMPLES,
    jobs::CANCEL_EXAMPLES,
    stores::EXAMPLES,
    stores::VERIFY_EXAMPLES,
    links::EXAMPLES,
    links::UNLINK_EXAMPLES,
    upload::EXAMPLES,
    uploads::EXAMPLES,
    uploads::CANCEL_EXAMPLES,
    inspect::EXAMPLES,
];

pub(super) fn ss(command: &SsCommand) -> Outcome {
    match command {
        SsCommand::Jobs(options) => jobs::jobs(options),
        SsCommand::Retry(options) => jobs::retry(options),
        SsCommand::Cancel(options) => jobs::cancel(options),
        SsCommand::Stores(options) => stores::stores(options),
        SsCommand::Verify(options) => stores::verify(options),
        SsCommand::Links(options) => links::links(options),
        SsCommand::Unlink(options) => links::unlink(options),
        SsCommand::Upload(options) => upload::upload(options),
        SsCommand::Uploads(options) => uploads::uploads(options),
        SsCommand::CancelUpload(options) => uploads::cancel(options),
        SsCommand::Inspect(options) => inspect::inspect(options),
    }
}
