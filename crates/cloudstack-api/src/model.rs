//! What the server tells, reduced to what we use; names are the API's, in our spelling.
//!
//! Texts that tenants choose (names of machines and networks) are data and nothing more: nobody
//! may take them for an address, a path or markup.

mod infrastructure;
mod machine;
mod network;

pub use infrastructure::{
    Cluster, Configuration, Done, Host, ImageStore, NetworkOffering, NetworkServiceProvider,
    PhysicalNetwork, Pod, PodRange, StoragePool, Success, SystemVm, TrafficType, UserKeys, Webhook,
    Zone, ZoneDetails,
};
pub use machine::{ExtraDhcpOption, Nic, Router, SecondaryIp, VirtualMachine, VmState};
pub use network::{Network, NetworkService, ServiceProvider, VlanIpRange};
