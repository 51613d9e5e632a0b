//! What is answered besides the resources themselves.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::problem::Fault;
use crate::record::Record;
use crate::resource::{OptionSet, Range, Reservation, Source, Subnet, Zone};
use crate::words::{MacAddress, ResourceId, Stamp};

/// A page of a collection, ordered by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "{T}Page"))]
pub struct Page<T> {
    pub items: Vec<T>,
    /// `cursor` of the next page; `null` on the last one.
    pub next_cursor: Option<String>,
    /// Generation the page was read from.
    pub revision: u64,
}

/// A reservation and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReservationAnswer {
    #[serde(flatten)]
    pub reservation: Reservation,
    pub status: ReservationStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ReservationStatus {
    /// Whether dnsmasq serves this revision, all of it.
    pub applied: bool,
    /// Generation that dnsmasq serves.
    pub applied_generation: u64,
    pub leased: bool,
    /// Seconds since 1970; `null` without a lease and for an infinite one.
    pub lease_expires: Option<u64>,
    /// What dnsmasq did not take of it, or what is unusual about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What it costs to apply a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum AppliedBy {
    /// dnsmasq watches the file.
    Names,
    /// dnsmasq is started anew.
    Restart,
}

/// A record and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordAnswer {
    #[serde(flatten)]
    pub record: Record,
    pub applied_by: AppliedBy,
    pub status: RecordStatus,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RecordStatus {
    /// Whether dnsmasq is given the record.
    pub served: bool,
    /// Why it is not, or what a client may miss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// A lease that dnsmasq has given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LeaseAnswer {
    pub ipv4: Ipv4Addr,
    pub mac: MacAddress,
    pub hostname: Option<String>,
    /// Hexadecimal, as dnsmasq writes it.
    pub client_id: Option<String>,
    /// Seconds since 1970; `null` for an infinite lease.
    pub expires_at: Option<u64>,
    /// The reservation of exactly this address and MAC.
    pub reservation: Option<ResourceId>,
    /// Whether there is none.
    pub conflict: bool,
}

/// A change of the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangeEntry {
    /// The generation it made.
    pub id: u64,
    pub at: Stamp,
    pub by: Source,
    pub what: String,
}

/// The last changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangeList {
    /// The newest first.
    pub items: Vec<ChangeEntry>,
}

/// How far a change has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangeAnswer {
    /// The generation the change made.
    pub id: u64,
    pub state: ChangeState,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ChangeState {
    /// Written; dnsmasq is down and reads it when it starts.
    Stored,
    Applying,
    Applied,
    /// Stored, but dnsmasq could not be brought to serve it; tried again.
    Failed,
    /// Stored, but dnsmasq does not survive it; an older generation is served.
    RolledBack,
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BatchAnswer {
    /// One for every entry, in the order of the request.
    pub results: Vec<BatchResult>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BatchResult {
    pub id: ResourceId,
    pub result: BatchOutcome,
    /// Of the resource, unless it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum BatchOutcome {
    Created,
    Updated,
    Unchanged,
    Deleted,
    Absent,
}

/// Answer of `healthz` and `readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "status")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Liveness {
    Ok,
    Ready,
}

/// State of the whole role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    pub state: RoleState,
    /// Of what is stored.
    pub generation: u64,
    /// Of what dnsmasq serves.
    pub applied_generation: u64,
    pub applied_at: Option<Stamp>,
    /// Whether something stored is not served.
    pub dirty: bool,
    pub instances: Vec<Instance>,
    pub sync: Sync,
    pub alarms: Vec<Alarm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum RoleState {
    Starting,
    Ready,
    Degraded,
    Stopped,
}

/// The sync with the management server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sync {
    pub enabled: bool,
    /// Zone of the server, as configured.
    pub zone: Option<String>,
    /// The last listing that was taken over.
    pub last_success: Option<Stamp>,
    /// Seconds since then, or since the start.
    pub stale_seconds: Option<u64>,
    pub last_error: Option<String>,
    /// Deletions that wait for `POST /v1/sync?force=true`.
    pub held_deletes: u64,
    /// Reservations that are the server's.
    pub reservations: u64,
    /// Milliseconds the server took for the last full listing.
    pub listing_ms: Option<u64>,
    /// Calls of the server's API since the start.
    pub calls: u64,
}

/// Why a client gets an address, or why it does not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ExplainAnswer {
    /// As it was asked.
    pub who: String,
    /// Whether dnsmasq answers to it, as far as is known.
    pub served: bool,
    /// Its reservations.
    pub reservations: Vec<ResourceId>,
    /// Everything that is known, in sentences.
    pub reasons: Vec<String>,
}

/// Everything of one source in a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DesiredShown {
    pub source: Source,
    /// Generation it was read from.
    pub revision: u64,
    #[serde(flatten)]
    pub contents: ContentsShown,
}

/// What was said about a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TraceAnswer {
    /// The oldest first.
    pub items: Vec<TraceLine>,
    /// `after` of the next question.
    pub next: u64,
}

/// One line of dnsmasq's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TraceLine {
    pub number: u64,
    /// Milliseconds since it was said.
    pub age_ms: u64,
    pub text: String,
}

/// Who else answers on the interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProbeAnswer {
    pub interface: String,
    pub servers: Vec<OtherServer>,
}

