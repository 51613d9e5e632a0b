//! The OpenAPI document against the running API: every answer of every test is what it says, and
//! nothing else, and so is every body that was taken.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use dhcp_api::operation::{Method, Operation};
use jsonschema::Validator;
use role::Host;
use serde_json::{Map, Value, json};

use crate::harness::{Answer, Running};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = serde_json::from_str(dhcp_api::OPENAPI).unwrap();
    close(&mut document);
    document
});

static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// What has properties has no others: an answer with a field that is not documented is a fault.
fn close(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.contains_key("properties") && !members.contains_key("additionalProperties") {
                members.insert("additionalProperties".to_owned(), json!(false));
            }
            members.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn validator(schema: &Value) -> Arc<Validator> {
    let mut validators = VALIDATORS.lock().unwrap();
    let made = validators.entry(schema.to_string()).or_insert_with(|| {
        let mut whole = schema.clone();
        whole["components"] = DOCUMENT["components"].clone();
        let options = jsonschema::options().should_validate_formats(true);
        Arc::new(options.build(&whole).unwrap())
    });
    Arc::clone(made)
}

#[track_caller]
fn check(schema: &Value, value: &Value, what: &str) {
    let validator = validator(schema);
    let faults: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{what} is not as documented: {faults:#?}\n{value:#}");
}

/// The endpoint that a path belongs to, as the document has it.
fn documented(method: &str, path: &str) -> Option<&'static Value> {
    let path = path.split('?').next().unwrap_or_default();
    let fits = |template: &str| {
        let (mut a, mut b) = (template.split('/'), path.split('/'));
        let same = |(a, b): (&str, &str)| a == b || (a.starts_with('{') && a.ends_with('}'));
        a.by_ref().zip(b.by_ref()).all(same)
            && template.split('/').count() == path.split('/').count()
    };
    // As a router does: what is written out goes before a parameter.
    let mut found: Vec<_> =
        DOCUMENT["paths"].as_object().unwrap().iter().filter(|(path, _)| fits(path)).collect();
    found.sort_by_key(|(path, _)| path.matches('{').count());
    found.first()?.1.get(method.to_ascii_lowercase())
}

/// Checks an answer, and the body it answers to.
#[track_caller]
pub(crate) fn check_answer(method: &str, path: &str, body: &[u8], answer: &Answer) {
    let what = format!("{} of {method} {path}", answer.status);
    let kind = answer.headers.get("content-type").map(|kind| kind.to_str().unwrap());
    if answer.status >= 400 {
        let problem = json!({"$ref": "#/components/responses/Problem/content/application~1problem+json/schema"});
        assert_eq!(kind, Some("application/problem+json"), "{what}");
        check(&problem, &answer.json(), &what);
    }
    let Some(operation) = documented(method, path) else {
        assert!(matches!(answer.status, 400 | 404 | 405), "{what} is not documented");
        return;
    };
    assert_ne!(answer.status, 405, "{what} is documented");
    if answer.status >= 400 {
        return;
    }
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{what} is not documented");
    match (response.get("content"), kind) {
        (None, None) => assert_eq!(answer.text, "", "{what}"),
        (Some(content), Some(kind)) => {
            let schema = &content[kind]["schema"];
            assert!(schema.is_object(), "{what} is {kind}");
            if kind == "application/json" {
                check(schema, &answer.json(), &what);
            }
        }
        (documented, _) => panic!("{what} is {kind:?}, not {documented:?}"),
    }
    for header in ["etag", "location"] {
        let name = if header == "etag" { "ETag" } else { "Location" };
        let is_documented = response["headers"].get(name).is_some();
        assert!(is_documented || !answer.headers.contains_key(header), "{what}: {name}");
    }
    // It is asked what is wrong, and that is.
    let is_known_wrong = operation["operationId"] == "validate" && answer.json()["valid"] == false;
    let content = operation
        .get("requestBody")
        .filter(|_| !is_known_wrong)
        .map(|body| &body["content"]["application/json"]);
    if let Some(content) = content {
        let body: Value = serde_json::from_slice(body).unwrap();
        check(&content["schema"], &body, &format!("the body of {method} {path}"));
    }
}

const ABSENT: &str = "dnsmasq = \"/nonexistent/dnsmasq\"";

#[tokio::test]
async fn the_document_is_served_and_has_every_endpoint_of_the_router() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(directory.path(), ABSENT, Host::system()).await;
    let api = &running.api;
    assert_eq!(api.get("/v1/openapi.json").await.expect(200).text, dhcp_api::OPENAPI);
    api.set_up().await;
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let endpoints: usize = paths.values().map(|path| path.as_object().unwrap().len()).sum();
    assert_eq!(endpoints, Operation::ALL.len());
    for operation in Operation::ALL {
        // Whatever the parameters are, somebody answers, and documented methods only.
        let count = operation.path().matches('{').count();
        let values = ["z1", "s1", "x"];
        let uri = operation.uri(&values[..count]).unwrap();
        for method in ["GET", "PUT", "POST", "DELETE", "PATCH"] {
            let answer = api.send(method, &uri, &[], "").await;
            let is_documented = Operation::ALL
                .iter()
                .any(|other| other.path() == operation.path() && other.method().as_str() == method);
            assert_eq!(answer.status == 405, !is_documented, "{method} {uri}: {answer:?}");
            assert!(!answer.text.contains("no such endpoint"), "{method} {uri}: {answer:?}");
        }
    }
    assert!(Operation::ALL.iter().any(|operation| operation.method() == Method::Post));
    running.stop().await;
}

