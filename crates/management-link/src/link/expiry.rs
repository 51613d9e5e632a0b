//! Watches the end of our own certificate. The server renews it by itself, but forgets to after it
//! lost us once; so the end is told before it comes.

use std::time::Duration;

use super::Shared;
use crate::own::own_certificate;

/// Between two looks at the files, which a renewal replaces.
const INTERVAL: Duration = Duration::from_hours(1);
const DAY: i64 = 86_400;
/// Days before the end at which it is told, the last first.
const WARNINGS: [i64; 4] = [0, 1, 7, 30];

/// The nearest end that was told, so that each is told once.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    expires: i64,
    days: Option<i64>,
}

impl Warned {
    /// The days of the warning that is due at `now`; `None` when there is nothing new to tell.
    pub(crate) fn due(&mut self, expires: i64, now: i64) -> Option<i64> {
        if self.expires != expires {
            *self = Self { expires, days: None };
        }
        let left = expires - now;
        let days = WARNINGS.into_iter().find(|days| left <= days * DAY)?;
        let is_new = self.days.is_none_or(|told| days < told);
        self.days = Some(self.days.map_or(days, |told| told.min(days)));
        is_new.then_some(days)
    }
}

/// Looks at the files again and again until the role stops.
pub(super) async fn watch(shared: std::sync::Arc<Shared>) {
    let mut warned = Warned::default();
    loop {
        let link = shared.config();
        let look = move || own_certificate(&link);
        match shared.cx.tasks.blocking("own certificate", look).await {
            Ok(Ok(found)) => {
                let expires = found.as_ref().and_then(|facts| facts.expires);
                shared.set_certificate_end(expires);
                let now = shared.cx.host.clock.unix_ms() / 1000;
                if let Some(days) = expires.and_then(|expires| warned.due(expires, now)) {
                    tell(days);
                }
            }
            Ok(Err(error)) => {
                tracing::debug!(error = bedrock::chain(&error), "own certificate not read");
            }
            Err(error) => tracing::debug!(%error, "own certificate not looked at"),
        }
        tokio::select! {
            () = shared.cx.shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

fn tell(days: i64) {
    let remedy = "quickcloud cert renew asks the server for another (API provisionCertificate)";
    if days == 0 {
        tracing::error!(remedy, "our certificate for the management server has expired");
    } else {
        tracing::warn!(days, remedy, "our certificate for the management server expires soon");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_warning_comes_once_and_a_renewed_certificate_starts_anew() {
        let mut warned = Warned::default();
        let end = 1000 * DAY;
        let at = |warned: &mut Warned, days: i64| warned.due(end, end - days * DAY);
        assert_eq!(at(&mut warned, 31), None);
        assert_eq!(at(&mut warned, 30), Some(30));
        assert_eq!(at(&mut warned, 29), None);
        assert_eq!(at(&mut warned, 7), Some(7));
        assert_eq!(at(&mut warned, 1), Some(1));
        assert_eq!(at(&mut warned, 0), Some(0));
        assert_eq!(at(&mut warned, -5), None);
        assert_eq!(warned.due(end + 400 * DAY, end), None);
        assert_eq!(warned.due(end + 400 * DAY, end + 399 * DAY), Some(1));
    }
}
