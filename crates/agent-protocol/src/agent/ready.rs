//! What the server makes of a start-up: twice ready, or once a refusal.

use crate::base::{AnswerBase, CommandBase};
use crate::gson::Dictionary;

java! {
    /// The host is accepted, or refused when `details` is present.
    ReadyCommand = "com.cloud.agent.api.ReadyCommand" {
        /// The reason of a refusal. Such a command is not answered.
        "_details" details: Option<String>,
        /// Zone id.
        "dcId" dc_id: Option<i64>,
        /// The host id, for headers and pings from now on.
        "hostId" host_id: Option<i64>,
        "hostUuid" host_uuid: Option<String>,
        "hostName" host_name: Option<String>,
        /// Ordered addresses of management servers, when they differ from what the agent sent.
        "msHostList" ms_host_list: Option<Vec<String>>,
        /// Addresses to stay away from; absent means none.
        "avoidMsHostList" avoid_ms_host_list: Option<Vec<String>>,
        /// `static`, `roundrobin` or `shuffle`; comes with the list.
        "lbAlgorithm" lb_algorithm: Option<String>,
        /// Seconds between looks for a preferred server; 0 = never.
        "lbCheckInterval" lb_check_interval: Option<i64>,
        "enableHumanReadableSizes" enable_human_readable_sizes: Option<bool>,
        "arch" arch: Option<String>,
    }
    extends base: CommandBase
}

java! {
    /// Answer to a good [`ReadyCommand`].
    ReadyAnswer = "com.cloud.agent.api.ReadyAnswer" {
        /// Host details of hypervisors.
        "detailsMap" details_map: Option<Dictionary<String>>,
    }
    extends base: AnswerBase
}

answers!(ReadyAnswer);
commands! { ReadyCommand.base => ReadyAnswer, true; }
