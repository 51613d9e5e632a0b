//! The shipped unit fits what the program does and needs.

use std::time::Duration;

use quickcloud::config::{STATE_DIRECTORY, SupervisorConfig};
use quickcloud::exit::Outcome;

const UNIT: &str = include_str!("../../packaging/systemd/quickcloud.service");
const EXAMPLE: &str = include_str!("../../config/quickcloud.toml");

/// The values of a key, in order.
fn values(key: &str) -> Vec<&'static str> {
    UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

fn value(key: &str) -> &'static str {
    let all = values(key);
    assert_eq!(all.len(), 1, "{key}: {all:?}");
    all[0]
}

fn seconds(key: &str) -> Duration {
    config_reader::parse_duration(value(key)).expect(key)
}

#[test]
fn every_line_is_a_comment_a_section_or_a_setting() {
    for line in UNIT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let section = line.starts_with('[') && line.ends_with(']');
        let setting = line.split_once('=').is_some_and(|(key, value)| {
            key.bytes().all(|b| b.is_ascii_alphanumeric()) && !value.is_empty()
        });
        assert!(section || setting, "{line:?}");
    }
}

#[test]
fn a_fresh_host_has_a_mount_root_that_the_service_may_write_to() {
    let line = EXAMPLE.lines().find(|line| line.contains("mount_root = ")).unwrap();
    let mount_root = line.split('"').nth(1).unwrap();
    assert_eq!(value("ProtectSystem"), "strict");
    // Made outside of the sandbox, before the sandbox of the main process is set up.
    let made = values("ExecStartPre").iter().any(|command| {
        command.starts_with("+/") && command.contains("mkdir -p") && command.contains(mount_root)
    });
    assert!(made, "nothing makes {mount_root}");
    let writable: Vec<&str> = value("ReadWritePaths").split(' ').collect();
    assert!(writable.contains(&format!("-{mount_root}").as_str()), "{writable:?}");
    // A path that is missing must not keep the unit from starting.
    assert!(writable.iter().all(|path| path.starts_with("-/")), "{writable:?}");
}

#[test]
fn restarts_stops_and_reloads_are_those_of_the_program() {
    let codes: Vec<u8> =
        value("RestartPreventExitStatus").split(' ').map(|code| code.parse().unwrap()).collect();
    // Starting again cannot help there; everything else may heal.
    assert_eq!(codes, [Outcome::Usage.code(), Outcome::Configuration.code()]);
    let grace = SupervisorConfig::default().shutdown_grace;
    assert!(seconds("TimeoutStopSec") > grace + Duration::from_secs(5));
    assert!(seconds("WatchdogSec") >= Duration::from_secs(20));
    let start = value("ExecStart").split_once(" run ").unwrap();
    let reload = value("ExecReload").split_once(" reload ").unwrap();
    assert_eq!(start, reload);
    assert_eq!(format!("/var/lib/{}", value("StateDirectory")), STATE_DIRECTORY);
}

#[test]
fn the_unit_alone_is_no_root_and_may_only_bind_low_ports() {
    assert_eq!(value("User"), "quickcloud");
    for key in ["CapabilityBoundingSet", "AmbientCapabilities"] {
        assert_eq!(value(key), "CAP_NET_BIND_SERVICE");
    }
    // The same user, and a configuration that it can read.
    let users = include_str!("../../packaging/sysusers.d/quickcloud.conf");
    assert!(users.lines().any(|line| line.starts_with("u quickcloud ")));
    let files = include_str!("../../packaging/tmpfiles.d/quickcloud.conf");
    assert!(files.contains("d /etc/quickcloud 2750 root quickcloud "), "{files}");
}
