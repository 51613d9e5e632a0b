//! PURE: a question and its answer, as the server writes it in XML.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::world::{World, text};

/// Parameters by lower-case name.
pub type Query = BTreeMap<String, String>;

/// Largest page (`default.page.size`).
const LARGEST_PAGE: usize = 500;

/// Status and body of the answer.
pub fn answer(world: &World, query: &Query) -> (u16, String) {
    let parameter = |name: &str| query.get(name).map(String::as_str);
    let command = parameter("command").unwrap_or_default();
    let (name, objects) = match command {
        "listZones" => ("zone", &world.zones),
        "listNetworks" => ("network", &world.networks),
        "listVlanIpRanges" => ("vlaniprange", &world.ranges),
        "listRouters" => ("router", &world.routers),
        "listVirtualMachines" => ("virtualmachine", &world.machines),
        "listPods" => ("pod", &world.pods),
        "listSystemVms" => ("systemvm", &world.system_vms),
        "listHosts" => ("host", &world.hosts),
        "listImageStores" => ("imagestore", &world.image_stores),
        "listConfigurations" => ("configuration", &world.settings),
        "listPhysicalNetworks" => ("physicalnetwork", &world.physical_networks),
        "listWebhooks" => ("webhook", &world.webhooks),
        "listTrafficTypes" => ("traffictype", &world.traffic_types),
        "listNetworkServiceProviders" => ("networkserviceprovider", &world.providers),
        "listNetworkOfferings" => ("networkoffering", &world.offerings),
        _ => return refusal(command, 401, "the given command does not exist"),
    };
    let is_machine = name == "virtualmachine";
    let found: Vec<&Value> = objects
        .iter()
        .filter(|object| {
            let fits = |field: &str, parameter: &str| {
                query.get(parameter).is_none_or(|wanted| text(object, field) == Some(wanted))
            };
            // Settings and offerings belong to no zone.
            let of_a_zone = text(object, "zoneid").is_some();
            let zone = !of_a_zone || fits("zoneid", "zoneid");
            // Without a project's number only what belongs to none.
            let project =
                text(object, "projectid").is_none() || parameter("projectid") == Some("-1");
            let state = !is_machine || fits("state", "state");
            zone && project && state && fits("id", "id") && fits("name", "name")
        })
        .collect();
    let count = found.len();
    let page = match (parameter("page"), parameter("pagesize")) {
        (None, None) => found,
        (Some(page), Some(size)) => match (page.parse::<usize>(), size.parse::<usize>()) {
            (Ok(page @ 1..), Ok(size @ 1..=LARGEST_PAGE)) => {
                found.into_iter().skip((page - 1) * size).take(size).collect()
            }
            _ => return refusal(command, 431, "pagesize exceeds the default page size"),
        },
        _ => return refusal(command, 431, "page and pagesize go together"),
    };
    let root = format!("{}response", command.to_ascii_lowercase());
    let mut body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><{root} cloud-stack-version=\"4.22.0.0\">"
    );
    if count > 0 {
        body.push_str(&format!("<count>{count}</count>"));
    }
    page.into_iter().for_each(|object| element(name, object, &mut body));
    body.push_str(&format!("</{root}>"));
    (200, body)
}

/// An error as the server writes it.
pub fn refusal(command: &str, code: u16, words: &str) -> (u16, String) {
    let own = !matches!(code, 401 | 432);
    let root =
        if own { command.to_ascii_lowercase() + "response" } else { "errorresponse".to_owned() };
    let text = escaped(words);
    let body =
        format!("<{root}><errorcode>{code}</errorcode><errortext>{text}</errortext></{root}>");
    (code, body)
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// An element for each member, repeated for a list; a map of details is one text.
pub(crate) fn element(name: &str, value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| element(name, item, out)),
        Value::Object(members) if matches!(name, "details" | "resourcedetails") => {
            let pairs: Vec<String> =
                members.iter().map(|(key, value)| format!("{key}={}", plain(value))).collect();
            out.push_str(&format!("<{name}>{{{}}}</{name}>", escaped(&pairs.join(", "))));
        }
        Value::Object(members) => {
            out.push_str(&format!("<{name}>"));
            members.iter().for_each(|(key, value)| element(key, value, out));
            out.push_str(&format!("</{name}>"));
        }
        value => out.push_str(&format!("<{name}>{}</{name}>", escaped(&plain(value)))),
    }
}
