//! Packets over an in-memory stream that holds a few bytes at a time.

use tokio::io::DuplexStream;

use super::*;
use crate::tls::Material;
use crate::trust::Anchors;

#[path = "../../tests/it/peer.rs"]
#[allow(dead_code, reason = "the integration tests use more of it")]
mod peer;
use peer::{Authority, Peer};

const SECONDS: Duration = Duration::from_secs(30);

async fn pair(buffer: usize, max_message: usize) -> (Connection, Peer<DuplexStream>, TaskScope) {
    let authority = Authority::new();
    let (mut near, far) = tokio::io::duplex(buffer);
    let server = tokio::spawn(Peer::accept(far, authority.server_config()));
    let directory = tempfile::tempdir().unwrap();
    let anchors = Anchors::load(None, directory.path(), &[], None).unwrap();
    let material = Material::new(anchors, None).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let engine = handshake(&mut near, material.config, name, SECONDS).await.unwrap();
    assert_eq!(engine.peer_certificates(), std::slice::from_ref(&authority.certificate));
    assert_eq!(engine.0.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_2));
    let tasks = TaskScope::new();
    let connection = start(tokio::io::split(near), engine, max_message, &tasks);
    (connection, server.await.unwrap().unwrap(), tasks)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[tokio::test]
async fn messages_of_every_interesting_size_pass_both_ways_through_a_tiny_pipe() {
    let (mut connection, mut peer, _tasks) = pair(7, 1 << 20).await;
    for length in [1, 2, 40, 16_383, 16_384, 16_385, 32_768, 32_769, 100_000] {
        let message = pattern(length);
        assert!(connection.outbound.send(message.clone()).await);
        let (received, sizes) = peer.receive().await.unwrap().unwrap();
        assert_eq!(received, message);
        assert_eq!(sizes.len(), length.div_ceil(16_384), "{length}");
        for piece in [16_384, 1000] {
            let (sent, came) =
                tokio::join!(peer.send_in(&message, piece), connection.inbound.recv());
            sent.unwrap();
            assert_eq!(came.unwrap().unwrap(), message);
        }
    }
}

#[tokio::test]
async fn a_message_of_148_bytes_makes_the_packet_of_the_reference() {
    let (connection, mut peer, _tasks) = pair(1 << 16, 1 << 20).await;
    assert!(connection.outbound.send(pattern(148)).await);
    // 5 bytes of record header, 8 of nonce, 148, 16 of tag.
    assert_eq!(peer.receive().await.unwrap().unwrap().1, [177]);
}

#[tokio::test]
async fn packets_of_two_messages_never_mix_and_urgent_ones_go_first() {
    let (connection, mut peer, _tasks) = pair(64, 1 << 20).await;
    for letter in b"abc" {
        assert!(connection.outbound.send(vec![*letter; 50_000]).await);
    }
    // The pipe holds 64 bytes, so the first message is still being written.
    assert!(connection.outbound.send_urgent(b"now".to_vec()));
    let mut order = Vec::new();
    for _message in 0..4 {
        let (message, _) = peer.receive().await.unwrap().unwrap();
        let first = message[0];
        assert!(message == b"now" || message.iter().all(|byte| *byte == first));
        order.push(first);
    }
    assert!(order == b"anbc" || order == b"nabc", "{order:?}");
}

#[tokio::test]
async fn the_end_of_a_connection_is_silent() {
    let (connection, mut peer, _tasks) = pair(1 << 16, 1 << 20).await;
    assert!(connection.outbound.send(b"last".to_vec()).await);
    assert_eq!(peer.receive().await.unwrap().unwrap().0, b"last");
    let outbound = connection.outbound.clone();
    drop(connection);
    // Not a single byte more: no alert, no close_notify.
    assert!(peer.receive().await.unwrap().is_none());
    while outbound.send(Vec::new()).await {}
}

async fn lost(connection: &mut Connection) -> String {
    match connection.inbound.recv().await.unwrap() {
        Err(error) => error.to_string(),
        Ok(message) => panic!("a message of {} bytes", message.len()),
    }
}

