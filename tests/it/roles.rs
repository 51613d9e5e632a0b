//! Roles that behave and misbehave on purpose.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use role::{
    BoxFuture, Host, PreflightError, Resource, Role, RoleContext, RoleError, RoleKind, RoleSpec,
};
use tokio::time::Instant;

pub(crate) const GOOD: RoleKind =
    RoleKind { short: "good", title: "well behaved", section: "good" };
pub(crate) const STUCK: RoleKind = RoleKind { short: "stuck", title: "blocked", section: "stuck" };
pub(crate) const BAD: RoleKind = RoleKind { short: "bad", title: "misbehaved", section: "bad" };

/// What a run of the role does.
#[derive(Debug, Clone)]
pub(crate) enum Behaviour {
    /// Is ready, makes progress, stops when asked.
    Serve,
    /// As `Serve`, but takes this long to stop.
    StopSlowly(Duration),
    /// Is ready and ignores that it shall stop.
    NeverStop,
    Panic,
    /// A vital task panics; the main future goes on.
    PanicInTask,
    Return,
    /// Awaits for ever, without progress.
    Hang,
    /// Blocks its thread until the other end of the channel is dropped.
    Block(Arc<Mutex<mpsc::Receiver<()>>>),
    Misconfigured,
    Dependency,
    Internal,
}

#[derive(Debug)]
pub(crate) struct TestRole {
    pub(crate) kind: RoleKind,
    pub(crate) behaviour: Behaviour,
    pub(crate) resources: Vec<Resource>,
    pub(crate) findings: Mutex<Vec<PreflightError>>,
    pub(crate) preflight_panics: bool,
    pub(crate) runs: AtomicUsize,
    pub(crate) starts: Mutex<Vec<Instant>>,
}

impl TestRole {
    pub(crate) fn new(kind: RoleKind, behaviour: Behaviour) -> Arc<Self> {
        Arc::new(Self::raw(kind, behaviour))
    }

    pub(crate) fn raw(kind: RoleKind, behaviour: Behaviour) -> Self {
        Self {
            kind,
            behaviour,
            resources: Vec::new(),
            findings: Mutex::default(),
            preflight_panics: false,
            runs: AtomicUsize::new(0),
            starts: Mutex::default(),
        }
    }

    pub(crate) fn claiming(kind: RoleKind, resource: Resource) -> Arc<Self> {
        Arc::new(Self { resources: vec![resource], ..Self::raw(kind, Behaviour::Serve) })
    }

    /// How often it was started.
    pub(crate) fn times_run(&self) -> usize {
        self.runs.load(Ordering::Relaxed)
    }

    /// Milliseconds between its starts.
    pub(crate) fn gaps(&self) -> Vec<u128> {
        let starts = self.starts.lock().unwrap();
        starts.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect()
    }
}

/// A spec of its own, since the trait cannot be implemented for `Arc<TestRole>` here.
#[derive(Debug)]
struct Shared(Arc<TestRole>);

pub(crate) fn spec(role: &Arc<TestRole>) -> Arc<dyn RoleSpec> {
    Arc::new(Shared(Arc::clone(role)))
}

impl RoleSpec for Shared {
    fn kind(&self) -> RoleKind {
        self.0.kind
    }

    fn resources(&self) -> Vec<Resource> {
        self.0.resources.clone()
    }

    fn preflight<'a>(&'a self, _host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        assert!(!self.0.preflight_panics, "planted");
        let findings = self.0.findings.lock().unwrap().clone();
        Box::pin(async move { findings })
    }

    fn build(&self) -> Box<dyn Role> {
        self.0.runs.fetch_add(1, Ordering::Relaxed);
        self.0.starts.lock().unwrap().push(Instant::now());
        Box::new(Run(self.0.behaviour.clone()))
    }
}

/// A role that is one function, for what no [`Behaviour`] says.
pub(crate) fn scripted<F, T>(kind: RoleKind, run: F) -> Arc<dyn RoleSpec>
where
    F: Fn(RoleContext) -> T + Send + Sync + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    Arc::new(Scripted { kind, run: Arc::new(move |cx| Box::pin(run(cx))) })
}

#[derive(Clone)]
struct Scripted {
    kind: RoleKind,
    run: Arc<dyn Fn(RoleContext) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scripted").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl RoleSpec for Scripted {
    fn kind(&self) -> RoleKind {
        self.kind
    }

    fn resources(&self) -> Vec<Resource> {
        Vec::new()
    }

    fn preflight<'a>(&'a self, _host: &'a Host) -> BoxFuture<'a, Vec<PreflightError>> {
        Box::pin(async { Vec::new() })
    }

    fn build(&self) -> Box<dyn Role> {
        Box::new(self.clone())
    }
}

impl Role for Scripted {
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        let running = (self.run)(cx);
        Box::pin(async move {
            running.await;
            Ok(())
        })
    }
}

struct Run(Behaviour);

impl Role for Run {
    fn run(self: Box<Self>, cx: RoleContext) -> BoxFuture<'static, Result<(), RoleError>> {
        Box::pin(async move {
            match self.0 {
                Behaviour::Serve => serve(&cx).await,
                Behaviour::StopSlowly(duration) => {
                    serve(&cx).await;
                    tokio::time::sleep(duration).await;
                }
                Behaviour::NeverStop => {
                    cx.health.started();
                    loop {
                        cx.health.progress();
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                Behaviour::Panic => panic!("planted"),
                Behaviour::PanicInTask => {
                    cx.tasks.spawn_vital("pump", async { panic!("planted") });
                    serve(&cx).await;
                }
                Behaviour::Return => cx.health.started(),
                Behaviour::Hang => {
                    cx.health.started();
                    std::future::pending::<()>().await;
                }
                Behaviour::Block(gate) => {
                    cx.health.started();
                    gate.lock().unwrap().recv().unwrap_err();
                }
                Behaviour::Misconfigured => {
                    return Err(RoleError::Misconfigured("bridge is a teapot".into(), None));
                }
                Behaviour::Dependency => {
                    let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                    return Err(RoleError::dependency("cannot reach the peer", cause));
                }
                Behaviour::Internal => return Err(RoleError::Internal("lost count".into(), None)),
            }
            Ok(())
        })
    }
}

pub(crate) async fn serve(cx: &RoleContext) {
    cx.health.started();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    loop {
        tokio::select! {
            () = cx.shutdown.cancelled() => return,
            _ = tick.tick() => cx.health.progress(),
        }
    }
}
