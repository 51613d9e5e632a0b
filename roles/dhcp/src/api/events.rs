//! What happens, as it happens: changes of the desired state with their numbers, so that a listener
//! that was away is told what it missed, and alarms as they come and go.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use dhcp_api::answer::{Alarm, ChangeEntry};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::{Api, Context, status};

/// Between two looks at the alarms.
const LOOK: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Server-sent events. `Last-Event-ID` is the number of the last change that was seen.
pub(super) async fn events(State(api): Context, headers: HeaderMap) -> Response {
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let (missed, news) = api.history.since(seen);
    let changes = stream::iter(missed).chain(following(news)).map(|entry| change(&entry));
    let events = stream::select(changes, alarms(api)).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// Whatever comes; a listener that is too slow is cut off and begins anew where it was.
fn following(news: Receiver<ChangeEntry>) -> impl Stream<Item = ChangeEntry> {
    stream::unfold(news, async |mut news| match news.recv().await {
        Ok(entry) => Some((entry, news)),
        Err(RecvError::Lagged(_) | RecvError::Closed) => None,
    })
}

fn change(entry: &ChangeEntry) -> Event {
    named("change", entry).id(entry.id.to_string())
}

fn named(kind: &str, data: &impl Serialize) -> Event {
    Event::default().event(kind).data(serde_json::to_string(data).unwrap_or_default())
}

/// All alarms, at first and whenever they change.
fn alarms(api: Api) -> impl Stream<Item = Event> {
    stream::unfold((api, None::<Vec<Alarm>>), async |(api, known)| {
        loop {
            let now = status::now(&api).alarms;
            if known.as_ref() != Some(&now) {
                return Some((named("alarms", &now), (api, Some(now))));
            }
            tokio::time::sleep(LOOK).await;
        }
    })
}
