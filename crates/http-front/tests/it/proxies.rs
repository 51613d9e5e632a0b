//! Whose request it is behind proxies, and what a listener makes of PROXY headers.

use axum::Router;
use axum::extract::Extension;
use axum::routing::get;
use http_front::{ClientAddress, Peer, Site, Transport, TrustedProxies};
use tokio::net::TcpStream;

use super::{any, exchange, fetch_with, front, head, site};

/// Says whom it takes the client for.
fn names_client() -> Router {
    Router::new().fallback(get(
        |Extension(client): Extension<ClientAddress>, Extension(peer): Extension<Peer>| async move {
            assert!(matches!(peer, Peer::Tcp { remote, .. } if remote.ip().is_loopback()));
            client.0.to_string()
        },
    ))
}

#[tokio::test]
async fn each_role_has_trusted_proxies_of_its_own() {
    let front = front();
    let proxies = TrustedProxies::from(vec!["127.0.0.0/8".parse().unwrap()]);
    let trusting = Site {
        trusted_proxies: proxies.clone(),
        router: names_client(),
        ..site("cp", any(), &["/"])
    };
    let cp = front.register(trusting).await.unwrap();
    let addr = cp.local_addr();
    let wary = Site { router: names_client(), ..site("ss", addr, &["/userdata/"]) };
    let _ss = front.register(wary).await.unwrap();
    let header = "X-Forwarded-For: [2001:db8::1]\r\n";
    assert_eq!(fetch_with(addr, "/", header).await, "2001:db8::1");
    assert_eq!(fetch_with(addr, "/userdata/", header).await, "127.0.0.1");
    assert_eq!(fetch_with(addr, "/", "Forwarded: for=203.0.113.9\r\n").await, "203.0.113.9");
    assert_eq!(fetch_with(addr, "/", "").await, "127.0.0.1");
    proxies.replace(Vec::new());
    assert_eq!(fetch_with(addr, "/", header).await, "127.0.0.1");
}

#[tokio::test]
async fn a_proxy_header_names_the_client_and_has_to_be_there() {
    let front = front();
    let proxy_protocol = vec!["127.0.0.1".parse().unwrap()];
    let transport = Transport { proxy_protocol, ..Transport::default() };
    let addr = "0.0.0.0:0".parse().unwrap();
    let cp = Site { router: names_client(), transport, ..site("cp", addr, &["/"]) };
    let cp = front.register(cp).await.unwrap();
    let port = cp.local_addr().port();
    let send = async |host: &str, bytes: &[&[u8]]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{host}:0").parse().unwrap()).unwrap();
        let mut stream: TcpStream = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
        exchange(&mut stream, &bytes.concat()).await
    };
    let request = head("/", "");
    let request = request.as_bytes();
    let one = b"PROXY TCP6 2001:db8::9 2001:db8::1 50123 80\r\n";
    let two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xc0\0\x02\x01\xc3\xcb\0\x50";
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    assert!(send("127.0.0.1", &[one, request]).await.ends_with("2001:db8::9"));
    assert!(send("127.0.0.1", &[two, request]).await.ends_with("203.0.113.9"));
    assert!(send("127.0.0.1", &[local, request]).await.ends_with("127.0.0.1"));
    assert_eq!(send("127.0.0.1", &[request]).await, "", "closed without an answer");
    // From elsewhere the header is what it looks like: not HTTP.
    assert!(send("127.0.0.2", &[one, request]).await.starts_with("HTTP/1.1 400"));
    assert!(send("127.0.0.2", &[request]).await.ends_with("127.0.0.2"));
}

/// Both roles of a port would read the other's connections wrongly.
#[tokio::test]
async fn roles_that_want_other_layers_cannot_share_an_address() {
    let front = front();
    let cp = front.register(site("cp", any(), &["/"])).await.unwrap();
    let proxy_protocol = vec!["10.0.0.0/8".parse().unwrap()];
    let transport = Transport { proxy_protocol, ..Transport::default() };
    let ss = Site { transport, ..site("ss", cp.local_addr(), &["/userdata/"]) };
    let error = front.register(ss).await.unwrap_err();
    assert!(bedrock::chain(&error).contains("other senders of PROXY headers"), "{error:?}");
}
