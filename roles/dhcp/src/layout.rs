//! Where the files of one dnsmasq lie.

use std::path::{Path, PathBuf};

/// Where the files of one dnsmasq lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    directory: PathBuf,
}

impl Layout {
    pub const fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn main(&self) -> PathBuf {
        self.directory.join("main.conf")
    }

    /// All reservations as of the last reload; not watched.
    pub fn base_hosts(&self) -> PathBuf {
        self.directory.join("base.hosts")
    }

    pub fn options(&self) -> PathBuf {
        self.directory.join("base.opts")
    }

    /// Watched: reservations added since the last reload.
    pub fn hosts_directory(&self) -> PathBuf {
        self.directory.join("hosts.d")
    }

    /// All names as of the last reload; not watched: dnsmasq compares every name of a watched file
    /// with every name it knows.
    pub fn base_names(&self) -> PathBuf {
        self.directory.join("base.names")
    }

    /// Watched: names added since the last reload.
    pub fn names_directory(&self) -> PathBuf {
        self.directory.join("names.d")
    }

    /// The only directory dnsmasq writes to.
    pub fn leases_directory(&self) -> PathBuf {
        self.directory.join("leases")
    }

    pub fn leases(&self) -> PathBuf {
        self.leases_directory().join("dnsmasq.leases")
    }

    /// The last generation that dnsmasq survived, for a start with one that it does not.
    pub fn proven(&self) -> PathBuf {
        self.directory.join("proven.json")
    }
}
