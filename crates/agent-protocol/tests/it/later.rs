//! Servers later than the recorded one: classes, constants and fields that nobody here knows yet.

use agent_protocol::storage::{
    DataTO, DeleteCommand, DownloadStatus, ImageFormat, StorageCommand, UploadStatusCommand,
};
use agent_protocol::{Envelope, catalogue};
use serde_json::{Map, Value};

use crate::vectors::recorded;

const CLASS: &str = "org.example.FutureTO";
const CONSTANT: &str = "FUTURE_CONSTANT";

const MAPS: [&str; 5] = ["accessDetails", "contextMap", "changes", "options", "options2"];

fn is_constant(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The body as a later server might send it: every object has one more field, every constant is a
/// new one, every named class below the body is a new one.
fn later(value: &Value) -> Value {
    match value {
        Value::String(text) if is_constant(text) => CONSTANT.into(),
        Value::Array(list) => list.iter().map(later).collect(),
        Value::Object(fields) => {
            let mut one = fields.iter();
            if let (Some((key, body)), None) = (one.next(), one.next())
                && key.contains('.')
            {
                return Value::Object(Map::from_iter([(CLASS.to_owned(), later(body))]));
            }
            let fields = fields.iter().map(|(key, value)| match value {
                // Maps: their keys are data.
                Value::Object(_) if MAPS.contains(&key.as_str()) => (key.clone(), value.clone()),
                value => (key.clone(), later(value)),
            });
            let new = ("futureField".to_owned(), serde_json::json!({"a": [1, {"b": null}]}));
            Value::Object(fields.chain([new]).collect())
        }
        other => other.clone(),
    }
}

#[test]
fn bodies_of_a_later_server_are_read_and_keep_what_is_new() {
    let (mut constants, mut classes) = (0, 0);
    for message in recorded() {
        for (class, body) in message.line["json"][0].as_object().unwrap() {
            let text = later(body).to_string();
            let body = serde_json::value::RawValue::from_string(text).unwrap();
            let envelope = Envelope { class: class.clone(), body };
            let Some(typed) = catalogue::rewrite(&envelope) else { continue };
            let typed = typed.unwrap_or_else(|error| panic!("{}: {error}", message.id));
            let kept = |what: &str| {
                let count = |envelope: &Envelope| envelope.body.get().matches(what).count();
                assert_eq!(count(&typed), count(&envelope), "{}: {what}", message.id);
                count(&typed)
            };
            constants += kept(CONSTANT);
            classes += kept(CLASS);
        }
    }
    assert!(constants > 100, "{constants}");
    assert!(classes > 30, "{classes}");
}

fn command(class: &str, json: &str) -> StorageCommand {
    let body = serde_json::value::RawValue::from_string(json.to_owned()).unwrap();
    StorageCommand::decode(Envelope { class: class.to_owned(), body }).unwrap()
}

#[test]
fn backups_and_aborted_uploads_of_a_4_23_server_are_typed() {
    const PACKAGE: &str = "org.apache.cloudstack.storage.command";
    let json = r#"{"data":{"org.apache.cloudstack.storage.to.BackupDeltaTO":{"dataStoreTO":{"com.cloud.agent.api.to.NfsTO":{"_url":"nfs://10.1.1.5/export/secondary","_role":"Image"}},"hypervisorType":"KVM","path":"backups/2/31/0e7f2b1c-3d51-4a0e-8c4b-2b9b3d8f6a77","format":"QCOW2","id":17}},"deleteChain":false,"contextMap":{},"wait":43200,"bypassHostMaintenance":false}"#;
    let delete = command(&format!("{PACKAGE}.DeleteCommand"), json);
    assert_eq!(delete.envelope().body.get(), json);
    let StorageCommand::Delete(delete) = delete else { panic!("{delete:?}") };
    let DeleteCommand { data: Some(data @ DataTO::BackupDelta(_)), .. } = *delete else {
        panic!("{delete:?}")
    };
    assert_eq!(data.path(), Some("backups/2/31/0e7f2b1c-3d51-4a0e-8c4b-2b9b3d8f6a77"));
    assert!(data.store().unwrap().as_nfs().is_some());

    let json = r#"{"entityUuid":"5b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33","entityType":"Template","abort":true,"contextMap":{},"wait":0,"bypassHostMaintenance":false}"#;
    let status = command(&format!("{PACKAGE}.UploadStatusCommand"), json);
    assert_eq!(status.envelope().body.get(), json);
    let StorageCommand::UploadStatus(status) = status else { panic!("{status:?}") };
    assert!(matches!(*status, UploadStatusCommand { abort: Some(true), .. }));
}

#[test]
fn constants_of_a_4_23_server_are_known() {
    assert_eq!(ImageFormat::from("PNG"), ImageFormat::Png);
    assert_eq!(DownloadStatus::from("LIMIT_REACHED"), DownloadStatus::LimitReached);
}
