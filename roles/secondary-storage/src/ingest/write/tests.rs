//! The write path without a network.

use std::io::Seek;

use flate2::write::GzEncoder;
use tokio::sync::Semaphore;

use super::*;

const QCOW2: &[u8] = b"QFI\xfb\0\0\0\x03";

async fn run(format: Format, limit: u64, pieces: Vec<Piece>) -> (WriterResult, Vec<u8>) {
    let mut file = tempfile::tempfile().unwrap();
    let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let job = WriterJob {
        file: file.try_clone().unwrap(),
        format,
        expectation: Expectation::parse(Some("00")).unwrap(),
        limit,
        permit: Arc::new(permit),
        token: tokio_util::task::TaskTracker::new().token(),
    };
    let (tx, rx) = start(job).unwrap();
    for piece in pieces {
        if tx.send(piece).await.is_err() {
            break;
        }
    }
    drop(tx);
    let outcome = rx.await.unwrap();
    let mut written = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut written).unwrap();
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
        assert_eq!(outcome.length, 300_000);
        assert_eq!(outcome.checksum.to_string(), md5(&sent));
        assert_eq!(outcome.head, plain[..HEAD_LEN]);
        assert_eq!(outcome.tail, plain[300_000 - 512..]);
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
        matches!(outcome, Err(IngestError::Decompress { kind: Kind::Gzip, .. })),
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
    assert!(matches!(outcome, Err(IngestError::Content(Kind::Text))), "{outcome:?}");
    // A QCOW2 in a wrapper is still a QCOW2.
    let (outcome, _) = run(Format::Raw, 1 << 30, pieces(&gzip(&image(100_000)), 4_096)).await;
    assert!(matches!(outcome, Err(IngestError::Content(Kind::Qcow2))), "{outcome:?}");
}
