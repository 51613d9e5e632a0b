//! The recorded uploads: the same requests, the same class of answer, the original's words, but for
//! the differences named here.

use agent_protocol::storage::{ImageFormat, PostUploadOrder, UploadStatusState};
use serde_json::Value;

use crate::bench::Bench;
use crate::images::vector;
use crate::upload_client::{
    BOUNDARY, Connection, HOST, KEY, Reply, Signed, form, in_an_hour, order, seal, signature,
    volume,
};

/// Where we differ on purpose: case, our status, what our words hold, why.
const DIFFERENCES: &[(&str, u16, &str, &str)] = &[
    ("GET", 405, "only post requests are allowed", "the right status"),
    (
        "OPTIONS",
        200,
        "",
        "the preflight is answered here, as the web server in front of the original does",
    ),
    ("PUT", 405, "only post requests are allowed", "the right status"),
    ("HEAD", 405, "", "the right status"),
    ("no-uuid", 400, "is not the id of an upload", "the original fails with an exception"),
    (
        "path-form",
        200,
        "upload successful.",
        "the form of the URL that browsers use, without a rewrite",
    ),
    (
        "no-forwarded-host",
        200,
        "upload successful.",
        "the host's own address is a possible name, too",
    ),
    (
        "forwarded-host-port",
        200,
        "upload successful.",
        "a port in front of the signed name is looked past",
    ),
    (
        "bad-expires",
        400,
        "\"tomorrow\" is not a date and time",
        "the original fails with an exception",
    ),
    (
        "unknown-uuid",
        400,
        "the signature is that of another upload",
        "the original fails with an exception and leaves the other upload pending for ever",
    ),
    ("ext-bin", 200, "upload successful.", "the file's name says nothing about its content"),
    ("ext-none", 200, "upload successful.", "the file's name says nothing about its content"),
    (
        "text-as-qcow2",
        400,
        "File type mismatch between uploaded file and selected format. Selected file format: QCOW2. Received: ASCII text",
        "compared with the format that was chosen",
    ),
    (
        "raw-named-raw-for-qcow2",
        400,
        "File type mismatch between uploaded file and selected format. Selected file format: QCOW2. Received: ",
        "the client's fault",
    ),
    (
        "backing",
        400,
        "The uploaded file is not a valid QCOW2: it has a backing file: make one image of both (qemu-img convert -O qcow2 IMAGE WHOLE)",
        "the client's fault, with the reason",
    ),
    ("gz-qcow2", 200, "upload successful.", "decompressed on the way"),
    ("bz2-qcow2", 200, "upload successful.", "decompressed on the way"),
    ("vol-gz", 200, "upload successful.", "decompressed on the way"),
    (
        "checksum-tagged",
        200,
        "upload successful.",
        "the original's script takes no checksum of a template",
    ),
    (
        "checksum-md5-bare",
        200,
        "upload successful.",
        "the original's script takes no checksum of a template",
    ),
    ("vol-sha256-tagged", 200, "upload successful.", "the form of every other checksum"),
    (
        "vol-sha256-bad",
        400,
        "Checksum failed, not proceeding with install: checksum \"{SHA-256}",
        "the client's fault, with both values",
    ),
    (
        "bad-iso",
        400,
        "File type mismatch between uploaded file and selected format. Selected file format: ISO. Received: ",
        "compared with the format that was chosen",
    ),
    (
        "too-large",
        400,
        "Maximum file upload size exceeded. Content Length received: 60000000000 bytes.",
        "exact numbers",
    ),
];

