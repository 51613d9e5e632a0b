//! The write path without a network.

use std::io::Write;

use flate2::write::GzEncoder;

use super::*;
use crate::stores::Work;
use crate::stores::registry::tests::{URL, setup};

const QCOW2: &[u8] = b"QFI\xfb\0\0\0\x03";

async fn run(
    format: Format,
    limit: u64,
    pieces: Vec<Piece>,
) -> (Result<Written, IngestError>, Vec<u8>) {
    run_coded(format, limit, Coding::Identity, pieces).await
}

async fn run_coded(
    format: Format,
    limit: u64,
    coding: Coding,
    pieces: Vec<Piece>,
) -> (Result<Written, IngestError>, Vec<u8>) {
    let made = setup(&[URL]);
    let store = made.stores.open(&URL.parse().unwrap(), None).await.unwrap();
    let work = Work::new();
    let directory = "template/tmpl/2/204".parse().unwrap();
    let part = store.engine().create(&work, directory, "part".parse().unwrap()).await.unwrap();
    let expectation = Expectation::parse(Some("00")).unwrap();
    let content = Content::Image(format);
    let hashes = Vec::new();
    let (begun, progress, ratio) = (None, Progress::default(), 1_000);
    let target =
        Target { store, part, content, expectation, hashes, coding, limit, ratio, begun, progress };
    let (tx, rx) = mpsc::channel(PIECES);
    let sending = async move {
        for piece in pieces {
            if tx.send(piece).await.is_err() {
                break;
            }
        }
    };
    let (outcome, ()) = tokio::join!(write(target, rx), sending);
    work.ended().await;
    let written = std::fs::read(made.temp.path().join("sec/template/tmpl/2/204/part")).unwrap();
    (outcome, written)
}

fn pieces(bytes: &[u8], size: usize) -> Vec<Piece> {
    let data = bytes.chunks(size).map(|chunk| Piece::Data(Bytes::copy_from_slice(chunk)));
    data.chain([Piece::End]).collect()
}

fn image(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|n| (n * 31 % 251) as u8).collect();
    bytes[..QCOW2.len()].copy_from_slice(QCOW2);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn md5(bytes: &[u8]) -> String {
    let mut running = Expectation::compute("MD5").unwrap().start();
    running.update(bytes);
    running.finish().to_string()
}

#[tokio::test]
async fn bytes_are_written_as_decompressed_and_hashed_as_received() {
    let plain = image(300_000);
    // Two members, as parallel compressors write them.
    let (first, second) = plain.split_at(100_000);
    let packed = [gzip(first), gzip(second)].concat();
    for (sent, size) in [(plain.clone(), 7_000), (packed.clone(), 13), (packed, 1 << 20)] {
        let (outcome, written) = run(Format::Qcow2, 1 << 30, pieces(&sent, size)).await;
        let outcome = outcome.unwrap();
        assert_eq!(outcome.checksum.unwrap().to_string(), md5(&sent));
        assert_eq!(outcome.beside, None);
        assert!(written == plain);
    }
}

