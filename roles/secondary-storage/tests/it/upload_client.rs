//! What a browser does with the signed values of the API, and the server that signs them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use agent_protocol::storage::{
    ImageFormat, PostUploadOrder, SecStorageSetupCommand, UploadEntityType, UploadStatusAnswer,
    UploadStatusCommand, UploadStatusState,
};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http_front::{HttpLimits, Listener, serve};
use secondary_storage::uploads::http::router;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::bench::{Bench, Kind, STORE, store_to};

/// The recorded server's.
pub const KEY: &str =
    "XAmXfYJjsdNoKoQ180zcfQ6CT6aJun8EJD-_ghDLk1XLnoI0xXBfIZONW6Ps7Iid-V3VfrZfSmTFKGup690lXA";
/// The name in the server's URLs.
pub const HOST: &str = "10.77.1.2";

/// What the API answers.
#[derive(Clone)]
pub struct Signed {
    pub id: String,
    pub metadata: String,
    pub expires: String,
    pub signature: String,
}

/// An order as the recorded server makes it.
pub fn order(id: &str, number: i64) -> PostUploadOrder {
    PostUploadOrder {
        entity_id: number,
        entity_uuid: Some(id.to_owned()),
        absolute_path: Some(format!("template/tmpl/2/{number}")),
        entity_type: Some("TEMPLATE".to_owned()),
        name: Some(format!("{number}-2-3f0c9d1e-6a41-3c52-9f6b-0f4be1d0a7aa")),
        requires_hvm: true,
        image_format: Some(ImageFormat::Qcow2),
        data_to: Some(STORE.into()),
        data_to_role: Some("Image".to_owned()),
        remote_end_point: Some(HOST.to_owned()),
        max_upload_size: Some("50".to_owned()),
        description: Some("a template".to_owned()),
        max_secondary_storage: -1,
        account_id: 2,
        ..PostUploadOrder::default()
    }
}

pub fn volume(id: &str, number: i64) -> PostUploadOrder {
    PostUploadOrder {
        absolute_path: Some(format!("volumes/2/{number}")),
        entity_type: Some("VOLUME".to_owned()),
        name: Some("data-1".to_owned()),
        requires_hvm: false,
        remote_end_point: None,
        description: None,
        max_upload_size: Some("500".to_owned()),
        process_timeout: 3_600,
        ..order(id, number)
    }
}

pub fn seal(order: &PostUploadOrder) -> String {
    let hashed = digest::digest(&digest::SHA256, KEY.as_bytes());
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, hashed.as_ref()).unwrap());
    let mut sealed = serde_json::to_vec(order).unwrap();
    let nonce = [7_u8; 12];
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
        .unwrap();
    BASE64_STANDARD.encode([&nonce[..], &sealed].concat())
}

pub fn signature(metadata: &str, url: &str, expires: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, KEY.as_bytes());
    let signed = [metadata, url, expires].concat();
    BASE64_STANDARD.encode(hmac::sign(&key, signed.as_bytes()))
}

pub fn in_an_hour() -> String {
    let at = SystemTime::now() + Duration::from_secs(3_600);
    let at = jiff::Timestamp::try_from(at).unwrap();
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

impl Signed {
    pub fn of(order: &PostUploadOrder) -> Self {
        Self::until(order, &in_an_hour())
    }

    pub fn until(order: &PostUploadOrder, expires: &str) -> Self {
        let id = order.entity_uuid.clone().unwrap();
        let metadata = seal(order);
        let url = format!("https://{HOST}/upload/{id}");
        let signature = signature(&metadata, &url, expires);
        Self { id, metadata, expires: expires.to_owned(), signature }
    }

    pub fn headers(&self) -> String {
        let Self { metadata, expires, signature, .. } = self;
        format!("X-signature: {signature}\r\nX-metadata: {metadata}\r\nX-expires: {expires}\r\n")
    }
}

pub const BOUNDARY: &str = "----WebKitFormBoundaryQCtest123456";

/// A form with one file, as Chromium writes it.
pub fn form(name: &str, file: &[u8]) -> Vec<u8> {
    let head = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"{name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    [head.as_bytes(), file, format!("\r\n--{BOUNDARY}--\r\n").as_bytes()].concat()
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The reason of a refusal.
    pub fn reason(&self) -> String {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        body["message"].as_str().unwrap().to_owned()
    }
}

/// One connection to the host.
pub struct Connection(pub TcpStream);

impl Connection {
    pub async fn open(addr: SocketAddr) -> Self {
        Self(TcpStream::connect(addr).await.unwrap())
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next answer; the connection may stay open.
    pub async fn reply(&mut self) -> Reply {
        let mut reply = self.head_reply().await;
        let length: usize = reply.header("content-length").map_or(0, |text| text.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        reply.body = String::from_utf8(body).unwrap();
        reply
    }

    /// The head of the next answer; that is all there is to HEAD.
    pub async fn head_reply(&mut self) -> Reply {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            let byte = self.0.read_u8().await.unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&bytes))
            });
            bytes.push(byte);
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head, body: String::new() }
    }
}

pub fn post(id: &str, headers: &str, length: usize) -> String {
    format!(
        "POST /upload/{id} HTTP/1.1\r\nHost: {HOST}\r\nOrigin: http://ui.example\r\n\
         Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n{headers}\r\n"
    )
}

impl<K: Kind> Bench<K> {
    /// The listener of uploads, with the server's key.
    pub async fn upload_site(&self) -> SocketAddr {
        let setup = SecStorageSetupCommand {
            store: Some(store_to()),
            sec_url: Some(STORE.into()),
            post_upload_key: Some(KEY.into()),
            ..SecStorageSetupCommand::default()
        };
        let answer = self.ask(&setup).await;
        assert!(answer.base.result, "{answer:?}");
        self.listen_for_uploads().await
    }

    pub async fn listen_for_uploads(&self) -> SocketAddr {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = router(self.parts.uploads.clone());
        let (tasks, shutdown) = (self.cx.tasks.clone(), self.cx.shutdown.clone());
        let serving = serve(listener, router, HttpLimits::default(), tasks, shutdown);
        self.cx.tasks.spawn("uploads", serving);
        addr
    }

    pub async fn upload_status(&self, id: &str) -> UploadStatusAnswer {
        let command = UploadStatusCommand {
            entity_uuid: Some(id.to_owned()),
            entity_type: Some(UploadEntityType::Template),
            ..UploadStatusCommand::default()
        };
        self.ask(&command).await
    }

    /// State and text.
    pub async fn told(&self, id: &str) -> (UploadStatusState, String) {
        let answer = self.upload_status(id).await;
        let state = answer.status.unwrap();
        assert_eq!(answer.base.result, state != UploadStatusState::Error, "{id}");
        (state, answer.base.details.unwrap_or_default())
    }
}

/// A whole upload on a connection of its own.
pub async fn upload(addr: SocketAddr, signed: &Signed, name: &str, file: &[u8]) -> Reply {
    let body = form(name, file);
    let mut connection = Connection::open(addr).await;
    connection.send(post(&signed.id, &signed.headers(), body.len()).as_bytes()).await;
    connection.send(&body).await;
    connection.reply().await
}