fn hash(name: &str, bytes: &[u8]) -> String {
    let algorithm = if name == "MD5" {
        use md5::Digest;
        return md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    } else {
        &aws_lc_rs::digest::SHA256
    };
    let digest = aws_lc_rs::digest::digest(algorithm, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The file that a case sends, smaller ones of the same kind.
fn file_of(name: &str) -> Vec<u8> {
    let qcow2 = vector("tiny.qcow2");
    match name {
        "empty.qcow2" | "small.qcow2" => qcow2,
        "text.qcow2" => b"some text\n".repeat(1_000),
        "small.raw" | "boot.iso" => {
            (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8 | 1).collect()
        }
        "backing.qcow2" => vector("backing.qcow2"),
        "small.qcow2.gz" => vector("tiny.qcow2.gz"),
        "small.qcow2.bz2" => vector("tiny.qcow2.bz2"),
        "good.iso" => vector("tiny.iso"),
        "small.vhd" => vector("tiny.vhd"),
        other => panic!("no file {other}"),
    }
}

fn order_of(case: &str, id: &str, number: i64, file: &[u8]) -> PostUploadOrder {
    let plain = if case.starts_with("vol-") { volume(id, number) } else { order(id, number) };
    let format = match case {
        "ok-iso" | "bad-iso" => ImageFormat::Iso,
        "ok-vhd" => ImageFormat::Vhd,
        "ok-raw" => ImageFormat::Raw,
        _ => ImageFormat::Qcow2,
    };
    let checksum = match case {
        "checksum-tagged" | "vol-sha256-tagged" => Some(format!("{{SHA-256}}{}", hash("", file))),
        "checksum-md5-bare" => Some(hash("MD5", file)),
        "vol-sha256-bare" => Some(hash("", file)),
        "vol-sha256-bad" => Some("0".repeat(64)),
        _ => None,
    };
    PostUploadOrder { image_format: Some(format), checksum, ..plain }
}

/// The signed values as the recording made them, wrong where it made them wrong.
fn signed_of(case: &str, id: &str, order: &PostUploadOrder, expires: &str) -> Signed {
    match case {
        "bad-metadata" => {
            let metadata = "bm90IHNlYWxlZA==".to_owned();
            let url = format!("http://{HOST}/upload/{id}");
            let signature = signature(&metadata, &url, expires);
            Signed { id: id.to_owned(), metadata, expires: expires.to_owned(), signature }
        }
        "unknown-uuid" => {
            let other = "7b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
            let metadata =
                seal(&PostUploadOrder { entity_uuid: Some(other.to_owned()), ..order.clone() });
            let signature = signature(&metadata, &format!("http://{HOST}/upload/{id}"), expires);
            Signed { id: id.to_owned(), metadata, expires: expires.to_owned(), signature }
        }
        "bad-signature" => {
            let good = Signed::until(order, expires);
            Signed { signature: format!("AAAA{}", &good.signature[4..]), ..good }
        }
        _ => Signed::until(order, expires),
    }
}

fn body_of(case: &Value, file: &[u8]) -> Vec<u8> {
    match case["case"].as_str().unwrap() {
        "no-file-part" => format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nb\r\n--{BOUNDARY}--\r\n").into_bytes(),
        "bad-multipart" => vec![b'x'; 100],
        _ if case["file"].is_null() => Vec::new(),
        _ => form(case["filename"].as_str().unwrap(), file),
    }
}

/// The head of the recorded request, with values of our own.
fn head_of(case: &Value, request: &str, signed: &Signed, length: usize) -> String {
    let name = case["case"].as_str().unwrap();
    let mut head = format!("{request} HTTP/1.1\r\n");
    for (header, value) in case["headers"].as_object().unwrap() {
        let value = match header.as_str() {
            "X-expires" => continue,
            "Content-Length" if name == "len0" => "0".to_owned(),
            "Content-Length" if name == "too-large" => value.to_string(),
            "Content-Length" => length.to_string(),
            _ => value.as_str().unwrap().to_owned(),
        };
        head.push_str(&format!("{header}: {value}\r\n"));
    }
    if case["has_signature"] == true {
        head.push_str(&format!("X-signature: {}\r\n", signed.signature));
    }
    if case["has_metadata"] == true {
        head.push_str(&format!(
            "X-metadata: {}\r\nX-expires: {}\r\n",
            signed.metadata, signed.expires
        ));
    }
    head.push_str("\r\n");
    head
}

/// What the server is told, and what is on the store.
async fn check_told(
    bench: &Bench,
    case: &Value,
    request: &str,
    id: &str,
    reply: &Reply,
    order: &PostUploadOrder,
) {
    let name = case["case"].as_str().unwrap();
    let (state, details) = bench.told(id).await;
    let expected = match (name, reply.status) {
        (_, 200) if request.starts_with("POST") => UploadStatusState::Completed,
        ("again-at-once" | "again-later", _) => UploadStatusState::Completed,
        // Nothing that is not authentic changes anything (10.3, row 34).
        (
            "unknown-uuid" | "no-signature" | "bad-signature" | "nolen" | "len0" | "bad-expires"
            | "no-uuid" | "GET" | "HEAD" | "PUT" | "OPTIONS",
            _,
        ) => UploadStatusState::Unknown,
        _ => UploadStatusState::Error,
    };
    assert_eq!(state, expected, "{name}: {details}");
    if state == UploadStatusState::Error {
        assert_eq!(details, reply.reason(), "{name}: the server is told the same words");
    }
    let directory = bench.store(order.absolute_path.as_deref().unwrap());
    assert_eq!(
        directory.exists(),
        state == UploadStatusState::Completed && !name.starts_with("again"),
        "{name}: nothing is left"
    );
}

#[tokio::test]
async fn every_recorded_upload_gets_the_recorded_answer_or_a_better_one() {
    let bench: Bench =
        Bench::with(&format!("upload_key = \"{KEY}\"\npublic_address = \"{HOST}\"")).await;
    let addr = bench.listen_for_uploads().await;
    let text = include_str!("../../../../tests/vectors/uploads/upload.jsonl");
    let mut played = 0;
    let (mut number, mut last) = (400, None);
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["case"].as_str().unwrap();
        // Cut connections have tests of their own; the recorded order of that ISO was not made, an
        // OVA's content is another test's.
        let Some(status) = case["status"].as_u64() else { continue };
        if case["line"].as_str().unwrap().ends_with("uuid=none") || name == "ok-ova" {
            continue;
        }
        let mut request = case["line"].as_str().unwrap().to_owned();
        // Every request of the recording that ours lets through has an id of its own here.
        let recorded_id = request.rsplit(['=', '/']).next().unwrap().to_owned();
        let id = if name.starts_with("again-") {
            last.clone().unwrap()
        } else {
            uuid::Uuid::new_v4().to_string()
        };
        if name != "no-uuid" {
            request = request.replace(&recorded_id, &id);
        }
        number += 1;
        let file = case["file"].as_str().map(file_of).unwrap_or_default();
        let order = order_of(name, &id, number, &file);
        let expires = case["headers"]["X-expires"].as_str().unwrap_or_default();
        let expires = match name {
            "bad-expires" | "expired" => expires.to_owned(),
            _ => in_an_hour(),
        };
        let signed = signed_of(name, &id, &order, &expires);
        let body = body_of(&case, &file);
        let head = head_of(&case, &request, &signed, body.len());
        let mut connection = Connection::open(addr).await;
        connection.send(head.as_bytes()).await;
        match name {
            "nolen" => {
                let chunk =
                    [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
                connection.send(&chunk).await;
            }
            "len0" => {}
            _ => connection.send(&body).await,
        }
        let reply = if request.starts_with("HEAD") {
            connection.head_reply().await
        } else {
            connection.reply().await
        };
        let ours = DIFFERENCES.iter().find(|(case, ..)| *case == name);
        let (status, words) = match ours {
            Some((_, status, words, _)) => (u64::from(*status), (*words).to_owned()),
            None => (status, case["body"].as_str().unwrap().to_owned()),
        };
        assert_eq!(u64::from(reply.status), status, "{name}: {reply:?}");
        let words = words.trim_end_matches('.').to_owned();
        let said = if reply.body.starts_with('{') { reply.reason() } else { reply.body.clone() };
        assert!(
            request.starts_with("HEAD") || said.contains(&words),
            "{name}: {said:?} has no {words:?}"
        );
        for header in ["origin", "methods", "headers"] {
            let header = format!("access-control-allow-{header}");
            assert!(reply.header(&header).is_some(), "{name}: no {header}");
        }
        check_told(&bench, &case, &request, &id, &reply, &order).await;
        last = Some(id);
        played += 1;
    }
    assert_eq!(played, 43, "all but five were played");
}
