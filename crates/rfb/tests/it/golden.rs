//! The handshakes against recorded bytes, cut everywhere, and against arbitrary bytes.

use proptest::prelude::*;
use rfb::client::Phase;
use rfb::filter::InputCounts;
use rfb::message::MessageDecoder;
use rfb::security::SecurityType;
use rfb::{
    ClientHandshake, ClientMessage, HandshakeError, MessageFilter, PixelFormat, ServerHandshake,
    ServerHandshakeError, ServerInit, ServerSecurity, Version,
};

/// Payloads of one direction ("H>P tcp") of a recorded text.
fn recorded(text: &str, direction: &str) -> Vec<Vec<u8>> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    let mut inside = false;
    for line in text.lines().skip(2) {
        if let Some(body) = line.strip_prefix("        ") {
            if inside && !body.starts_with('…') {
                let hex = body.split("  ").next().unwrap();
                let bytes = hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap());
                out.last_mut().unwrap().extend(bytes);
            }
        } else {
            inside = line.contains(direction);
            if inside {
                out.push(Vec::new());
            }
        }
    }
    out
}

const VNC_AUTH: &str = include_str!("../vectors/cp-rfb-vncauth.txt");
const NONE: &str = include_str!("../vectors/cp-rfb-none.txt");

pub(crate) fn screen() -> ServerInit {
    ServerInit { width: 1280, height: 720, format: PixelFormat::RGB888, name: b"rfbtarget".into() }
}

/// What the client says to these bytes, however they are cut.
fn client(password: &str, bytes: &[u8], cut: usize) -> Result<ClientRun, HandshakeError> {
    let mut handshake = ClientHandshake::new(password);
    let mut said = Vec::new();
    let (head, tail) = bytes.split_at(cut.min(bytes.len()));
    for piece in [head, tail] {
        handshake.receive(piece)?;
        said.extend(handshake.take_output());
    }
    let outcome = handshake.outcome();
    Ok(ClientRun { done: handshake.is_done(), said, outcome, result: handshake.finish() })
}

#[derive(Debug, PartialEq)]
struct ClientRun {
    done: bool,
    said: Vec<u8>,
    outcome: (Version, SecurityType),
    result: Option<(ServerInit, Vec<u8>)>,
}

#[test]
fn the_client_says_what_was_recorded() {
    let host: Vec<u8> = recorded(VNC_AUTH, "H>P tcp").concat();
    let proxy: Vec<u8> = recorded(VNC_AUTH, "P>H tcp").concat();
    let run = client("T1hIusDpJXNui9Gcxxr0dA", &host, 0).unwrap();
    assert_eq!(run.outcome, (Version::V8, SecurityType::VNC_AUTH));
    // What follows the handshake in the recording are the browser's messages.
    assert_eq!(run.said[..], proxy[..run.said.len()]);
    assert_eq!(run.said.len(), 12 + 1 + 16 + 1);
    let (init, rest) = run.result.unwrap();
    assert_eq!(init, screen());
    assert_eq!(init.encode(), recorded(VNC_AUTH, "H>P tcp").last().unwrap()[..]);
    assert_eq!(rest, b"");
}

#[test]
fn every_cut_of_the_servers_bytes_gives_the_same_result() {
    let host: Vec<u8> = recorded(VNC_AUTH, "H>P tcp").concat();
    let whole = client("T1hIusDpJXNui9Gcxxr0dA", &host, 0).unwrap();
    for cut in 0..=host.len() {
        assert_eq!(client("T1hIusDpJXNui9Gcxxr0dA", &host, cut).unwrap(), whole, "cut {cut}");
        // A stream that ends there is incomplete, which is not an error of the bytes.
        let run = client("T1hIusDpJXNui9Gcxxr0dA", &host[..cut], cut).unwrap();
        assert_eq!(run.done, cut == host.len(), "end at {cut}");
    }
}

/// What the server says to a viewer that behaves as recorded but for the type it chooses: the
/// original announced the host's own type, we announce None.
fn viewer(text: &str) -> Vec<Vec<u8>> {
    let mut messages = recorded(text, "B>P websocket frame header 82");
    let handshake = messages.iter().rposition(|m| m == b"RFB 003.008\n").unwrap();
    messages.drain(..handshake);
    assert_eq!(messages[1], [2]);
    messages[1] = vec![1];
    messages
}

