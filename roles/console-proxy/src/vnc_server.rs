//! The VM's side: the RFB handshake as a client, over any stream.

use std::time::Duration;

use rfb::{ClientHandshake, Next, ServerInit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::dialler::{BoxStream, Connection};
use crate::refusal::VncServerError;

/// A VNC server ready to be relayed.
pub(crate) struct VncServer {
    pub(crate) stream: BoxStream,
    pub(crate) init: ServerInit,
    /// What it sent after its ServerInit.
    pub(crate) ahead: Vec<u8>,
}

/// Shakes hands with the VNC server at the other end of a connection.
pub(crate) async fn enter(
    connection: Connection,
    password: &str,
    handshake_timeout: Duration,
) -> Result<VncServer, VncServerError> {
    timeout(handshake_timeout, handshake(connection, password))
        .await
        .map_err(|_elapsed| VncServerError::Timeout(handshake_timeout))?
}

async fn handshake(connection: Connection, password: &str) -> Result<VncServer, VncServerError> {
    let Connection { mut stream, mut start_tls } = connection;
    let mut handshake = match start_tls {
        Some(_) => ClientHandshake::with_tls(password),
        None => ClientHandshake::new(password),
    };
    let mut buffer = [0; 4096];
    loop {
        let output = handshake.take_output();
        if !output.is_empty() {
            stream.write_all(&output).await.map_err(VncServerError::Io)?;
            stream.flush().await.map_err(VncServerError::Io)?;
        }
        match (handshake.next(), start_tls.take()) {
            (Next::Receive, kept) => {
                start_tls = kept;
                let count = stream.read(&mut buffer).await.map_err(VncServerError::Io)?;
                if count == 0 {
                    return Err(handshake.end_of_stream().into());
                }
                handshake.receive(buffer.get(..count).unwrap_or_default())?;
            }
            (Next::StartTls, Some(start)) => {
                stream = start(stream).await.map_err(VncServerError::Tls)?;
                handshake.tls_started();
            }
            (Next::StartTls, None) => return Err(handshake.end_of_stream().into()),
            (Next::Finish, _) => break,
        }
    }
    let (version, security) = handshake.outcome();
    let encryption = handshake.encryption().map(tracing::field::display);
    tracing::debug!(%version, %security, encryption, "connected to the VNC server");
    let unfinished = handshake.end_of_stream();
    let (init, ahead) = handshake.finish().ok_or(unfinished)?;
    Ok(VncServer { stream, init, ahead })
}
