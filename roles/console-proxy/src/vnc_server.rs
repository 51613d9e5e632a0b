//! The VM's side: the RFB handshake as a client, over any stream.

use std::time::Duration;

use rfb::{ClientHandshake, HandshakeError, Next, ServerInit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::dialler::{BoxStream, Connection, of_stream};
use crate::refusal::VncServerError;

/// A VNC server ready to be relayed.
pub(crate) struct VncServer {
    pub(crate) stream: BoxStream,
    pub(crate) init: ServerInit,
    /// What it sent after its ServerInit.
    pub(crate) ahead: Vec<u8>,
    pub(crate) encrypted: bool,
}

/// Shakes hands with the VNC server at the other end of a connection.
pub(crate) async fn enter(
    connection: Connection,
    password: &str,
    handshake_timeout: Duration,
) -> Result<VncServer, VncServerError> {
    let mut state = match connection.start_tls {
        Some(_) => ClientHandshake::with_tls(password),
        None => ClientHandshake::new(password),
    };
    let shaken = timeout(handshake_timeout, shake_hands(connection, &mut state)).await;
    let (stream, encrypted) = shaken.map_err(|_elapsed| match state.end_of_stream() {
        HandshakeError::Ended(_) => VncServerError::Timeout(handshake_timeout),
        // Part of a reason is one.
        told => told.into(),
    })??;
    let (version, security) = state.outcome();
    let encryption = state.encryption();
    let shown = encryption.map(tracing::field::display);
    tracing::debug!(%version, %security, encryption = shown, "connected to the VNC server");
    let encrypted = encrypted || encryption.is_some();
    let unfinished = state.end_of_stream();
    let (init, ahead) = state.finish().ok_or(unfinished)?;
    Ok(VncServer { stream, init, ahead, encrypted })
}

/// Drives the handshake to its end. Gives the stream as it is then, and whether it was encrypted from
/// the beginning.
async fn shake_hands(
    connection: Connection,
    handshake: &mut ClientHandshake,
) -> Result<(BoxStream, bool), VncServerError> {
    let Connection { mut stream, mut start_tls, encrypted } = connection;
    let mut buffer = [0; 1024];
    // Nothing came yet from inside the encryption.
    let mut is_silent = false;
    loop {
        let output = handshake.take_output();
        if !output.is_empty() {
            stream.write_all(&output).await.map_err(of_stream)?;
            stream.flush().await.map_err(of_stream)?;
        }
        match (handshake.next(), start_tls.take()) {
            (Next::Receive, kept) => {
                start_tls = kept;
                let count = match stream.read(&mut buffer).await {
                    Ok(0) if is_silent => return Err(VncServerError::HungUp),
                    Err(error) if is_silent => {
                        // An alert says more than an end does.
                        return Err(match of_stream(error) {
                            VncServerError::Io(_) => VncServerError::HungUp,
                            told => told,
                        });
                    }
                    read => read.map_err(of_stream)?,
                };
                is_silent = false;
                if count == 0 {
                    return Err(handshake.end_of_stream().into());
                }
                match handshake.receive(buffer.get(..count).unwrap_or_default()) {
                    Err(HandshakeError::NoUsableEncryption(_)) if handshake.offers_clear() => {
                        return Err(VncServerError::OnlyClear);
                    }
                    outcome => outcome?,
                }
            }
            (Next::StartTls, Some(start)) => {
                stream = start(stream).await?;
                handshake.tls_started();
                is_silent = true;
            }
            (Next::StartTls, None) => return Err(handshake.end_of_stream().into()),
            (Next::Finish, _) => return Ok((stream, encrypted)),
        }
    }
}
