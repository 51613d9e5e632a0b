//! The same tests on a store of an NFS server that is spoken to here.

#[path = "downloads.rs"]
mod downloads;
#[path = "faults.rs"]
mod faults;

type Bench = crate::bench::Bench<crate::bench::OnNfs>;
