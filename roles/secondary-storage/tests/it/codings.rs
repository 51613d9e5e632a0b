//! Codings that a server puts around an image although nobody asked for them.

use std::io::Write;

use agent_protocol::storage::{DownloadStatus, ImageFormat};

use crate::cases::Cases;
use crate::scripted::{Scripted, image, whole};

#[tokio::test]
async fn codings_nobody_asked_for_are_undone_or_named() {
    let cases = Cases::new().await;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    let fast = Compression::fast();
    let mut disk = vec![0; 510];
    disk.extend(b"\x55\xaa");
    disk.extend((0..100_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8));
    let encoded: [(&str, Vec<u8>); 4] = [
        ("deflate", {
            let mut encoder = ZlibEncoder::new(Vec::new(), fast);
            encoder.write_all(&disk).unwrap();
            encoder.finish().unwrap()
        }),
        ("deflate", {
            let mut encoder = DeflateEncoder::new(Vec::new(), fast);
            encoder.write_all(&disk).unwrap();
            encoder.finish().unwrap()
        }),
        ("gzip", gzip(&disk)),
        ("identity", disk.clone()),
    ];
    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }
    for (coding, body) in encoded {
        let line = format!("Content-Encoding: {coding}");
        cases
            .installs(coding, &disk, ImageFormat::Raw, Box::new(move |_, _| whole(&body, &[&line])))
            .await;
    }
    for coding in ["br", "zstd", "compress", "deflate, gzip"] {
        let line = format!("Content-Encoding: {coding}");
        let text = format!("in the coding \"{coding}\"");
        let body = disk.clone();
        cases
            .fails(coding, ImageFormat::Raw, &text, Box::new(move |_, _| whole(&body, &[&line])))
            .await;
    }
    // A .gz file that its server labels as gzip: its digest is that of the file.
    let packed = gzip(&disk);
    let server = Scripted::start(move |_, _| whole(&packed, &["Content-Encoding: gzip"])).await;
    let plain = cases.download(&server, "disk.raw.gz", ImageFormat::Raw).await;
    let labelled = plain.check_sum.clone().unwrap();
    assert_eq!(plain.download_status, Some(DownloadStatus::Downloaded), "{plain:?}");
    let packed = gzip(&disk);
    let server = Scripted::start(move |_, _| whole(&packed, &[])).await;
    let found = cases.download(&server, "disk.raw.gz", ImageFormat::Raw).await;
    assert_eq!(found.check_sum.unwrap(), labelled);
}

#[tokio::test]
async fn compressed_files_with_something_behind_are_installed_with_a_warning() {
    let cases = Cases::new().await;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&image()).unwrap();
    let packed = [encoder.finish().unwrap(), vec![7; 37]].concat();
    let server = Scripted::start(move |_, _| whole(&packed, &[])).await;
    let answer = cases.download(&server, "a.qcow2.gz", ImageFormat::Qcow2).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    let file = cases.bench.store(answer.install_path.as_deref().unwrap());
    assert!(std::fs::read(file).unwrap() == image());
    let status = serde_json::to_value(cases.bench.parts.downloads.status()).unwrap();
    assert_eq!(
        status[0]["warnings"][0], "37 bytes after the compressed data were ignored",
        "{status}"
    );
}
