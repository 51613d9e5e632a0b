//! From a host to a connected socket of one of its services.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::{Bytes, BytesMut};
use nfs3::portmap::{self, GetPort};
use nfs3::record::{self, Records};
use nfs3::rpc::{self, Credential, Procedure, Program};
use nfs3::xdr::{Malformed, padding};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Duration, Instant, timeout_at};

use super::error::NfsError;

/// Where NFS is when nobody says otherwise.
const NFS_PORT: u16 = 2049;
/// Longest reply of the services around NFS.
const SMALL_REPLY: usize = 64 * 1024;
/// For each of looking up a name and connecting.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Ports that only a privileged process may call from, without those of well-known services.
const PRIVILEGED: std::ops::RangeInclusive<u16> = 665..=1023;
const PORTS_TRIED: u16 = 64;

/// What is needed to connect.
#[derive(Debug, Clone)]
pub(super) struct Dial {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    pub(super) privileged: Option<bool>,
}

impl Dial {
    /// A socket connected to `program`.
    pub(super) async fn connect(&self, program: Program) -> Result<TcpStream, NfsError> {
        let address = self.resolve().await?;
        let port = match self.port {
            Some(port) => port,
            None => self.ask_port(address, program).await?,
        };
        self.connect_to(SocketAddr::new(address, port), program.name).await
    }

    async fn resolve(&self) -> Result<IpAddr, NfsError> {
        if let Ok(address) = self.host.parse() {
            return Ok(address);
        }
        let failed = |source| NfsError::Resolve { host: self.host.clone(), source };
        let lookup = tokio::net::lookup_host((self.host.as_str(), 0));
        let mut found = tokio::time::timeout(CONNECT_LIMIT, lookup)
            .await
            .map_err(|_elapsed| failed(ErrorKind::TimedOut.into()))?
            .map_err(failed)?;
        let first = found.next().map(|address| address.ip());
        first.ok_or_else(|| failed(ErrorKind::NotFound.into()))
    }

    async fn ask_port(&self, address: IpAddr, program: Program) -> Result<u16, NfsError> {
        let mapper = SocketAddr::new(address, portmap::PORT);
        let asked = async {
            let stream = self.connect_to(mapper, portmap::PROGRAM.name).await?;
            ask(stream, &Credential::None, &GetPort(program)).await
        };
        match asked.await {
            Ok(Some(port)) => Ok(port),
            Ok(None) => {
                Err(NfsError::NotRegistered { service: program.name, host: self.host.clone() })
            }
            // A server behind a firewall that lets only NFS pass.
            Err(NfsError::Connect { .. }) if program == nfs3::procedures::PROGRAM => Ok(NFS_PORT),
            Err(error) => Err(error),
        }
    }

    async fn connect_to(
        &self,
        address: SocketAddr,
        service: &'static str,
    ) -> Result<TcpStream, NfsError> {
        let failed = |source| NfsError::Connect { service, address, source };
        let connecting = async {
            match self.privileged {
                Some(false) => TcpStream::connect(address).await.map_err(failed),
                wanted => match privileged(address).await {
                    Ok(stream) => Ok(stream),
                    Err(Refusal::Bind(source)) if wanted == Some(true) => {
                        Err(NfsError::SourcePort(source))
                    }
                    Err(Refusal::Bind(_)) => TcpStream::connect(address).await.map_err(failed),
                    Err(Refusal::Connect(source)) => Err(failed(source)),
                },
            }
        };
        let stream = tokio::time::timeout(CONNECT_LIMIT, connecting)
            .await
            .map_err(|_elapsed| failed(ErrorKind::TimedOut.into()))??;
        stream.set_nodelay(true).map_err(failed)?;
        Ok(stream)
    }
}

enum Refusal {
    Bind(Error),
    Connect(Error),
}

/// Connects from a port below 1024.
async fn privileged(address: SocketAddr) -> Result<TcpStream, Refusal> {
    let (low, high) = (*PRIVILEGED.start(), *PRIVILEGED.end());
    let count = high - low + 1;
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Somewhere else each time: a port just left cannot be used to the same server for a while.
    let random = uuid::Uuid::new_v4().as_u64_pair().0;
    let start = u16::try_from(random % u64::from(count)).unwrap_or(0);
    let mut last = Error::from(ErrorKind::AddrInUse);
    for step in 0..PORTS_TRIED {
        let port = high - (start + step) % count;
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        };
        let socket = socket.map_err(Refusal::Connect)?;
        socket.set_reuseaddr(true).map_err(Refusal::Connect)?;
        match socket.bind(SocketAddr::new(any, port)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                last = error;
                continue;
            }
            Err(error) => return Err(Refusal::Bind(error)),
        }
        match socket.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error)
                if matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) =>
            {
                last = error;
            }
            Err(error) => return Err(Refusal::Connect(error)),
        }
    }
    Err(Refusal::Bind(last))
}

/// One call on a connection of its own.
pub(super) async fn ask<P: Procedure>(
    mut stream: TcpStream,
    credential: &Credential,
    procedure: &P,
) -> Result<P::Reply, NfsError> {
    let until = Instant::now() + CONNECT_LIMIT;
    let late = |_elapsed| NfsError::Stalled(CONNECT_LIMIT);
    let call = rpc::call(1, credential, procedure);
    let mut message = BytesMut::from(record::header(call.len()).as_slice());
    message.extend_from_slice(&call);
    let sent = timeout_at(until, stream.write_all(&message)).await.map_err(late)?;
    sent.map_err(NfsError::Broken)?;
    let (mut records, mut input) = (Records::new(SMALL_REPLY), BytesMut::new());
    let reply = loop {
        if let Some(reply) = records.next(&mut input)? {
            break reply;
        }
        let read = timeout_at(until, stream.read_buf(&mut input)).await.map_err(late)?;
        if read.map_err(NfsError::Broken)? == 0 {
            return Err(NfsError::Broken(ErrorKind::UnexpectedEof.into()));
        }
    };
    match rpc::reply_xid(&reply) {
        Ok(1) => read_reply::<P>(reply),
        Ok(_) => Err(malformed::<P>(Malformed::Contradiction("a reply to another call"))),
        Err(error) => Err(malformed::<P>(error)),
    }
}

/// The results of a complete reply.
pub(super) fn read_reply<P: Procedure>(reply: Bytes) -> Result<P::Reply, NfsError> {
    let results = rpc::results(reply, P::PROGRAM).map_err(malformed::<P>)?;
    let mut results =
        results.map_err(|source| NfsError::Rejected { procedure: P::NAME, source })?;
    P::decode(&mut results).map_err(malformed::<P>)
}

fn malformed<P: Procedure>(source: Malformed) -> NfsError {
    NfsError::Malformed { procedure: P::NAME, source }
}

/// What fills a payload up.
pub(super) fn filling(length: usize) -> &'static [u8] {
    const ZEROS: &[u8] = &[0; 3];
    ZEROS.get(..padding(length)).unwrap_or_default()
}
