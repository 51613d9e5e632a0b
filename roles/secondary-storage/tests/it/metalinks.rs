//! Metalinks: mirrors that fail, digests that are compared, documents that are none.

use std::sync::Arc;

use agent_protocol::storage::{DownloadAnswer, DownloadStatus, ImageFormat};
use sha2::{Digest, Sha256};

use crate::bench::{Bench, error_of};
use crate::scripted::{Scripted, first, head, image, part, whole};

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Serves the document for a URL that ends in `.meta4`.
async fn document(text: String) -> Scripted {
    Scripted::start(move |_, _| {
        [head("200 OK", &["Content-Type: application/metalink4+xml"]), text.clone().into_bytes()]
            .concat()
    })
    .await
}

fn described(size: usize, hash: Option<&str>, mirrors: &[String]) -> String {
    let hash = hash.map(|hex| format!("<hash type=\"sha-256\">{hex}</hash>")).unwrap_or_default();
    let urls: String = (mirrors.iter().enumerate())
        .map(|(nth, url)| format!("<url priority=\"{}\">{url}</url>", nth + 1))
        .collect();
    format!(
        "<metalink xmlns=\"urn:ietf:params:xml:ns:metalink\"><file name=\"a.qcow2\">\
         <size>{size}</size>{hash}{urls}</file></metalink>"
    )
}

async fn download(bench: &Bench, text: String, checksum: Option<&str>) -> DownloadAnswer {
    let server = document(text).await;
    let mut command = bench.download("", ImageFormat::Qcow2);
    command.url = Some(server.url("a.qcow2.meta4").into());
    command.checksum = checksum.map(str::to_owned);
    bench.finish(&command).await
}

fn installed(bench: &Bench, answer: &DownloadAnswer) {
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert_eq!(answer.download_pct, 100);
    assert!(bench.read(answer.install_path.as_deref().unwrap()) == image());
}

async fn gone() -> Scripted {
    Scripted::start(|_, _| head("404 Not Found", &["Content-Length: 4"])).await
}

/// Row 9 of the weaknesses: mirrors are judged like any other source.
#[tokio::test]
async fn a_mirror_that_has_it_is_found_and_its_digest_compared() {
    let bench: Bench = Bench::new().await;
    let (missing, shorter) =
        (gone().await, Scripted::start(|_, _| whole(&image()[..4096], &[])).await);
    let good = Scripted::start(|_, _| whole(&image(), &[])).await;
    let mirrors = [missing.url("a"), shorter.url("a"), "ftp://h/a".to_owned(), good.url("a")];
    let sum = sha256(&image());
    let text = described(image().len(), Some(&sum), &mirrors);
    installed(&bench, &download(&bench, text.clone(), None).await);
    assert_eq!((missing.requests().len(), shorter.requests().len()), (1, 1));
    // Both the command's and the document's digest are compared.
    let answer = download(&bench, text, Some("{SHA-1}00")).await;
    assert!(error_of(&answer).contains("{SHA-1}00"), "{answer:?}");
    let other = "0".repeat(64);
    let text = described(image().len(), Some(&other), &mirrors);
    let answer = download(&bench, text, None).await;
    assert!(error_of(&answer).contains(&format!("\"{{SHA-256}}{other}\"")), "{answer:?}");
    assert_eq!(bench.listed().await.len(), 1, "the one from before");
}

#[tokio::test]
async fn a_mirror_that_breaks_is_replaced_in_the_middle_when_a_digest_judges() {
    let v1 = "ETag: \"one\"";
    let other = "ETag: \"another-servers-tag\"";
    let sum = sha256(&image());
    for (hash, expected) in [(Some(sum.as_str()), Some(50_000)), (None, None)] {
        let bench: Bench = Bench::with("retries = 0").await;
        let bench = if hash.is_none() { Bench::with("retries = 1").await } else { bench };
        let breaking = Scripted::start(move |nth, _| match nth {
            0 => whole(&image(), &[v1])[..50_000 + whole(&[], &[v1]).len() + 4].to_vec(),
            _ => head("503 Service Unavailable", &["Content-Length: 0"]),
        })
        .await;
        let good = Scripted::start(move |_, request| match first(request) {
            Some(from) => part(&image(), from, &[other]),
            None => whole(&image(), &[other]),
        })
        .await;
        let text = described(image().len(), hash, &[breaking.url("a"), good.url("a")]);
        installed(&bench, &download(&bench, text, None).await);
        let from = first(&good.requests()[0]);
        assert_eq!(from.is_some(), expected.is_some(), "{hash:?}: {from:?}");
    }
}

#[tokio::test]
async fn mirrors_are_judged_by_their_address_and_get_no_credentials_of_others() {
    let bench: Bench = Bench::new().await;
    let good = Scripted::start(|_, _| whole(&image(), &[])).await;
    let elsewhere = good.url("a").replace("127.0.0.1", "127.0.0.2");
    let text = described(image().len(), None, &[elsewhere, good.url("a")]);
    let server = document(text).await;
    let mut command = bench.download("", ImageFormat::Qcow2);
    let url = server.url("a.qcow2.METALINK").replace("http://", "http://user:geheim@");
    command.url = Some(url.into());
    installed(&bench, &bench.finish(&command).await);
    assert!(server.requests()[0].to_lowercase().contains("authorization: basic"));
    assert_eq!(good.requests().len(), 1, "127.0.0.2 is not allowed");
    assert!(!good.requests()[0].to_lowercase().contains("authorization"));
    let text =
        described(1, None, &["http://127.0.0.2/a".to_owned(), "http://127.0.0.3/a".to_owned()]);
    let answer = download(&bench, text, None).await;
    let error = error_of(&answer);
    assert!(error.contains("no mirror") && error.contains("127.0.0.3 has a loopback"), "{error}");
}

/// Row 9 of the weaknesses: the original installs the error page of a mirror.
#[tokio::test]
async fn what_is_no_metalink_says_so() {
    let bench: Bench = Bench::new().await;
    for (text, expected) in [
        ("<html>404</html>".to_owned(), "its root element is \"html\""),
        ("<metalink/>".to_owned(), "names no mirror"),
        (described(1, None, &["ftp://h/a".to_owned()]), "none of its mirrors"),
        ("x".repeat(2 << 20), "sends more than the"),
    ] {
        let answer = download(&bench, text, None).await;
        assert!(error_of(&answer).contains(expected), "{expected}: {answer:?}");
    }
    let missing = Arc::new(gone().await);
    let mut command = bench.download("", ImageFormat::Qcow2);
    command.url = Some(missing.url("a.metalink").into());
    let answer = bench.finish(&command).await;
    assert_eq!(error_of(&answer), " HTTP Server returned 404 (expected 200 OK) ");
    assert_eq!(bench.files(), Vec::<String>::new());
}
