//! A role's own routes on the admin listener, below `/roles/<short>/`.
//!
//! They are there while the run that published them is alive. Handlers run in the scope of that
//! run, so that a request cannot outlive its role.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;

/// Where one run of a role publishes its routes. Cloneable; clones share everything.
#[derive(Clone, Default)]
pub struct AdminRoutes {
    router: Arc<Mutex<Option<Router>>>,
}

impl std::fmt::Debug for AdminRoutes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminRoutes").field("published", &self.router().is_some()).finish()
    }
}

impl AdminRoutes {
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves `router` from now on, in place of an earlier one. It sees paths without the prefix:
    /// `/roles/cp/recordings` arrives as `/recordings`. Whatever is not GET or HEAD is refused to
    /// callers from other machines before it gets here. Answers are documents: they are collected,
    /// up to a bound, before they are sent.
    pub fn publish(&self, router: Router) {
        *self.router.lock().unwrap_or_else(PoisonError::into_inner) = Some(router);
    }

    /// Takes the routes away; the supervisor does it at the end of the run.
    pub fn withdraw(&self) {
        *self.router.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The routes of this moment.
    pub fn router(&self) -> Option<Router> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
