//! Uploads, against nginx's own upload to a file in the same run. Both are measured until the file is
//! durable: ours says so by its answer, the peer's is synchronised after its answer.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use agent_protocol::storage::{ImageFormat, PostUploadOrder};
use management_server::UploadParameters;

use super::{LOOPBACK, Running, Server, Write, free_port, quickcloud, until_up};

pub(super) const KEY: &str = "an upload key of this measurement";
const STORE: &str = "nfs://127.0.0.1/b";
const LENGTH: u64 = 1 << 30;
const LARGE: u64 = 8 << 30;
const ROUNDS: usize = 5;
const GOAL: f64 = 0.9;
const MEMORY_GOAL: f64 = 48.0;
const BOUNDARY: &str = "measured";

/// Compares, and watches the memory of the process while something large is uploaded.
pub(super) fn uploads(binary: &Path) {
    let length = length_of("QUICKCLOUD_UPLOAD_LENGTH", LENGTH);
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    std::fs::create_dir_all(&store).unwrap();
    let ours = Server { http: free_port(), https: free_port(), path: String::new() };
    let process = quickcloud(binary, directory.path(), &store, &ours);
    until_up((LOOPBACK, ours.http));
    let theirs = Server { http: free_port(), https: free_port(), path: String::new() };
    let peer = nginx(directory.path(), theirs.http);
    if peer.is_some() {
        until_up((LOOPBACK, theirs.http));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            a.push(rate(length, || post(ours.http, round as i64 + 1, length)));
            remove(&store.join("template"));
            b.push(rate(length, || put(theirs.http, &directory.path().join("put"), length)));
        }
        a.sort_by(f64::total_cmp);
        b.sort_by(f64::total_cmp);
        let (a, b) = (a[ROUNDS / 2], b[ROUNDS / 2]);
        println!(
            "upload of {} MiB: {a:.2} GB/s, nginx {b:.2} GB/s, ratio {:.2} (goal >= {GOAL}, medians of {ROUNDS})",
            length >> 20,
            a / b
        );
    } else {
        println!("uploads: nginx is not installed, nothing to compare with");
    }
    let large = length_of("QUICKCLOUD_UPLOAD_LARGE", LARGE);
    let before = peak(&process);
    post(ours.http, 100, large);
    println!(
        "memory peak: {before:.0} MB, after an upload of {} MiB {:.0} MB (goal < {MEMORY_GOAL})",
        large >> 20,
        peak(&process)
    );
}

/// For trying this program itself.
fn length_of(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn remove(path: &Path) {
    std::fs::remove_dir_all(path).unwrap();
}

fn rate(length: u64, work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    length as f64 / 1e9 / start.elapsed().as_secs_f64()
}

/// Peak of the resident memory in MB.
fn peak(process: &Running) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().unwrap();
    kib * 1024.0 / 1e6
}

/// An image of a raw disk, as a browser posts it.
fn post(port: u16, number: i64, length: u64) {
    let id = format!("5b4d3c52-6b1e-4c2a-9c0e-{number:012}");
    let order = PostUploadOrder {
        entity_id: number,
        entity_uuid: Some(id.clone()),
        absolute_path: Some(format!("template/tmpl/2/{number}")),
        entity_type: Some("TEMPLATE".to_owned()),
        name: Some(format!("{number}-2-measured")),
        image_format: Some(ImageFormat::Raw),
        data_to: Some(STORE.into()),
        max_upload_size: Some("50".to_owned()),
        max_secondary_storage: -1,
        account_id: 2,
        ..PostUploadOrder::default()
    };
    let expires =
        jiff::Timestamp::try_from(SystemTime::now() + Duration::from_secs(3_600)).unwrap();
    let expires = expires.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
    let url = format!("http://127.0.0.1:{port}/upload/{id}");
    let signed = UploadParameters::sign(KEY, &order, url, expires).unwrap();
    let part = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"a.raw\"\r\n\r\n"
    );
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    let UploadParameters { metadata, expires, signature, .. } = signed;
    let head = format!(
        "POST /upload/{id} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\n\
         Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nConnection: close\r\n\
         x-signature: {signature}\r\nx-metadata: {metadata}\r\nx-expires: {expires}\r\n\r\n{part}",
        part.len() as u64 + length + end.len() as u64
    );
    send(port, &head, length, &end, "200");
}

fn put(port: u16, directory: &Path, length: u64) {
    let head = format!(
        "PUT /a.raw HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    send(port, &head, length, "", "20");
    let file = directory.join("a.raw");
    std::fs::File::open(&file).unwrap().sync_all().unwrap();
    std::fs::remove_file(&file).unwrap();
}

fn send(port: u16, head: &str, length: u64, end: &str, status: &str) {
    let mut block: Vec<u8> =
        (0..1 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    block[510..512].copy_from_slice(&[0x55, 0xaa]);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut left = length;
    while left > 0 {
        let count = left.min(block.len() as u64);
        stream.write_all(&block[..count as usize]).unwrap();
        left -= count;
    }
    stream.write_all(end.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
}

fn nginx(directory: &Path, port: u16) -> Option<Running> {
    let dir = directory.display();
    std::fs::create_dir_all(directory.join("put")).unwrap();
    super::nginx_with(
        directory,
        "uploads.conf",
        &format!(
            "server {{ listen 127.0.0.1:{port}; root {dir}/put; client_max_body_size 0;\n\
             client_body_buffer_size 1m; location / {{ dav_methods PUT; }} }}"
        ),
    )
}
