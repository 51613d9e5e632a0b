//! The pipeline's tests on a directory.

#[path = "downloads.rs"]
mod downloads;
#[path = "faults.rs"]
mod faults;

type Bench = crate::bench::Bench<crate::bench::OnDirectory>;
