//! The server's side of TLS, driven by hand: a bare handshake on the socket, afterwards records that
//! travel inside packets and never touch the socket themselves.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, ServerConfig,
    ServerConnection, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::ca::CertificateAuthority;

/// Header of a TLS record: type, version, length.
const RECORD_HEADER: usize = 5;
/// Longest TLS 1.2 record that a peer may send.
const RECORD_LIMIT: usize = RECORD_HEADER + 16384 + 2048;
const ALERT: u8 = 21;
const BAD_CERTIFICATE: u8 = 42;

/// Whether an agent has to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificates {
    /// No certificate is asked for, as servers before 4.16.
    NotAsked,
    /// A certificate is asked for, and whatever comes is accepted: the stock setting.
    #[default]
    Wanted,
    /// A certificate issued for the agent's source address is demanded
    /// (`ca.plugin.root.auth.strictness`).
    Needed,
}

/// Why a TLS session could not be set up or went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// The socket failed.
    #[error("{operation} during the TLS handshake")]
    Socket {
        /// `read` or `write`.
        operation: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The peer ended the connection in the middle of the handshake.
    #[error("connection closed during the TLS handshake")]
    Closed,
    /// A record is longer than TLS allows.
    #[error("TLS record of {length} bytes")]
    RecordTooLong {
        /// Bytes announced.
        length: usize,
    },
    /// A packet does not hold whole records.
    #[error("packet cuts a TLS record")]
    CutRecord,
    /// The library refused what came or what was to be sent.
    #[error("TLS session")]
    Session(#[from] rustls::Error),
}

/// Makes the settings for one connection; like the original, a new one for each, so that nothing
/// can be resumed.
pub(crate) fn settings(
    authority: &CertificateAuthority,
    certificates: ClientCertificates,
    peer: IpAddr,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS12])?;
    let builder = match certificates {
        ClientCertificates::NotAsked => builder.with_no_client_auth(),
        ClientCertificates::Wanted | ClientCertificates::Needed => {
            let strict = certificates == ClientCertificates::Needed;
            let hint = subject(authority);
            builder.with_client_cert_verifier(Arc::new(AgentCertificates {
                provider,
                strict,
                peer,
                hint,
            }))
        }
    };
    let mut config = builder.with_single_cert(vec![authority.certificate()], authority.key())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// Runs the handshake on the bare socket. What the peer sent behind its last handshake record is
/// returned: it already belongs to the first packet.
pub(crate) async fn handshake(
    stream: &mut TcpStream,
    config: Arc<ServerConfig>,
) -> Result<(TlsSession, Vec<u8>), TlsError> {
    let mut connection = ServerConnection::new(config)?;
    connection.set_buffer_limit(None);
    let mut received = Vec::new();
    while connection.is_handshaking() {
        let record = next_record(stream, &mut received).await?;
        let mut unread = record.as_slice();
        let mut outcome = Ok(());
        while outcome.is_ok() && !unread.is_empty() {
            connection.read_tls(&mut unread).map_err(socket("read"))?;
            outcome = connection.process_new_packets().map(|_| ());
        }
        let mut reply = drain(&mut connection)?;
        if let Err(error) = outcome {
            if matches!(error, rustls::Error::NoCertificatesPresented) {
                name_the_missing_certificate(&mut reply);
            }
            // The alert is a courtesy; the error below is what counts.
            if let Err(error) = stream.write_all(&reply).await {
                tracing::debug!(%error, "alert not delivered");
            }
            return Err(error.into());
        }
        stream.write_all(&reply).await.map_err(socket("write"))?;
    }
    Ok((TlsSession { connection }, received))
}

/// An established session: seals plaintext into records and opens records.
#[derive(Debug)]
pub(crate) struct TlsSession {
    connection: ServerConnection,
}

