//! Changes of what is there, keys and jobs.

use bedrock::Secret;
use uuid::Uuid;

use crate::job::JobState;
use crate::macros::command;
use crate::model::{Configuration, ImageStore, UserKeys, Zone};
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
    /// How a job is; [`crate::Client::run`] asks this.
    QueryAsyncJob = "queryAsyncJobResult" => root JobState;
    { job_id: Uuid = "jobid" }
}
