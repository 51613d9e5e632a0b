//! What an operator would look at when a store on an NFS server is not as it should be.

use nfs3::procedures::{Access, rights};
use role::DoctorFinding;

use super::client::{Client, Session};
use super::connection::Lane;
use super::error::NfsError;
use super::{NfsSettings, Target};
use crate::stores::StoreUrl;
use crate::stores::marker;

/// Reaches the server, the export and its rights as the role would.
pub async fn check(url: &StoreUrl, target: Target) -> DoctorFinding {
    let NfsSettings { uid, gid, .. } = target.settings;
    let client = Client::new(target);
    let place = client.place();
    let looked = look(&client.session(false)).await;
    let Look { rights, marked, free } = match looked {
        Ok(look) => look,
        Err(error) => {
            let remedy = remedy(&error);
            let problem = format!("store {url}: {}", bedrock::chain(&error));
            return DoctorFinding::Fault { problem, remedy };
        }
    };
    if rights & NEEDED != NEEDED {
        return DoctorFinding::Fault {
            problem: format!("store {url}: user {uid}, group {gid} may not write in {place}"),
            remedy: "export it with rw and no_root_squash, or configure the store's uid and gid \
                     as those that own the directory"
                .to_owned(),
        };
    }
    if !marked {
        return DoctorFinding::Warning {
            problem: format!("{place} is empty, which the server takes for an empty store {url}"),
            remedy: "make sure that it is the right export, unless the store is new".to_owned(),
        };
    }
    DoctorFinding::Good(format!("{place} holds store {url}, {} GiB free", free >> 30))
}

const NEEDED: u32 =
    rights::READ | rights::LOOKUP | rights::MODIFY | rights::EXTEND | rights::DELETE;

struct Look {
    rights: u32,
    marked: bool,
    free: u64,
}

async fn look(session: &Session) -> Result<Look, NfsError> {
    let root = session.root().await?;
    let access = Access { object: root.handle.clone(), wanted: NEEDED };
    let rights = session.call(Lane::Quick, &access, "the root of the export").await?;
    let mut marked = false;
    for name in [marker::MARKER_FILE, "template", "volumes"] {
        marked |= session.lookup(&root.handle, name.as_bytes()).await?.is_some();
    }
    let space = session.space(&root).await?;
    Ok(Look { rights, marked, free: space.capacity.saturating_sub(space.used) })
}

fn remedy(error: &NfsError) -> String {
    match error {
        NfsError::Mount { .. } => {
            "add this host to the export's clients on the server, or correct the store's URL"
        }
        NfsError::Resolve { .. } => "correct the store's URL or the host's name resolution",
        NfsError::Connect { .. } => {
            "start the server, let its port mapper (111), mount service and NFS (2049) pass the \
             firewall, or configure the store's port and mount_port"
        }
        NfsError::Shared(inner) => return remedy(inner),
        NfsError::Stalled(_) => "look at the server: it is connected and silent",
        NfsError::SourcePort(_) | NfsError::NotRegistered { .. } | NfsError::Kerberos(_) => {
            "see there"
        }
        _ => "look at the server's log",
    }
    .to_owned()
}
