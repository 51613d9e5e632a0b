//! A tiny agent: TLS and framing written apart from the crates under test, from the protocol's
//! description alone.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use flate2::read::GzDecoder;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::SOON;

/// The common end of every body.
pub(crate) const BASE: &str = r#""contextMap":{},"wait":0,"bypassHostMaintenance":false"#;

/// One message as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Received {
    pub(crate) flags: u8,
    pub(crate) seq: i64,
    pub(crate) mgmt: i64,
    pub(crate) agent: i64,
    pub(crate) via: i64,
    pub(crate) json: Value,
}

impl Received {
    /// Class of the first envelope without its package.
    pub(crate) fn class(&self) -> &str {
        let full = self.json[0].as_object().unwrap().keys().next().unwrap();
        full.rsplit('.').next().unwrap()
    }

    /// Body of the first envelope.
    pub(crate) fn body(&self) -> &Value {
        self.json[0].as_object().unwrap().values().next().unwrap()
    }
}

/// A connected agent.
pub(crate) struct Agent {
    socket: TcpStream,
    tls: ClientConnection,
    seq: i64,
    /// Host id from the first ready command on, −1 before.
    pub(crate) host: i64,
}

/// What was received instead of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server closed the connection.
    Closed,
    /// The server reset the connection.
    Reset,
    /// Bytes that are not a packet or hold no record.
    Garbage(Vec<u8>),
}

