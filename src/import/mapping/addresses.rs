//! The addresses that an agent tells the server.

use std::net::IpAddr;

use toml::Value;

use super::super::given::Values;
use super::{Draft, Kind};

const DEVICES: [&str; 3] =
    ["private.network.device", "public.network.device", "storage.network.device"];

pub(super) fn map(kind: Kind, values: &mut Values, draft: &mut Draft<'_>) {
    let section = kind.section();
    let private = format!("{section}.private_address");
    let found = address(values, draft, "eth1ip", &private)
        || device(values, draft, "private.network.device", &private);
    if !found {
        towards_server(values, draft, &private);
    }
    let public = format!("{section}.public_address");
    let keys: &[&str] = match kind {
        Kind::SecondaryStorage => &["eth2ip"],
        Kind::ConsoleProxy => &["public.ip", "eth2ip"],
    };
    if !keys.iter().any(|key| address(values, draft, key, &public)) {
        device(values, draft, "public.network.device", &public);
    }
    for key in keys {
        if let Some(given) = values.take(key) {
            draft.ignored(key, &given, "public.ip wins");
        }
    }
    if kind == Kind::SecondaryStorage {
        let storage = format!("{section}.storage_address");
        if !address(values, draft, "storageip", &storage) {
            device(values, draft, "storage.network.device", &storage);
        }
    }
    for key in DEVICES {
        if let Some(given) = values.take(key) {
            draft.ignored(key, &given, "the address is given");
        }
    }
}

/// A value that is an address; whether it was there and is one.
fn address(values: &mut Values, draft: &mut Draft<'_>, key: &str, to: &str) -> bool {
    let Some(given) = values.take(key) else { return false };
    match given.value.parse::<IpAddr>() {
        Ok(address) if !address.is_unspecified() => {
            draft.keep(key, &given, to, address.to_string());
            true
        }
        _ => {
            draft.ignored(key, &given, "not an address");
            false
        }
    }
}

/// The address of an interface that is named.
fn device(values: &mut Values, draft: &mut Draft<'_>, key: &str, to: &str) -> bool {
    let Some(given) = values.take(key) else { return false };
    let Some(address) = draft.machine.address_of(&given.value) else {
        draft.ignored(key, &given, "no interface of this machine that has an address");
        return false;
    };
    let why = "the interface's address on this machine";
    draft.map(key, &given.place, to, address.to_string(), why);
    true
}

/// The agent takes the first interface it finds; the one that leads to its server is meant.
fn towards_server(values: &Values, draft: &mut Draft<'_>, to: &str) {
    let place = values.directory.display().to_string();
    let management = draft.table.get("management");
    let servers = management.and_then(|table| table.get("servers")).and_then(Value::as_array);
    let server = servers.and_then(|list| list.first()).and_then(Value::as_str);
    let server = server.and_then(|text| text.parse::<bedrock::net::HostPort>().ok());
    let found = server.and_then(|server| {
        let port = server.port.unwrap_or(8250);
        Some((draft.machine.address_towards(&server.host, port)?, server.host))
    });
    match found {
        Some((address, host)) => {
            let why = format!("this machine's address towards {host}; give eth1ip=ADDRESS if not");
            draft.map("eth1ip", &place, to, address.to_string(), &why);
        }
        None => draft.doubtful("eth1ip", &place, "is missing: add eth1ip=ADDRESS"),
    }
}
