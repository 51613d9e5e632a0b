//! The configuration of this host, under the names that the server looks for.

use bedrock::Secret;
use toml::{Table, Value};

use super::enable::{console_row, storage_mode, storage_row};
use super::look::{Seen, number};
use super::{ConsoleMode, StorageMode, Wish};

/// Under which name the server finds the storage; `None` before its row is there.
pub(super) fn storage_name(seen: &Seen, wish: &Wish) -> Option<String> {
    match storage_mode(seen, wish) {
        StorageMode::Standalone => Some(seen.standalone_name()),
        _ => storage_row(seen).map(|vm| vm.name.clone()),
    }
}

/// Under which name the server finds the console proxy; `None` before its row is there.
pub(super) fn console_name(seen: &Seen, wish: &Wish) -> Option<String> {
    match wish.console {
        ConsoleMode::Static => Some(static_name(seen)),
        ConsoleMode::Row => console_row(seen).map(|vm| vm.name.clone()),
    }
}

fn static_name(seen: &Seen) -> String {
    seen.standalone_name().replacen("-ss-", "-cp-", 1)
}

/// In place of a secret that is only shown.
const HIDDEN: &str = "…";

/// The file without and with its secrets, or `None` when a name is not known yet.
pub(super) fn text(seen: &Seen, wish: &Wish) -> Option<(String, Secret<String>)> {
    Some((
        written(seen, wish, |_secret| HIDDEN)?,
        Secret::new(written(seen, wish, |secret| secret.reveal())?),
    ))
}

fn written(seen: &Seen, wish: &Wish, told: impl Fn(&Secret<String>) -> &str) -> Option<String> {
    let mut roles = Table::new();
    let mut names: Vec<Value> = Vec::new();
    let addresses = |table: &mut Table| {
        table.insert("private_address".to_owned(), wish.address.to_string().into());
        if wish.public != wish.address {
            table.insert("public_address".to_owned(), wish.public.to_string().into());
        }
    };
    if wish.ss {
        let name = storage_name(seen, wish)?;
        let mut table = Table::new();
        addresses(&mut table);
        table.insert("guid".to_owned(), name.clone().into());
        table.insert("name".to_owned(), name.into());
        let alone = storage_mode(seen, wish) == StorageMode::Standalone;
        if let Some(set_up) = wish.set_up.as_ref().filter(|_| alone) {
            for (key, value) in
                [("upload_key", &set_up.upload_key), ("copy_password", &set_up.copy_password)]
            {
                if let Some(value) = value {
                    table.insert(key.to_owned(), told(value).into());
                }
            }
        }
        roles.insert("secondary_storage".to_owned(), table.into());
        names.push("ss".into());
    }
    if wish.cp {
        let name = console_name(seen, wish)?;
        let mut table = Table::new();
        addresses(&mut table);
        if wish.console == ConsoleMode::Row {
            let id = number(&name)?;
            table.insert("proxy_vm".to_owned(), i64::try_from(id).ok()?.into());
            table.insert("guid".to_owned(), format!("Proxy.{id}").into());
        } else {
            table.insert("guid".to_owned(), name.clone().into());
            let port = wish.console_port;
            let listen = vec![Value::from(format!("0.0.0.0:{port}"))];
            table.insert("listen".to_owned(), listen.into());
        }
        table.insert("name".to_owned(), name.into());
        roles.insert("console_proxy".to_owned(), table.into());
        names.push("cp".into());
    }
    if let Some(interface) = wish.interface.as_ref().filter(|_| wish.dhcp) {
        roles.insert("dhcp".to_owned(), dhcp(seen, wish, interface).into());
        names.push("dhcp".into());
    }
    let mut management = Table::new();
    let servers: Vec<Value> = wish.servers.iter().map(|server| server.as_str().into()).collect();
    management.insert("servers".to_owned(), servers.into());
    management.insert("zone".to_owned(), seen.zone.name.clone().into());
    if let Some(pod) = seen.pods.first() {
        management.insert("pod".to_owned(), pod.name.clone().into());
    }
    let mut supervisor = Table::new();
    supervisor.insert("roles".to_owned(), names.into());
    let table = Table::from_iter([
        ("supervisor".to_owned(), Value::Table(supervisor)),
        ("management".to_owned(), management.into()),
        ("roles".to_owned(), roles.into()),
    ]);
    let mut text =
        "# Written by quickcloud zone enable; config/quickcloud.toml explains every key.\n\n"
            .to_owned();
    text.push_str(&table.to_string());
    if wish.ss && !seen.stores.is_empty() {
        text.push_str("\n# Stores of the zone, mounted when the server names them:\n");
        for store in &seen.stores {
            // The URL may hold a password, the name whatever an administrator liked.
            let name: String = store.name.chars().filter(|c| !c.is_control()).collect();
            let provider = store.provider.as_deref().unwrap_or("unknown provider");
            text.push_str(&format!("#   {name} ({provider})\n"));
        }
    }
    Some(text)
}

fn dhcp(seen: &Seen, wish: &Wish, interface: &str) -> Table {
    let mut table = Table::new();
    table.insert("interface".to_owned(), interface.into());
    let (Some(api_key), Some(secret_key)) = (&wish.api.api_key_file, &wish.api.secret_key_file)
    else {
        return table;
    };
    let mut sync = Table::new();
    let urls: Vec<Value> = wish.api.urls.iter().map(|url| url.as_str().into()).collect();
    sync.insert("urls".to_owned(), urls.into());
    sync.insert("api_key_file".to_owned(), api_key.as_str().into());
    sync.insert("secret_key_file".to_owned(), secret_key.as_str().into());
    if let Some(file) = &wish.api.ca_file {
        sync.insert("ca_file".to_owned(), file.as_str().into());
    }
    sync.insert("zone".to_owned(), seen.zone.id.to_string().into());
    table.insert("sync".to_owned(), sync.into());
    table
}
