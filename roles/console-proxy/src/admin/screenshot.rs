//! What a VM shows now, by a connection of its own: the viewer's goes on untouched.
//!
//! Our handshake leads the host in, as for a viewer; behind it an RFB client that is not ours asks for
//! one whole picture, and sees on its side a server without security.

use std::time::Duration;

use rfb::{ServerHandshake, ServerSecurity, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, copy_bidirectional, duplex};
use tokio::time::timeout;
use vnc::{PixelFormat, VncConnector, VncEncoding, VncEvent};

use super::png;
use crate::context::ConsoleContext;
use crate::sessions::Session;
use crate::vnc_server::VncServer;

/// For all of it.
const LIMIT: Duration = Duration::from_secs(20);
/// Largest side of a picture.
const SIDE: u16 = 8192;
/// Bytes under way between the two halves.
const PIPE: usize = 256 * 1024;

/// A PNG, or in words why there is none.
pub(super) async fn take(context: &ConsoleContext, session: &Session) -> Result<Vec<u8>, String> {
    if session.upstream().is_ticket() {
        return Err("the ticket of an ESXi host's console works once, for its viewer".to_owned());
    }
    let taken = async {
        let reached = crate::console::reach(context, &session.sid, &session.upstream()).await;
        let vnc_server = reached.map_err(|error| bedrock::chain(&error))?;
        let (width, height, rgb) = picture(vnc_server).await?;
        let encode = move || png::encode(width, height, &rgb);
        let encoded = context.tasks.blocking("screenshot", encode).await;
        encoded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    };
    timeout(LIMIT, taken).await.map_err(|_elapsed| format!("no picture within {LIMIT:?}"))?
}

/// Width, height and pixels of a whole picture.
async fn picture(vnc_server: VncServer) -> Result<(u16, u16, Vec<u8>), String> {
    let (width, height) = (vnc_server.init.width, vnc_server.init.height);
    if width == 0 || height == 0 || width > SIDE || height > SIDE {
        return Err(format!("a screen of {width} by {height} pixels is not pictured"));
    }
    let (ours, theirs) = duplex(PIPE);
    tokio::select! {
        picture = watch(theirs, width, height) => picture.map(|rgb| (width, height, rgb)),
        error = serve(ours, vnc_server) => Err(error),
    }
}

/// The server's half; ends only when something breaks.
async fn serve(mut client: DuplexStream, vnc_server: VncServer) -> String {
    let VncServer { mut stream, init, ahead, .. } = vnc_server;
    let mut handshake = ServerHandshake::new(ServerSecurity::None, Version::V8);
    if let Err(error) = handshake.admit(init) {
        return error.to_string();
    }
    let mut buffer = [0; 256];
    let relayed = async {
        loop {
            client.write_all(&handshake.take_output()).await?;
            if handshake.is_done() {
                break;
            }
            let count = client.read(&mut buffer).await?;
            let received = handshake.receive(buffer.get(..count).unwrap_or_default());
            if count == 0 || received.is_err() {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
        }
        client.write_all(&ahead).await?;
        stream.write_all(&handshake.into_rest()).await?;
        copy_bidirectional(&mut client, &mut stream).await
    };
    match relayed.await {
        Ok(_) => "the host closed the connection before there was a picture".to_owned(),
        Err(error) => format!("the connection to the host broke: {}", error.kind()),
    }
}

/// The client's half: until every pixel has come.
async fn watch(stream: DuplexStream, width: u16, height: u16) -> Result<Vec<u8>, String> {
    let said = |error: vnc::VncError| error.to_string();
    let client = VncConnector::new(stream)
        .set_auth_method(async { Ok(String::new()) })
        .add_encoding(VncEncoding::Raw)
        .set_pixel_format(PixelFormat::rgba())
        .build()
        .map_err(said)?
        .try_start()
        .await
        .map_err(said)?
        .finish()
        .map_err(said)?;
    let (columns, rows) = (usize::from(width), usize::from(height));
    let mut rgb = vec![0; columns * rows * 3];
    let mut missing = columns * rows;
    while missing > 0 {
        match client.recv_event().await.map_err(said)? {
            VncEvent::RawImage(rect, data) => {
                let line = usize::from(rect.width);
                for (index, pixel) in data.chunks_exact(4).enumerate() {
                    let (x, y) = (
                        usize::from(rect.x) + index % line.max(1),
                        usize::from(rect.y) + index / line.max(1),
                    );
                    if x >= columns || y >= rows {
                        continue;
                    }
                    let at = (y * columns + x) * 3;
                    if let (Some(cell), Some(colour)) = (rgb.get_mut(at..at + 3), pixel.get(..3)) {
                        cell.copy_from_slice(colour);
                    }
                }
                missing = missing.saturating_sub(data.len() / 4);
            }
            VncEvent::Error(error) => return Err(error),
            _ => {}
        }
    }
    // The picture is here: how the connection ends does not matter.
    client.close().await.ok();
    Ok(rgb)
}
