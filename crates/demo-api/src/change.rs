//! PURE: what an administrator changes. Whatever goes on after its answer is done at once, and told
//! by a job, as the server does it.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::answer::{Query, element, refusal};
use crate::set_up::set_up;
use crate::world::{World, text};

/// Status and body of the answer; `None` for a command that changes nothing.
pub fn change(world: &mut World, query: &Query) -> Option<(u16, String)> {
    let command = query.get("command")?.as_str();
    let answer = match command {
        "queryAsyncJobResult" => job(world, query),
        "updateZone" => update_zone(world, query),
        "stopSystemVm" | "startSystemVm" | "destroySystemVm" => system_vm(world, query, command),
        "provisionCertificate" => {
            let id = query.get("hostid").map(String::as_str);
            if !world.hosts.iter().any(|host| text(host, "id") == id) {
                return Some(refusal(command, 431, "no host has that id"));
            }
            started(world, command, "success", &Value::Bool(true))
        }
        "addNetworkServiceProvider" => {
            let mut object = given(query, &["name", "physicalnetworkid"]);
            object.insert("state".to_owned(), "Disabled".into());
            let object = Value::Object(object);
            world.providers.push(object.clone());
            started(world, command, "networkserviceprovider", &object)
        }
        "updateNetworkServiceProvider" => {
            let changed = updated(&mut world.providers, query, "state");
            with(changed, command, |object| {
                started(world, command, "networkserviceprovider", &object)
            })
        }
        "createNetworkOffering" => {
            let mut object = given(query, &["name", "guestiptype"]);
            object.insert("state".to_owned(), "Disabled".into());
            object.insert("service".to_owned(), services(query));
            let object = Value::Object(object);
            world.offerings.push(object.clone());
            done(command, "networkoffering", &object)
        }
        "updateNetworkOffering" => {
            let changed = updated(&mut world.offerings, query, "state");
            with(changed, command, |object| done(command, "networkoffering", &object))
        }
        _ => return set_up(world, query, command),
    };
    Some(answer)
}

pub(crate) fn with(
    object: Option<Value>,
    command: &str,
    answer: impl FnOnce(Value) -> (u16, String),
) -> (u16, String) {
    match object {
        Some(object) => answer(object),
        None => refusal(command, 431, "no object has that id"),
    }
}

/// A new object of the named parameters, with an id of its own.
pub(crate) fn given(query: &Query, names: &[&str]) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("id".to_owned(), Uuid::new_v4().to_string().into());
    for name in names {
        if let Some(value) = query.get(*name) {
            object.insert((*name).to_owned(), value.as_str().into());
        }
    }
    object
}

pub(crate) fn updated(objects: &mut [Value], query: &Query, field: &str) -> Option<Value> {
    let id = query.get("id")?;
    let object = objects.iter_mut().find(|object| text(object, "id") == Some(id))?;
    let members = object.as_object_mut()?;
    members.insert(field.to_owned(), query.get(field)?.as_str().into());
    Some(object.clone())
}

/// Services of an offering as answers have them.
fn services(query: &Query) -> Value {
    let entry = |index: usize| {
        let service = query.get(&format!("serviceproviderlist[{index}].service"))?;
        let provider = query.get(&format!("serviceproviderlist[{index}].provider"))?;
        Some(json!({"name": service, "provider": [{"name": provider}]}))
    };
    (0..).map_while(entry).collect()
}

fn update_zone(world: &mut World, query: &Query) -> (u16, String) {
    let id = query.get("id").map(String::as_str);
    let zone = world.zones.iter_mut().find(|zone| text(zone, "id") == id);
    let Some(members) = zone.and_then(Value::as_object_mut) else {
        return refusal("updateZone", 431, "no zone has that id");
    };
    let details = members.entry("resourcedetails").or_insert_with(|| json!({}));
    for index in 0.. {
        let key = query.get(&format!("details[{index}].key"));
        let value = query.get(&format!("details[{index}].value"));
        let (Some(key), Some(value)) = (key, value) else { break };
        if let Some(details) = details.as_object_mut() {
            details.insert(key.clone(), value.as_str().into());
        }
    }
    let zone = Value::Object(members.clone());
    done("updateZone", "zone", &zone)
}

fn system_vm(world: &mut World, query: &Query, command: &str) -> (u16, String) {
    let id = query.get("id").map(String::as_str);
    let Some(at) = world.system_vms.iter().position(|vm| text(vm, "id") == id) else {
        return refusal(command, 431, "no system VM has that id");
    };
    let Some(vm) = world.system_vms.get_mut(at) else {
        return refusal(command, 530, "the system VM is gone");
    };
    let name = text(vm, "name").unwrap_or_default().to_owned();
    if let Some(members) = vm.as_object_mut() {
        let (state, agent) = match command {
            "startSystemVm" => ("Running", "Up"),
            "stopSystemVm" => ("Stopped", "Disconnected"),
            _ => ("Destroyed", "Removed"),
        };
        members.insert("state".to_owned(), state.into());
        members.insert("agentstate".to_owned(), agent.into());
        match command {
            "startSystemVm" => {
                members.insert("hostid".to_owned(), Uuid::new_v4().to_string().into());
            }
            _ => drop(members.remove("hostid")),
        }
        let of_vm = |host: &&mut Value| text(host, "name") == Some(&name);
        if let Some(host) = world.hosts.iter_mut().find(of_vm).and_then(Value::as_object_mut) {
            host.insert("state".to_owned(), agent.into());
        }
    }
    let object = vm.clone();
    if command == "destroySystemVm" {
        world.system_vms.remove(at);
        world.hosts.retain(|host| text(host, "name") != Some(&name));
    }
    started(world, command, "systemvm", &object)
}

fn body(command: &str, inner: &str) -> (u16, String) {
    let root = format!("{}response", command.to_ascii_lowercase());
    (200, format!("<{root} cloud-stack-version=\"4.22.0.0\">{inner}</{root}>"))
}

pub(crate) fn done(command: &str, name: &str, object: &Value) -> (u16, String) {
    let mut inner = String::new();
    element(name, object, &mut inner);
    body(command, &inner)
}

pub(crate) fn started(
    world: &mut World,
    command: &str,
    name: &str,
    object: &Value,
) -> (u16, String) {
    let id = Uuid::new_v4().to_string();
    let mut result = String::new();
    element(name, object, &mut result);
    world.jobs.insert(id.clone(), result);
    body(command, &format!("<jobid>{id}</jobid>"))
}

fn job(world: &World, query: &Query) -> (u16, String) {
    let result = query.get("jobid").and_then(|id| world.jobs.get(id));
    let Some(result) = result else {
        return refusal("queryAsyncJobResult", 431, "no job has that id");
    };
    let inner = format!("<jobstatus>1</jobstatus><jobresult>{result}</jobresult>");
    body("queryAsyncJobResult", &inner)
}
