//! The management servers, the times of the link, the certificate.

use bedrock::Secret;
use bedrock::net::HostPort;
use toml::Value;

use super::super::given::{Given, Values};
use super::Draft;

const PORT: u16 = 8250;

pub(super) fn map(values: &mut Values, draft: &mut Draft<'_>) {
    servers(values, draft);
    port(values, draft);
    for key in ["zone", "pod"] {
        let Some(given) = values.take(key) else { continue };
        if is_placeholder(&given.value) {
            draft.ignored(key, &given, "a placeholder of a package: the default holds");
        } else {
            draft.keep(key, &given, &format!("management.{key}"), given.value.as_str());
        }
    }
    times(values, draft);
    certificate(values, draft);
}

/// `@HOST@`, as packages leave it where nobody has configured anything.
fn is_placeholder(value: &str) -> bool {
    value.len() > 1 && value.starts_with('@') && value.ends_with('@')
}

fn servers(values: &mut Values, draft: &mut Draft<'_>) {
    let Some(given) = values.take("host") else { return };
    if is_placeholder(&given.value) {
        draft.doubtful("host", &given.place, "a placeholder of a package: give the server");
        return;
    }
    let (list, algorithm) = match given.value.split_once('@') {
        Some((list, algorithm)) => (list, Some(algorithm)),
        None => (given.value.as_str(), None),
    };
    let mut servers: Vec<String> = Vec::new();
    for server in list.split(',').map(str::trim).filter(|server| !server.is_empty()) {
        match server.parse::<HostPort>() {
            Ok(_) if servers.iter().any(|there| there == server) => {}
            Ok(_) => servers.push(server.to_owned()),
            Err(problem) => {
                draft.doubtful("host", &given.place, format!("{server:?} is left out: {problem}"));
            }
        }
    }
    if servers.is_empty() {
        draft.doubtful("host", &given.place, "names no management server");
        return;
    }
    let servers: Vec<Value> = servers.into_iter().map(Value::from).collect();
    let to = "management.servers";
    match algorithm {
        None => draft.keep("host", &given, to, servers),
        Some(_) => {
            let why = "the server has applied the algorithm behind the @ to the list already, and \
                       sends a new one when it changes";
            draft.map("host", &given.place, to, servers, why);
        }
    }
}

fn port(values: &mut Values, draft: &mut Draft<'_>) {
    let Some(given) = values.take("port") else { return };
    match given.value.parse::<u16>() {
        Ok(port) if port > 0 => draft.keep("port", &given, "management.port", i64::from(port)),
        _ => draft.ignored("port", &given, format!("not a port: {PORT} holds, as for the agent")),
    }
}

/// Keys that are a number of seconds, ours, and the agent's default.
const TIMES: [(&str, &str, u64); 3] = [
    ("backoff.seconds", "management.backoff", 5),
    ("ssl.handshake.timeout", "management.handshake_timeout", 30),
    ("host.lb.check.interval", "management.preferred_check_interval", 0),
];

fn times(values: &mut Values, draft: &mut Draft<'_>) {
    for (key, to, default) in TIMES {
        let Some(given) = values.take(key) else { continue };
        match given.value.parse::<u64>() {
            Ok(seconds) if seconds == default => {
                draft.ignored(key, &given, "is the default here, too");
            }
            // A day is more than any of them can mean.
            Ok(seconds @ 1..=86_400) => {
                draft.map(key, &given.place, to, format!("{seconds}s"), "a time with its unit");
            }
            _ => draft.ignored(key, &given, "not a number of seconds: the default holds"),
        }
    }
}

/// The agent keeps its key store, and what it was made of, beside its properties.
fn certificate(values: &mut Values, draft: &mut Draft<'_>) {
    let passphrase = values.take("keystore.passphrase");
    let directory = values.directory.clone();
    let file = |name: &str| {
        let path = directory.join(name);
        let seen = std::fs::metadata(&path).ok()?;
        let shown = path.display().to_string();
        (seen.is_file() && seen.len() > 0).then(|| Given { value: shown.clone(), place: shown })
    };
    let mut keep = |name: &str, given: &Given, to: &str| {
        draft.keep(name, given, to, given.value.as_str());
    };
    if let Some(ca) = file("cloud.ca.crt") {
        keep("cloud.ca.crt", &ca, "management.ca_file");
    }
    if let (Some(certificate), Some(key)) = (file("cloud.crt"), file("cloud.key")) {
        keep("cloud.crt", &certificate, "management.client_cert_file");
        keep("cloud.key", &key, "management.client_key_file");
        if let Some(given) = passphrase {
            draft.ignored("keystore.passphrase", &given, "the files beside the key store are used");
        }
        return;
    }
    let Some(store) = file("cloud.jks") else {
        if let Some(given) = passphrase {
            let why = "there is no cloud.jks beside it: the agent has no certificate yet";
            draft.ignored("keystore.passphrase", &given, why);
        }
        return;
    };
    keep("cloud.jks", &store, "management.client_keystore_file");
    if let Some(given) = passphrase {
        password(given, draft);
    }
}

fn password(given: Given, draft: &mut Draft<'_>) {
    let to = "management.client_keystore_password_file";
    let path = draft.password_file.display().to_string();
    draft.map("keystore.passphrase", &given.place, to, path, "a secret has a file of its own");
    draft.password = Some(Secret::new(given.value));
}
