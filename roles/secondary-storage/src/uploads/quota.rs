//! What an account has on a store.

use std::io::{Error, ErrorKind};

use crate::stores::{EngineError, EntryKind, InstallPath, Store, StoreError, Work};

/// The trees that count, each with a directory for the account.
const TREES: [&str; 3] = ["template/tmpl", "volumes", "snapshots"];
/// Deeper than anything of ours; what is odd must not keep an upload waiting for ever.
const DIRECTORIES: usize = 100_000;

/// Bytes of everything that the account has on the store, as the original adds them up.
pub(super) async fn usage(store: &Store, account: i64) -> Result<u64, StoreError> {
    const NAME: &str = "add up an account's files";
    let work = Work::new();
    let paths = TREES.iter().filter_map(|tree| format!("{tree}/{account}").parse().ok());
    let mut waiting: Vec<InstallPath> = paths.collect();
    let (mut used, mut seen) = (0_u64, 0);
    while let Some(directory) = waiting.pop() {
        seen += 1;
        if seen > DIRECTORIES {
            let error =
                EngineError::Io(Error::new(ErrorKind::QuotaExceeded, "too many directories"));
            return store.run(NAME, Box::pin(async { Err(error) })).await;
        }
        let listing = store.engine().entries(&work, Some(directory.clone()));
        for entry in store.run(NAME, listing).await?.unwrap_or_default() {
            match entry.kind {
                EntryKind::File => used = used.saturating_add(entry.size),
                EntryKind::Directory => {
                    waiting.extend(entry.name.parse().ok().map(|name| directory.join(name)));
                }
                EntryKind::Other => {}
            }
        }
    }
    Ok(used)
}