/// Properties of the schema at a reference, by name.
fn properties(reference: &Value) -> Map<String, Value> {
    let reference = reference["$ref"].as_str().unwrap_or_else(|| panic!("{reference}"));
    let schema = DOCUMENT.pointer(reference.strip_prefix('#').unwrap()).unwrap();
    schema["properties"].as_object().unwrap().clone()
}

/// A body with everything a resource may have is taken, the document names every field of it, and
/// the answer has every field that the document names.
#[tokio::test]
async fn the_document_has_every_field_of_every_resource() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(directory.path(), ABSENT, Host::system()).await;
    let api = &running.api;
    let labels = json!({"a.b": "c"});
    let option = json!([{"code": 66, "value": "x"}]);
    let cases = [
        (
            "/v1/zones/z1",
            json!({"name": "n", "cloudstack_zone_id": "i", "network_id": "w",
            "domain": "cs.example", "dns_upstreams": ["10.0.0.53#53"], "dns_servers": ["10.0.0.1"],
            "search_domains": ["a.example"], "lease_time": "infinite", "labels": labels}),
        ),
        (
            "/v1/zones/z1/option-sets/o1",
            json!({"options": option, "subnets": ["s1"], "labels": labels}),
        ),
        (
            "/v1/zones/z1/subnets/s1",
            json!({"cidr": "10.77.0.0/24", "gateway": "10.77.0.254",
            "attachment": {"kind": "relay", "relays": ["10.66.0.1"]}, "dns_servers": "self",
            "domain": "s.example", "search_domains": ["a.example"], "ntp_servers": ["10.0.0.2"],
            "mtu": 1450, "lease_time": 3600, "options": option, "option_sets": ["o1"], "pod_id": "p",
            "state": "disabled", "labels": labels}),
        ),
        (
            "/v1/zones/z1/subnets/s1/ranges/x",
            json!({"start": "10.77.0.10", "end": "10.77.0.20", "purpose": "reserved"}),
        ),
        (
            "/v1/zones/z1/reservations/r1",
            json!({"mac": "02:00:00:00:00:01", "ipv4": "10.77.0.50",
            "subnet": "s1", "hostname": "web", "aliases": ["www"], "ipv6": "fd00::1",
            "secondary_ips": ["10.77.0.51"],
            "default_route": false, "lease_time": "7200", "options": option, "option_sets": ["o1"],
            "labels": labels}),
        ),
        ("/v1/zones/z1/records/gate/A", json!({"values": ["10.77.0.1"]})),
    ];
    for (path, body) in cases {
        let operation = documented("PUT", path).unwrap();
        let request = &operation["requestBody"]["content"]["application/json"]["schema"];
        let own: Vec<String> = properties(request)
            .into_iter()
            .filter(|(_, schema)| schema["readOnly"] != true)
            .map(|(name, _)| name)
            .collect();
        for name in &own {
            assert!(body.get(name).is_some(), "{path}: {name} is documented and not tried");
        }
        // Without dnsmasq it waits; answers and body are checked against the document on the way.
        let answer = api.put(path, &body).await.expect(202).json();
        let shown = &operation["responses"]["202"]["content"]["application/json"]["schema"];
        for name in properties(shown).keys() {
            assert!(answer.get(name).is_some(), "{path}: {name} is documented and not answered");
        }
        for name in &own {
            assert!(answer.get(name).is_some(), "{path}: {name} was taken and is not answered");
        }
        // What was answered is taken again, whatever else it has.
        api.put(path, &answer).await.expect(202);
        // One field too many is told with its place.
        let mut more = body.clone();
        more["nobody/knows"] = json!(1);
        let problem = api.put(path, &more).await.problem(400, "unknown-field");
        assert_eq!(problem["errors"][0]["pointer"], "/nobody~1knows");
        // Without any field everything that is required is missing, and nothing else.
        let required = DOCUMENT
            .pointer(request["$ref"].as_str().unwrap().strip_prefix('#').unwrap())
            .unwrap()["required"]
            .clone();
        let problem = api.put(path, &json!({})).await.problem(422, "invalid-value");
        let missing: Vec<&Value> =
            problem["errors"].as_array().unwrap().iter().map(|fault| &fault["field"]).collect();
        assert_eq!(json!(missing), required, "{path}");
    }
    running.stop().await;
}
