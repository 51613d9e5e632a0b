//! Changes of what is there, keys and jobs.

use bedrock::Secret;
use uuid::Uuid;

use crate::job::JobState;
use crate::macros::command;
use crate::model::{Configuration, Done, ImageStore, SystemVm, UserKeys, Webhook, Zone};
use crate::sign::Details;

command! {
    UpdateZone = "updateZone" => in Zone, "zone";
    {
        id: Uuid = "id",
        /// `Enabled` or `Disabled`.
        allocation_state: Option<String> = "allocationstate",
        details: Details = "details",
    }
}

command! {
    /// Leaves its row, its name and its addresses; the zone's detail keeps the server from starting it.
    StopSystemVm = "stopSystemVm" => job SystemVm, "systemvm";
    { id: Uuid = "id" }
}

command! {
    StartSystemVm = "startSystemVm" => job SystemVm, "systemvm";
    { id: Uuid = "id" }
}

command! {
    /// Removes its host row, too, and ends the zone's download links when it is a storage VM.
    DestroySystemVm = "destroySystemVm" => job SystemVm, "systemvm";
    { id: Uuid = "id" }
}

command! {
    /// `zone_id` makes it the zone's own value.
    UpdateConfiguration = "updateConfiguration" => in Configuration, "configuration";
    { name: String = "name", value: String = "value", zone_id: Option<Uuid> = "zoneid" }
}

command! {
    AddImageStore = "addImageStore" => in ImageStore, "imagestore";
    {
        /// `NFS`, `S3`, …
        provider: String = "provider",
        name: Option<String> = "name",
        /// May hold a user and a password.
        url: Option<Secret<String>> = "url",
        zone_id: Option<Uuid> = "zoneid",
        details: Details = "details",
    }
}

command! {
    /// A new key pair. Answered at once up to 4.22, by a job later.
    RegisterUserKeys = "registerUserKeys" => job UserKeys, "userkeys";
    { id: Uuid = "id" }
}

command! {
    /// A new certificate for a host. `reconnect` makes its agent connect with it.
    ProvisionCertificate = "provisionCertificate" => job Done, "success";
    { host_id: Uuid = "hostid", reconnect: Option<bool> = "reconnect" }
}

command! {
    /// How a job is; [`crate::Client::run`] asks this.
    QueryAsyncJob = "queryAsyncJobResult" => root JobState;
    { job_id: Uuid = "jobid" }
}

command! {
    /// Sends events to a URL, signed with the key; from 4.20 on. `Global` is for a root administrator.
    CreateWebhook = "createWebhook" => in Webhook, "webhook";
    {
        name: String = "name",
        payload_url: String = "payloadurl",
        secret_key: Option<Secret<String>> = "secretkey",
        /// `Local`, `Domain` or `Global`.
        scope: Option<String> = "scope",
        /// `Enabled` or `Disabled`.
        state: Option<String> = "state",
        /// Only with https.
        ssl_verification: Option<bool> = "sslverification",
    }
}

command! {
    UpdateWebhook = "updateWebhook" => in Webhook, "webhook";
    {
        id: Uuid = "id",
        payload_url: Option<String> = "payloadurl",
        secret_key: Option<Secret<String>> = "secretkey",
        scope: Option<String> = "scope",
        state: Option<String> = "state",
        ssl_verification: Option<bool> = "sslverification",
    }
}
