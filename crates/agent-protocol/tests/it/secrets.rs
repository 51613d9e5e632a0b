//! No secret in what `{:?}` and errors print.

use agent_protocol::{Envelope, Frame, catalogue};
use serde_json::Value;

use crate::vectors::recorded;

const SECRET: &str = "planted-Zq7";
const SECRET_BYTES: &str = "[112,108,97,110,116]";

/// Bodies with a secret in every field that holds one on a real wire.
const BODIES: &[(&str, &str)] = &[
    ("org.apache.cloudstack.ca.SetupKeyStoreCommand", r#"{"keystorePassword":"@"}"#),
    ("org.apache.cloudstack.ca.SetupCertificateCommand", r#"{"privateKey":"@"}"#),
    ("com.cloud.agent.api.PingCommand", r#"{"commandInfos":[{"command":"@","answer":"@"}]}"#),
    (
        "com.cloud.agent.api.PingAnswer",
        r#"{"_command":{"commandInfos":[{"command":"@","answer":"@"}]}}"#,
    ),
    ("com.cloud.agent.api.ReadyCommand", r#"{"externalDetails":{"host":{"password":"@"}}}"#),
    ("com.cloud.agent.api.StartupStorageCommand", r#"{"poolInfo":{"details":{"password":"@"}}}"#),
    (
        "com.cloud.agent.api.proxy.StartConsoleProxyAgentHttpHandlerCommand",
        r#"{"keystoreBits":#,"keystorePassword":"@","encryptorPassword":"@"}"#,
    ),
    (
        "com.cloud.agent.api.ConsoleAccessAuthenticationCommand",
        r#"{"_host":"10.0.0.1","_sid":"@","_ticket":"@"}"#,
    ),
    (
        "com.cloud.agent.api.ConsoleAccessAuthenticationAnswer",
        r#"{"_tunnelUrl":"https://u:@@h/console?session=@","_tunnelSession":"@"}"#,
    ),
    (
        "com.cloud.agent.api.SecStorageSetupCommand",
        r#"{"store":{"com.cloud.agent.api.to.NfsTO":{"_url":"cifs://h/s?user=u&password=@"}},
            "secUrl":"cifs://h/s?user=u&password=@","certs":{"privKey":"@"},"postUploadKey":"@"}"#,
    ),
    (
        "com.cloud.agent.api.storage.ListTemplateCommand",
        r#"{"store":{"com.cloud.agent.api.to.S3TO":{"accessKey":"@","secretKey":"@"}}}"#,
    ),
    (
        "com.cloud.agent.api.storage.ListVolumeCommand",
        r#"{"store":{"com.cloud.agent.api.to.SwiftTO":{"key":"@","url":"http://u:@@h/auth"}}}"#,
    ),
    (
        "com.cloud.agent.api.GetStorageStatsCommand",
        r#"{"store":{"org.example.VaultTO":{"token":"@"}}}"#,
    ),
    ("com.cloud.agent.api.SecStorageVMSetupCommand", r#"{"copyPassword":"@"}"#),
    (
        "org.apache.cloudstack.storage.command.DownloadCommand",
        r#"{"url":"https://u:@@h/a.iso?token=@","auth":{"password":"@"},
            "_proxy":{"_host":"p","_password":"@"},"secUrl":"cifs://u:@@h/s"}"#,
    ),
    (
        "org.apache.cloudstack.storage.command.DownloadProgressCommand",
        r#"{"url":"https://u:@@h/a.iso","auth":{"password":"@"},"_proxy":{"_password":"@"}}"#,
    ),
    (
        "org.apache.cloudstack.storage.command.DeleteCommand",
        r#"{"data":{"org.apache.cloudstack.storage.to.VolumeObjectTO":{"passphrase":#,
            "checkpointImageStoreUrls":["cifs://h/s?password=@"],
            "dataStore":{"org.apache.cloudstack.storage.to.PrimaryDataStoreTO":
            {"url":"smb://u:@@h/s","details":{"password":"@"}}}}}}"#,
    ),
    (
        "org.apache.cloudstack.storage.command.CopyCommand",
        r#"{"srcTO":{"org.apache.cloudstack.storage.to.TemplateObjectTO":{"origUrl":"http://u:@@h/"}},
            "destTO":{"org.example.NewTO":{"key":"@"}},"options":{"k":"@"},"options2":{"k":"@"}}"#,
    ),
    ("com.cloud.agent.api.HandleConfigDriveIsoCommand", r#"{"isoData":"@"}"#),
    (
        "org.apache.cloudstack.storage.command.MoveVolumeCommand",
        r#"{"datastoreUri":"cifs://h/s?password=@"}"#,
    ),
    (
        "com.cloud.agent.api.storage.DownloadAnswer",
        r#"{"ovfInformationTO":{"properties":[{"key":"pw","password":true,"value":"@"}]}}"#,
    ),
    (
        "com.cloud.agent.api.storage.CreateEntityDownloadURLCommand",
        r#"{"url":"https://u:@@h/a","secUrl":"cifs://h/s?password=@"}"#,
    ),
    (
        "com.cloud.agent.api.storage.UploadCommand",
        r#"{"url":"ftp://u:@@h/","auth":{"password":"@"}}"#,
    ),
];

fn planted(class: &str, template: &str) -> Envelope {
    let json = template.replace("@@", "\u{1}").replace('@', SECRET);
    let json = json.replace('\u{1}', &format!("{SECRET}@")).replace('#', SECRET_BYTES);
    let body = serde_json::value::RawValue::from_string(json).unwrap();
    Envelope { class: class.to_owned(), body }
}

fn assert_clean(what: &str, text: &str) {
    assert!(!text.contains(SECRET), "{what}: {text}");
    assert!(!text.contains("112, 108, 97"), "{what}: {text}");
}

#[test]
fn debug_of_typed_bodies_shows_no_planted_secret() {
    for (class, template) in BODIES {
        let envelope = planted(class, template);
        let text = catalogue::describe(&envelope).unwrap().unwrap();
        assert_clean(class, &text);
        // The secret did arrive: writing the body again brings it back.
        let again = catalogue::rewrite(&envelope).unwrap().unwrap();
        let json = again.body.get();
        assert!(json.contains(SECRET) || json.contains(SECRET_BYTES), "{class}: {json}");
    }
}

#[test]
fn debug_of_envelopes_and_frames_shows_no_body() {
    for (class, template) in BODIES {
        let envelope = planted(class, template);
        assert_clean(class, &format!("{envelope:?}"));
        let frame = Frame::request(agent_protocol::Flags::REQUEST, 1, 1, &[envelope]);
        assert_clean(class, &format!("{frame:?}"));
    }
}

#[test]
fn errors_name_the_field_but_not_its_value() {
    // Every text becomes a list or an object of texts: nothing fits, everything holds the secret.
    for (class, template) in BODIES {
        for wrapper in ["[\"@\"]", "{\"@\":\"@\"}", "[[\"@\"]]"] {
            let json = template.replace("\"@\"", wrapper).replace('#', "\"@\"");
            let envelope = planted(class, &json);
            if let Err(error) = catalogue::rewrite(&envelope).unwrap() {
                assert_clean(class, &format!("{error} {error:?}"));
            }
        }
    }
}

#[test]
fn errors_of_message_bodies_do_not_repeat_them() {
    for body in [r#"["@"]"#, r#""@""#, r#"{"@":"@"}"#, r#"[{"a":"@""#, r#"[["@"]]"#] {
        let body = body.replace('@', SECRET);
        let error = agent_protocol::parse_envelopes(body.as_bytes()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert_clean(&body, &format!("{error} {error:?} {source}"));
    }
}

/// `value` with user, password and query planted into every URL; the texts that answers show to an
/// operator are written by agents, which keep URLs out of them.
fn with_credentials(value: &Value, urls: &mut usize) -> Value {
    match value {
        Value::String(text) => match text.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(' ') => {
                *urls += 1;
                format!("{scheme}://{SECRET}:{SECRET}@{rest}?{SECRET}={SECRET}").into()
            }
            _ => text.clone().into(),
        },
        Value::Array(list) => list.iter().map(|value| with_credentials(value, urls)).collect(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "details" | "_details" | "errorString"))
            .map(|(key, value)| (key.clone(), with_credentials(value, urls)))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn debug_shows_neither_user_nor_password_nor_query_of_any_recorded_url() {
    let mut urls = 0;
    for message in recorded() {
        for (class, body) in message.line["json"][0].as_object().unwrap() {
            let json = with_credentials(body, &mut urls).to_string();
            let body = serde_json::value::RawValue::from_string(json).unwrap();
            let envelope = Envelope { class: class.clone(), body };
            if let Some(described) = catalogue::describe(&envelope) {
                assert_clean(&message.id, &described.unwrap());
            }
        }
    }
    assert!(urls > 50, "{urls}");
}

#[test]
fn debug_shows_no_url_of_an_object_store_or_a_list_of_urls() {
    let bodies = [
        (
            "com.cloud.agent.api.storage.ListTemplateCommand",
            r#"{"store":{"com.cloud.agent.api.to.S3TO":{"endPoint":"https://@:@@s3.example/?k=@"}}}"#,
        ),
        (
            "org.apache.cloudstack.storage.command.DownloadCommand",
            r#"{"url":"http://h/a?t=@\nhttp://@:@@h/b\nhttp://h/c?t=@"}"#,
        ),
    ];
    for (class, template) in bodies {
        let text = catalogue::describe(&planted(class, template)).unwrap().unwrap();
        assert_clean(class, &text);
    }
}