#[tokio::test]
async fn a_source_that_ends_early_is_never_a_file() {
    let plain = image(200_000);
    for bytes in [plain.clone(), gzip(&plain), Vec::new()] {
        let mut cut = pieces(&bytes, 1_000);
        cut.pop();
        assert!(matches!(run(Format::Qcow2, 1 << 30, cut).await.0, Err(IngestError::Aborted)));
    }
    let packed = gzip(&plain);
    let short = pieces(&packed[..packed.len() - 20], 1_000);
    let outcome = run(Format::Qcow2, 1 << 30, short).await.0;
    assert!(
        matches!(outcome, Err(IngestError::Decompress { what: "gzip compressed data", .. })),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn bombs_stop_at_the_limit() {
    let bomb = gzip(&[0; 8 << 20]);
    assert!(bomb.len() < 1 << 17);
    let (outcome, written) = run(Format::Raw, 1 << 20, pieces(&bomb, 4_096)).await;
    assert!(matches!(outcome, Err(IngestError::Bomb { limit: 1_048_576 })), "{outcome:?}");
    assert!(written.len() <= 1 << 20);
}

#[tokio::test]
async fn content_is_judged_by_the_chosen_format_before_it_is_all_there() {
    let (outcome, written) = run(Format::Raw, 1 << 30, pieces(&image(400_000), 4_096)).await;
    assert!(matches!(outcome, Err(IngestError::Content(Kind::Qcow2))), "{outcome:?}");
    assert!(written.len() < 400_000);
    let (outcome, _) = run(Format::Qcow2, 1 << 30, pieces(b"hello\n", 10)).await;
    assert!(
        matches!(outcome, Err(IngestError::Content(Kind::Foreign("ASCII text")))),
        "{outcome:?}"
    );
    // A QCOW2 in a wrapper is still a QCOW2.
    let (outcome, _) = run(Format::Raw, 1 << 30, pieces(&gzip(&image(100_000)), 4_096)).await;
    assert!(matches!(outcome, Err(IngestError::Content(Kind::Qcow2))), "{outcome:?}");
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn what_follows_the_last_member_is_ignored_and_told() {
    let plain = image(70_000);
    let (first, second) = plain.split_at(20_000);
    for pack in [gzip, bzip2] {
        let members = [pack(first), pack(b""), pack(second)].concat();
        for (behind, text) in [
            (vec![0; 10_000], "10000 zero bytes after the compressed data were ignored"),
            (b"x".to_vec(), "1 bytes after the compressed data were ignored"),
            (b"\x1f".to_vec(), "1 bytes after the compressed data were ignored"),
            (b"BZ".to_vec(), "2 bytes after the compressed data were ignored"),
            // As gzip does it: padding ends the file, whatever comes then.
            (
                [vec![0; 512], pack(b"more")].concat(),
                " bytes after the compressed data were ignored",
            ),
            (vec![0xa5; 300_000], "300000 bytes after the compressed data were ignored"),
        ] {
            let sent = [members.clone(), behind].concat();
            for size in [1 << 20, 4_099] {
                let (outcome, written) = run(Format::Qcow2, 1 << 30, pieces(&sent, size)).await;
                let outcome = outcome.unwrap();
                let ignored = outcome.beside.unwrap().to_string();
                assert!(ignored.ends_with(text), "{ignored}");
                assert!(written == plain);
                assert_eq!(
                    outcome.checksum.unwrap().to_string(),
                    md5(&sent),
                    "of the file as it is"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_member_that_is_begun_must_be_whole() {
    let plain = image(70_000);
    for (pack, magic) in [(gzip as fn(&[u8]) -> Vec<u8>, &b"\x1f\x8b"[..]), (bzip2, b"BZh")] {
        let packed = pack(&plain);
        let mut wrong_sum = packed.clone();
        let length = wrong_sum.len();
        wrong_sum[length - 6] ^= 1;
        let second_cut = [&packed[..], &packed[..length / 2]].concat();
        for sent in [
            packed[..length - 3].to_vec(),
            packed[..length / 2].to_vec(),
            second_cut,
            [&packed[..], magic].concat(),
            [&packed[..], magic, b"nonsense"].concat(),
            wrong_sum,
        ] {
            let outcome = run(Format::Qcow2, 1 << 30, pieces(&sent, 1_000)).await.0;
            assert!(matches!(outcome, Err(IngestError::Decompress { .. })), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_coding_of_the_transfer_is_undone_before_the_digest() {
    use flate2::write::{DeflateEncoder, ZlibEncoder};
    let plain = image(150_000);
    let wrapped = gzip(&plain);
    let fast = flate2::Compression::fast();
    let zlib = |bytes: &[u8]| {
        let mut encoder = ZlibEncoder::new(Vec::new(), fast);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = |bytes: &[u8]| {
        let mut encoder = DeflateEncoder::new(Vec::new(), fast);
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    // A wrapper inside the coding belongs to the file: it counts for the digest.
    for file in [&plain, &wrapped] {
        for (coding, sent) in [
            (Coding::Gzip, gzip(file)),
            (Coding::Deflate, zlib(file)),
            (Coding::Deflate, deflate(file)),
        ] {
            let (outcome, written) =
                run_coded(Format::Qcow2, 1 << 30, coding, pieces(&sent, 3_001)).await;
            assert_eq!(outcome.unwrap().checksum.unwrap().to_string(), md5(file), "{coding:?}");
            assert!(written == plain);
            let half = pieces(&sent[..sent.len() / 2], 3_001);
            let cut = run_coded(Format::Qcow2, 1 << 30, coding, half).await.0.unwrap_err();
            assert!(cut.to_string().contains(coding.name()), "{cut}");
        }
    }
    let bomb = gzip(&gzip(&[0; 8 << 20]));
    let outcome = run_coded(Format::Raw, 1 << 20, Coding::Gzip, pieces(&bomb, 4_096)).await.0;
    assert!(matches!(outcome, Err(IngestError::Bomb { .. })), "{outcome:?}");
    // Padding inside a coding expands without ever being written.
    let padding = gzip(&[gzip(&plain), vec![0; 8 << 20]].concat());
    let outcome = run_coded(Format::Qcow2, 1 << 20, Coding::Gzip, pieces(&padding, 4_096)).await.0;
    let text = outcome.unwrap_err().to_string();
    assert!(text.contains("content coding gzip: it has more than 1048576 bytes inside"), "{text}");
}

/// `decompression_ratio`: an empty disk may shrink to nothing, a small file that fills a store is none.
#[test]
fn an_image_may_be_so_many_times_as_long_as_what_was_received() {
    const GIB: u64 = 1 << 30;
    assert!(!is_inflated(4 * GIB, 0, 100), "short ones may be any times as long");
    assert!(is_inflated(4 * GIB + 1, 0, 100));
    let received = 1 << 20;
    assert!(!is_inflated(100 * GIB, received, 102_400));
    assert!(is_inflated(100 * GIB + received, received, 102_400));
    let error = IngestError::Ratio { ratio: 20_000, received: 7 };
    assert!(error.to_string().contains("set decompression_ratio higher"), "{error}");
}
