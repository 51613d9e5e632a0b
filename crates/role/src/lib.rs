//! The contract between the supervisor and its roles, and the ports through which a role meets
//! the machine.
//!
//! The supervisor knows a role only as [`RoleSpec`] and [`Role`]; a role knows the process only
//! as [`RoleContext`]. Nothing here knows any particular role, CloudStack, or a wire format.
//!
//! | module | what |
//! |---|---|
//! | [`kind`] | [`RoleKind`], [`RoleDescriptor`]: the one line that adds a role |
//! | [`spec`] | [`RoleSpec`], [`Role`], [`RoleContext`], [`Resource`] |
//! | [`error`] | [`RoleError`], [`PreflightError`], [`chain`] |
//! | [`health`] | what a role reports about itself |
//! | [`heartbeat`] | links that want to be pinged by the one shared heartbeat |
//! | [`tasks`] | the only way to spawn: named, joined at stop, killed on abort |
//! | [`host`] | clock and programs of the machine |
//! | [`section`] | reading one table of the configuration, every violation at once |
//! | [`http`] | the one bounded accept loop behind every HTTP listener |
//! | [`front`] | one HTTP port shared by several roles |
//! | [`network`], [`files`] | IP networks; small files replaced whole |
//! | [`secret`] | values that cannot be printed |

pub mod error;
pub mod files;
pub mod front;
pub mod health;
pub mod heartbeat;
pub mod host;
pub mod http;
pub mod kind;
pub mod network;
pub mod secret;
pub mod section;
pub mod spec;
pub mod tasks;

pub use error::{PreflightError, RoleError, chain};
pub use front::HttpFront;
pub use health::{Health, HealthReporter};
pub use heartbeat::{Heartbeat, LinkReport, LinkState, PingedLink};
pub use host::{CommandRunner, CommandSpec, Host};
pub use kind::{ConfigInput, RoleDescriptor, RoleKind};
pub use secret::Secret;
pub use section::{Section, Violation, Violations};
pub use spec::{Resource, Role, RoleContext, RoleSpec};
pub use tasks::TaskScope;

/// A boxed future, so that traits with async methods stay usable as `dyn`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
