//! What a plan comes to: files written, dnsmasq told, and its confirmation waited for.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{ApplyError, REJECTED, Reconciler, WATCHED, rejections};
use crate::child::ChildError;
use crate::dnsmasq_log::LogEvent;
use crate::files;
use crate::plan::{Addition, Loaded};
use crate::render::Rendered;

impl Reconciler {
    pub(super) async fn write_main(&self, rendered: &Arc<Rendered>) -> Result<(), ApplyError> {
        let (layout, text) = (self.settings.layout.clone(), Arc::clone(rendered));
        let write = move || files::write_main(&layout, &text);
        Ok(self.cx.tasks.blocking("main", write).await??)
    }

    pub(super) async fn add(
        &mut self,
        rendered: &Arc<Rendered>,
        added: Addition,
    ) -> Result<(), ApplyError> {
        let Some((_, loaded)) = &mut self.process else { return Ok(()) };
        let name = loaded.next_delta();
        let (layout, text, file) =
            (self.settings.layout.clone(), Arc::clone(rendered), name.clone());
        let lines = added.clone();
        let write = move || files::add(&layout, &text, &lines, &file);
        let mut awaited = self.cx.tasks.blocking("add", write).await??;
        if !self.settings.dns {
            awaited.retain(|path| !path.starts_with(self.settings.layout.names_directory()));
        }
        match self.confirm(&awaited, watched_time(rendered)).await? {
            Some(complaints) if complaints.is_empty() => {
                if let Some((_, loaded)) = &mut self.process {
                    loaded.added(rendered, &added, &name);
                }
                Ok(())
            }
            outcome => {
                tracing::info!(?outcome, "an addition was not taken, reloading");
                self.reload(rendered).await
            }
        }
    }

    /// Puts the hosts of many watched files into the base file, which costs dnsmasq nothing.
    pub(super) async fn fold(&mut self, rendered: &Arc<Rendered>) -> Result<(), ApplyError> {
        let is_full = self.process.as_ref().is_some_and(|(_, loaded)| loaded.is_full());
        if !is_full {
            return Ok(());
        }
        let (layout, text) = (self.settings.layout.clone(), Arc::clone(rendered));
        self.cx.tasks.blocking("fold", move || files::fold(&layout, &text)).await??;
        if let Some((_, loaded)) = &mut self.process {
            loaded.folded();
        }
        Ok(())
    }

    pub(super) async fn reload(&mut self, rendered: &Arc<Rendered>) -> Result<(), ApplyError> {
        let (layout, text) = (self.settings.layout.clone(), Arc::clone(rendered));
        self.cx.tasks.blocking("reload", move || files::write_all(&layout, &text)).await??;
        let Some((child, _)) = &mut self.process else { return Ok(()) };
        while child.events.try_recv().is_ok() {}
        child.reload()?;
        let awaited = self.awaited(rendered);
        match self.confirm(&awaited, reload_time(rendered.hosts.len())).await? {
            Some(complaints) => {
                if let Some((_, loaded)) = &mut self.process {
                    *loaded = Loaded::all(rendered);
                }
                self.read_anew(complaints, rendered);
                Ok(())
            }
            None => {
                tracing::warn!("dnsmasq does not confirm a reload and is started anew");
                self.restart(rendered).await
            }
        }
    }

    pub(super) async fn restart(&mut self, rendered: &Arc<Rendered>) -> Result<(), ApplyError> {
        // Before the running one is given up.
        self.test(rendered).await?;
        if let Some((child, _)) = self.process.take() {
            child.stop().await;
        }
        let (layout, text) = (self.settings.layout.clone(), Arc::clone(rendered));
        self.cx.tasks.blocking("restart", move || files::write_all(&layout, &text)).await??;
        self.start(rendered).await
    }

    /// dnsmasq has read everything, but for the lines it complains about.
    pub(super) fn read_anew(&self, complaints: Vec<String>, rendered: &Rendered) {
        let rejected = rejections(complaints, rendered, &self.settings.layout);
        self.observed.send_modify(|observed| {
            observed.rejected = rejected;
            observed.dropped.clear();
            // A reload gives declined addresses out again.
            observed.declined.clear();
        });
    }

    /// What dnsmasq reads last at a start or reload.
    pub(super) fn awaited(&self, rendered: &Rendered) -> Vec<PathBuf> {
        let layout = &self.settings.layout;
        if rendered.serves_dhcp() {
            return vec![layout.base_hosts(), layout.options()];
        }
        if self.settings.dns { vec![layout.base_names()] } else { Vec::new() }
    }

    /// Waits until dnsmasq has read every file of `awaited`; gives its complaints meanwhile, or
    /// `None` when it does not in time.
    pub(super) async fn confirm(
        &mut self,
        awaited: &[PathBuf],
        limit: Duration,
    ) -> Result<Option<Vec<String>>, ApplyError> {
        let Some((child, _)) = &mut self.process else { return Ok(None) };
        let (health, shutdown) = (self.cx.health.clone(), self.cx.shutdown.clone());
        let mut missing: Vec<_> = awaited.to_vec();
        let mut complaints = Vec::new();
        let deadline = tokio::time::Instant::now() + limit;
        let mut beat = tokio::time::interval(Duration::from_secs(1));
        while !missing.is_empty() {
            tokio::select! {
                () = shutdown.cancelled() => return Err(ApplyError::Stopping),
                () = tokio::time::sleep_until(deadline) => return Ok(None),
                _ = beat.tick() => health.progress(),
                event = child.events.recv() => match event {
                    Some(LogEvent::Read(path)) => missing.retain(|awaited| *awaited != path),
                    Some(LogEvent::Rejected(line)) => {
                        if complaints.len() < REJECTED {
                            complaints.push(line);
                        }
                    }
                    Some(_) => {}
                    None => {
                        let end = child.ended().await;
                        self.note_end(end.clone());
                        return Err(ChildError::Ended(end).into());
                    }
                },
            }
        }
        Ok(Some(complaints))
    }
}

/// dnsmasq compares every line with every other: 1 s and 0.03 µs per pair, at most two minutes.
pub(super) fn reload_time(hosts: usize) -> Duration {
    let hosts = u64::try_from(hosts).unwrap_or(u64::MAX);
    let pairs = hosts.saturating_mul(hosts);
    Duration::from_secs(1)
        .saturating_add(Duration::from_nanos(pairs.saturating_mul(30)))
        .min(Duration::from_secs(120))
}

/// After an addition dnsmasq compares every lease with every line.
fn watched_time(rendered: &Rendered) -> Duration {
    WATCHED.saturating_add(reload_time(rendered.hosts.len()))
}
