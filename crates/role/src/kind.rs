//! What identifies a role, and how a role crate offers itself to the registry.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::spec::RoleSpec;
use config_reader::Violations;

/// Names of a role. Each role crate has exactly one constant of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RoleKind {
    /// As in `--roles ss,cp,dhcp`, in log fields and in `/status`.
    pub short: &'static str,
    /// For humans: "secondary storage".
    pub title: &'static str,
    /// Key of the role's table below `[roles]`: "secondary_storage".
    pub section: &'static str,
}

impl RoleKind {
    /// The role's own directory below `supervisor.state_directory`.
    pub fn directory(self, state_directory: &Path) -> PathBuf {
        state_directory.join(self.short)
    }
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.short)
    }
}

/// The tables a role may read its configuration from.
#[derive(Debug, Clone, Copy)]
pub struct ConfigInput<'a> {
    /// The role's own table, `[roles.<section>]`; empty when the file has none.
    pub section: &'a toml::Table,
    /// `[management]`, shared by every role that registers with a management server.
    pub management: &'a toml::Table,
    /// `supervisor.state_directory`; a role keeps its files in [`RoleKind::directory`].
    pub state_directory: &'a Path,
}

/// Everything the registry needs to know of a role. What it offers besides running depends on its
/// configuration or on the run and is asked there: doctor's checks at [`RoleSpec::doctor`], admin
/// routes and reload at [`RoleContext`](crate::RoleContext).
#[derive(Debug, Clone, Copy)]
pub struct RoleDescriptor {
    pub kind: RoleKind,
    /// Reads the configuration, reporting every violation; `None` exactly when there was one that
    /// makes a spec impossible.
    pub configure: fn(ConfigInput<'_>, &mut Violations) -> Option<Arc<dyn RoleSpec>>,
    /// Dotted keys that a reload puts in force while the role runs: `roles.dhcp.upstreams`. A key
    /// of a list of tables is the list's: `roles.secondary_storage.stores`.
    pub reloadable: &'static [&'static str],
}

impl RoleDescriptor {
    /// A role for which every change needs a restart.
    pub const fn new(
        kind: RoleKind,
        configure: fn(ConfigInput<'_>, &mut Violations) -> Option<Arc<dyn RoleSpec>>,
    ) -> Self {
        Self { kind, configure, reloadable: &[] }
    }

    /// As `self`, with keys that a reload puts in force.
    pub const fn reloading(self, reloadable: &'static [&'static str]) -> Self {
        Self { reloadable, ..self }
    }
}
