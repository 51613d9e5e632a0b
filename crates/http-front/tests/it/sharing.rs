//! Who gets which port, and what a failed registration leaves.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{any, fetch, front, site};

#[tokio::test]
async fn two_roles_share_a_port_by_longest_prefix_until_each_leaves() {
    let front = front();
    let cp = front.register(site("cp", any(), &["/"])).await.unwrap();
    let addr = cp.local_addr();
    let ss = front.register(site("ss", addr, &["/userdata/"])).await.unwrap();
    assert_eq!(fetch(addr, "/userdata/x").await, "ss");
    assert_eq!(fetch(addr, "/userdatax").await, "cp");
    drop(cp);
    assert!(fetch(addr, "/").await.contains("no service"));
    assert_eq!(fetch(addr, "/userdata/x").await, "ss");
    drop(ss);
    assert_eq!(front.addresses(), []);
}

#[tokio::test]
async fn both_wildcards_of_a_port_serve_both_families() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        // Without IPv6 there is one family only.
        return;
    }
    let front = front();
    let four = SocketAddr::from(([0, 0, 0, 0], 0));
    let four = front.register(site("cp", four, &["/"])).await.unwrap();
    let port = four.local_addr().port();
    let six = SocketAddr::from(([0_u16; 8], port));
    let _six = front.register(site("cp", six, &["/"])).await.unwrap();
    let one = SocketAddr::from(([127, 0, 0, 1], port));
    let _ss = front.register(site("ss", one, &["/userdata/"])).await.unwrap();
    let six = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1_u16], port));
    assert_eq!((fetch(one, "/").await.as_str(), fetch(six, "/").await.as_str()), ("cp", "cp"));
    assert_eq!(fetch(one, "/userdata/x").await, "ss");
}

#[tokio::test]
async fn a_prefix_belongs_to_one_role() {
    let front = front();
    let cp = front.register(site("cp", any(), &["/"])).await.unwrap();
    let error = front.register(site("ss", cp.local_addr(), &["/"])).await.unwrap_err();
    let expected = format!("cannot listen on {}/: the role cp serves that", cp.local_addr());
    assert_eq!(bedrock::chain(&error), expected);
    // The same role's next run may overlap with the last one's end.
    let next = front.register(site("cp", cp.local_addr(), &["/"])).await.unwrap();
    drop(cp);
    assert_eq!(fetch(next.local_addr(), "/").await, "cp");
}

#[tokio::test]
async fn the_wildcard_is_bound_beside_a_specific_listener_that_goes_on() {
    let front = front();
    let ss = front.register(site("ss", any(), &["/userdata/"])).await.unwrap();
    let port = ss.local_addr().port();
    let mut before = tokio::net::TcpStream::connect(ss.local_addr()).await.unwrap();
    let wildcard = SocketAddr::from(([0, 0, 0, 0], port));
    let cp = front.register(site("cp", wildcard, &["/"])).await.unwrap();
    assert_eq!(front.addresses(), [wildcard, ss.local_addr()]);
    assert_eq!(fetch(ss.local_addr(), "/userdata/x").await, "ss");
    assert_eq!(fetch(ss.local_addr(), "/").await, "cp");
    assert_eq!(fetch(SocketAddr::from(([127, 0, 0, 2], port)), "/userdata/x").await, "cp");
    // A connection from before was not touched.
    before.write_all(b"GET /userdata/x HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    before.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 200");
    drop(cp);
    assert_eq!(front.addresses(), [ss.local_addr()]);
    assert_eq!(fetch(ss.local_addr(), "/userdata/x").await, "ss");
}

#[tokio::test]
async fn a_wildcard_that_cannot_be_had_takes_no_port_from_another_role() {
    let front = front();
    let ss = front.register(site("ss", any(), &["/userdata/"])).await.unwrap();
    let port = ss.local_addr().port();
    // Somebody else has the port on another address.
    let foreign = std::net::TcpListener::bind(("127.0.0.3", port)).unwrap();
    let wildcard = SocketAddr::from(([0, 0, 0, 0], port));
    let error = front.register(site("cp", wildcard, &["/"])).await.unwrap_err();
    assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse);
    assert_eq!(fetch(ss.local_addr(), "/userdata/x").await, "ss");
    assert!(fetch(ss.local_addr(), "/").await.contains("no service"), "nothing stayed of cp");
    assert_eq!(front.addresses(), [ss.local_addr()]);
    drop(foreign);
    let _cp = front.register(site("cp", wildcard, &["/"])).await.unwrap();
    assert_eq!(fetch(ss.local_addr(), "/").await, "cp");
}

#[tokio::test]
async fn a_second_front_finds_the_ports_of_the_first_in_use() {
    let front = front();
    let ss = front.register(site("ss", any(), &["/userdata/"])).await.unwrap();
    let wildcard = SocketAddr::from(([0, 0, 0, 0], ss.local_addr().port()));
    let _cp = front.register(site("cp", wildcard, &["/"])).await.unwrap();
    for addr in [wildcard, ss.local_addr()] {
        let error = super::front().register(site("cp", addr, &["/"])).await.unwrap_err();
        assert_eq!(error.source.kind(), std::io::ErrorKind::AddrInUse, "{addr}");
    }
}

#[tokio::test]
async fn a_port_is_free_for_the_next_run_at_once() {
    let front = front();
    let mut held = front.register(site("cp", any(), &["/"])).await.unwrap();
    let addr = held.local_addr();
    for _run in 0..20 {
        drop(held);
        held = front.register(site("cp", addr, &["/"])).await.unwrap();
        assert_eq!(fetch(addr, "/").await, "cp");
    }
}
