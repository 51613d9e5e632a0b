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
//! | [`error`] | [`RoleError`], [`PreflightError`] |
//! | [`health`] | what a role reports about itself |
//! | [`heartbeat`] | links that want to be pinged by the one shared heartbeat |
//! | [`tasks`] | the only way to spawn: named, joined at stop, killed on abort |
//! | [`admin`] | routes of its own on the admin listener |
//! | [`reload`] | how a run takes over another configuration |
//! | [`doctor`] | questions about machine and surroundings |
//! | [`host`] | clock and programs of the machine |

pub mod admin;
pub mod doctor;
pub mod error;
pub mod health;
pub mod heartbeat;
pub mod host;
pub mod kind;
pub mod reload;
pub mod spec;

pub use admin::AdminRoutes;
pub use doctor::{DoctorCheck, DoctorContext, DoctorFinding, Reach};
pub use error::{PreflightError, RoleError};
pub use health::{Health, HealthReporter};
pub use heartbeat::{Heartbeat, LinkReport, LinkState, PingedLink};
pub use host::{CommandRunner, CommandSpec, Host};
pub use kind::{ConfigInput, RoleDescriptor, RoleKind};
pub use reload::Reload;
pub use spec::{Resource, Role, RoleContext, RoleSpec};
pub use task_scope::{self as tasks, TaskScope};

/// A boxed future, so that traits with async methods stay usable as `dyn`.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
