//! What can be asked of the server, one type per call.

mod change;
mod list;
mod setup;

pub use change::{
    AddImageStore, CreateWebhook, DestroySystemVm, ProvisionCertificate, QueryAsyncJob,
    RegisterUserKeys, StartSystemVm, StopSystemVm, UpdateConfiguration, UpdateWebhook, UpdateZone,
};
pub use list::{
    ListConfigurations, ListHosts, ListImageStores, ListNetworkOfferings,
    ListNetworkServiceProviders, ListNetworks, ListNics, ListPhysicalNetworks, ListPods,
    ListRouters, ListSystemVms, ListTrafficTypes, ListVirtualMachines, ListVlanIpRanges,
    ListWebhooks, ListZones,
};
pub use setup::{
    AddCluster, AddHost, AddNetworkServiceProvider, AddTrafficType, CreateNetwork,
    CreateNetworkOffering, CreatePhysicalNetwork, CreatePod, CreateStoragePool, CreateVlanIpRange,
    CreateZone, UpdateNetworkOffering, UpdateNetworkServiceProvider, UpdatePhysicalNetwork,
};

use crate::paging::Page;
use crate::sign::Parameters;
use crate::xml::{Element, Object, ReadError};

/// A call and how its answer is read.
pub trait Command: Sync {
    /// The command's name; the answer's root is the same in lower case with `response`.
    const NAME: &'static str;
    type Answer: Send;

    /// Sets the parameters of the call itself; key, expiry and signature are added.
    fn parameters(&self, parameters: &mut Parameters);

    /// Reads the answer from its root, which is neither foreign nor a refusal.
    fn read(root: Element<'_, '_>) -> Result<Self::Answer, ReadError>;
}

/// A command whose answer is a page of a list.
pub trait ListCommand: Command<Answer = Page<Self::Item>> {
    type Item: Object + Send;
}

/// A command that goes on after its answer; [`crate::Client::run`] waits for its end.
pub trait AsyncCommand: Command<Answer = crate::job::Started<Self::Outcome>> {
    type Outcome: Object + Send;
    /// Name of the outcome's element in the job's result.
    const OUTCOME: &'static str;
}

/// Whether a command only reads; the server insists on POST for all others.
pub(crate) fn is_reading(name: &str) -> bool {
    ["get", "list", "query", "find"].iter().any(|prefix| name.starts_with(prefix))
}

/// The one object of an answer. `name` may be alternatives, `vlan|vlaniprange`, where releases or
/// calls differ.
pub(crate) fn only<T: Object>(root: Element<'_, '_>, name: &str) -> Result<T, ReadError> {
    for name in name.split('|') {
        if let Some(element) = root.one(name)? {
            return T::read(element);
        }
    }
    Err(ReadError::Missing { path: root.path(name) })
}
