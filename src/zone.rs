//! A zone between system VMs and this process: what is, what will be, and every step between the
//! two, in both directions.
//!
//! What the API can do is done over it. Rows that only the database can change are printed as SQL, run
//! where the database can be reached, and found again by what the API then shows, so that a run can be broken off anywhere and begun
//! anew: a plan is always made of what the server tells now.
//!
//! | module | what |
//! |---|---|
//! | [`look`] | what the server tells |
//! | [`enable`], [`disable`] | the steps. *Pure* |
//! | [`network`] | those to a guest network without a router. *Pure* |
//! | [`webhook`] | the step to events that wake the sync. *Pure* |
//! | [`state`] | what is wrong in between. *Pure* |
//! | [`sql`] | statements for what the API cannot change. *Pure* |
//! | [`file`] | the configuration that fits |
//! | [`act`] | does the steps |
//! | [`database`] | runs the statements, where the database can be reached |

pub(crate) mod act;
pub(crate) mod database;
pub(crate) mod disable;
pub(crate) mod enable;
pub(crate) mod file;
pub(crate) mod look;
pub(crate) mod network;
mod sql;
pub(crate) mod state;
#[cfg(test)]
mod tests;
pub(crate) mod webhook;

use std::net::IpAddr;

use bedrock::Secret;
use cloudstack_api::commands::{
    AddTrafficType, CreateNetwork, CreatePhysicalNetwork, CreatePod, CreateVlanIpRange,
    CreateWebhook, UpdateConfiguration, UpdatePhysicalNetwork, UpdateWebhook,
};
use uuid::Uuid;

/// What an operator wants of a zone.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) ss: bool,
    pub(crate) cp: bool,
    pub(crate) dhcp: bool,
    /// Of this host, towards the server.
    pub(crate) address: IpAddr,
    /// In links.
    pub(crate) public: IpAddr,
    /// For `management.servers`.
    pub(crate) servers: Vec<String>,
    pub(crate) storage: StorageMode,
    pub(crate) console: ConsoleMode,
    /// In the links of a static console proxy.
    pub(crate) console_port: u16,
    /// Interface of the guest network.
    pub(crate) interface: Option<String>,
    pub(crate) api: ApiFiles,
    /// What a storage without a row is not sent, when the database could be asked.
    pub(crate) set_up: Option<database::SetUp>,
}

/// Where the API is and whose keys it is asked with, for the sync of the dhcp role.
#[derive(Debug, Clone, Default)]
pub(crate) struct ApiFiles {
    pub(crate) urls: Vec<String>,
    pub(crate) api_key_file: Option<String>,
    pub(crate) secret_key_file: Option<String>,
    pub(crate) ca_file: Option<String>,
}

/// How the server knows the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum StorageMode {
    /// The name of the zone's own storage VM, if it has one, else standalone
    Auto,
    /// The name of a storage VM that is stopped: set-up arrives, data moves between stores
    Adopted,
    /// No row: downloads, links and deletions work, set-up and moves between stores do not
    Standalone,
    /// Rows made by hand (SQL): as adopted, without a VM ever having been
    Shadow,
}

/// How the server knows the console proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ConsoleMode {
    /// A row that is Running without a machine (SQL); every server can do it
    Row,
    /// A server with the static console proxy manager, and settings (SQL); no row
    Static,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) what: String,
    pub(crate) action: Action,
    /// What the server tells now.
    pub(crate) now: String,
    pub(crate) then: String,
    pub(crate) why: String,
    /// How it is taken back.
    pub(crate) undo: String,
    pub(crate) done: bool,
    /// Nothing after it makes sense before it is done.
    pub(crate) blocks: bool,
}

/// Who does a step, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// A detail of the zone.
    Detail {
        name: &'static str,
        value: &'static str,
    },
    StopVm(Uuid),
    StartVm(Uuid),
    DestroyVm(Uuid),
    /// A provider on a physical network, there and enabled.
    Provider {
        network: Uuid,
        name: &'static str,
        id: Option<Uuid>,
    },
    /// The network offering without a router, there and enabled.
    Offering {
        id: Option<Uuid>,
        security_groups: bool,
    },
    /// One call that makes something.
    SetUp(SetUp),
    /// A call that needs what an earlier step makes.
    After,
    /// Statements for the server's database.
    Sql {
        statements: String,
        undo: String,
    },
    /// The configuration of this host.
    File {
        /// To be shown: without secrets.
        text: String,
        full: Secret<String>,
    },
    /// Somebody else's turn: the server's, or the operator's outside of the API.
    Other,
    /// As `Other`, and worth waiting for.
    Wait,
}

/// Calls that make a network and what it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SetUp {
    PhysicalNetwork(CreatePhysicalNetwork),
    Traffic(AddTrafficType),
    EnablePhysical(UpdatePhysicalNetwork),
    Pod(CreatePod),
    Network(Box<CreateNetwork>),
    Range(Box<CreateVlanIpRange>),
    Setting(UpdateConfiguration),
    Webhook(Box<CreateWebhook>),
    ChangeWebhook(Box<UpdateWebhook>),
}

impl Action {
    /// A word for tables and JSON.
    pub(crate) const fn by(&self) -> &'static str {
        match self {
            Self::Detail { .. }
            | Self::StopVm(_)
            | Self::StartVm(_)
            | Self::DestroyVm(_)
            | Self::Provider { .. }
            | Self::Offering { .. }
            | Self::SetUp(_)
            | Self::After => "api",
            Self::Sql { .. } => "sql",
            Self::File { .. } => "file",
            Self::Other => "you",
            Self::Wait => "server",
        }
    }
}

pub(crate) const STORAGE_DETAIL: &str = "enable.secstorage.vm";
pub(crate) const CONSOLE_DETAIL: &str = "enable.consoleproxy.vm";
