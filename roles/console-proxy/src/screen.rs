//! The VM's side: dialling its screen and the RFB handshake as a client.

use std::time::Duration;

use rfb::{ClientHandshake, ServerInit};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::refusal::ScreenError;

/// A host that died without a word is noticed by keep-alive.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Distance of the probes after that; the kernel sends nine.
const PROBES: Duration = Duration::from_secs(15);

/// A screen ready to be relayed.
#[derive(Debug)]
pub(crate) struct Screen {
    pub(crate) stream: TcpStream,
    pub(crate) init: ServerInit,
    /// What the VM sent after its ServerInit.
    pub(crate) ahead: Vec<u8>,
}

/// Connects to a VM's screen and shakes hands.
pub(crate) async fn connect(
    host: &str,
    port: u16,
    password: &str,
    limits: (Duration, Duration),
) -> Result<Screen, ScreenError> {
    let (connect_limit, handshake_limit) = limits;
    let stream = timeout(connect_limit, TcpStream::connect((host, port)))
        .await
        .map_err(|_elapsed| ScreenError::Timeout(connect_limit))?
        .map_err(ScreenError::Connect)?;
    stream.set_nodelay(true).map_err(ScreenError::Io)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(PROBES);
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "cannot set keep-alive towards the screen");
    }
    timeout(handshake_limit, handshake(stream, password))
        .await
        .map_err(|_elapsed| ScreenError::Timeout(handshake_limit))?
}

async fn handshake(mut stream: TcpStream, password: &str) -> Result<Screen, ScreenError> {
    let mut handshake = ClientHandshake::new(password);
    let mut buffer = [0; 4096];
    while !handshake.is_done() {
        let count = stream.read(&mut buffer).await.map_err(ScreenError::Io)?;
        if count == 0 {
            return Err(handshake.end_of_stream().into());
        }
        handshake.receive(buffer.get(..count).unwrap_or_default())?;
        let output = handshake.take_output();
        stream.write_all(&output).await.map_err(ScreenError::Io)?;
    }
    let (version, security) = handshake.outcome();
    tracing::debug!(%version, %security, "connected to the screen");
    match handshake.finish() {
        Some((init, ahead)) => Ok(Screen { stream, init, ahead }),
        None => Err(ScreenError::Timeout(Duration::ZERO)),
    }
}
