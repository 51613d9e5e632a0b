//! The session's commands and answers with the fields that a 4.22 server fills.

use agent_protocol::agent::{
    AnswerBase, CommandBase, PingAnswer, PingCommand, PingEcho, PingStorageCommand, ReadyCommand,
    StartupAnswer,
};

use crate::config::ServerConfig;
use crate::hosts::Host;

/// The fields of every command of a server: the log id of the thread that sends it.
pub(crate) fn base(log_id: &str) -> CommandBase {
    let context_map = std::iter::once(("logid", log_id.to_owned())).collect();
    CommandBase { context_map, ..CommandBase::default() }
}

/// As [`base`], inside an asynchronous job.
pub(crate) fn base_of_job(log_id: &str, job: i64) -> CommandBase {
    let mut base = base(log_id);
    base.context_map.insert("job".to_owned(), format!("job-{job}"));
    base
}

/// The early answer, which knows nothing of the host yet.
pub(crate) fn early_startup_answer(config: &ServerConfig) -> StartupAnswer {
    StartupAnswer {
        host_id: 0,
        host_name: Some(String::new()),
        host_uuid: Some(String::new()),
        ping_interval: ping_seconds(config),
        base: AnswerBase::success(),
    }
}

/// The answer to a start-up command on a link that already belongs to a host.
pub(crate) fn late_startup_answer(config: &ServerConfig, host: &Host) -> StartupAnswer {
    StartupAnswer {
        host_id: host.id,
        host_name: Some(host.name.clone()),
        host_uuid: Some(host.uuid.clone()),
        ping_interval: ping_seconds(config),
        base: AnswerBase::success(),
    }
}

/// The refusal.
pub(crate) fn refusal(details: &str) -> ReadyCommand {
    ReadyCommand { details: Some(details.to_owned()), ..ReadyCommand::default() }
}

/// The first ready command, which brings the host id.
pub(crate) fn first_ready(config: &ServerConfig, host: &Host, log_id: &str) -> ReadyCommand {
    let wait = i32::try_from(config.ready_wait.as_secs()).unwrap_or(i32::MAX);
    ReadyCommand {
        dc_id: Some(host.zone_id),
        host_id: Some(host.id),
        host_uuid: Some(host.uuid.clone()),
        host_name: Some(host.name.clone()),
        enable_human_readable_sizes: Some(true),
        base: CommandBase { wait, ..base(log_id) },
        ..ReadyCommand::default()
    }
}

/// The second ready command; it brings the list of servers only when the agent reported another
/// one.
pub(crate) fn second_ready(
    config: &ServerConfig,
    host: &Host,
    reported: Option<&str>,
    log_id: &str,
) -> ReadyCommand {
    let known = reported.and_then(|text| text.split_once('@')).is_some_and(|(list, algorithm)| {
        algorithm == config.balancing && list.split(',').eq(config.host_list.iter())
    });
    ReadyCommand {
        ms_host_list: (!known).then(|| config.host_list.clone()),
        avoid_ms_host_list: Some(config.avoid.clone()),
        lb_algorithm: (!known).then(|| config.balancing.clone()),
        lb_check_interval: Some(config.balancing_check_interval),
        arch: Some(host.arch.clone()),
        base: base(log_id),
        ..first_ready(config, host, log_id)
    }
}

/// The echo of a ping in its answer.
pub(crate) enum Ping {
    /// Of a console proxy.
    Plain(PingCommand),
    /// Of secondary storage.
    Storage(PingStorageCommand),
}

impl Ping {
    pub(crate) fn host_id(&self) -> i64 {
        match self {
            Self::Plain(ping) => ping.host_id,
            Self::Storage(ping) => ping.ping.host_id,
        }
    }
}

/// The answer to a ping.
pub(crate) fn ping_answer(config: &ServerConfig, ping: Ping, send_startup: bool) -> PingAnswer {
    let echo = match ping {
        Ping::Plain(ping) => PingEcho { changes: None, ping },
        Ping::Storage(ping) => PingEcho { changes: Some(ping.changes), ping: ping.ping },
    };
    PingAnswer {
        command: Some(echo),
        send_startup,
        avoid_ms_list: Some(config.avoid.clone()),
        reconcile_commands: Some(Vec::new()),
        base: AnswerBase::success(),
    }
}

fn ping_seconds(config: &ServerConfig) -> i32 {
    i32::try_from(config.ping_interval.as_secs().max(1)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use agent_protocol::Envelope;

    use super::*;
    use crate::config::HostKind;
    use crate::hosts::HostState;

    fn config() -> ServerConfig {
        let mut config = ServerConfig::new(([127, 0, 0, 1], 0).into());
        config.host_list = vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        config
    }

    fn host() -> Host {
        Host {
            id: 3,
            uuid: "u".to_owned(),
            guid: "g".to_owned(),
            name: "s-900-VM".to_owned(),
            kind: HostKind::SecondaryStorage,
            proxy_vm: None,
            zone_id: 1,
            pod_id: None,
            state: HostState::Connecting,
            attached: true,
            private_address: None,
            public_address: None,
            version: None,
            arch: "x86_64".to_owned(),
            connects: 1,
        }
    }

    #[test]
    fn the_server_list_comes_unless_the_agent_reported_it_with_its_algorithm() {
        let ready = |reported| second_ready(&config(), &host(), reported, "0a0b0c0d");
        for reported in [None, Some("10.0.0.1,10.0.0.2"), Some("10.0.0.2,10.0.0.1@static")] {
            assert!(ready(reported).ms_host_list.is_some(), "{reported:?}");
            assert_eq!(ready(reported).lb_algorithm.as_deref(), Some("static"));
        }
        let known = ready(Some("10.0.0.1,10.0.0.2@static"));
        assert_eq!((known.ms_host_list, known.lb_algorithm), (None, None));
        assert_eq!(known.lb_check_interval, Some(0));
    }

    #[test]
    fn the_refusal_says_nothing_but_why() {
        assert_eq!(
            Envelope::of(&refusal("why")).body.get(),
            r#"{"_details":"why","contextMap":{},"wait":0,"bypassHostMaintenance":false}"#
        );
    }
}
