//! The steps from system VMs to this host.

use cloudstack_api::model::{Host, SystemVm};

use super::look::{Seen, is_ours, is_up, number, on_a_machine, shown};
use super::network::{NetworkWish, network};
use super::sql::{self, Pair, Row};
use super::{Action, CONSOLE_DETAIL, ConsoleMode, STORAGE_DETAIL, Step, StorageMode, Wish, file};

/// A step that is not done.
pub(super) fn step(what: impl Into<String>, action: Action, now: impl Into<String>) -> Step {
    Step {
        what: what.into(),
        action,
        now: now.into(),
        then: String::new(),
        why: String::new(),
        undo: String::new(),
        done: false,
        blocks: false,
    }
}

/// Every step, those that are done too.
pub(crate) fn enable(seen: &Seen, wish: &Wish) -> Vec<Step> {
    let mut steps = Vec::new();
    if wish.ss {
        storage(seen, wish, &mut steps);
    }
    if wish.cp {
        console(seen, wish, &mut steps);
    }
    if wish.dhcp {
        network(seen, &NetworkWish::default(), &mut steps);
    }
    let file = file::text(seen, wish);
    let missing = file.is_none();
    steps.push(Step {
        then: if missing { "nothing yet" } else { "written" }.to_owned(),
        why: match missing {
            true => {
                "it needs the number of the row that the SQL above makes: run it, then this again"
            }
            false => "names, guids and addresses as the server looks for them",
        }
        .to_owned(),
        undo: "remove the file".to_owned(),
        ..step(
            "configuration of this host",
            file.map_or(Action::Other, |(text, full)| Action::File { text, full }),
            "",
        )
    });
    started(seen, wish, &mut steps);
    steps
}

fn detail(name: &'static str, seen: &Seen, whose: &str) -> Step {
    let now = seen.detail(name).unwrap_or("not set, which means true").to_owned();
    Step {
        done: now == "false",
        then: "false".to_owned(),
        why: format!("otherwise the server starts a {whose} of its own within 30 s"),
        undo: format!("updateZone details {name}=true"),
        ..step(format!("zone detail {name}"), Action::Detail { name, value: "false" }, now)
    }
}

fn stop(vm: &SystemVm, why: &str) -> Step {
    Step {
        done: !on_a_machine(vm) && (vm.state == "Stopped" || is_ours(vm)),
        then: "Stopped".to_owned(),
        why: why.to_owned(),
        undo: format!("startSystemVm {}", vm.name),
        blocks: true,
        ..step(format!("system VM {}", vm.name), Action::StopVm(vm.id), vm.state.as_str())
    }
}

/// Of a step that is SQL.
const UNDO: &str = "the statements that stand below it in the SQL";

fn by_sql(what: String, now: String, then: String, why: &str, (statements, undo): Pair) -> Step {
    Step {
        then,
        why: why.to_owned(),
        undo: UNDO.to_owned(),
        ..step(what, Action::Sql { statements, undo }, now)
    }
}

/// Whether the storage is sent no set-up, and has to be told by the configuration.
pub(crate) fn needs_set_up(seen: &Seen, wish: &Wish) -> bool {
    wish.ss && storage_mode(seen, wish) == StorageMode::Standalone
}

/// Which way it is to be, after a look at what is there.
pub(super) fn storage_mode(seen: &Seen, wish: &Wish) -> StorageMode {
    match wish.storage {
        StorageMode::Auto if seen.storage_vms.is_empty() => StorageMode::Standalone,
        StorageMode::Auto => StorageMode::Adopted,
        mode => mode,
    }
}

/// The row whose name is taken.
pub(super) fn storage_row(seen: &Seen) -> Option<&SystemVm> {
    seen.storage_vms.first()
}

/// The row whose place is taken: one that is taken already before the others.
pub(super) fn console_row(seen: &Seen) -> Option<&SystemVm> {
    seen.console_vms.iter().find(|vm| is_ours(vm)).or_else(|| seen.console_vms.first())
}

fn storage(seen: &Seen, wish: &Wish, steps: &mut Vec<Step>) {
    steps.push(detail(STORAGE_DETAIL, seen, "storage VM"));
    let mode = storage_mode(seen, wish);
    if mode == StorageMode::Standalone {
        for vm in &seen.storage_vms {
            steps.push(Step {
                then: "destroyed".to_owned(),
                why: "it would share the work at random; its host row goes with it".to_owned(),
                undo: format!(
                    "updateZone details {STORAGE_DETAIL}=true: the server makes a new one"
                ),
                blocks: true,
                ..step(
                    format!("system VM {}", vm.name),
                    Action::DestroyVm(vm.id),
                    vm.state.as_str(),
                )
            });
        }
        steps.push(Step {
            done: wish.set_up.is_some(),
            then: "in the configuration, where uploads or copies to other zones are wanted"
                .to_owned(),
            why: format!(
                "a storage without a row is sent no set-up: upload_key and copy_password are the \
                 values below, decrypted with the server's own encryption tool (--db with \
                 --db-key-file reads and opens them). Moves between stores and diagnostics stay \
                 impossible; --storage adopted or shadow has them\n{}",
                sql::HIDDEN_SETTINGS
            ),
            undo: "nothing changes at the server".to_owned(),
            ..step("what set-up would bring", Action::Other, "")
        });
        return;
    }
    for vm in &seen.storage_vms {
        steps.push(stop(vm, "two storages of one zone share the work at random"));
    }
    let row = storage_row(seen).and_then(|vm| Some((vm, number(&vm.name)?)));
    let Some((vm, id)) = row else {
        if mode == StorageMode::Adopted {
            steps.push(Step {
                then: "a stopped s-N-VM".to_owned(),
                why: "there is no storage VM whose name could be taken: let the server make one \
                      once, or choose --storage standalone or shadow"
                    .to_owned(),
                undo: "nothing was done".to_owned(),
                blocks: true,
                ..step("row of a storage VM", Action::Other, "none")
            });
        } else {
            let pair = sql::insert(Row::Storage, seen.zone.id, seen.instance_name(), wish.public);
            let why = "the server finds set-up and links by a row of the host's name";
            let then = format!("Stopped, {}", wish.public);
            steps.push(by_sql(
                "row of a storage VM".to_owned(),
                "none".to_owned(),
                then,
                why,
                pair,
            ));
        }
        return;
    };
    let pair = sql::address(Row::Storage, id, vm.public_ip, wish.public);
    let why = "links name the row's address, not the host's; give this host that address instead, \
               and say --public-address";
    steps.push(Step {
        done: vm.public_ip == Some(wish.public),
        ..by_sql(
            format!("public address of {}", vm.name),
            shown(vm.public_ip),
            wish.public.to_string(),
            why,
            pair,
        )
    });
}

