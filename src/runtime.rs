//! The runtime that everything of this process runs on.

use std::time::Duration;

/// What blocking work still running gets after the roles ended.
pub(crate) const END_TIMEOUT: Duration = Duration::from_millis(500);
/// Threads for file work of all roles together; each role has a bound of its own.
const BLOCKING_THREADS: usize = 64;

/// As many workers as the machine has processors, and never fewer than two: one that a role blocks
/// must leave another.
pub(crate) fn multi_threaded() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(2))
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(Duration::from_secs(10))
        .thread_name("quickcloud")
        .enable_all()
        .build()
}

/// For a question that is asked and answered.
pub(crate) fn single_threaded() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}
