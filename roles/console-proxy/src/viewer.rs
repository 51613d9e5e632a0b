//! The viewer's side until the picture flows: RFB handshake over the WebSocket while it is being
//! decided whether the viewer may see anything.

use std::time::Duration;

use rfb::{ServerHandshake, ServerInit, ServerSecurity, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};
use websocket::{Event, Opcode};

use crate::browser::Browser;
use crate::control::ToPage;
use crate::refusal::{End, Refusal};

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
pub(crate) async fn greet<S: AsyncRead + AsyncWrite + Unpin, T: Shown>(
    browser: &mut Browser<S>,
    opening: impl Future<Output = Result<T, Refusal>>,
    handshake_timeout: Duration,
) -> Result<Greeted<T>, NotGreeted> {
    let mut opening = std::pin::pin!(opening);
    let mut decision: Option<Result<T, Refusal>> = None;
    let mut handshake = ServerHandshake::new(ServerSecurity::None, Version::V8);
    // Until the decision the viewer cannot do anything wrong but send too much.
    let mut deadline = Instant::now() + Duration::from_secs(3600);
    loop {
        flush(browser, &mut handshake).await.map_err(NotGreeted::Ended)?;
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
                    Err(refusal) => {
                        advise(browser, refusal).await.map_err(NotGreeted::Ended)?;
                        handshake.refuse(&refusal.to_string())
                    }
                };
                decision = Some(outcome);
                told.map_err(|_error| NotGreeted::Ended(End::BadHandshake))?;
            }
            event = browser.next() => {
                let bytes = match event.map_err(NotGreeted::Ended)? {
                    Event::Binary { bytes, .. } => bytes,
                    Event::Ping(payload) => {
                        let pong = browser.send(Opcode::Pong, &payload).await;
                        pong.map_err(NotGreeted::Ended)?;
                        continue;
                    }
                    Event::Text(_) if !browser.has_control => {
                        return Err(NotGreeted::Ended(End::TextFrame));
                    }
                    // A page has nothing to say before it sees anything.
                    Event::Text(_) | Event::Pong(_) | Event::Close(_) => continue,
                };
                if let Err(error) = handshake.receive(&bytes) {
                    tracing::debug!(%error, "viewer broke the handshake");
                    flush(browser, &mut handshake).await.map_err(NotGreeted::Ended)?;
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

/// Tells a page what a refusal means for its user.
async fn advise<S: AsyncRead + AsyncWrite + Unpin>(
    browser: &mut Browser<S>,
    refusal: &Refusal,
) -> Result<(), End> {
    if !browser.has_control {
        return Ok(());
    }
    let message = ToPage::Refused { label: refusal.label(), advice: refusal.advice() };
    browser.send(Opcode::Text, message.text().as_bytes()).await
}

async fn flush<S: AsyncRead + AsyncWrite + Unpin>(
    browser: &mut Browser<S>,
    handshake: &mut ServerHandshake,
) -> Result<(), End> {
    let output = handshake.take_output();
    if output.is_empty() {
        return Ok(());
    }
    browser.send(Opcode::Binary, &output).await
}