fn console(seen: &Seen, wish: &Wish, steps: &mut Vec<Step>) {
    steps.push(detail(CONSOLE_DETAIL, seen, "console proxy"));
    for vm in &seen.console_vms {
        steps.push(stop(vm, "the server would send a part of the consoles there"));
    }
    if wish.console == ConsoleMode::Static {
        let setting = |name: &str| seen.settings.get(name).map(String::as_str);
        let address = wish.public.to_string();
        let port = wish.console_port.to_string();
        let done = setting("consoleproxy.static.publicIp") == Some(&address)
            && setting("consoleproxy.static.port") == Some(&port);
        let now = setting("consoleproxy.static.publicIp").unwrap_or("none").to_owned();
        let pair = sql::static_console(wish.public, wish.console_port);
        let why = "the static manager puts them into links; it reads them when the server starts";
        let what = "settings consoleproxy.static.publicIp, .port".to_owned();
        steps.push(Step { done, ..by_sql(what, now, format!("{address}:{port}"), why, pair) });
        steps.push(Step {
            then: "StaticConsoleProxyManager as bean consoleProxyManagerImpl, server restarted"
                .to_owned(),
            why: "only a server with the module cloud-quickcloud has that manager; --console row \
                  needs no change of the server"
                .to_owned(),
            undo: "take the override away and restart the server".to_owned(),
            ..step("console proxy manager of the server", Action::Other, "the API does not tell")
        });
        return;
    }
    let row = console_row(seen).and_then(|vm| Some((vm, number(&vm.name)?)));
    let why = "the server gives consoles only to rows that are Running";
    let Some((vm, id)) = row else {
        let pair = sql::insert(Row::Console, seen.zone.id, seen.instance_name(), wish.public);
        let then = format!("Running without a machine, {}", wish.public);
        let what = "row of a console proxy".to_owned();
        steps.push(by_sql(what, "none".to_owned(), then, why, pair));
        return;
    };
    let now = match (is_ours(vm), on_a_machine(vm)) {
        (true, _) => "Running without a machine",
        (_, true) => "on a machine",
        _ => vm.state.as_str(),
    };
    let what = format!("state of the row {}", vm.name);
    let then = "Running without a machine".to_owned();
    let run = by_sql(what, now.to_owned(), then, why, sql::run_row(id));
    steps.push(Step { done: is_ours(vm), ..run });
    let pair = sql::address(Row::Console, id, vm.public_ip, wish.public);
    let why = "links name the row's address; give this host that address instead, and say \
               --public-address";
    let what = format!("public address of {}", vm.name);
    let set = by_sql(what, shown(vm.public_ip), wish.public.to_string(), why, pair);
    steps.push(Step { done: vm.public_ip == Some(wish.public), ..set });
}

/// Connected, and not from a machine of the server's own.
fn is_here(hosts: &[Host], vms: &[SystemVm], name: &str) -> bool {
    is_up(hosts, name) && !vms.iter().any(|vm| vm.name == name && on_a_machine(vm))
}

fn started(seen: &Seen, wish: &Wish, steps: &mut Vec<Step>) {
    let mut up = true;
    let mut names = Vec::new();
    if wish.ss {
        let name = file::storage_name(seen, wish);
        up &= name
            .as_deref()
            .is_some_and(|name| is_here(&seen.storage_hosts, &seen.storage_vms, name));
        names.extend(name);
    }
    if wish.cp {
        let name = file::console_name(seen, wish);
        up &= name
            .as_deref()
            .is_some_and(|name| is_here(&seen.console_hosts, &seen.console_vms, name));
        names.extend(name);
    }
    if names.is_empty() {
        return;
    }
    steps.push(Step {
        done: up,
        then: "Up".to_owned(),
        why: "systemctl enable --now quickcloud, or quickcloud run --config FILE".to_owned(),
        undo: "systemctl disable --now quickcloud: it drains, and says goodbye to the server"
            .to_owned(),
        ..step(
            format!("hosts {}", names.join(", ")),
            Action::Wait,
            if up { "Up" } else { "not Up" },
        )
    });
}
