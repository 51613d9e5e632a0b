//! Encryption that begins in the middle: what travels in clear, when TLS starts, and what follows
//! inside it.

use rfb::client::{Next, Phase};
use rfb::security::{SecurityType, vnc_response};
use rfb::vencrypt::VencryptType;
use rfb::{ClientHandshake, HandshakeError};

use crate::golden::screen;

const PASSWORD: &str = "S3cr3tVncPassw0rd-_abc";
const CHALLENGE: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// A server's half in clear that offers these sub-types, up to its go-ahead.
fn in_clear(sub_types: &[u32]) -> Vec<u8> {
    let mut bytes = b"RFB 003.008\n\x02\x02\x13\x00\x02\x00".to_vec();
    bytes.push(u8::try_from(sub_types.len()).unwrap());
    bytes.extend(sub_types.iter().flat_map(|number| number.to_be_bytes()));
    bytes
}

fn accepted_then_screen() -> Vec<u8> {
    [&[0, 0, 0, 0][..], &screen().encode()].concat()
}

fn refusal(password: &str, bytes: &[u8]) -> String {
    ClientHandshake::with_tls(password).receive(bytes).unwrap_err().to_string()
}

#[test]
fn the_documented_exchange_starts_tls_and_goes_on_inside_wherever_it_is_cut() {
    let clear = [&in_clear(&[262, 261, 260])[..], &[1]].concat();
    let inside = [&CHALLENGE[..], &accepted_then_screen()].concat();
    for cut in 0..clear.len() {
        let mut handshake = ClientHandshake::with_tls(PASSWORD);
        handshake.receive(&clear[..cut]).unwrap();
        assert_eq!(handshake.next(), Next::Receive, "cut {cut}");
        handshake.receive(&clear[cut..]).unwrap();
        let said = [b"RFB 003.008\n\x13\x00\x02\x00\x00\x01\x05".as_slice()].concat();
        assert_eq!(handshake.take_output(), said);
        assert_eq!(handshake.next(), Next::StartTls);
        handshake.tls_started();
        let cut = cut.min(inside.len());
        handshake.receive(&inside[..cut]).unwrap();
        handshake.receive(&inside[cut..]).unwrap();
        assert_eq!(handshake.next(), Next::Finish);
        let response = vnc_response(PASSWORD.as_bytes(), &CHALLENGE);
        assert_eq!(handshake.take_output(), [&response[..], &[1]].concat());
        assert_eq!(handshake.encryption(), Some(VencryptType::X509_VNC));
        assert_eq!(handshake.outcome().1, SecurityType::VENCRYPT);
        assert_eq!(handshake.finish().unwrap().0, screen());
    }
}

#[test]
fn without_a_password_a_result_is_awaited_at_once_and_told_in_the_servers_words() {
    let mut handshake = ClientHandshake::with_tls("");
    handshake.receive(&[&in_clear(&[260, 261])[..], &[1]].concat()).unwrap();
    handshake.tls_started();
    assert_eq!(handshake.encryption(), Some(VencryptType::X509_NONE));
    let refused = handshake.receive(b"\0\0\0\x01\0\0\0\x06no key").unwrap_err();
    assert_eq!(refused, HandshakeError::Refused("no key".into()));

    let mut handshake = ClientHandshake::with_tls(PASSWORD);
    handshake.receive(&[&in_clear(&[261])[..], &[1]].concat()).unwrap();
    handshake.tls_started();
    let wrong = [&CHALLENGE[..], b"\0\0\0\x01\0\0\0\x05wrong"].concat();
    let refused = handshake.receive(&wrong).unwrap_err();
    assert_eq!(refused, HandshakeError::WrongPassword("wrong".into()));
}

#[test]
fn encryption_is_neither_chosen_unasked_nor_given_up_when_it_is_of_no_use() {
    let mut clear = ClientHandshake::new(PASSWORD);
    clear.receive(b"RFB 003.008\n\x02\x13\x02").unwrap();
    assert_eq!(clear.take_output()[12..], [2]);
    // A server without it is spoken to as ever.
    let mut able = ClientHandshake::with_tls(PASSWORD);
    able.receive(b"RFB 003.008\n\x02\x01\x02").unwrap();
    assert_eq!(able.take_output()[12..], [2]);
    assert_eq!(
        refusal(PASSWORD, &in_clear(&[262, 257, 300])),
        "the VNC server offers no usable encryption (X509Plain, TLSNone, sub-type 300)"
    );
    assert_eq!(
        refusal(PASSWORD, &in_clear(&[])),
        "the VNC server offers no usable encryption (it offers nothing)"
    );
}

#[test]
fn whatever_comes_in_clear_where_tls_starts_is_refused() {
    let injected = [&in_clear(&[261])[..], &[1], &CHALLENGE].concat();
    assert_eq!(
        refusal(PASSWORD, &injected),
        "the VNC server sent 16 bytes in clear where encryption starts"
    );
    let mut late = ClientHandshake::with_tls(PASSWORD);
    late.receive(&[&in_clear(&[261])[..], &[1]].concat()).unwrap();
    assert_eq!(late.receive(&[0]).unwrap_err(), HandshakeError::ClearText(1));
}

#[test]
fn a_server_that_does_not_agree_is_told_apart() {
    let old = b"RFB 003.008\n\x01\x13\x00\x01";
    assert_eq!(refusal("", old), "the VNC server speaks VeNCrypt 0.1, which is too old");
    let version = b"RFB 003.008\n\x01\x13\x00\x02\xff";
    let words = "the VNC server refused: VeNCrypt version 0.2 is not accepted";
    assert_eq!(refusal("", version), words);
    let choice = [&in_clear(&[260])[..], &[0]].concat();
    let words = "the VNC server refused: the VeNCrypt sub-type is not accepted";
    assert_eq!(refusal("", &choice), words);
    let mut gone = ClientHandshake::with_tls("");
    gone.receive(&in_clear(&[260])).unwrap();
    assert_eq!(gone.end_of_stream(), HandshakeError::Ended(Phase::Vencrypt));
    // Saying so without having been asked changes nothing.
    gone.tls_started();
    assert_eq!(gone.end_of_stream(), HandshakeError::Ended(Phase::Vencrypt));
}
