//! The same tests on stores in memory: nothing of the pipeline knows what a store is made of.

#[path = "downloads.rs"]
mod downloads;
#[path = "faults.rs"]
mod faults;

type Bench = crate::bench::Bench<crate::bench::InMemory>;
