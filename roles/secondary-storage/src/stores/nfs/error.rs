//! What can go wrong between this host and an NFS server.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nfs3::mount::MountStatus;
use nfs3::record::RecordError;
use nfs3::rpc::Rejected;
use nfs3::{Malformed, Status};

use crate::stores::EngineError;

/// Why a call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum NfsError {
    #[error("cannot find the address of NFS server {host}")]
    Resolve { host: String, source: Error },
    #[error("cannot connect to {service} of the NFS server at {address}")]
    Connect { service: &'static str, address: SocketAddr, source: Error },
    #[error(
        "no source port below 1024 can be used (privileged_port): give the process CAP_NET_BIND_SERVICE, or export with \"insecure\""
    )]
    SourcePort(#[source] Error),
    #[error(
        "{service} is not registered with the port mapper of {host}: does it serve NFS version 3? Otherwise configure the store's port and mount_port"
    )]
    NotRegistered { service: &'static str, host: String },
    #[error("the connection to the NFS server broke")]
    Broken(#[source] Error),
    #[error("the NFS server sends what is no reply")]
    Record(#[from] RecordError),
    #[error("the NFS server does not answer (nothing within {0:?})")]
    Stalled(Duration),
    #[error("the NFS server rejects {procedure}")]
    Rejected { procedure: &'static str, source: Rejected },
    #[error("the reply of the NFS server to {procedure} cannot be read")]
    Malformed { procedure: &'static str, source: Malformed },
    #[error("the NFS server refuses export {export}")]
    Mount { export: String, source: MountStatus },
    #[error("export {0} wants Kerberos, which is not supported: add sec=sys to the export")]
    Kerberos(String),
    #[error("{subject}: {status} ({procedure}){}", remedy(*.status, .caller))]
    Refused { procedure: &'static str, subject: String, status: Status, caller: (u32, u32) },
    #[error("{0} is a symbolic link, which is not followed")]
    Link(String),
    #[error("{0} is not a directory")]
    NotDirectory(String),
    #[error("{0} is not a regular file")]
    NotFile(String),
    #[error("{subject} {problem}")]
    Content { subject: String, problem: &'static str },
    #[error("the store is full: {free} bytes are free, and {kept} stay free (min_free)")]
    Full { free: u64, kept: u64 },
    #[error("the directory is no store any more")]
    Lost,
    #[error("the work was given up before it began")]
    GivenUp,
    /// Of what several callers wait for.
    #[error(transparent)]
    Shared(Arc<NfsError>),
}

fn remedy(status: Status, (uid, gid): &(u32, u32)) -> String {
    match status {
        Status::ACCESS | Status::PERMISSION if *uid == 0 => format!(
            ": this host acts as user {uid}, group {gid}; export with no_root_squash, or configure \
             the store's uid and gid as those that own the directory"
        ),
        Status::ACCESS | Status::PERMISSION => format!(
            ": this host acts as user {uid}, group {gid} (the store's uid and gid), who may not"
        ),
        Status::READ_ONLY => ": export it with rw".to_owned(),
        _ => String::new(),
    }
}

impl NfsError {
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Shared(inner) => inner.status(),
            _ => None,
        }
    }

    /// The server does not know a handle any more.
    pub fn is_stale(&self) -> bool {
        self.status().is_some_and(Status::is_stale)
    }

    /// What it was about is not there any more.
    pub fn is_gone(&self) -> bool {
        self.is_stale() || self.status() == Some(Status::NOT_FOUND)
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { status, .. } => status.kind(),
            Self::Resolve { source, .. }
            | Self::Connect { source, .. }
            | Self::SourcePort(source)
            | Self::Broken(source) => source.kind(),
            Self::Stalled(_) => ErrorKind::TimedOut,
            Self::Mount { source: MountStatus::NotFound, .. } => ErrorKind::NotFound,
            Self::Mount { .. } | Self::Kerberos(_) | Self::Link(_) => ErrorKind::PermissionDenied,
            Self::NotDirectory(_) => ErrorKind::NotADirectory,
            Self::NotFile(_) => ErrorKind::InvalidInput,
            Self::Record(_) | Self::Malformed { .. } => ErrorKind::InvalidData,
            Self::Content { .. } => ErrorKind::UnexpectedEof,
            Self::Full { .. } => ErrorKind::StorageFull,
            Self::NotRegistered { .. } | Self::Rejected { .. } | Self::Lost | Self::GivenUp => {
                ErrorKind::Other
            }
            Self::Shared(inner) => inner.kind(),
        }
    }

    /// As an error of a store's engine; `place` is the store's.
    pub fn of_engine(self, place: &str) -> EngineError {
        match self {
            Self::Stalled(limit) => EngineError::Stalled(limit),
            Self::Lost => EngineError::Lost(place.to_owned()),
            Self::GivenUp => EngineError::GivenUp,
            other => EngineError::Io(Error::new(other.kind(), other)),
        }
    }
}
