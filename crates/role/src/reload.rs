//! A running role takes over another configuration, as far as it can without a restart.
//!
//! On SIGHUP or `quickcloud reload` the supervisor reads and validates the configuration whole; a
//! faulty one changes nothing. Then every running role gets its new spec and puts in force what it
//! can: values it looks up anew for each piece of work, and files such as certificates and trust
//! roots, which may have changed although their key did not. What a key needs, a reload or a
//! restart, is the role's business: it lists the former in
//! [`RoleDescriptor::reloadable`](crate::RoleDescriptor::reloadable).
//!
//! A role that fails or stops later is built from the new spec whatever its reload did.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use status_api::ReloadReport;

use crate::BoxFuture;
use crate::spec::RoleSpec;

type Handler = Arc<dyn Fn(Arc<dyn RoleSpec>) -> BoxFuture<'static, ReloadReport> + Send + Sync>;

/// Where one run of a role says how it takes over another spec. Cloneable; clones share everything.
#[derive(Clone, Default)]
pub struct Reload {
    handler: Arc<Mutex<Option<Handler>>>,
}

impl std::fmt::Debug for Reload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reload").field("handled", &self.handler().is_some()).finish()
    }
}

impl Reload {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over another spec by `handler` from now on. One reload runs at a time, in the scope of
    /// the run and within a deadline of some seconds; a panic is a failed reload, nothing more.
    ///
    /// The handler puts everything in force that [`RoleDescriptor::reloadable`] lists, or says in
    /// `failed` why the old value holds, or in `needs_restart` that this change needs one after
    /// all. It adds to `applied` what it read again beyond keys ("certificate of …"). Changed keys
    /// that it does not mention are filled in by the supervisor: as applied when they are
    /// reloadable, else as in need of a restart.
    ///
    /// [`RoleDescriptor::reloadable`]: crate::RoleDescriptor::reloadable
    pub fn handle<S, F>(&self, handler: impl Fn(Arc<S>) -> F + Send + Sync + 'static)
    where
        S: RoleSpec,
        F: Future<Output = ReloadReport> + Send + 'static,
    {
        let typed = move |spec: Arc<dyn RoleSpec>| -> BoxFuture<'static, ReloadReport> {
            let any: Arc<dyn Any + Send + Sync> = spec;
            match any.downcast::<S>() {
                Ok(spec) => Box::pin(handler(spec)),
                // The registry gave the role a spec of another role: cannot happen, is not silent.
                Err(_other) => Box::pin(async {
                    let mut report = ReloadReport::default();
                    report.fail("role", "the new configuration is not one of this role");
                    report
                }),
            }
        };
        *self.handler.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(typed));
    }

    /// Forgets the handler; the supervisor does it at the end of the run, so that nothing of a run
    /// outlives it.
    pub fn withdraw(&self) {
        *self.handler.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The work of taking `spec` over; `None` when the role handles no reload.
    pub fn begin(&self, spec: Arc<dyn RoleSpec>) -> Option<BoxFuture<'static, ReloadReport>> {
        self.handler().map(|handler| handler(spec))
    }

    fn handler(&self) -> Option<Handler> {
        self.handler.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
