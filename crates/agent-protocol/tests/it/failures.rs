//! Every command an agent can meet, and the answer that says no to it.

use std::collections::BTreeSet;

use agent_protocol::agent::AgentCommand;
use agent_protocol::console::ConsoleCommand;
use agent_protocol::storage::StorageCommand;
use agent_protocol::{Envelope, catalogue, failed_answer};

use crate::vectors::recorded;

const API: &str = "com.cloud.agent.api";
const STORAGE: &str = "com.cloud.agent.api.storage";
const PROXY: &str = "com.cloud.agent.api.proxy";
const COMMAND: &str = "org.apache.cloudstack.storage.command";
const BROWSER: &str = "org.apache.cloudstack.storage.command.browser";
const CA: &str = "org.apache.cloudstack.ca";
const LB: &str = "org.apache.cloudstack.agent.lb";

const FAILED_DOWNLOAD: &str = r#""downloadPct":0,"errorString":"no room","downloadStatus":"DOWNLOAD_ERROR","installPath":"template/tmpl/2/320","templateSize":0,"templatePhySicalSize":0,"#;

/// Package and class of a command, its fields, package and class of the answer, the answer's fields
/// before `result`.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

const TABLE: &[Row] = &[
    (API, "ReadyCommand", "{}", API, "ReadyAnswer", ""),
    (API, "ShutdownCommand", "{}", API, "Answer", ""),
    (API, "MaintainCommand", "{}", API, "MaintainAnswer", r#""willMigrate":false,"#),
    (API, "CheckHealthCommand", "{}", API, "CheckHealthAnswer", ""),
    (API, "AgentControlCommand", "{}", API, "AgentControlAnswer", ""),
    (CA, "SetupKeyStoreCommand", "{}", CA, "SetupKeystoreAnswer", ""),
    (CA, "SetupCertificateCommand", "{}", CA, "SetupCertificateAnswer", ""),
    (CA, "PostCertificateRenewalCommand", "{}", API, "Answer", ""),
    (LB, "SetupMSListCommand", "{}", LB, "SetupMSListAnswer", ""),
    (API, "MigrateAgentConnectionCommand", "{}", API, "MigrateAgentConnectionAnswer", ""),
    (
        API,
        "RollingMaintenanceCommand",
        "{}",
        API,
        "RollingMaintenanceAnswer",
        r#""finished":false,"avoidMaintenance":false,"maintenaceScriptDefined":false,"#,
    ),
    (API, "SetHostParamsCommand", "{}", API, "Answer", ""),
    (PROXY, "StartConsoleProxyAgentHttpHandlerCommand", "{}", API, "Answer", ""),
    (PROXY, "AllowConsoleAccessCommand", "{}", API, "Answer", ""),
    (
        PROXY,
        "CheckConsoleProxyLoadCommand",
        r#"{"proxyVmId":2,"proxyVmName":"v-2-VM"}"#,
        PROXY,
        "ConsoleProxyLoadAnswer",
        r#""proxyVmId":2,"proxyVmName":"v-2-VM","#,
    ),
    (PROXY, "WatchConsoleProxyLoadCommand", "{}", API, "Answer", ""),
    (API, "SecStorageSetupCommand", "{}", API, "SecStorageSetupAnswer", ""),
    (API, "SecStorageVMSetupCommand", "{}", API, "Answer", ""),
    (API, "SecStorageFirewallCfgCommand", "{}", API, "Answer", ""),
    (
        COMMAND,
        "DownloadCommand",
        r#"{"resourceType":"SNAPSHOT","installPath":"/template/tmpl/2/320/"}"#,
        STORAGE,
        "DownloadAnswer",
        FAILED_DOWNLOAD,
    ),
    (
        COMMAND,
        "DownloadProgressCommand",
        r#"{"jobId":"j-1","request":"GET_STATUS","installPath":"template/tmpl/2/320"}"#,
        STORAGE,
        "DownloadAnswer",
        r#""jobId":"j-1",@"#,
    ),
    // Without a map: one would say what lies on the store.
    (STORAGE, "ListTemplateCommand", "{}", STORAGE, "ListTemplateAnswer", ""),
    (STORAGE, "ListVolumeCommand", "{}", STORAGE, "ListVolumeAnswer", ""),
    (
        API,
        "GetStorageStatsCommand",
        "{}",
        API,
        "GetStorageStatsAnswer",
        r#""usedBytes":0,"capacityBytes":0,"#,
    ),
    (API, "ComputeChecksumCommand", "{}", API, "Answer", ""),
    (
        BROWSER,
        "ListDataStoreObjectsCommand",
        "{}",
        BROWSER,
        "ListDataStoreObjectsAnswer",
        r#""pathExists":false,"count":0,"#,
    ),
    (COMMAND, "DeleteCommand", "{}", API, "Answer", ""),
    (
        COMMAND,
        "DeleteCommand",
        r#"{"data":{"org.apache.cloudstack.storage.to.SnapshotObjectTO":{"id":44}}}"#,
        API,
        "Answer",
        "",
    ),
    (
        COMMAND,
        "DeleteCommand",
        r#"{"data":{"org.apache.cloudstack.storage.to.BackupDeltaTO":{"id":17}},"deleteChain":false}"#,
        COMMAND,
        "BackupDeleteAnswer",
        r#""backupId":17,"#,
    ),
    (COMMAND, "MoveVolumeCommand", "{}", API, "Answer", ""),
    (API, "DeleteSnapshotsDirCommand", "{}", API, "Answer", ""),
    (COMMAND, "CopyCommand", "{}", COMMAND, "CopyCmdAnswer", ""),
    (
        COMMAND,
        "QuerySnapshotZoneCopyCommand",
        "{}",
        COMMAND,
        "QuerySnapshotZoneCopyAnswer",
        r#""files":[],"#,
    ),
    (
        API,
        "HandleConfigDriveIsoCommand",
        "{}",
        API,
        "HandleConfigDriveIsoAnswer",
        r#""location":"SECONDARY","#,
    ),
    (
        STORAGE,
        "GetDatadisksCommand",
        "{}",
        STORAGE,
        "GetDatadisksAnswer",
        r#""dataDiskDetails":[],"#,
    ),
    (STORAGE, "CreateDatadiskTemplateCommand", "{}", STORAGE, "CreateDatadiskTemplateAnswer", ""),
    (STORAGE, "CreateEntityDownloadURLCommand", "{}", STORAGE, "CreateEntityDownloadURLAnswer", ""),
    (STORAGE, "DeleteEntityDownloadURLCommand", "{}", API, "Answer", ""),
    (
        COMMAND,
        "UploadStatusCommand",
        r#"{"entityType":"Template","abort":true}"#,
        COMMAND,
        "UploadStatusAnswer",
        r#""status":"ERROR","virtualSize":0,"physicalSize":0,"downloadPercent":0,"#,
    ),
    (
        STORAGE,
        "UploadCommand",
        "{}",
        STORAGE,
        "UploadAnswer",
        r#""uploadPct":0,"errorString":"no room","uploadStatus":"UPLOAD_ERROR","#,
    ),
    (
        STORAGE,
        "UploadProgressCommand",
        "{}",
        STORAGE,
        "UploadAnswer",
        r#""uploadPct":0,"errorString":"no room","uploadStatus":"UPLOAD_ERROR","#,
    ),
];

fn envelope(class: String, json: &str) -> Envelope {
    Envelope { class, body: serde_json::value::RawValue::from_string(json.to_owned()).unwrap() }
}

fn answer(class: &str, json: &str) -> Envelope {
    failed_answer(&envelope(class.to_owned(), json), "no room")
}

/// The same through the typed sets, as a role that has decoded the command already does it.
fn typed(command: Envelope) -> Envelope {
    let sets = [
        AgentCommand::open(&command).unwrap().map(|command| command.failed_answer("no room")),
        StorageCommand::open(&command).unwrap().map(|command| command.failed_answer("no room")),
        ConsoleCommand::open(&command).unwrap().map(|command| command.failed_answer("no room")),
    ];
    sets.into_iter().flatten().next().unwrap()
}

#[test]
fn every_command_gets_the_failed_answer_of_its_class() {
    for (package, name, fields, answer_package, answer_name, own) in TABLE {
        let command = envelope(format!("{package}.{name}"), fields);
        let refused = failed_answer(&command, "no room");
        let own = own.replace('@', FAILED_DOWNLOAD);
        assert_eq!(refused.class, format!("{answer_package}.{answer_name}"), "{name}");
        assert_eq!(
            refused.body.get(),
            format!(
                r#"{{{own}"result":false,"details":"no room","contextMap":{{}},"wait":0,"bypassHostMaintenance":false}}"#
            ),
            "{name}"
        );
        assert_eq!(typed(command), refused, "{name}");
        assert_eq!(catalogue::rewrite(&refused).unwrap().unwrap(), refused, "{name}");
    }
}

#[test]
fn the_table_holds_every_command_an_agent_can_meet() {
    let table: BTreeSet<String> = TABLE.iter().map(|row| format!("{}.{}", row.0, row.1)).collect();
    let sets = [AgentCommand::CLASSES, StorageCommand::CLASSES, ConsoleCommand::CLASSES].concat();
    assert_eq!(table, sets.iter().map(|class| (*class).to_owned()).collect());
    for message in recorded().iter().filter(|message| message.line["dir"] == "m2a") {
        for class in message.line["classes"].as_array().unwrap() {
            let class = class.as_str().unwrap();
            assert!(!class.ends_with("Command") || table.contains(class), "{class}");
        }
    }
}

#[test]
fn failures_have_the_shape_of_recorded_ones() {
    let mut seen = BTreeSet::new();
    for message in recorded().iter().filter(|message| message.line["dir"] == "a2m") {
        for (class, recorded) in message.line["json"][0].as_object().unwrap() {
            let failed =
                recorded["result"] == false || recorded["downloadStatus"] == "DOWNLOAD_ERROR";
            let row = TABLE.iter().find(|row| format!("{}.{}", row.3, row.4) == *class);
            let (true, Some(row)) = (failed, row) else { continue };
            let ours = answer(&format!("{}.{}", row.0, row.1), row.2);
            let ours: serde_json::Value = serde_json::from_str(ours.body.get()).unwrap();
            // The job's fields are those of a download that had begun.
            let job = ["jobId", "downloadPath", "checkSum", "ovfInformationTO"];
            let theirs: Vec<&String> = recorded
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| !job.contains(&key.as_str()))
                .collect();
            let ours: Vec<&String> = ours.as_object().unwrap().keys().collect();
            assert_eq!(ours, theirs, "{}", message.id);
            seen.insert(row.4);
        }
    }
    let all = ["Answer", "CopyCmdAnswer", "CreateEntityDownloadURLAnswer", "DownloadAnswer"];
    assert!(all.iter().all(|class| seen.contains(class)), "{seen:?}");
    assert!(seen.contains("UploadStatusAnswer"), "{seen:?}");
}

