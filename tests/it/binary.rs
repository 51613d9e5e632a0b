//! Through the real binary: exit codes, `check`, `status`, `wire decode`, completions.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use agent_protocol::{Envelope, Flags, Frame};

/// Runs the binary to its end.
fn quickcloud(arguments: &[&str]) -> Output {
    quickcloud_reading(arguments, b"")
}

fn quickcloud_reading(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_quickcloud"))
        .args(arguments)
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit code, and all of `parts` on standard error.
fn check(arguments: &[&str], code: i32, parts: &[&str]) {
    let output = quickcloud(arguments);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{arguments:?}: {part:?} is missing in {stderr}");
    }
}

#[test]
fn a_wrong_command_line_exits_64() {
    check(&[], 64, &["Usage: quickcloud"]);
    check(&["fly"], 64, &["unrecognized subcommand 'fly'"]);
    check(&["run", "--rolls", "ss"], 64, &["'--roles'"]);
    check(&["run", "--roles", "ss,tea"], 64, &["there is no role \"tea\"; known roles: ss ("]);
    check(&["run", "--roles", ""], 64, &["a role's name is empty"]);
    check(&["run", "--roles", "ss", "--set", "novalue"], 64, &["has no \"=\""]);
    check(&["run", "--roles", "ss", "--log-format", "xml"], 64, &["invalid value 'xml'"]);
}

#[test]
fn a_wrong_configuration_exits_78_with_everything_at_once() {
    check(&["run", "--config", "/does/not/exist"], 78, &["cannot read /does/not/exist: No such"]);
    let set = ["--set", "supervisor.shutdown_grace=soon", "--set", "nonsense=1"];
    for command in ["run", "check"] {
        let arguments = [&[command][..], &set[..]].concat();
        check(
            &arguments,
            78,
            &[
                "error: supervisor.shutdown_grace (from --set): \"soon\" is not a duration\n       give",
                "error: nonsense (from --set): is not a known key",
                "error: supervisor.roles: no role is chosen",
            ],
        );
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"[supervisor]\nroles = [\n").unwrap();
    let path = file.path().to_str().unwrap();
    check(&["run", "--config", path], 78, &[&format!("{path}:2:")]);
}

#[test]
fn answers_exit_0() {
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"], &["version"]] {
        let output = quickcloud(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains("quickcloud"), "{arguments:?}");
    }
    let version: serde_json::Value =
        serde_json::from_slice(&quickcloud(&["version", "--json"]).stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn completions_know_every_subcommand() {
    for shell in ["bash", "zsh", "fish"] {
        let output = quickcloud(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = text(&output.stdout);
        for subcommand in ["run", "check", "status", "dev", "wire", "completions", "version"] {
            assert!(script.contains(subcommand), "{shell}: {subcommand}");
        }
    }
}

#[test]
fn check_as_json_tells_violations_with_place_and_source() {
    let output = quickcloud(&["check", "--json", "--set", "supervisor.progress_deadline=0s"]);
    assert_eq!(output.status.code(), Some(78));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["ok"], false);
    let first = &document["violations"][0];
    assert_eq!(first["place"], "supervisor.progress_deadline");
    assert_eq!(first["source"], "--set");
    assert_eq!(document["effective"]["supervisor"]["shutdown_grace"], "30s");
}

#[test]
fn status_says_plainly_when_nothing_listens() {
    check(&["status", "--admin", "127.0.0.1:1"], 1, &["nothing listens on 127.0.0.1:1;"]);
    let state = tempfile::tempdir().unwrap();
    let directory = format!("supervisor.state_directory={}", state.path().display());
    let set = ["--set", &directory, "--set", "supervisor.admin_address=127.0.0.1:1"];
    check(&[&["status"][..], &set[..]].concat(), 1, &["nothing listens on 127.0.0.1:1;"]);
    std::fs::write(state.path().join("admin.addr"), "127.0.0.1:2\n").unwrap();
    check(&[&["status"][..], &set[..]].concat(), 1, &["nothing listens on 127.0.0.1:2;"]);
}

fn frames() -> Vec<u8> {
    let envelope = Envelope {
        class: "com.example.Tea".to_owned(),
        body: serde_json::value::RawValue::from_string("{\"cups\":2}".to_owned()).unwrap(),
    };
    let frame = |sequence: i64| {
        Frame::request(Flags::IN_SEQUENCE, sequence, 7, std::slice::from_ref(&envelope)).encode()
    };
    [frame(1), frame(2)].concat()
}

#[test]
fn wire_decode_prints_one_frame_after_the_other() {
    let bytes = frames();
    let output = quickcloud_reading(&["wire", "decode"], &bytes);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("frame 1 at byte 0") && shown.contains("frame 2 at byte"), "{shown}");
    assert!(shown.contains("\"cups\": 2") && shown.contains("in_sequence"), "{shown}");

    let mut file = tempfile::NamedTempFile::new().unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    file.write_all(hex.as_bytes()).unwrap();
    let output = quickcloud(&["wire", "decode", "--json", file.path().to_str().unwrap()]);
    let objects: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len(), 2);
    assert_eq!(objects[1]["sequence"], "2");
    assert_eq!(objects[1]["body"][0]["com.example.Tea"]["cups"], 2);
}

#[test]
fn wire_decode_of_malformed_input_exits_1_with_frame_and_offset() {
    let mut bytes = frames();
    let second = bytes.len() / 2;
    bytes.truncate(bytes.len() - 1);
    let output = quickcloud_reading(&["wire", "decode"], &bytes);
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(stderr.contains(&format!("frame 2 at byte {second} is malformed")), "{stderr}");
    // What could be read was printed.
    assert!(text(&output.stdout).contains("frame 1 at byte 0"));
    check(&["wire", "decode", "/does/not/exist"], 1, &["cannot read /does/not/exist: No such"]);
}

#[test]
fn wire_decode_takes_as_large_a_message_as_a_link_does() {
    let text = format!("\"{}\"", "a".repeat(80 << 20));
    let body = serde_json::value::RawValue::from_string(text).unwrap();
    let envelope = Envelope { class: "com.example.Tea".to_owned(), body };
    let frame = Frame::request(Flags::IN_SEQUENCE, 1, 7, &[envelope]);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&frame.encode()).unwrap();
    let output = quickcloud(&["wire", "decode", file.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", self::text(&output.stderr));
    assert!(output.stdout.starts_with(b"frame 1 at byte 0"));
}

#[test]
fn check_warns_of_a_process_that_stops_before_a_role_has_answered() {
    let state = tempfile::tempdir().unwrap();
    let set = [
        format!("supervisor.state_directory={}", state.path().display()),
        "supervisor.shutdown_grace=2s".to_owned(),
        "management.servers=[\"127.0.0.1:8250\"]".to_owned(),
        "management.zone=1".to_owned(),
        "management.pod=1".to_owned(),
        "roles.secondary_storage.name=s-1-VM".to_owned(),
        "roles.secondary_storage.private_address=127.0.0.1".to_owned(),
    ];
    let set = set.iter().flat_map(|one| ["--set", one]);
    let arguments: Vec<&str> =
        ["check", "--json", "--roles", "ss"].into_iter().chain(set).collect();
    let document: serde_json::Value =
        serde_json::from_slice(&quickcloud(&arguments).stdout).unwrap();
    assert_eq!(document["violations"], serde_json::json!([]));
    let warnings = document["warnings"].to_string();
    assert!(warnings.contains("may need 14s to answer what it owes"), "{warnings}");
}