impl TlsSession {
    /// Seals at most `packet::RECORD_PLAINTEXT` bytes into one record.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, TlsError> {
        self.connection.writer().write_all(plaintext).map_err(socket("write"))?;
        drain(&mut self.connection)
    }

    /// Opens the whole records of one packet and appends their plaintext.
    pub(crate) fn open(&mut self, records: &[u8], plaintext: &mut Vec<u8>) -> Result<(), TlsError> {
        let mut rest = records;
        while let Some((header, _)) = rest.split_first_chunk::<RECORD_HEADER>() {
            let length = record_length(*header)?;
            let (record, after) = rest.split_at_checked(length).ok_or(TlsError::CutRecord)?;
            rest = after;
            let mut unread = record;
            // The engine takes at most 4 KiB at a time.
            while !unread.is_empty() {
                self.connection.read_tls(&mut unread).map_err(socket("read"))?;
                let state = self.connection.process_new_packets()?;
                let start = plaintext.len();
                plaintext.resize(start + state.plaintext_bytes_to_read(), 0);
                if let Some(space) = plaintext.get_mut(start..) {
                    self.connection.reader().read_exact(space).map_err(socket("read"))?;
                }
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(TlsError::CutRecord) }
    }

    /// Common name of the certificate that the agent showed.
    pub(crate) fn peer_name(&self) -> Option<String> {
        let certificate = self.connection.peer_certificates()?.first()?;
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        Some(certificate.subject().to_string())
    }
}

/// Reads from the socket until one whole record is there and takes it.
async fn next_record(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<Vec<u8>, TlsError> {
    loop {
        if let Some((header, _)) = received.split_first_chunk::<RECORD_HEADER>() {
            let length = record_length(*header)?;
            if received.len() >= length {
                let rest = received.split_off(length);
                return Ok(std::mem::replace(received, rest));
            }
        }
        if stream.read_buf(received).await.map_err(socket("read"))? == 0 {
            return Err(TlsError::Closed);
        }
    }
}

fn record_length(header: [u8; RECORD_HEADER]) -> Result<usize, TlsError> {
    let [_, _, _, high, low] = header;
    let length = RECORD_HEADER + usize::from(u16::from_be_bytes([high, low]));
    if length > RECORD_LIMIT { Err(TlsError::RecordTooLong { length }) } else { Ok(length) }
}

fn drain(connection: &mut ServerConnection) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    while connection.wants_write() {
        connection.write_tls(&mut bytes).map_err(socket("write"))?;
    }
    Ok(bytes)
}

/// The library calls a missing certificate by another alert than the original does; agents tell
/// their operator by the alert what is wrong.
fn name_the_missing_certificate(alert: &mut [u8]) {
    if let [ALERT, _, _, _, _, _, description] = alert {
        *description = BAD_CERTIFICATE;
    }
}

fn subject(authority: &CertificateAuthority) -> Vec<DistinguishedName> {
    let der = authority.certificate();
    match X509Certificate::from_der(&der) {
        Ok((_, certificate)) => {
            vec![DistinguishedName::from(certificate.subject().as_raw().to_vec())]
        }
        Err(_) => Vec::new(),
    }
}

fn socket(operation: &'static str) -> impl FnOnce(io::Error) -> TlsError {
    move |source| TlsError::Socket { operation, source }
}

/// The original's trust manager: no chain is built, the only strict check is that a subject
/// alternative name equals the source address.
#[derive(Debug)]
struct AgentCertificates {
    provider: Arc<CryptoProvider>,
    strict: bool,
    peer: IpAddr,
    hint: Vec<DistinguishedName>,
}

impl ClientCertVerifier for AgentCertificates {
    fn client_auth_mandatory(&self) -> bool {
        self.strict
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hint
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        if self.strict && !names_address(end_entity, self.peer) {
            let reason = format!("no subject alternative name equals {}", self.peer);
            let other = OtherError(Arc::new(io::Error::other(reason)));
            return Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)));
        }
        Ok(ClientCertVerified::assertion())
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
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 is not offered".to_owned()))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn names_address(certificate: &CertificateDer<'_>, peer: IpAddr) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::IPAddress(octets) => match peer {
            IpAddr::V4(address) => *octets == address.octets(),
            IpAddr::V6(address) => *octets == address.octets(),
        },
        GeneralName::DNSName(text) => *text == peer.to_string(),
        _ => false,
    })
}
