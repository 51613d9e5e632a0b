//! Option sets, and everything of the API in one file, over REST.

use role::Host;
use serde_json::{Value, json};

use crate::harness::Running;

const ABSENT: &str = "dnsmasq = \"/nonexistent/dnsmasq\"";

async fn started(directory: &tempfile::TempDir) -> Running {
    let running = Running::start(directory.path(), ABSENT, Host::system()).await;
    running.api.set_up().await;
    running
}

#[tokio::test]
async fn an_option_set_has_a_life() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let api = &running.api;
    let path = "/v1/zones/z1/option-sets/pxe";
    let body = json!({"options": [{"code": 66, "value": "10.77.0.9"}]});
    let set = api.put(path, &body).await.expect(202).json();
    assert_eq!((&set["id"], &set["options"][0]["code"]), (&json!("pxe"), &json!(66)));
    let wrong = json!({"options": [{"code": 125, "value": "0"}, {"code": 53, "value": "x"}]});
    let problem = api.put(path, &wrong).await.problem(422, "invalid-value");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2, "{problem}");
    let mut reservation = json!({"mac": "02:00:00:00:00:01", "ipv4": "10.77.0.50",
        "option_sets": ["pxe", "nothing"]});
    let one = "/v1/zones/z1/reservations/r1";
    let problem = api.put(one, &reservation).await.problem(422, "invalid-value");
    assert_eq!(problem["errors"][0]["value"], "nothing");
    reservation["option_sets"] = json!(["pxe"]);
    api.put(one, &reservation).await.expect(202);
    let problem = api.delete(path).await.problem(409, "in-use");
    assert!(problem["detail"].as_str().unwrap().contains("1 reservations"), "{problem}");
    api.delete(one).await.expect(202);
    let page = api.get("/v1/zones/z1/option-sets").await.expect(200).json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    api.delete(path).await.expect(202);
    api.get(path).await.problem(404, "not-found");
    running.stop().await;
}

fn pointers(problems: &Value) -> Vec<&str> {
    let all = problems.as_array().unwrap().iter();
    all.map(|fault| fault["pointer"].as_str().unwrap()).collect()
}

/// One role's file makes another one the same, and what is wrong with a file is told at once.
#[tokio::test]
async fn everything_of_the_api_is_one_file() {
    let directory = tempfile::tempdir().unwrap();
    let running = started(&directory).await;
    let api = &running.api;
    let set = json!({"options": [{"code": 42, "value": ["10.77.0.9"]}], "subnets": ["s1"]});
    api.put("/v1/zones/z1/option-sets/time", &set).await.expect(202);
    let range = json!({"start": "10.77.0.2", "end": "10.77.0.9", "purpose": "excluded"});
    api.put("/v1/zones/z1/subnets/s1/ranges/low", &range).await.expect(202);
    api.reserve("web", "02:00:00:00:00:01", "10.77.0.50").await.expect(202);
    api.put("/v1/zones/z1/records/gate/A", &json!({"values": ["10.77.0.1"]})).await.expect(202);
    let file = api.get("/v1/desired").await.expect(200).json();
    // It changes nothing where it comes from.
    let same = api.put("/v1/desired?dry_run=true", &file).await.expect(200).json();
    assert_eq!(same["change"], Value::Null, "{same}");
    running.stop().await;

    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(directory.path(), ABSENT, Host::system()).await;
    let api = &running.api;
    let tried = api.send("POST", "/v1/validate", &[], file.to_string()).await.expect(200).json();
    assert_eq!((&tried["valid"], &tried["problems"]), (&json!(true), &json!([])));
    assert_eq!(tried["difference"]["ranges"]["created"], json!(["z1/s1/low"]), "{tried}");
    assert_eq!(api.get("/v1/zones").await.json()["items"], json!([]), "nothing is stored");
    api.put("/v1/desired", &file).await.expect(202);
    let mut copy = api.get("/v1/desired").await.expect(200).json();
    let mut original = file.clone();
    for name in ["revision", "created_at", "updated_at"] {
        strip(&mut original, name);
        strip(&mut copy, name);
    }
    assert_eq!(copy, original);
    // Faults of reading come at once, and so do those of the rest.
    let mut wrong = file.clone();
    wrong["zones"][0]["reservations"][0]["mac"] = json!("x");
    wrong["zones"][0]["subnets"][0]["ranges"][0]["end"] = json!("y");
    let answer = api.send("POST", "/v1/validate", &[], wrong.to_string()).await.expect(200).json();
    let expected = ["/zones/0/subnets/0/ranges/0/end", "/zones/0/reservations/0/mac"];
    assert_eq!(pointers(&answer["problems"]), expected, "{answer}");
    let mut wrong = file.clone();
    wrong["zones"][0]["reservations"][0]["ipv4"] = json!("10.77.0.5");
    wrong["zones"][0]["subnets"][0]["option_sets"] = json!(["nothing"]);
    let problem = api.put("/v1/desired", &wrong).await.problem(422, "invalid-value");
    let expected = ["/zones/0/subnets/0/option_sets", "/zones/0/reservations/0/ipv4"];
    assert_eq!(pointers(&problem["errors"]), expected, "{problem}");
    // A zone that is not there belongs to nobody.
    let mut theirs = file.clone();
    theirs["zones"][0]["id"] = json!("z9");
    theirs["zones"][0]["source"] = json!("cloudstack");
    api.put("/v1/desired", &theirs).await.problem(422, "invalid-value");
    // Nothing listed, and nothing is left; that is what was asked for.
    api.put("/v1/desired", &json!({"zones": []})).await.expect(202);
    assert_eq!(api.get("/v1/zones").await.json()["items"], json!([]));
    running.stop().await;
}

fn strip(value: &mut Value, name: &str) {
    match value {
        Value::Object(members) => {
            members.remove(name);
            members.values_mut().for_each(|value| strip(value, name));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| strip(value, name)),
        _ => {}
    }
}
