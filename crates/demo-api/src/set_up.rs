//! PURE: what makes networks and what they stand on, with the server's own refusals.

use serde_json::{Value, json};

use crate::answer::{Query, refusal};
use crate::change::{done, given, started, updated, with};
use crate::world::{World, text};

/// Status and body of the answer; `None` for a command that makes nothing of these.
pub(crate) fn set_up(world: &mut World, query: &Query, command: &str) -> Option<(u16, String)> {
    let answer = match command {
        "createPhysicalNetwork" => {
            let mut object = given(query, &["name", "zoneid", "broadcastdomainrange"]);
            object.insert("state".to_owned(), "Disabled".into());
            let object = Value::Object(object);
            world.physical_networks.push(object.clone());
            started(world, command, "physicalnetwork", &object)
        }
        "updatePhysicalNetwork" => {
            let changed = updated(&mut world.physical_networks, query, "state");
            with(changed, command, |object| started(world, command, "physicalnetwork", &object))
        }
        "addTrafficType" => {
            let object = Value::Object(given(query, &["traffictype", "physicalnetworkid"]));
            world.traffic_types.push(object.clone());
            started(world, command, "traffictype", &object)
        }
        "createPod" => {
            let object = Value::Object(given(query, &["name", "zoneid", "gateway", "netmask"]));
            world.pods.push(object.clone());
            done(command, "pod", &object)
        }
        "createNetwork" => network(world, query, command),
        "createVlanIpRange" => match range(world, query, query.get("networkid")) {
            Ok(object) => done(command, "vlan", &object),
            Err(words) => refusal(command, 431, words),
        },
        "createWebhook" => {
            let names = ["name", "payloadurl", "secretkey", "scope", "state"];
            let object = Value::Object(given(query, &names));
            world.webhooks.push(object.clone());
            done(command, "webhook", &object)
        }
        "updateWebhook" => {
            let changed = ["payloadurl", "secretkey", "scope", "state"]
                .into_iter()
                .filter(|name| query.contains_key(*name))
                .fold(None, |_, name| updated(&mut world.webhooks, query, name));
            with(changed, command, |object| done(command, "webhook", &object))
        }
        "updateConfiguration" => setting(world, query, command),
        _ => return None,
    };
    Some(answer)
}

fn network(world: &mut World, query: &Query, command: &str) -> (u16, String) {
    let zone = query.get("zoneid").map(String::as_str);
    let basic = world.zones.iter().any(|z| text(z, "id") == zone && z["networktype"] == "Basic");
    if basic && world.networks.iter().any(|network| text(network, "zoneid") == zone) {
        return refusal(command, 431, "cannot have more than one guest network in a basic zone");
    }
    let id = query.get("networkofferingid").map(String::as_str);
    let offering = world.offerings.iter().find(|offering| text(offering, "id") == id);
    let Some(offering) = offering.filter(|offering| offering["state"] == "Enabled") else {
        return refusal(command, 431, "the network offering is not enabled");
    };
    let mut object =
        given(query, &["name", "zoneid", "networkofferingid", "networkdomain", "dns1"]);
    object.insert("type".to_owned(), "Shared".into());
    object.insert("traffictype".to_owned(), "Guest".into());
    object.insert("state".to_owned(), "Setup".into());
    object.insert("service".to_owned(), offering["service"].clone());
    let object = Value::Object(object);
    let own = text(&object, "id").map(str::to_owned);
    if query.contains_key("startip")
        && let Err(words) = range(world, query, own.as_ref())
    {
        return refusal(command, 431, words);
    }
    world.networks.push(object.clone());
    done(command, "network", &object)
}

fn range(
    world: &mut World,
    query: &Query,
    network: Option<&String>,
) -> Result<Value, &'static str> {
    let ip = |value: Option<&str>| value.and_then(|v| v.parse::<std::net::Ipv4Addr>().ok());
    let given_ip = |name: &str| ip(query.get(name).map(String::as_str));
    let (Some(first), Some(last)) = (given_ip("startip"), given_ip("endip")) else {
        return Err("startip and endip are needed");
    };
    let overlaps = |there: &Value| {
        let (from, to) = (ip(text(there, "startip")), ip(text(there, "endip")));
        from.zip(to).is_some_and(|(from, to)| from <= last && first <= to)
    };
    if world.ranges.iter().any(overlaps) {
        return Err("there already exists an ip range that overlaps");
    }
    let names = ["zoneid", "podid", "vlan", "gateway", "netmask", "startip", "endip"];
    let mut object = given(query, &names);
    object.insert("networkid".to_owned(), json!(network));
    object.insert("forvirtualnetwork".to_owned(), false.into());
    let object = Value::Object(object);
    world.ranges.push(object.clone());
    Ok(object)
}

/// A zone's own value is a detail of the zone.
fn setting(world: &mut World, query: &Query, command: &str) -> (u16, String) {
    let (Some(name), Some(value)) = (query.get("name"), query.get("value")) else {
        return refusal(command, 431, "name and value are needed");
    };
    let zone = query.get("zoneid").map(String::as_str);
    if let Some(zone) = world.zones.iter_mut().find(|z| zone.is_some() && text(z, "id") == zone) {
        let details = zone
            .as_object_mut()
            .map(|zone| zone.entry("resourcedetails").or_insert_with(|| json!({})).as_object_mut());
        if let Some(details) = details.flatten() {
            details.insert(name.clone(), value.as_str().into());
        }
    }
    done(command, "configuration", &json!({"name": name, "value": value}))
}
