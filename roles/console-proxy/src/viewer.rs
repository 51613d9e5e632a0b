//! The viewer's side until the picture flows: RFB handshake over the WebSocket while it is being
//! decided whether the viewer may see anything.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rfb::{ServerHandshake, ServerInit, ServerSecurity, Version};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;

use crate::refusal::{End, Refusal};
use crate::websocket::{Socket, end_of};

/// How a greeting ends well: what is shown and what the viewer sent ahead.
#[derive(Debug)]
pub(crate) struct Greeted<T> {
    pub(crate) shown: T,
    pub(crate) ahead: Vec<u8>,
}

/// How a greeting ends badly.
#[derive(Debug)]
pub(crate) enum NotGreeted {
    /// Refused; the viewer was told if it listened.
    Refused(Refusal),
    Ended(End),
}

/// What a viewer that is let in is shown.
pub(crate) trait Shown {
    /// What the viewer is shown as the server's screen.
    fn server_init(&self) -> ServerInit;
}

/// Leads the viewer through the handshake while `opening` decides. If the viewer leaves first,
/// `opening` is dropped.
pub(crate) async fn greet<T: Shown>(
    socket: &mut Socket,
    opening: impl Future<Output = Result<T, Refusal>>,
    handshake_timeout: Duration,
) -> Result<Greeted<T>, NotGreeted> {
    let mut opening = std::pin::pin!(opening);
    let mut decision: Option<Result<T, Refusal>> = None;
    let mut handshake = ServerHandshake::new(ServerSecurity::None, Version::V8);
    // Until the decision the viewer cannot do anything wrong but send too much.
    let mut deadline = Instant::now() + Duration::from_secs(3600);
    loop {
        flush(socket, &mut handshake).await.map_err(NotGreeted::Ended)?;
        match decision.take() {
            Some(Ok(shown)) if handshake.is_done() => {
                return Ok(Greeted { shown, ahead: handshake.into_rest() });
            }
            Some(Err(refusal)) if handshake.is_refused() => {
                return Err(NotGreeted::Refused(refusal));
            }
            undecided => decision = undecided,
        }
        tokio::select! {
            outcome = &mut opening, if decision.is_none() => {
                deadline = Instant::now() + handshake_timeout;
                let told = match &outcome {
                    Ok(screen) => handshake.admit(screen.server_init()),
                    Err(refusal) => handshake.refuse(&refusal.to_string()),
                };
                decision = Some(outcome);
                told.map_err(|_error| NotGreeted::Ended(End::BadHandshake))?;
            }
            message = socket.next() => {
                let bytes = data(message).map_err(NotGreeted::Ended)?;
                if let Err(error) = handshake.receive(&bytes) {
                    tracing::debug!(%error, "viewer broke the handshake");
                    flush(socket, &mut handshake).await.map_err(NotGreeted::Ended)?;
                    return Err(NotGreeted::Ended(End::BadHandshake));
                }
            }
            () = sleep_until(deadline) => return Err(match decision {
                Some(Err(refusal)) => NotGreeted::Refused(refusal),
                _ => NotGreeted::Ended(End::BadHandshake),
            }),
        }
    }
}

async fn flush(socket: &mut Socket, handshake: &mut ServerHandshake) -> Result<(), End> {
    let output = handshake.take_output();
    if output.is_empty() {
        return Ok(());
    }
    let sent = socket.send(Message::Binary(output.into())).await;
    sent.map_err(|error| end_of(&error))
}

/// The RFB bytes of a message: only data frames have any.
pub(crate) fn data(
    message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
) -> Result<Bytes, End> {
    match message {
        Some(Ok(Message::Binary(bytes))) => Ok(bytes),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(Bytes::new()),
        Some(Ok(Message::Text(_))) => Err(End::TextFrame),
        Some(Ok(Message::Close(_))) => Err(End::ViewerClosed),
        Some(Err(error)) => Err(end_of(&error)),
        None => Err(End::ViewerLost),
    }
}
