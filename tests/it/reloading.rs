//! A role that takes over another configuration, or fails to on purpose.

use std::sync::Arc;

use config_reader::{Section, Violations};
use role::{
    BoxFuture, ConfigInput, Host, PreflightError, Resource, Role, RoleContext, RoleError, RoleKind,
    RoleSpec,
};
use status_api::ReloadReport;

use crate::roles::{GOOD, serve};

#[derive(Debug, Clone)]
pub(crate) struct Reloading {
    name: String,
}

pub(crate) fn configure(
    input: ConfigInput<'_>,
    violations: &mut Violations,
) -> Option<Arc<dyn RoleSpec>> {
    let mut section = Section::new("roles.good", input.section, violations);
    let name = section.or_default("name", "none".to_owned(), "give a name");
    section.optional::<String>("fixed", "give a text");
    section.finish();
    Some(Arc::new(Reloading { name }))
}

impl RoleSpec for Reloading {
    fn kind(&self) -> RoleKind {
        GOOD
    }

    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }

    fn preflight<'a>(&'a self, _: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        Box::pin(async { Vec::new() })
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(self.clone())
    }
}

impl Role for Reloading {
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        Box::pin(async move {
            if self.name == "hopeless" {
                return Err(RoleError::Misconfigured("no such name".to_owned(), None));
            }
            let before = Arc::new(std::sync::Mutex::new(self.name));
            cx.reload.handle(move |spec: Arc<Self>| {
                let before = Arc::clone(&before);
                async move {
                    let mut report = ReloadReport::default();
                    assert_ne!(spec.name, "panic", "planted");
                    if spec.name == "refuse" {
                        report.fail("roles.good.name", "no such name");
                    } else if *before.lock().unwrap() != spec.name {
                        spec.name.clone_into(&mut before.lock().unwrap());
                        tracing::info!("name is {} now", spec.name);
                        report.apply("roles.good.name");
                        report.apply(format!("secrets of {}", spec.name));
                    }
                    report
                }
            });
            serve(&cx).await;
            Ok(())
        })
    }
}
