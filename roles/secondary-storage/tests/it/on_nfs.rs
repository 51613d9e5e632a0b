//! The same tests on a store of an NFS server that is spoken to here.

#[path = "downloads.rs"]
mod downloads;
#[path = "inventory.rs"]
mod inventory;
#[path = "links.rs"]
mod links;
#[path = "objects.rs"]
mod objects;

type Bench = crate::bench::Bench<crate::bench::OnNfs>;
