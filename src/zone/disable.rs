//! The steps back from this host to system VMs.

use cloudstack_api::model::{Host, SystemVm};

use super::look::{Seen, is_ours, number, on_a_machine};
use super::sql::{self, Row};
use super::{Action, CONSOLE_DETAIL, STORAGE_DETAIL, Step};

/// Every step, those that are done too.
pub(crate) fn disable(seen: &Seen) -> Vec<Step> {
    let mut steps = vec![leave(seen)];
    rows(Row::Storage, &seen.storage_vms, &mut steps);
    rows(Row::Console, &seen.console_vms, &mut steps);
    for (name, makes) in
        [(STORAGE_DETAIL, seen.makes_storage_vms()), (CONSOLE_DETAIL, seen.makes_consoles())]
    {
        steps.push(Step {
            what: format!("zone detail {name}"),
            action: Action::Detail { name, value: "true" },
            now: seen.detail(name).unwrap_or("not set, which means true").to_owned(),
            then: "true".to_owned(),
            why: "the server looks after its own system VMs again".to_owned(),
            undo: format!("updateZone details {name}=false"),
            done: makes,
            blocks: true,
        });
    }
    for (what, vms) in [("storage VM", &seen.storage_vms), ("console proxy", &seen.console_vms)] {
        back(what, vms, &mut steps);
    }
    steps
}

/// Hosts that are connected without a machine of their name: this process, here or elsewhere.
fn ours<'s>(hosts: &'s [Host], vms: &[SystemVm]) -> Vec<&'s str> {
    let by_itself = |host: &&Host| {
        host.state == "Up" && !vms.iter().any(|vm| vm.name == host.name && on_a_machine(vm))
    };
    hosts.iter().filter(by_itself).map(|host| host.name.as_str()).collect()
}

fn leave(seen: &Seen) -> Step {
    let mut names = ours(&seen.storage_hosts, &seen.storage_vms);
    names.extend(ours(&seen.console_hosts, &seen.console_vms));
    Step {
        what: "QuickCloud's hosts".to_owned(),
        action: Action::Wait,
        now: if names.is_empty() { "none is Up".to_owned() } else { names.join(", ") + " Up" },
        then: "none is Up".to_owned(),
        why:
            "systemctl disable --now quickcloud on their machine: open consoles and transfers are \
              told and drained, then the server gets a goodbye. Two agents with one guid would \
              throw each other out"
                .to_owned(),
        undo: "systemctl enable --now quickcloud".to_owned(),
        done: names.is_empty(),
        blocks: true,
    }
}

/// Rows that were changed or made by hand.
fn rows(row: Row, vms: &[SystemVm], steps: &mut Vec<Step>) {
    for vm in vms {
        let Some(id) = number(&vm.name) else { continue };
        let made = vm.template_id.is_none() && !on_a_machine(vm);
        if !made && !is_ours(vm) {
            continue;
        }
        let (then, statements, undo) = if made {
            let undo = "-- quickcloud zone enable makes new rows\n".to_owned();
            ("gone", sql::remove(row, id), undo)
        } else {
            let (run, stop) = sql::run_row(id);
            ("Stopped", stop, run)
        };
        steps.push(Step {
            what: format!("row {}", vm.name),
            action: Action::Sql { statements, undo },
            now: format!("{} without a machine", vm.state),
            then: then.to_owned(),
            why: match made {
                true => "it was made by hand, no machine can be started from it",
                false => "the server starts only what is Stopped",
            }
            .to_owned(),
            undo: "the statements that stand below it in the SQL".to_owned(),
            done: false,
            blocks: true,
        });
    }
}

/// A machine that is there is started; else the server makes one.
fn back(what: &str, vms: &[SystemVm], steps: &mut Vec<Step>) {
    let running = vms.iter().find(|vm| on_a_machine(vm));
    let stopped = vms.iter().find(|vm| vm.state == "Stopped" && vm.template_id.is_some());
    if let (None, Some(vm)) = (running, stopped) {
        steps.push(Step {
            what: format!("system VM {}", vm.name),
            action: Action::StartVm(vm.id),
            now: vm.state.clone(),
            then: "Running".to_owned(),
            why: "it takes its place again, under its old name and address".to_owned(),
            undo: format!("stopSystemVm {}", vm.name),
            done: false,
            blocks: true,
        });
    }
    let agent = running.and_then(|vm| vm.agent_state.as_deref());
    steps.push(Step {
        what: format!("agent of the {what}"),
        action: Action::Wait,
        now: agent.unwrap_or("no system VM runs").to_owned(),
        then: "Up".to_owned(),
        why: "the server needs a host, the system VM template and a primary storage for it"
            .to_owned(),
        undo: "quickcloud zone enable".to_owned(),
        // Releases that tell no agent's state tell that the machine runs.
        done: running.is_some() && matches!(agent, None | Some("Up")),
        blocks: false,
    });
}
