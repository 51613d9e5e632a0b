//! What a pass came to, for everybody who watches: log, health, metrics, observed state.

use std::time::Instant;

use bedrock::chain;
use dhcp_api::answer::LastApply;
use dhcp_api::words::Stamp;

use super::{ApplyError, Reconciler, millis};
use crate::child::ChildError;
use crate::desired::DesiredState;
use crate::plan::Plan;
use crate::render::Rendered;
use crate::rollback::Poisoned;

impl Reconciler {
    pub(super) fn applied(&self, rendered: &Rendered, kind: &'static str, begun: Instant) {
        let elapsed = begun.elapsed();
        let now = Stamp::from_unix_ms(self.cx.host.clock.unix_ms());
        let id = rendered.generation;
        let news = kind != Plan::Nothing.kind();
        if news {
            self.metrics.applied(kind, true, elapsed.as_secs_f64());
            tracing::info!(generation = id, kind, elapsed_ms = millis(elapsed), "applied");
        }
        self.observed.send_modify(|observed| {
            if news || observed.applied != id {
                observed.applied_at = Some(now);
            }
            observed.applied = id;
            observed.error = None;
            if news {
                let duration_ms = millis(elapsed);
                observed.last_apply = Some(LastApply {
                    id,
                    kind: kind.to_owned(),
                    duration_ms,
                    result: "ok".to_owned(),
                });
            }
        });
    }

    /// What a pass came to, for everybody who watches.
    pub(super) fn publish(&mut self, state: &DesiredState, outcome: Result<(), ApplyError>) {
        let generation = state.generation;
        let health = self.cx.health.clone();
        match outcome {
            Ok(()) => health.clear_condition("apply"),
            Err(ApplyError::Stopping) => {}
            Err(error) => {
                let text = chain(&error);
                let known = {
                    let observed = self.observed.borrow();
                    let failed = observed.error.as_ref().is_some_and(|(_, error)| *error == text);
                    failed || observed.instance.reason.as_ref() == Some(&text)
                };
                if known {
                    tracing::debug!(generation, error = %text, "cannot apply, still");
                } else {
                    tracing::warn!(generation, error = %text, "cannot apply");
                }
                self.metrics.applied("failed", false, 0.0);
                if self.process.is_none() {
                    self.failed_start(&error, &text);
                } else {
                    health.set_condition("apply", text.clone());
                }
                // What is only stored until dnsmasq runs again has not failed.
                let waits = self.process.is_none()
                    && !matches!(error, ApplyError::Refused(_) | ApplyError::File(_));
                if !waits {
                    self.observed.send_modify(|observed| observed.error = Some((generation, text)));
                }
            }
        }
        self.publish_rollback(generation);
        self.look_at_interface();
        self.judge(state);
        self.metrics.dirty.set(i64::from(self.observed.borrow().applied < generation));
        health.started();
    }

    /// While an older generation is served, the wanted one has failed.
    fn publish_rollback(&self, wanted: u64) {
        let rolled_back = self.survival.rolled_back().cloned();
        let text = rolled_back.as_ref().map(|poisoned| {
            let Poisoned { generation, served, end } = poisoned;
            format!(
                "dnsmasq does not survive generation {generation} ({end}); generation {served} is \
                 served: take back what changed since, it is tried again with the next change"
            )
        });
        match &text {
            Some(text) => self.cx.health.set_condition("generation", text.clone()),
            None => self.cx.health.clear_condition("generation"),
        }
        self.observed.send_if_modified(|observed| {
            let changed = observed.rolled_back != rolled_back;
            observed.rolled_back = rolled_back;
            if let Some(text) = text {
                observed.error = Some((wanted, text));
                return true;
            }
            changed
        });
    }

    /// What is served without something.
    fn judge(&self, state: &DesiredState) {
        let health = &self.cx.health;
        let condition = |name: &'static str, text: Option<String>| match text {
            Some(text) => health.set_condition(name, text),
            None => health.clear_condition(name),
        };
        let observed = self.observed.borrow();
        let rejected = observed.rejected.first();
        condition("rejected", rejected.map(|r| format!("dnsmasq does not take: {}", r.line)));
        let aside = state.quarantine.first().map(|kept| {
            let count = state.quarantine.len();
            format!("{count} stored things are kept aside, first {}: {}", kept.place, kept.reason)
        });
        condition("quarantine", aside);
        let withheld = state.standings().withheld;
        let record = withheld.iter().chain(&observed.refused).next();
        let record = record.map(|((zone, name, kind), reason)| {
            format!("record {name} {kind} of zone {zone} is not served: {reason}")
        });
        condition("records", record);
    }

    fn failed_start(&mut self, error: &ApplyError, text: &str) {
        // A process that ended was noted when it did.
        if !matches!(error, ApplyError::Child(ChildError::Ended(_))) {
            self.down(text, None);
        }
        if matches!(error, ApplyError::Child(ChildError::NotReady(_))) {
            self.note_death(text);
        }
    }
}
