//! The server's end of a connection, written from the description of the wire and not from the
//! crate's code: bare handshake, then 4-byte headers around TLS records. It can also break every
//! rule of it.

use std::io::{Read, Write};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::server::danger::ClientCertVerifier;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A certificate like the management server's: it is its own CA and has no name.
pub(crate) struct Authority {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) key: KeyPair,
    pub(crate) params: CertificateParams,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ca.example.org");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), certificate: certificate.der().clone(), key, params }
    }

    /// The server presents the CA certificate itself.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.config(rustls::server::WebPkiClientVerifier::no_client_auth())
    }

    pub(crate) fn config(&self, verifier: Arc<dyn ClientCertVerifier>) -> Arc<ServerConfig> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der());
        config(vec![self.certificate.clone()], key.into(), verifier)
    }
}

/// TLS 1.3 is offered too, as the real server does.
pub(crate) fn config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

/// A connection after its handshake.
pub(crate) struct Peer<S> {
    pub(crate) stream: S,
    pub(crate) tls: ServerConnection,
    /// Bytes written at a time; `usize::MAX` for all at once.
    pub(crate) step: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    pub(crate) async fn accept(mut stream: S, config: Arc<ServerConfig>) -> std::io::Result<Self> {
        let mut tls = ServerConnection::new(config).unwrap();
        loop {
            let mut out = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut out)?;
            }
            stream.write_all(&out).await?;
            if !tls.is_handshaking() {
                return Ok(Self { stream, tls, step: usize::MAX });
            }
            // Record by record: the client may send its first packet right behind.
            let mut record = vec![0; 5];
            stream.read_exact(&mut record).await?;
            let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
            record.resize(5 + length, 0);
            stream.read_exact(&mut record[5..]).await?;
            tls.read_tls(&mut record.as_slice())?;
            if let Err(error) = tls.process_new_packets() {
                let mut alert = Vec::new();
                tls.write_tls(&mut alert)?;
                stream.write_all(&alert).await?;
                return Err(std::io::Error::other(error));
            }
        }
    }

    /// The records of one piece of plaintext.
    pub(crate) fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        self.tls.writer().write_all(plain).unwrap();
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for piece in bytes.chunks(self.step) {
            self.stream.write_all(piece).await?;
            self.stream.flush().await?;
        }
        Ok(())
    }

    /// One packet; bits above 15 are the caller's.
    pub(crate) async fn write_packet(&mut self, more: bool, records: &[u8]) -> std::io::Result<()> {
        let header = u32::try_from(records.len()).unwrap() | if more { 0x1_0000 } else { 0 };
        let bytes = [header.to_be_bytes().as_slice(), records].concat();
        self.write(&bytes).await
    }

    /// One message in packets of `piece` plaintext bytes.
    pub(crate) async fn send_in(&mut self, message: &[u8], piece: usize) -> std::io::Result<()> {
        let mut pieces = message.chunks(piece).peekable();
        while let Some(plain) = pieces.next() {
            let records = self.seal(plain);
            self.write_packet(pieces.peek().is_some(), &records).await?;
        }
        Ok(())
    }

    pub(crate) async fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.send_in(message, 16_384).await
    }

    /// One message and the size of each of its packets; `None` at a clean end of the stream.
    pub(crate) async fn receive(&mut self) -> std::io::Result<Option<(Vec<u8>, Vec<usize>)>> {
        let (mut message, mut sizes) = (Vec::new(), Vec::new());
        loop {
            let mut header = [0; 4];
            if self.stream.read(&mut header[..1]).await? == 0 {
                assert!(message.is_empty(), "the stream ends inside a message");
                return Ok(None);
            }
            self.stream.read_exact(&mut header[1..]).await?;
            let header = u32::from_be_bytes(header);
            assert_eq!(header >> 17, 0, "header {header:08x}");
            let length = usize::try_from(header & 0xffff).unwrap();
            assert!(length <= 18_000, "packet of {length} bytes");
            let mut records = vec![0; length];
            self.stream.read_exact(&mut records).await?;
            sizes.push(length);
            let mut rest = records.as_slice();
            while !rest.is_empty() {
                self.tls.read_tls(&mut rest)?;
                let state = self.tls.process_new_packets().map_err(std::io::Error::other)?;
                assert!(!state.peer_has_closed(), "a close_notify came");
                let start = message.len();
                message.resize(start + state.plaintext_bytes_to_read(), 0);
                self.tls.reader().read_exact(&mut message[start..])?;
            }
            if header & 0x1_0000 == 0 {
                return Ok(Some((message, sizes)));
            }
        }
    }
}
