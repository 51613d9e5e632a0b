//! One viewer of the demo screen: handshake, its messages, and the pictures it asks for.

use std::time::Duration;

use rfb::message::{MessageDecoder, MessageError, encoding, server_type};
use rfb::{ClientMessage, PixelFormat, ServerHandshake, ServerHandshakeError, ServerInit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Shared;
use crate::encrypted;
use crate::scene::{Rect, Scene};

/// From accept to the end of the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// A viewer that does not take a picture within this time is dropped.
const WRITE_LIMIT: Duration = Duration::from_secs(20);

/// Why a viewer left other than by closing its connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewerError {
    #[error("cannot exchange bytes with the viewer")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Handshake(#[from] ServerHandshakeError),
    #[error("the viewer does not begin its encryption")]
    Unencrypted,
    #[error("the handshake took longer than {HANDSHAKE_LIMIT:?}")]
    SlowHandshake,
    #[error("the viewer took no picture for {WRITE_LIMIT:?}")]
    Stalled,
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("the viewer wants {0} bits per pixel")]
    PixelFormat(u8),
}

/// Serves one viewer until it closes the connection or breaks the protocol.
pub(crate) async fn serve(mut stream: TcpStream, shared: &Shared) -> Result<(), ViewerError> {
    stream.set_nodelay(true)?;
    if let Some(acceptor) = &shared.tls {
        let init = init(shared);
        let entering = encrypted::enter(stream, acceptor, shared.security().0, &init);
        let inside = timeout(HANDSHAKE_LIMIT, entering).await;
        let stream = inside.map_err(|_elapsed| ViewerError::SlowHandshake)??;
        return Viewer::new(shared).run(stream).await;
    }
    let ahead = timeout(HANDSHAKE_LIMIT, handshake(&mut stream, shared))
        .await
        .map_err(|_elapsed| ViewerError::SlowHandshake)??;
    let Some(ahead) = ahead else { return Ok(()) };
    let mut viewer = Viewer::new(shared);
    viewer.decoder.push(&ahead);
    viewer.run(stream).await
}

fn init(shared: &Shared) -> ServerInit {
    let scene = shared.scene.borrow().clone();
    ServerInit {
        width: scene.width,
        height: scene.height,
        format: PixelFormat::RGB888,
        name: scene.title.into_bytes(),
    }
}

/// Leads the viewer in; `None` when it left, else what it sent ahead.
async fn handshake(
    stream: &mut TcpStream,
    shared: &Shared,
) -> Result<Option<Vec<u8>>, ViewerError> {
    let (security, version) = shared.security();
    let mut handshake = ServerHandshake::new(security, version);
    handshake.admit(init(shared))?;
    let mut buffer = [0; 4096];
    loop {
        stream.write_all(&handshake.take_output()).await?;
        if handshake.is_done() {
            return Ok(Some(handshake.into_rest()));
        }
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(None);
        }
        let outcome = handshake.receive(buffer.get(..count).unwrap_or_default());
        if let Err(error) = outcome {
            stream.write_all(&handshake.take_output()).await?;
            return Err(error.into());
        }
    }
}

/// An encrypted stream may hold something back.
async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

struct Request {
    area: Rect,
    incremental: bool,
}

struct Viewer<'a> {
    shared: &'a Shared,
    decoder: MessageDecoder,
    format: PixelFormat,
    request: Option<Request>,
    /// The moment the viewer's picture shows; `None` before its first picture.
    shown: Option<Scene>,
}

impl<'a> Viewer<'a> {
    fn new(shared: &'a Shared) -> Self {
        let (decoder, format) = (MessageDecoder::default(), PixelFormat::RGB888);
        Self { shared, decoder, format, request: None, shown: None }
    }

    async fn run(
        &mut self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin,
    ) -> Result<(), ViewerError> {
        let mut scenes = self.shared.scene.subscribe();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            while let Some(message) = self.decoder.message()? {
                self.message(message)?;
            }
            let scene = scenes.borrow_and_update().clone();
            if let Some(update) = self.update(scene) {
                timeout(WRITE_LIMIT, write(&mut stream, &update))
                    .await
                    .map_err(|_elapsed| ViewerError::Stalled)??;
            }
            tokio::select! {
                count = stream.read(&mut buffer) => match count? {
                    0 => return Ok(()),
                    count => self.decoder.push(buffer.get(..count).unwrap_or_default()),
                },
                changed = scenes.changed(), if self.request.is_some() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn message(&mut self, message: ClientMessage) -> Result<(), ViewerError> {
        match message {
            ClientMessage::SetPixelFormat(format) => {
                if !format.true_colour || !matches!(format.bits_per_pixel, 8 | 16 | 32) {
                    return Err(ViewerError::PixelFormat(format.bits_per_pixel));
                }
                self.format = format;
                // The whole picture again, in the new format.
                self.shown = None;
            }
            ClientMessage::UpdateRequest { incremental, x, y, width, height } => {
                let area = Rect { x, y, width, height };
                let whole = self.request.as_ref().is_some_and(|request| !request.incremental);
                self.request = Some(Request { area, incremental: incremental && !whole });
            }
            ClientMessage::Key { down: true, keysym } => self.shared.typed(keysym),
            ClientMessage::Key { .. }
            | ClientMessage::Pointer { .. }
            | ClientMessage::SetEncodings(_)
            | ClientMessage::Other(_) => {}
        }
        Ok(())
    }

    /// The answer to the open request, if there is one and something to show.
    fn update(&mut self, scene: Scene) -> Option<Vec<u8>> {
        let request = self.request.as_ref()?;
        let damage = match (&self.shown, request.incremental) {
            (Some(shown), true) => scene.damage(shown),
            _ => vec![scene.whole()],
        };
        let area = request.area;
        let whole = area.intersection(scene.whole()) == Some(scene.whole());
        let rects: Vec<Rect> =
            damage.into_iter().filter_map(|rect| rect.intersection(area)).collect();
        if rects.is_empty() {
            return None;
        }
        let update = self.encode(&scene, &rects);
        self.request = None;
        // A viewer that asks for a part keeps its old moment elsewhere: show it all next time.
        self.shown = whole.then_some(scene);
        Some(update)
    }

    fn encode(&self, scene: &Scene, rects: &[Rect]) -> Vec<u8> {
        let mut out = vec![server_type::FRAMEBUFFER_UPDATE, 0];
        out.extend_from_slice(&u16::try_from(rects.len()).unwrap_or(u16::MAX).to_be_bytes());
        for rect in rects {
            for number in [rect.x, rect.y, rect.width, rect.height] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            out.extend_from_slice(&encoding::RAW.to_be_bytes());
            for colour in scene.paint(*rect) {
                self.put_pixel(&mut out, colour);
            }
        }
        out
    }

    fn put_pixel(&self, out: &mut Vec<u8>, colour: [u8; 3]) {
        let pixel = self.format.pixel(colour);
        let [a, b, c, d] = pixel.to_le_bytes();
        match (self.format.bits_per_pixel, self.format.big_endian) {
            (8, _) => out.push(a),
            (16, false) => out.extend_from_slice(&[a, b]),
            (16, true) => out.extend_from_slice(&[b, a]),
            (_, false) => out.extend_from_slice(&[a, b, c, d]),
            (_, true) => out.extend_from_slice(&[d, c, b, a]),
        }
    }
}
