//! Role `dhcp`: DHCP and DNS for the guests of a zone, by a supervised dnsmasq.
//!
//! ```text
//!  REST on a Unix socket ──► store (durable) ──► reconciler ──► files ──► dnsmasq
//!  management server's API ──► sync ──┘               │ ▲                     │
//!                                                     │ └── log, lease file ◄─┘
//!                                                     └──► observed state
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`config`] | `[roles.dhcp]` |
//! | `service` | one run: store, API, reconciler, reload |
//! | [`desired`], [`store`] | what must hold, and its file |
//! | [`access`], [`tcp`] | tokens, and the API over TCP |
//! | `api` | REST on the Unix socket; its words and resources are the crate `dhcp-api` |
//! | [`sync`] | what the management server knows, as a second writer of the store |
//! | [`render`] | pure: state → files |
//! | `plan`, `reconciler` | the one loop that applies |
//! | `rollback` | which generation dnsmasq gets when the wanted one kills it |
//! | `doctor` | what to look at when guests get no address |
//! | `child`, `dnsmasq_log`, `heard`, `ports` | the process, what it says, of whom, who has its ports |
//! | `probe` | whether somebody else gives addresses |
//! | [`leases`], `release` | who holds what, and taking it back |
//!
//! Whatever is missing on the machine (dnsmasq, privileges, the interface) makes the role degraded,
//! never failed: the API works, files are rendered, and starting is tried again.
#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::string_slice))]

pub mod access;
mod api;
mod child;
pub mod config;
pub mod desired;
mod dnsmasq_log;
mod doctor;
mod files;
mod heard;
mod history;
mod layout;
pub mod leases;
mod machine;
mod metrics;
pub mod observed;
mod plan;
mod ports;
mod probe;
mod reconciler;
mod release;
pub mod render;
mod rollback;
mod service;
pub mod store;
pub mod sync;
pub mod tcp;
mod version;

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use config_reader::Violations;
use nix::unistd::AccessFlags;
use role::kind::ConfigInput;
use role::{
    BoxFuture, DoctorCheck, Host, PreflightError, Resource, Role, RoleContext, RoleDescriptor,
    RoleError, RoleKind, RoleSpec,
};

use config::Config;

/// The role as the registry lists it.
pub const DESCRIPTOR: RoleDescriptor = RoleDescriptor::new(KIND, configure)
    .reloading(&["roles.dhcp.upstreams", "roles.dhcp.lease_time"]);

const KIND: RoleKind = RoleKind { short: "dhcp", title: "DHCP and DNS", section: "dhcp" };

fn configure(input: ConfigInput<'_>, violations: &mut Violations) -> Option<Arc<dyn RoleSpec>> {
    let config = Config::read(input.section, input.state_directory, violations)?;
    Some(Arc::new(Spec { config }))
}

#[derive(Debug)]
struct Spec {
    config: Config,
}

impl RoleSpec for Spec {
    fn kind(&self) -> RoleKind {
        KIND
    }

    fn resources(&self) -> Vec<Resource> {
        vec![
            Resource::Interface(self.config.interface.to_string()),
            Resource::Socket(self.config.api_socket.clone()),
            Resource::Dir(self.config.directory.clone()),
        ]
    }

    /// Only what the API needs: everything else makes the role degraded, not impossible.
    fn preflight<'a>(&'a self, _host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        let checks = [
            (self.config.directory.as_path(), "set supervisor.state_directory"),
            (
                self.config.api_socket.parent().unwrap_or(Path::new("/")),
                "set roles.dhcp.api_socket",
            ),
        ];
        let found =
            checks.into_iter().filter_map(|(directory, remedy)| unwritable(directory, remedy));
        let found = found.collect();
        Box::pin(async move { found })
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(DhcpRole { config: self.config.clone() })
    }

    fn doctor(&self) -> Vec<DoctorCheck> {
        doctor::checks(&self.config)
    }
}

/// Whether we could create files in `directory`, which may not exist yet.
fn unwritable(directory: &Path, remedy: &str) -> Option<PreflightError> {
    let remedy = format!("{remedy} to a path this user can write to");
    for ancestor in directory.ancestors() {
        let problem = match std::fs::metadata(ancestor) {
            // Absent is only what the kernel calls absent.
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                continue;
            }
            Err(error) => format!("cannot look at {}: {error}", ancestor.display()),
            Ok(metadata) => {
                let access = nix::unistd::access(ancestor, AccessFlags::W_OK | AccessFlags::X_OK);
                if metadata.is_dir() && access.is_ok() {
                    return None;
                }
                format!("cannot write below {}", ancestor.display())
            }
        };
        return Some(PreflightError { problem, remedy });
    }
    None
}

#[derive(Debug)]
struct DhcpRole {
    config: Config,
}

impl Role for DhcpRole {
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        Box::pin(service::run(self.config, cx))
    }
}