#[test]
fn an_unreadable_command_is_answered_with_what_can_be_read_of_it() {
    let progress = format!("{COMMAND}.DownloadProgressCommand");
    let refused = answer(
        &progress,
        r#"{"id":"no number","hvm":{},"_store":{"com.cloud.agent.api.to.NfsTO":{"_url":[1]}},"jobId":"j-1"}"#,
    );
    assert!(refused.class.ends_with("DownloadAnswer"));
    assert!(refused.body.get().starts_with(r#"{"jobId":"j-1","#), "{}", refused.body.get());
    let delete = format!("{COMMAND}.DeleteCommand");
    let refused = answer(
        &delete,
        r#"{"data":{"org.apache.cloudstack.storage.to.BackupDeltaTO":{"id":17,"path":{}}}}"#,
    );
    assert!(refused.class.ends_with("BackupDeleteAnswer"));
    assert!(refused.body.get().starts_with(r#"{"backupId":17,"#), "{}", refused.body.get());
    let nics = format!("{API}.SecStorageFirewallCfgCommand");
    let lists = r#"{"portConfigs":[{"add":true},{"add":[]}],"wait":{}}"#;
    assert!(answer(&nics, lists).class.ends_with(".Answer"));
    for body in ["[]", "null", "7", "\"text\""] {
        assert!(answer(&progress, body).class.ends_with("DownloadAnswer"), "{body}");
    }
}

#[test]
fn only_a_class_that_nobody_knows_is_called_unsupported() {
    let refused = answer("com.cloud.agent.api.NoSuchCommand", "{}");
    assert!(refused.class.ends_with("UnsupportedAnswer"));
    assert!(refused.answer_base().unwrap().details.unwrap().contains("NoSuchCommand"));
}
