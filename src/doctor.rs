//! Asks the roles' own questions about machine and surroundings, each within a bound and whatever it
//! does.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use role::{DoctorContext, DoctorFinding, Host, Reach};

use crate::supervisor::ConfiguredRole;

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One question and what was found.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) role: &'static str,
    pub(crate) check: &'static str,
    pub(crate) finding: DoctorFinding,
}

/// Asks everything that reaches no further than `reach`, all at once.
pub(crate) async fn ask(roles: &[ConfiguredRole], host: &Host, reach: Reach) -> Vec<Answer> {
    let questions = roles.iter().flat_map(|role| {
        let kind = role.spec.kind();
        let checks = role.spec.doctor().into_iter();
        let near = checks.filter(move |check| reach == Reach::Network || check.reach == reach);
        near.map(move |check| (kind.short, check))
    });
    let answers = questions.map(|(role, check)| async move {
        let work = AssertUnwindSafe(check.ask(DoctorContext::new(host.clone()))).catch_unwind();
        let finding = match tokio::time::timeout(TIMEOUT, work).await {
            Ok(Ok(finding)) => finding,
            Ok(Err(_panic)) => DoctorFinding::Skipped("the check panicked".to_owned()),
            Err(_elapsed) => DoctorFinding::Skipped(format!("no answer within {TIMEOUT:?}")),
        };
        Answer { role, check: check.name, finding }
    });
    join_all(answers).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use role::{
        BoxFuture, DoctorCheck, PreflightError, Resource, Role, RoleContext, RoleError, RoleKind,
        RoleSpec,
    };

    #[derive(Debug)]
    struct Ailing;

    impl RoleSpec for Ailing {
        fn kind(&self) -> RoleKind {
            RoleKind { short: "x", title: "test", section: "x" }
        }

        fn resources(&self) -> Vec<Resource> {
            Vec::new()
        }

        fn preflight<'a>(&'a self, _: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
            Box::pin(async { Vec::new() })
        }

        fn build(&self) -> Box<dyn Role> {
            Box::new(Self)
        }

        fn doctor(&self) -> Vec<DoctorCheck> {
            vec![
                DoctorCheck::machine("near", |_| async { DoctorFinding::Good("fine".into()) }),
                DoctorCheck::network("far", |_| async { DoctorFinding::Good("fine".into()) }),
                DoctorCheck::machine("broken", |_| async { panic!("planted") }),
                DoctorCheck::machine("silent", |_| std::future::pending()),
            ]
        }
    }

    impl Role for Ailing {
        fn run(self: Box<Self>, _: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
            Box::pin(async { Ok(()) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn questions_are_bounded_and_asked_by_their_reach() {
        let roles = [ConfiguredRole::fixed(Arc::new(Ailing))];
        let names = async |reach| {
            let answers = ask(&roles, &Host::system(), reach).await;
            answers
                .iter()
                .map(|answer| match &answer.finding {
                    DoctorFinding::Good(text) | DoctorFinding::Skipped(text) => {
                        format!("{} {}: {text}", answer.role, answer.check)
                    }
                    other => format!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        let near =
            ["x near: fine", "x broken: the check panicked", "x silent: no answer within 10s"];
        assert_eq!(names(Reach::Machine).await, near);
        assert_eq!(names(Reach::Network).await.len(), 4);
    }
}