#[tokio::test]
async fn every_violation_of_the_packet_format_ends_the_link_with_its_name() {
    let (mut connection, mut peer, _tasks) = pair(1 << 16, 1 << 20).await;
    peer.write(&[0, 0, 0x46, 0x51]).await.unwrap();
    assert_eq!(lost(&mut connection).await, "the management server broke the packet format");

    let (mut connection, mut peer, _tasks) = pair(1 << 16, 1 << 20).await;
    peer.write_packet(false, &[]).await.unwrap();
    assert_eq!(lost(&mut connection).await, "the management server broke the packet format");

    for cut in [1, 4, 5, 20] {
        let (mut connection, mut peer, _tasks) = pair(1 << 16, 1 << 20).await;
        let records = peer.seal(b"cut off");
        peer.write_packet(true, &records[..cut]).await.unwrap();
        let expected = "the management server sent a packet that does not end with a TLS record";
        assert_eq!(lost(&mut connection).await, expected, "{cut}");
    }

    let (mut connection, mut peer, _tasks) = pair(1 << 16, 1 << 20).await;
    let mut records = peer.seal(b"tampered");
    *records.last_mut().unwrap() ^= 1;
    peer.write_packet(false, &records).await.unwrap();
    assert_eq!(lost(&mut connection).await, "the management server broke the TLS session");
}

#[tokio::test]
async fn a_message_beyond_the_bound_ends_the_link() {
    let (mut connection, mut peer, _tasks) = pair(1 << 20, 100_000).await;
    peer.send(&pattern(100_000)).await.unwrap();
    assert_eq!(connection.inbound.recv().await.unwrap().unwrap().len(), 100_000);
    peer.send(&pattern(100_001)).await.unwrap();
    let error = connection.inbound.recv().await.unwrap().unwrap_err();
    assert_eq!(
        bedrock::chain(&error),
        "the management server broke the packet format: message of more than 100000 bytes"
    );
}

#[tokio::test]
async fn an_end_inside_a_packet_is_told_from_one_between_packets() {
    let (mut connection, peer, _tasks) = pair(1 << 16, 1 << 20).await;
    drop(peer);
    assert_eq!(lost(&mut connection).await, "the management server closed the link");

    let (mut connection, mut peer, _tasks) = pair(1 << 16, 1 << 20).await;
    let records = peer.seal(b"cut off");
    let bytes = [&[0, 0, 0, u8::try_from(records.len()).unwrap()], records.as_slice()].concat();
    for end in 1..bytes.len() {
        let (mut connection, mut peer, _tasks) = pair(1 << 16, 1 << 20).await;
        peer.write(&bytes[..end]).await.unwrap();
        drop(peer);
        assert_eq!(lost(&mut connection).await, "the link ended in the middle of a packet");
    }
    drop(peer);
    lost(&mut connection).await;
}

#[tokio::test]
async fn several_records_in_one_packet_are_one_piece() {
    let (mut connection, mut peer, _tasks) = pair(1 << 16, 1 << 20).await;
    let records = [peer.seal(b"one "), peer.seal(b"two")].concat();
    peer.write_packet(false, &records).await.unwrap();
    assert_eq!(connection.inbound.recv().await.unwrap().unwrap(), b"one two");
}

#[tokio::test]
async fn a_peer_that_does_not_speak_tls_is_told() {
    let (mut near, mut far) = tokio::io::duplex(1 << 16);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let failure = try_handshake(&mut near, SECONDS).await;
    assert!(matches!(failure, HandshakeFailure::Tls(_)), "{failure:?}");
}

#[tokio::test]
async fn a_peer_that_closes_or_hangs_in_the_handshake_is_told() {
    let (mut near, far) = tokio::io::duplex(1 << 16);
    drop(far);
    let failure = try_handshake(&mut near, SECONDS).await;
    assert!(matches!(failure, HandshakeFailure::Other(HandshakeError::Closed)), "{failure:?}");

    let (mut near, _far) = tokio::io::duplex(1 << 16);
    let failure = try_handshake(&mut near, Duration::from_millis(20)).await;
    assert!(matches!(failure, HandshakeFailure::Other(HandshakeError::Timeout(_))));
}

async fn try_handshake(near: &mut DuplexStream, timeout: Duration) -> HandshakeFailure {
    let directory = tempfile::tempdir().unwrap();
    let anchors = Anchors::load(None, directory.path(), &[], None).unwrap();
    let material = Material::new(anchors, None).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    match handshake(near, material.config, name, timeout).await {
        Ok(_engine) => panic!("a handshake with nobody"),
        Err(failure) => failure,
    }
}
