//! The recorded conversation, command by command: same classes, same fields, same values, but for
//! the differences named here.

use agent_protocol::Envelope;
use serde_json::{Map, Value};

use crate::bench::Bench;

/// Where we differ on purpose: answer's class, field, why.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    ("DownloadAnswer", "jobId", "ours"),
    ("DownloadAnswer", "downloadPath", "ours; the same form is checked"),
    (
        "DownloadAnswer",
        "installPath",
        "the file's name is made from the time; the same form is checked",
    ),
    (
        "DownloadAnswer",
        "templatePhySicalSize",
        "the original's first answer repeats the virtual size; ours has the right one at once",
    ),
    ("GetStorageStatsAnswer", "usedBytes", "another disk"),
    ("GetStorageStatsAnswer", "capacityBytes", "another disk"),
];

/// Texts of the original that ours replaces by more helpful ones.
const TEXTS: &[(&str, &str)] = &[(
    "Failed post download script: The downloaded file is not a valid QCOW2. Ask the administrator to check the logs for more details.",
    "Failed post download script: The downloaded file is not a valid QCOW2: it has a backing file: make one image of both (qemu-img convert -O qcow2 IMAGE WHOLE)",
)];

fn conversation() -> Vec<Value> {
    let text = include_str!("../../../../tests/vectors/conversations/ss-images.jsonl");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn body(message: &Value) -> (String, Map<String, Value>) {
    let (class, body) = message["json"][0].as_object().unwrap().iter().next().unwrap();
    (class.clone(), body.as_object().unwrap().clone())
}

/// The text with what depends on the day taken out.
fn undated(value: &Value) -> Value {
    let Some(text) = value.as_str() else { return value.clone() };
    let text = match text.split_once(" successfully at ") {
        Some((head, date)) => {
            let shape: String =
                date.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
            let shape = shape.replace("99", "9").replace("PM", "AM");
            format!("{head} successfully at {shape}")
        }
        None => text.to_owned(),
    };
    let ours = TEXTS.iter().find(|(theirs, _)| *theirs == text);
    Value::String(ours.map_or(text, |(_, ours)| (*ours).to_owned()))
}

/// `template/tmpl/2/320/<uuid>.qcow2` → `template/tmpl/2/320/<uuid>.qcow2` with every hex digit 0.
fn shape(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
    let masked: String =
        name.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }).collect();
    format!("{directory}/{masked}")
}

#[tokio::test]
async fn every_recorded_command_gets_the_recorded_answer() {
    let bench: Bench = Bench::with("answer_wait = \"10s\"").await;
    let bench = &bench;
    let played = play(&bench.images.url("golden"), 0, |command, _| bench.raw(command)).await;
    assert_eq!(played, 33, "the whole conversation was played");
}

/// Asks every recorded command from line `from` on and compares the answers; returns how many.
/// Those that the link answers itself are left out.
pub async fn play<F: Future<Output = Envelope>>(
    images: &str,
    from: usize,
    ask: impl Fn(Envelope, bool) -> F,
) -> usize {
    let messages = conversation();
    let mut bound = vec![("http://10.77.0.2:8000/golden".to_owned(), images.to_owned())];
    let mut played = 0;
    for (at, message) in messages.iter().enumerate().skip(from) {
        let flags = message["flag_names"].to_string();
        let (class, sent) = body(message);
        if message["dir"] != "m2a" || !flags.contains("request") || class.ends_with(".ReadyCommand")
        {
            continue;
        }
        let recorded = messages.iter().find(|other| other["pair"] == at + 1).unwrap();
        let mut text = serde_json::to_string(&sent).unwrap();
        for (from, to) in &bound {
            text = text.replace(from, to);
        }
        let raw = serde_json::value::RawValue::from_string(text).unwrap();
        let command = Envelope { class, body: raw };
        let answer = ask(command, flags.contains("in_sequence")).await;
        let (expected_class, expected) = body(recorded);
        assert_eq!(answer.class, expected_class, "line {}", at + 1);
        let got: Map<String, Value> = serde_json::from_str(answer.body.get()).unwrap();
        compare(at + 1, &expected_class, &expected, &got, &mut bound);
        played += 1;
    }
    played
}

fn compare(
    line: usize,
    class: &str,
    expected: &Map<String, Value>,
    got: &Map<String, Value>,
    bound: &mut Vec<(String, String)>,
) {
    let class = class.rsplit('.').next().unwrap();
    let keys = |map: &Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(got), keys(expected), "line {line}: fields of {class} and their order");
    for (key, theirs) in expected {
        let ours = &got[key];
        if DIFFERENCES.iter().any(|(c, field, _)| *c == class && field == key) {
            assert_eq!(ours.is_string(), theirs.is_string(), "line {line}: type of {key}");
            if let (Some(theirs), Some(ours)) = (theirs.as_str(), ours.as_str()) {
                if key == "installPath" {
                    assert_eq!(shape(ours), shape(theirs), "line {line}");
                }
                if key == "downloadPath" {
                    let directory = |path: &str| {
                        path.split("/template/")
                            .nth(1)
                            .unwrap()
                            .rsplit_once('/')
                            .unwrap()
                            .0
                            .to_owned()
                    };
                    assert_eq!(directory(ours), directory(theirs), "line {line}");
                    assert!(
                        ours.contains("/dnld") && ours.ends_with("tmp_"),
                        "line {line}: {ours}"
                    );
                }
                if key == "jobId" || key == "installPath" {
                    bound.push((theirs.to_owned(), ours.to_owned()));
                }
            }
        } else {
            assert_eq!(undated(ours), undated(theirs), "line {line}: {class}.{key}");
        }
    }
    // The recorded answer to PURGE has the right size, so ours must equal it there.
    if class == "DownloadAnswer" && expected["templatePhySicalSize"] != expected["templateSize"] {
        assert_eq!(got["templatePhySicalSize"], expected["templatePhySicalSize"], "line {line}");
    }
}
