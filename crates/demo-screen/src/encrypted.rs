//! VeNCrypt with X.509 before everything else, as KVM hosts have it: the screen is shown over TLS
//! alone.

use rfb::security::{CHALLENGE_LENGTH, RESULT_FAILED, RESULT_OK, SecurityType, vnc_response};
use rfb::vencrypt::VencryptType;
use rfb::{ServerInit, ServerSecurity, Version};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::viewer::ViewerError;

/// Leads a viewer in, inside its encryption.
pub(crate) async fn enter(
    mut stream: TcpStream,
    acceptor: &TlsAcceptor,
    security: ServerSecurity,
    init: &ServerInit,
) -> Result<TlsStream<TcpStream>, ViewerError> {
    stream.write_all(Version::V8.message()).await?;
    let version: [u8; 12] = read(&mut stream).await?;
    if Version::parse(version) != Some(Version::V8) {
        return Err(ViewerError::Unencrypted);
    }
    stream.write_all(&[1, SecurityType::VENCRYPT.0]).await?;
    let [chosen] = read(&mut stream).await?;
    // Its version is 0.2, and so has to be the viewer's.
    stream.write_all(&[0, 2]).await?;
    let version: [u8; 2] = read(&mut stream).await?;
    let refused = chosen != SecurityType::VENCRYPT.0 || version != [0, 2];
    stream.write_all(&[u8::from(refused)]).await?;
    if refused {
        return Err(ViewerError::Unencrypted);
    }
    let wanted = match security {
        ServerSecurity::None => VencryptType::X509_NONE,
        ServerSecurity::VncAuth { .. } => VencryptType::X509_VNC,
    };
    stream.write_all(&[&[1], &wanted.0.to_be_bytes()[..]].concat()).await?;
    let agreed = u32::from_be_bytes(read(&mut stream).await?) == wanted.0;
    stream.write_all(&[u8::from(agreed)]).await?;
    if !agreed {
        return Err(ViewerError::Unencrypted);
    }
    let mut inside = acceptor.accept(stream).await?;
    if let ServerSecurity::VncAuth { password, challenge } = security {
        inside.write_all(&challenge).await?;
        let response: [u8; CHALLENGE_LENGTH] = read(&mut inside).await?;
        if response != vnc_response(password.as_bytes(), &challenge) {
            let reason = b"wrong password";
            let length = [0, 0, 0, 14];
            let said = [&RESULT_FAILED.to_be_bytes()[..], &length, reason].concat();
            inside.write_all(&said).await?;
            inside.shutdown().await?;
            return Err(rfb::ServerHandshakeError::WrongPassword.into());
        }
    }
    inside.write_all(&RESULT_OK.to_be_bytes()).await?;
    // The shared flag: every viewer shares.
    let [_shared] = read(&mut inside).await?;
    inside.write_all(&init.encode()).await?;
    inside.flush().await?;
    Ok(inside)
}

async fn read<const N: usize>(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<[u8; N], ViewerError> {
    stream.flush().await?;
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}
