//! The calls of NFS version 3 that a store needs (RFC 1813 section 3.3).

mod directories;
mod files;
mod server;

pub use directories::{
    Entry, Link, Listing, Lookup, MakeDirectory, ReadDirectory, ReadDirectoryPlus, Remove,
    RemoveDirectory, Rename,
};
pub use files::{
    Commit, Create, Creation, GetAttributes, Read, ReadData, SetAttributes, Stability, Verifier,
    Write, Written,
};
pub use server::{Access, FileSystemInfo, FileSystemSpace, Info, Space, rights};

use crate::rpc::Program;
use crate::types::{Attributes, Handle};

pub const PROGRAM: Program = Program { name: "NFS", number: 100_003, version: 3 };

/// A file as a lookup or its creation gives it. Servers may leave out the attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub handle: Handle,
    pub attributes: Option<Attributes>,
}
