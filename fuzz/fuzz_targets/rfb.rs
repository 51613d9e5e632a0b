//! Arbitrary bytes at both handshakes, at the readers of a viewer's messages and as a recording: no
//! panic, and filter and recording give the same however the bytes are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rfb::fbs::{Block, Decoder, FbsError};
use rfb::message::MessageDecoder;
use rfb::{
    ClientHandshake, MessageFilter, Next, PixelFormat, ServerHandshake, ServerInit, ServerSecurity,
    Version,
};

fn recorded(pieces: &[&[u8]]) -> (Vec<Block>, Option<FbsError>) {
    let (mut decoder, mut blocks) = (Decoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.block() {
                Ok(Some(block)) => blocks.push(block),
                Ok(None) => break,
                Err(error) => return (blocks, Some(error)),
            }
        }
    }
    (blocks, None)
}

fuzz_target!(|input: (Vec<u8>, u8)| {
    let (bytes, cut) = input;
    let cut = usize::from(cut).min(bytes.len());
    let (head, tail) = bytes.split_at(cut);

    let mut client = ClientHandshake::new("secret");
    let mut encrypting = ClientHandshake::with_tls("secret");
    let mut server = ServerHandshake::new(ServerSecurity::None, Version::V8);
    let init = ServerInit { width: 1, height: 1, format: PixelFormat::RGB888, name: Vec::new() };
    server.admit(init).expect("nothing was received yet");
    let mut decoder = MessageDecoder::default();
    let (mut cut_scanner, mut whole_scanner) = (MessageFilter::default(), MessageFilter::default());
    let (mut cut_out, mut whole_out) = (Vec::new(), Vec::new());
    whole_scanner.pass(&bytes, false, &mut whole_out);
    for piece in [head, tail] {
        drop((client.receive(piece), server.receive(piece)));
        if encrypting.next() == Next::StartTls {
            encrypting.tls_started();
        }
        drop(encrypting.receive(piece));
        cut_scanner.pass(piece, false, &mut cut_out);
        decoder.push(piece);
        while let Ok(Some(_)) = decoder.message() {}
    }
    assert_eq!(recorded(&[head, tail]), recorded(&[&bytes]));
    assert_eq!((cut_out, cut_scanner.counts()), (whole_out, whole_scanner.counts()));
});