#[test]
fn the_server_leads_the_recorded_viewers_through() {
    for text in [VNC_AUTH, NONE] {
        let mut handshake = ServerHandshake::new(ServerSecurity::None, Version::V8);
        let init = ServerInit { name: b"vm1 ".into(), ..screen() };
        handshake.admit(init).unwrap();
        let mut said = vec![handshake.take_output()];
        for message in viewer(text) {
            handshake.receive(&message).unwrap();
            let output = handshake.take_output();
            if !output.is_empty() {
                said.push(output);
            }
        }
        assert!(handshake.is_done());
        let recorded = recorded(text, "P>B websocket frame header 82");
        let start = recorded.iter().rposition(|m| m == b"RFB 003.008\n").unwrap();
        let mut expected = recorded[start..start + 4].to_vec();
        assert_eq!(expected[1], [1, 2]);
        expected[1] = vec![1, 1];
        assert_eq!(said, expected);
        assert_eq!(handshake.into_rest(), viewer(text)[3..].concat());
    }
}

#[test]
fn every_cut_of_the_viewers_bytes_gives_the_same_result() {
    let viewer = viewer(VNC_AUTH).concat();
    for cut in 0..=viewer.len() {
        for decided_first in [true, false] {
            let mut handshake = ServerHandshake::new(ServerSecurity::None, Version::V8);
            if decided_first {
                handshake.admit(screen()).unwrap();
            }
            handshake.receive(&viewer[..cut]).unwrap();
            assert!(decided_first || !handshake.is_done());
            handshake.admit(screen()).unwrap();
            handshake.receive(&viewer[cut..]).unwrap();
            assert!(handshake.is_done());
            let said = handshake.take_output();
            assert_eq!(said.len(), 12 + 2 + 4 + 24 + 9, "cut {cut}");
            assert_eq!(handshake.into_rest(), viewer[14..]);
        }
    }
}

/// Bytes of a server, by version, type and result.
fn server_says(version: &[u8; 12], security: &[u8], then: &[u8]) -> Vec<u8> {
    [version, security, then].concat()
}

fn ok_then_init() -> Vec<u8> {
    [&[0, 0, 0, 0][..], &screen().encode()].concat()
}