/// A DHCP server that is not ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OtherServer {
    /// Where the offer came from.
    pub ip: Ipv4Addr,
    /// What it calls itself.
    pub server_id: Option<Ipv4Addr>,
    /// The address it would give.
    pub offers: Ipv4Addr,
}

/// What one source has in a zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ContentsShown {
    pub option_sets: Vec<OptionSet>,
    pub subnets: Vec<SubnetShown>,
    pub reservations: Vec<Reservation>,
    pub records: Vec<Record>,
}

/// A subnet with its ranges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubnetShown {
    #[serde(flatten)]
    pub subnet: Subnet,
    pub ranges: Vec<Range>,
}

/// Everything of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DocumentShown {
    /// Generation it was read from.
    pub revision: u64,
    pub zones: Vec<ZoneShown>,
}

/// A zone with what the API has in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ZoneShown {
    #[serde(flatten)]
    pub zone: Zone,
    #[serde(flatten)]
    pub contents: ContentsShown,
}

/// Whether a document would be taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ValidateAnswer {
    pub valid: bool,
    /// Everything that is wrong with it.
    pub problems: Vec<Fault>,
    /// What it would come to; `null` when it is not taken.
    pub difference: Option<DesiredAnswer>,
}

/// What replacing everything came to, or would come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DesiredAnswer {
    /// Whether nothing was stored.
    pub dry_run: bool,
    /// Generation it made, unless nothing changed.
    pub change: Option<u64>,
    #[serde(default)]
    pub zones: DesiredDifference,
    #[serde(default)]
    pub option_sets: DesiredDifference,
    pub subnets: DesiredDifference,
    #[serde(default)]
    pub ranges: DesiredDifference,
    pub reservations: DesiredDifference,
    pub records: DesiredDifference,
}

impl DesiredAnswer {
    /// The differences with what they are about, in the order in which things lie in each other.
    pub const fn kinds(&self) -> [(&'static str, &DesiredDifference); 6] {
        [
            ("zone", &self.zones),
            ("option set", &self.option_sets),
            ("subnet", &self.subnets),
            ("range", &self.ranges),
            ("reservation", &self.reservations),
            ("record", &self.records),
        ]
    }
}

/// Ids that come, change and go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DesiredDifference {
    pub created: Vec<String>,
    pub updated: Vec<String>,
    pub deleted: Vec<String>,
}

/// What a listing of the server comes to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SyncAnswer {
    /// Whether nothing was stored.
    pub dry_run: bool,
    /// Whether something may be concluded from what is missing.
    pub complete: bool,
    /// Reservations made or changed.
    pub upsert: Vec<ResourceId>,
    /// Reservations removed.
    pub delete: Vec<ResourceId>,
    /// Missing once; removed when they are missing again.
    pub absent: u64,
    /// Missing, but too many to be believed.
    pub held: u64,
    pub notes: Vec<Alarm>,
}

/// One dnsmasq.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Instance {
    pub name: String,
    pub pid: Option<i32>,
    pub version: Option<String>,
    pub state: Phase,
    /// Account it runs as.
    pub runs_as: Option<String>,
    /// How often it ended by itself.
    pub restarts: u64,
    pub last_exit: Option<String>,
    pub uptime_s: Option<u64>,
    pub reload_mode: ReloadMode,
    pub reservations: u64,
    pub leases: u64,
    pub last_apply: Option<LastApply>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Phase {
    #[default]
    Starting,
    Serving,
    /// Down; will be tried again.
    Down,
    Stopped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ReloadMode {
    Sighup,
}

/// The last time something was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastApply {
    /// Generation.
    pub id: u64,
    /// What it took: `main`, `names`, `add`, `reload`, `restart` or `start`.
    pub kind: String,
    pub duration_ms: u64,
    /// `ok`; what went wrong is an alarm.
    pub result: String,
}

/// Something an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Alarm {
    pub alarm: AlarmKind,
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum AlarmKind {
    InstanceDown,
    ApplyFailed,
    /// dnsmasq does not survive a generation; an older one is served.
    GenerationPoisoned,
    /// The file of the state was damaged; the one before the last change is served.
    StateRestored,
    InterfaceMissing,
    SubnetUnserved,
    /// dnsmasq did not take a line.
    ReservationRejected,
    /// A record would keep dnsmasq from serving, or another one stands in its place.
    RecordWithheld,
    /// Something stored cannot be served any more; it is kept aside.
    Quarantined,
    /// An option did not fit into an answer to a client.
    OptionDropped,
    LeaseConflict,
    InstanceOverSoftLimit,
    /// A client found somebody else at its address; nobody gets it for a while.
    DeclinedAddress,
    /// The wall clock jumped by an hour or more; leases that end were judged by it.
    ClockJumped,
    /// Somebody else answers in a network of the zone; it is not served here.
    VrPresent,
    /// Nothing was heard of the management server for a while; what was known is served.
    SyncStale,
    /// A listing of the server is not as it should be, or something stands in its way.
    SyncConflict,
    /// The user of the server's API does not see everything.
    SyncRole,
    /// A listing lacks so much that nothing is removed.
    MassDeleteHeld,
    /// Two machines have one name in a domain.
    DuplicateHostname,
    /// A machine's name is not one of DNS; the guest is called otherwise.
    HostnameChanged,
}