impl Agent {
    /// Connects from a source address, verifies the server's certificate byte for byte.
    pub(crate) async fn connect_as(
        address: SocketAddr,
        ca_pem: &str,
        source: &str,
        identity: Option<(&str, &str)>,
    ) -> Result<Self, String> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
        let mut socket = socket.connect(address).await.map_err(|error| error.to_string())?;
        socket.set_nodelay(true).unwrap();
        let pinned = CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(Pinned { pinned, provider: Arc::clone(&provider) });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => builder
                .with_client_auth_cert(
                    vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
                )
                .unwrap(),
        };
        let name = ServerName::IpAddress(address.ip().into());
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        while tls.is_handshaking() {
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out).unwrap();
            }
            socket.write_all(&out).await.map_err(|error| error.to_string())?;
            if !tls.is_handshaking() {
                break;
            }
            let mut header = [0; 5];
            socket.read_exact(&mut header).await.map_err(|error| error.to_string())?;
            let mut record = header.to_vec();
            let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
            record.resize(5 + length, 0);
            socket.read_exact(&mut record[5..]).await.map_err(|error| error.to_string())?;
            tls.read_tls(&mut record.as_slice()).unwrap();
            tls.process_new_packets().map_err(|error| error.to_string())?;
        }
        Ok(Self { socket, tls, seq: -1, host: -1 })
    }

    pub(crate) async fn connect(server: &management_server::ManagementServer) -> Self {
        Self::connect_as(server.address(), &server.ca_pem(), "127.0.0.2", None).await.unwrap()
    }

    /// Sends a request of one command and returns its sequence.
    pub(crate) async fn request(&mut self, flags: u8, json: &str) -> i64 {
        self.seq += 1;
        self.send(flags, self.seq, -1, self.host, json.as_bytes()).await;
        self.seq
    }

    /// Sends the answer to a request, with the header rules of an agent.
    pub(crate) async fn answer(&mut self, request: &Received, class: &str, fields: &str) {
        let comma = if fields.is_empty() { "" } else { "," };
        let json = format!(r#"[{{"{class}":{{{fields}{comma}"result":true,{BASE}}}}}]"#);
        self.answer_raw(request, &json).await;
    }

    pub(crate) async fn answer_raw(&mut self, request: &Received, json: &str) {
        let flags = request.flags & 0x06;
        self.send_with_via(flags, request.seq, request.mgmt, request.agent, request.via, json)
            .await;
    }

    pub(crate) async fn send(&mut self, flags: u8, seq: i64, mgmt: i64, agent: i64, body: &[u8]) {
        self.message(&frame(flags, seq, mgmt, agent, agent, body.len(), body)).await;
    }

    async fn send_with_via(
        &mut self,
        flags: u8,
        seq: i64,
        mgmt: i64,
        agent: i64,
        via: i64,
        json: &str,
    ) {
        let body = json.as_bytes();
        self.message(&frame(flags, seq, mgmt, agent, via, body.len(), body)).await;
    }

    /// Sends plaintext as one message.
    pub(crate) async fn message(&mut self, plaintext: &[u8]) {
        let chunks: Vec<&[u8]> = plaintext.chunks(16384).collect();
        for (index, chunk) in chunks.iter().enumerate() {
            self.tls.writer().write_all(chunk).unwrap();
            let mut record = Vec::new();
            while self.tls.wants_write() {
                self.tls.write_tls(&mut record).unwrap();
            }
            let more = if index + 1 < chunks.len() { 0x1_0000 } else { 0 };
            let header = u32::try_from(record.len()).unwrap() | more;
            self.socket.write_all(&header.to_be_bytes()).await.unwrap();
            self.socket.write_all(&record).await.unwrap();
        }
    }

    /// The next message.
    pub(crate) async fn receive(&mut self) -> Received {
        self.next().await.unwrap()
    }

    /// The next message, or how the connection ended.
    pub(crate) async fn next(&mut self) -> Result<Received, End> {
        let plaintext = self.plaintext().await?;
        Ok(parse(&plaintext))
    }

    pub(crate) async fn plaintext(&mut self) -> Result<Vec<u8>, End> {
        tokio::time::timeout(SOON, self.read_message()).await.expect("a message in time")
    }

    async fn read_message(&mut self) -> Result<Vec<u8>, End> {
        let mut plaintext = Vec::new();
        loop {
            let mut header = [0; 4];
            self.read(&mut header).await?;
            let word = u32::from_be_bytes(header);
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            if length > 18000 {
                return Err(End::Garbage(header.to_vec()));
            }
            let mut records = vec![0; length];
            self.read(&mut records).await?;
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                let whole = rest.len() >= 5
                    && rest.len() >= 5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
                if !whole || rest[0] != 23 {
                    return Err(End::Garbage(records));
                }
                let end = 5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
                let mut record = &rest[..end];
                rest = &rest[end..];
                while !record.is_empty() {
                    self.tls.read_tls(&mut record).unwrap();
                    let state = self.tls.process_new_packets().unwrap();
                    let mut piece = vec![0; state.plaintext_bytes_to_read()];
                    self.tls.reader().read_exact(&mut piece).unwrap();
                    plaintext.extend_from_slice(&piece);
                }
            }
            if word & 0x1_0000 == 0 {
                return Ok(plaintext);
            }
        }
    }

    async fn read(&mut self, bytes: &mut [u8]) -> Result<(), End> {
        match self.socket.read_exact(bytes).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Err(End::Reset),
            Err(_) => Err(End::Closed),
        }
    }

    /// Asserts that the server closes the connection without another word.
    pub(crate) async fn expect_close(&mut self) {
        // A close with bytes of ours unread arrives as a reset.
        let end = self.next().await;
        assert!(matches!(end, Err(End::Closed | End::Reset)), "{end:?}");
    }

    /// Sends a start-up command and takes the early answer.
    pub(crate) async fn start_up(&mut self, startup: &str) -> Received {
        let seq = self.request(0x05, startup).await;
        let answer = self.receive().await;
        assert_eq!((answer.class(), answer.seq), ("StartupAnswer", seq));
        answer
    }

    /// Answers commands until the second ready command was answered; returns the commands.
    pub(crate) async fn become_ready(&mut self) -> Vec<Received> {
        let mut commands = Vec::new();
        while commands.iter().filter(|c: &&Received| c.class() == "ReadyCommand").count() < 2 {
            let command = self.receive().await;
            self.answer_well(&command).await;
            commands.push(command);
        }
        commands
    }

    /// Answers a command as a sound agent does.
    pub(crate) async fn answer_well(&mut self, command: &Received) {
        let api = "com.cloud.agent.api";
        match command.class() {
            "ReadyCommand" => {
                self.host = command.body()["hostId"].as_i64().unwrap();
                self.answer(command, &format!("{api}.ReadyAnswer"), "").await;
            }
            "SecStorageSetupCommand" => {
                let fields = r#""_dir":"b523f0c4-0847-33cd-bb44-f46c4da95327""#;
                self.answer(command, &format!("{api}.SecStorageSetupAnswer"), fields).await;
            }
            "ListVolumeCommand" => {
                let fields = format!(r#""secUrl":"{}","templateInfos":{{}}"#, crate::STORE);
                self.answer(command, &format!("{api}.storage.ListVolumeAnswer"), &fields).await;
            }
            "ListTemplateCommand" => {
                let fields = format!(r#""secUrl":"{}","templateInfos":{{}}"#, crate::STORE);
                self.answer(command, &format!("{api}.storage.ListTemplateAnswer"), &fields).await;
            }
            _ => self.answer(command, &format!("{api}.Answer"), "").await,
        }
    }

    /// Pings and takes the answer.
    pub(crate) async fn ping(&mut self) -> Received {
        let host = self.host;
        let ping = format!(
            r#"[{{"com.cloud.agent.api.PingStorageCommand":{{"changes":{{}},"hostType":"Storage","hostId":{host},"outOfBand":false,"commandInfos":[],{BASE}}}}}]"#
        );
        let seq = self.request(0x03, &ping).await;
        let answer = self.receive().await;
        assert_eq!(answer.seq, seq);
        answer
    }
}

/// Header and body of a message.
pub(crate) fn frame(
    flags: u8,
    seq: i64,
    mgmt: i64,
    agent: i64,
    via: i64,
    length: usize,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, flags];
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
    for id in [mgmt, agent, via] {
        bytes.extend_from_slice(&id.to_be_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

fn parse(plaintext: &[u8]) -> Received {
    let number = |at: usize| i64::from_be_bytes(plaintext[at..at + 8].try_into().unwrap());
    assert_eq!(plaintext[..3], [0, 0, 0], "version, zero, upper flags");
    let flags = plaintext[3];
    let length = u32::from_be_bytes(plaintext[12..16].try_into().unwrap());
    let mut body = plaintext[40..].to_vec();
    if flags & 0x80 != 0 {
        let mut inflated = Vec::new();
        GzDecoder::new(body.as_slice()).read_to_end(&mut inflated).unwrap();
        body = inflated;
    }
    assert_eq!(body.len(), length as usize, "length field");
    assert!(body.is_ascii());
    let json = serde_json::from_slice(&body).unwrap_or_else(|_| json!([]));
    Received { flags, seq: number(4), mgmt: number(16), agent: number(24), via: number(32), json }
}

#[derive(Debug)]
struct Pinned {
    pinned: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        assert_eq!(*end_entity, self.pinned);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("TLS 1.2 only")
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
