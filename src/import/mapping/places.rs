//! Ports, directories, the file with the process id.

use std::path::Path;

use toml::{Table, Value};

use super::super::given::Values;
use super::{Draft, Kind};

pub(super) fn map(kind: Kind, values: &mut Values, draft: &mut Draft<'_>) {
    match kind {
        Kind::SecondaryStorage => store(values, draft),
        Kind::ConsoleProxy => ports(values, draft),
    }
}

/// Outside of a system VM the agent takes one directory for whatever store it is told of.
fn store(values: &mut Values, draft: &mut Draft<'_>) {
    let is_system_vm = values.peek("secondary.storage.vm").is_some_and(|value| value == "true");
    let Some(given) = values.take("mount.path") else {
        if draft.store.is_some() {
            let place = values.directory.display().to_string();
            draft.doubtful("mount.path", &place, "--store needs the directory: add mount.path=DIR");
        }
        return;
    };
    if is_system_vm {
        draft.ignored("mount.path", &given, "not used by an agent that is a system VM");
        return;
    }
    if !Path::new(&given.value).is_absolute() {
        draft.doubtful("mount.path", &given.place, "is relative: give the whole path");
        return;
    }
    let directory = given.value.as_str();
    if let Some(url) = draft.store {
        let entry = Table::from_iter([("url", url), ("directory", directory)].map(own));
        let stores = vec![Value::Table(entry)];
        let why = "the directory is the store of that URL";
        draft.map("mount.path", &given.place, "roles.secondary_storage.stores", stores, why);
    } else {
        let why = "stores are mounted below it, each under a name of its own; give --store URL \
                   when the directory itself is the store";
        let to = "roles.secondary_storage.mount_root";
        draft.map("mount.path", &given.place, to, directory, why);
    }
}

fn own((key, value): (&str, &str)) -> (String, Value) {
    (key.to_owned(), value.into())
}

const PAGE_PORT: u16 = 80;
/// With and without TLS.
const SOCKET_PORTS: [u16; 2] = [8080, 8443];

fn ports(values: &mut Values, draft: &mut Draft<'_>) {
    let mut port = |key: &str, usual: &[u16]| {
        let given = values.take(key)?;
        match given.value.parse::<u16>() {
            Ok(port) if usual.contains(&port) => {
                draft.ignored(key, &given, "is the default here, too");
                None
            }
            Ok(port @ 1..) => Some((port, given)),
            _ => {
                draft.ignored(key, &given, "not a port: the default holds");
                None
            }
        }
    };
    let page = port("consoleproxy.httpListenPort", &[PAGE_PORT]);
    let socket = port("vncport", &SOCKET_PORTS);
    if page.is_none() && socket.is_none() {
        return;
    }
    let mut list = vec![
        page.as_ref().map_or(PAGE_PORT, |(port, _)| *port),
        socket.as_ref().map_or(8080, |(port, _)| *port),
    ];
    list.dedup();
    let list: Vec<Value> = list.iter().map(|port| format!("0.0.0.0:{port}").into()).collect();
    for (key, found) in [("consoleproxy.httpListenPort", page), ("vncport", socket)] {
        let Some((_, given)) = found else { continue };
        let why = "both ports of the proxy, with the address to listen on";
        draft.map(key, &given.place, "roles.console_proxy.listen", list.clone(), why);
    }
}

/// `agent.pid` or `agent.<instance>.pid` in the directory that the files name.
pub(super) fn pid_file(values: &mut Values, draft: &mut Draft<'_>) {
    let instance = values.take("instance");
    let (key, given) = match (values.take("paths.pid"), values.take("piddir")) {
        (Some(given), other) => {
            if let Some(other) = other {
                draft.ignored("piddir", &other, "paths.pid wins");
            }
            ("paths.pid", given)
        }
        (None, Some(given)) => ("piddir", given),
        (None, None) => {
            if let Some(given) = instance {
                let why = "names a file with the process id, for which no directory is given";
                draft.ignored("instance", &given, why);
            }
            return;
        }
    };
    if !Path::new(&given.value).is_absolute() {
        let why =
            "relative to wherever the agent is started; set supervisor.pid_file if you need it";
        draft.ignored(key, &given, why);
        if let Some(instance) = instance {
            draft.ignored("instance", &instance, "names the file with the process id");
        }
        return;
    }
    let name = match &instance {
        Some(instance) if instance.value.contains(['/', '\0']) => {
            draft.doubtful("instance", &instance.place, "cannot be part of a file's name");
            return;
        }
        Some(instance) => format!("agent.{}.pid", instance.value),
        None => "agent.pid".to_owned(),
    };
    let path = Path::new(&given.value).join(name).display().to_string();
    let why = "the file with the process id";
    draft.map(key, &given.place, "supervisor.pid_file", path.as_str(), why);
    if let Some(instance) = instance {
        draft.map("instance", &instance.place, "supervisor.pid_file", path.as_str(), why);
    }
}
