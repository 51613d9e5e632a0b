//! XenServer's side as the document has it, and sides that are hostile.

use std::sync::Arc;
use std::time::Duration;

use rfb::{PixelFormat, ServerHandshake, ServerInit, ServerSecurity, Version};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::vnc_server;

const LIMIT: Duration = Duration::from_secs(20);
const GOOD: &str =
    "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n";

/// A host that answers one CONNECT with `answer`, and then speaks RFB 3.3.
async fn host(
    tls: bool,
    answer: &'static str,
    password: Option<&'static str>,
) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream: BoxStream = if tls {
            let made = rcgen::generate_simple_self_signed(vec!["xenserver".to_owned()]).unwrap();
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key)
                .unwrap();
            Box::new(TlsAcceptor::from(Arc::new(config)).accept(stream).await.unwrap())
        } else {
            Box::new(stream)
        };
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        let security = match password {
            None => ServerSecurity::None,
            Some(password) => {
                ServerSecurity::VncAuth { password: password.to_owned().into(), challenge: [7; 16] }
            }
        };
        let mut handshake = ServerHandshake::new(security, Version::V3);
        let init =
            ServerInit { width: 8, height: 8, format: PixelFormat::RGB888, name: b"xen".to_vec() };
        handshake.admit(init).unwrap();
        let mut buffer = [0; 256];
        while !handshake.is_done() {
            if stream.write_all(&handshake.take_output()).await.is_err() {
                break;
            }
            stream.flush().await.ok();
            match stream.read(&mut buffer).await {
                Ok(count @ 1..) => handshake.receive(&buffer[..count]).unwrap(),
                _ => break,
            }
        }
        stream.write_all(&handshake.take_output()).await.ok();
        stream.flush().await.ok();
        String::from_utf8(head).unwrap()
    });
    let scheme = if tls { "https" } else { "http" };
    (format!("{scheme}://{addr}/console?uuid=6b0f9c4e&x=a%20b"), serving)
}

#[tokio::test]
async fn a_console_is_had_through_the_tunnel_with_and_without_tls_and_password() {
    for (tls, password) in [(true, None), (true, Some("secret")), (false, Some("secret"))] {
        let (url, serving) = host(tls, GOOD, password).await;
        let connection = connect(&url, "OpaqueRef:0d3a").await.unwrap();
        assert_eq!(connection.encrypted, tls);
        let entered = vnc_server::enter(connection, "secret", LIMIT).await.unwrap();
        assert_eq!(entered.init.name, b"xen");
        let head = timeout(LIMIT, serving).await.unwrap().unwrap();
        let expected = "CONNECT /console?uuid=6b0f9c4e&x=a%20b HTTP/1.0\r\nHost: 127.0.0.1\r\n\
                        Cookie: session_id=OpaqueRef:0d3a\r\n\r\n";
        assert_eq!(head, expected);
    }
}

#[tokio::test]
async fn hosts_that_answer_otherwise_are_told_apart() {
    let check = async |answer: &'static str, words: &str| {
        let (url, serving) = host(false, answer, None).await;
        let Err(error) = connect(&url, "OpaqueRef:0d3a").await else { panic!("{answer}") };
        assert!(error.to_string().contains(words), "{answer}: {error}");
        serving.abort();
    };
    check(
        "HTTP/1.1 401 Unauthorized\r\n\r\n",
        "401, the session of the management server has ended",
    )
    .await;
    check("HTTP/1.1 302 Found\r\nLocation: http://evil/\r\n\r\n", "302, it sends elsewhere").await;
    check("HTTP/1.1 500 Internal\r\n\r\n", "(500)").await;
    check("RFB 003.008\n", "does not answer as XenServer does").await;
    check("HTTP/2 200\r\n\r\n", "does not answer as XenServer does").await;
    check("HTTP/1.1 200 OK\r\nno header\r\n\r\n", "does not answer as XenServer does").await;
}

#[test]
fn a_reply_is_whole_or_awaited_and_never_endless() {
    assert_eq!(reply(GOOD.as_bytes()), Ok(Some(GOOD.len())));
    for cut in 0..GOOD.len() {
        assert_eq!(reply(&GOOD.as_bytes()[..cut]), Ok(None), "{cut}");
    }
    let mut endless = b"HTTP/1.1 200 OK\r\n".to_vec();
    endless.resize(REPLY_LIMIT, b'a');
    assert_eq!(reply(&endless), Err(ReplyError::TooLong));
    assert_eq!(reply(b"HTTP/1.1 2000 OK\r\n\r\n"), Err(ReplyError::NotHttp));
    assert_eq!(reply(b"HTTP/1.1\r\n\r\n"), Err(ReplyError::NotHttp));
}

#[test]
fn addresses_and_sessions_that_could_say_more_than_they_should_are_refused() {
    let host = |url: &str| target(url).map(|t| (t.tls, t.host, t.port, t.path));
    let good =
        |tls, host: &str, port, path: &str| Ok((tls, host.to_owned(), port, path.to_owned()));
    assert_eq!(
        host("https://10.0.0.5/console?ref=x"),
        good(true, "10.0.0.5", 443, "/console?ref=x")
    );
    assert_eq!(host("http://[2001:db8::5]:81/c"), good(false, "2001:db8::5", 81, "/c"));
    assert_eq!(host("https://10.0.0.5"), good(true, "10.0.0.5", 443, "/"));
    for bad in [
        "",
        "/console",
        "ftp://h/c",
        "https://u:p@h/c",
        "https:///c",
        "https://h/a b",
        "https://h/\r\nX: y",
    ] {
        assert_eq!(host(bad), Err(ReplyError::Url), "{bad}");
    }
    let at = target("https://h/c").unwrap();
    for bad in ["", "a\r\nb", "a b", "a;b", "é"] {
        assert_eq!(request(&at, bad), Err(ReplyError::Session), "{bad}");
    }
}