#[test]
fn the_client_speaks_to_every_version_with_and_without_password() {
    let challenge = [7_u8; 16];
    let with_challenge = [&challenge[..], &ok_then_init()].concat();
    let check = |version: &[u8; 12], security: &[u8], then: &[u8], expected, said: usize| {
        let bytes = server_says(version, security, then);
        let run = client("secret", &bytes, 5).unwrap();
        assert!(run.done, "{expected:?}");
        assert_eq!(run.outcome, expected);
        assert_eq!(run.said.len(), said, "{expected:?}");
        assert_eq!(run.result.unwrap().0, screen());
    };
    let (v3, v7, v8) = (b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n");
    check(v3, &[0, 0, 0, 1], &screen().encode(), (Version::V3, SecurityType::NONE), 12 + 1);
    check(v3, &[0, 0, 0, 2], &with_challenge, (Version::V3, SecurityType::VNC_AUTH), 12 + 16 + 1);
    check(v7, &[1, 1], &screen().encode(), (Version::V7, SecurityType::NONE), 12 + 1 + 1);
    check(v7, &[2, 1, 2], &with_challenge, (Version::V7, SecurityType::VNC_AUTH), 12 + 1 + 16 + 1);
    check(v8, &[1, 1], &ok_then_init(), (Version::V8, SecurityType::NONE), 12 + 1 + 1);
    check(v8, &[3, 19, 2, 1], &with_challenge, (Version::V8, SecurityType::VNC_AUTH), 30);
    check(
        b"RFB 003.005\n",
        &[0, 0, 0, 1],
        &screen().encode(),
        (Version::V3, SecurityType::NONE),
        13,
    );
    check(b"RFB 003.889\n", &[1, 1], &ok_then_init(), (Version::V8, SecurityType::NONE), 14);
}

#[test]
fn failures_are_told_apart_with_the_servers_own_words() {
    let check = |bytes: &[u8], expected: &str| {
        let error = client("secret", bytes, 0).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let text =
        |text: &str| [&u32::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat();
    let (v3, v7, v8) = (b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n");
    let busy = "the VNC server refused: too many connections";
    check(&server_says(v8, &[0], &text("too many\nconnections")), busy);
    check(&server_says(v3, &[0, 0, 0, 0], &text("too many connections")), busy);
    check(b"HTTP/1.1 400 Bad", "the peer does not speak RFB");
    check(b"RFB 003.x08\n", "the peer does not speak RFB");
    check(
        &server_says(v8, &[2, 19, 5], &[]),
        "the VNC server offers no usable security (VeNCrypt, type 5)",
    );
    check(
        &server_says(v3, &[0, 0, 0, 19], &[]),
        "the VNC server offers no usable security (VeNCrypt)",
    );
    let wrong = [&[7; 16][..], &[0, 0, 0, 1]].concat();
    let wrong_with_text = [&wrong[..], &text("Authentication failed")].concat();
    check(
        &server_says(v8, &[1, 2], &wrong_with_text),
        "the VNC server did not accept the password: Authentication failed",
    );
    check(&server_says(v7, &[1, 2], &wrong), "the VNC server did not accept the password");
    let huge = [&[0, 0, 0, 0][..], &[0; 20], &u32::MAX.to_be_bytes()].concat();
    check(&server_says(v8, &[1, 1], &huge), "the VNC server's desktop name has 4294967295 bytes");
}

#[test]
fn a_reason_of_absurd_length_is_cut_and_an_early_end_keeps_what_came() {
    let mut handshake = ClientHandshake::new("");
    handshake.receive(b"RFB 003.008\n\0\xff\xff\xff\xffgo away").unwrap();
    assert_eq!(handshake.end_of_stream(), HandshakeError::Refused("go away".into()));
    let more = handshake.receive(&[b'.'; 2000]).unwrap_err();
    assert!(more.to_string().len() < 1100, "{more}");

    let mut silent = ClientHandshake::new("");
    silent.receive(b"RFB 003.008\n").unwrap();
    assert_eq!(silent.end_of_stream(), HandshakeError::Ended(Phase::SecurityTypes));
}

#[test]
fn a_refusal_reaches_viewers_of_every_version_as_text() {
    let check = |version: &[u8; 12], expected: &[u8]| {
        let mut handshake = ServerHandshake::new(ServerSecurity::None, Version::V8);
        handshake.receive(version).unwrap();
        handshake.refuse("no").unwrap();
        assert!(handshake.is_refused());
        assert_eq!(handshake.take_output()[12..], *expected);
    };
    check(b"RFB 003.008\n", b"\0\0\0\0\x02no");
    check(b"RFB 003.007\n", b"\0\0\0\0\x02no");
    check(b"RFB 003.003\n", b"\0\0\0\0\0\0\0\x02no");
}

#[test]
fn our_client_and_our_server_agree_in_every_version() {
    let secret =
        || ServerSecurity::VncAuth { password: "T1hIusDp".to_owned().into(), challenge: [9; 16] };
    let run = |security: ServerSecurity, version, password: &str| {
        let mut server = ServerHandshake::new(security, version);
        server.admit(screen()).unwrap();
        let mut client = ClientHandshake::new(password);
        for _ in 0..8 {
            client.receive(&server.take_output()).map_err(|error| error.to_string())?;
            let result = server.receive(&client.take_output());
            if result.is_err() {
                client.receive(&server.take_output()).map_err(|error| error.to_string())?;
            }
        }
        assert!(server.is_done());
        Ok::<_, String>((client.outcome().0, client.finish().unwrap().0))
    };
    for version in [Version::V3, Version::V7, Version::V8] {
        assert_eq!(run(ServerSecurity::None, version, ""), Ok((version, screen())));
        assert_eq!(run(secret(), version, "T1hIusDpXYZ"), Ok((version, screen())));
        let refused = run(secret(), version, "wrong").unwrap_err();
        assert!(refused.starts_with("the VNC server did not accept the password"), "{refused}");
    }
}

#[test]
fn a_viewer_that_chooses_what_was_not_offered_or_floods_is_refused() {
    let mut handshake = ServerHandshake::new(ServerSecurity::None, Version::V8);
    handshake.admit(screen()).unwrap();
    let error = handshake.receive(b"RFB 003.008\n\x02").unwrap_err();
    assert_eq!(error, ServerHandshakeError::NotOffered(SecurityType::VNC_AUTH));
    let mut waiting = ServerHandshake::new(ServerSecurity::None, Version::V8);
    waiting.receive(&[b"RFB 003.008\n", &[0; 65_000][..]].concat()).unwrap();
    assert_eq!(waiting.receive(&[0; 1000]), Err(ServerHandshakeError::TooMuchAhead));
}

/// One of each message a viewer sends.
fn messages() -> Vec<u8> {
    let mut out = viewer(VNC_AUTH)[3..].concat();
    out.extend([4, 1, 0, 0, 0, 0, 0, 0x61]);
    out.extend([5, 1, 0, 5, 0, 6]);
    out.extend([5, 0x80, 0, 5, 0, 6, 1]);
    out.extend([6, 0, 0, 0, 0, 0, 0, 3, b'a', b'b', b'c']);
    out.extend([&[6, 0, 0, 0][..], &(-4_i32).to_be_bytes(), &[1, 2, 3, 4]].concat());
    out.extend([150, 1, 0, 0, 0, 0, 0, 9, 0, 9]);
    out.extend([248, 0, 0, 0, 0, 0, 0, 0, 2, 7, 7]);
    out.extend([250, 0, 1, 2]);
    out.extend([&[251, 0, 0, 9, 0, 9, 1, 0][..], &[0; 16]].concat());
    out.extend([255, 0, 0, 1, 0, 0, 0, 0x62, 0, 0, 0, 48]);
    out.extend([255, 1, 0, 2, 0, 0, 0, 0, 0, 0]);
    out.extend([255, 1, 0, 0]);
    out.extend([3, 1, 0, 0, 0, 0, 0, 9, 0, 9]);
    out
}

const COUNTS: InputCounts = InputCounts { keys: 2, pointer: 2, clipboard: 2, update_requests: 2 };

#[test]
fn the_decoder_and_the_scanner_read_every_message_cut_anywhere() {
    let bytes = messages();
    for cut in 0..=bytes.len() {
        let (mut decoder, mut scanner) = (MessageDecoder::default(), MessageFilter::default());
        let mut decoded = Vec::new();
        for piece in [&bytes[..cut], &bytes[cut..]] {
            scanner.pass(piece, false, &mut Vec::new());
            decoder.push(piece);
            while let Some(message) = decoder.message().unwrap() {
                decoded.push(message);
            }
        }
        assert_eq!(decoded.len(), 16, "cut {cut}");
        assert!(decoded.contains(&ClientMessage::Key { down: true, keysym: 0x61 }));
        assert!(decoded.contains(&ClientMessage::Key { down: true, keysym: 0x62 }));
        assert!(decoded.contains(&ClientMessage::SetEncodings(vec![0])));
        assert_eq!(scanner.counts(), COUNTS, "cut {cut}");
        assert!(!scanner.is_lost());
    }
}

#[test]
fn the_scanner_gives_up_on_unknown_messages_and_the_decoder_names_them() {
    let mut scanner = MessageFilter::default();
    scanner.pass(
        &[4, 1, 0, 0, 0, 0, 0, 0x61, 99, 1, 2, 3, 4, 1, 0, 0, 0, 0, 0, 0x61],
        false,
        &mut Vec::new(),
    );
    assert!(scanner.is_lost());
    assert_eq!(scanner.counts().keys, 1);
    let mut decoder = MessageDecoder::default();
    decoder.push(&[99]);
    let error = decoder.message().unwrap_err();
    assert_eq!(error.to_string(), "the client sent a message of unknown type 99");
    let mut long = MessageDecoder::default();
    long.push(&[6, 0, 0, 0, 0x7f, 0, 0, 0]);
    assert!(long.message().is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..12)) {
        let mut client = ClientHandshake::with_tls("secret");
        let mut server = ServerHandshake::new(ServerSecurity::None, Version::V8);
        let mut scanner = MessageFilter::default();
        let mut decoder = MessageDecoder::default();
        server.admit(screen()).unwrap();
        for piece in &pieces {
            if let Err(error) = client.receive(piece) {
                prop_assert!(!error.to_string().contains('\n'));
            }
            if server.receive(piece).is_err() {
                prop_assert!(!server.is_done());
            }
            scanner.pass(piece, false, &mut Vec::new());
            decoder.push(piece);
            while let Ok(Some(_)) = decoder.message() {}
        }
        prop_assert!(!client.end_of_stream().to_string().is_empty());
    }

    #[test]
    fn server_init_round_trips(width: u16, height: u16, name in prop::collection::vec(any::<u8>(), 0..64), rest in prop::collection::vec(any::<u8>(), 0..64)) {
        let init = ServerInit { width, height, format: PixelFormat::RGB888, name };
        let mut bytes = b"RFB 003.008\n\x01\x01\0\0\0\0".to_vec();
        bytes.extend(init.encode());
        bytes.extend(&rest);
        let run = client("", &bytes, 20).unwrap();
        prop_assert_eq!(run.result, Some((init, rest)));
    }

    #[test]
    fn the_scanner_does_not_care_how_bytes_are_cut(cuts in prop::collection::vec(1_usize..40, 1..60)) {
        let bytes = messages();
        let mut scanner = MessageFilter::default();
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (head, tail) = rest.split_at((*cut).min(rest.len()));
            scanner.pass(head, false, &mut Vec::new());
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(scanner.counts(), COUNTS);
    }
}
