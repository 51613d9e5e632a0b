//! Nothing that dnsmasq refuses reaches it: a main file is tried before it takes the place of one
//! that works, and a record that makes dnsmasq refuse it is left out, so that everything else is
//! served. Records are checked when they come in; this is for what the checks do not know.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ApplyError, Reconciler};
use crate::desired::DesiredState;
use crate::render::{Rendered, line_of, render};

/// Records left out one by one; then all of them are.
const ROUNDS: usize = 32;

impl Reconciler {
    /// The files for `state`, without the records that dnsmasq refuses.
    pub(super) async fn vetted(
        &mut self,
        state: &Arc<DesiredState>,
    ) -> Result<Arc<Rendered>, ApplyError> {
        // Most passes have nothing new to look at.
        if let Some((of, settings, rendered)) = &self.rendered
            && Arc::ptr_eq(of, state)
            && *settings == self.settings
        {
            return Ok(Arc::clone(rendered));
        }
        self.refused.retain(|(zone, name, kind), (revision, _)| {
            let zone = state.zones.get(zone);
            let record = zone.and_then(|zone| zone.records.get(&(name.clone(), *kind)));
            record.is_some_and(|record| record.meta.revision == *revision)
        });
        let mut round = 0;
        let rendered = loop {
            let rendered = render(state, &self.settings, &|key| self.refused.contains_key(key));
            if rendered.record_lines.is_empty() {
                break rendered;
            }
            match self.test(&rendered).await {
                Err(ApplyError::Refused(said)) => self.blame(state, &rendered, &said, round),
                // Whatever else is wrong shows when dnsmasq is started.
                Ok(()) | Err(_) => break rendered,
            }
            round += 1;
        };
        let refused: BTreeMap<_, _> =
            self.refused.iter().map(|(key, (_, said))| (key.clone(), said.clone())).collect();
        self.observed.send_if_modified(|observed| {
            let changed = observed.refused != refused;
            observed.refused = refused;
            changed
        });
        let rendered = Arc::new(rendered);
        self.rendered = Some((Arc::clone(state), self.settings.clone(), Arc::clone(&rendered)));
        Ok(rendered)
    }

    /// Leaves the record out that dnsmasq names by its line, else all of them.
    fn blame(&mut self, state: &DesiredState, rendered: &Rendered, said: &str, round: usize) {
        let named = line_of(said).and_then(|(_, line)| rendered.record_lines.get(&line));
        let blamed: Vec<_> = match named {
            Some(key) if round < ROUNDS => vec![key],
            _ => rendered.record_lines.values().collect(),
        };
        for key in blamed {
            let (zone, name, kind) = key;
            let zone_state = state.zones.get(zone);
            let record = zone_state.and_then(|zone| zone.records.get(&(name.clone(), *kind)));
            let Some(record) = record else { continue };
            tracing::warn!(%zone, %name, %kind, said, "dnsmasq refuses a record, it is left out");
            let reason = format!("dnsmasq refuses it: {said}");
            self.refused.insert(key.clone(), (record.meta.revision, reason));
        }
    }
}
