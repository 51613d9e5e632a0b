//! The admin listener: what it says about roles, links and metrics.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Path;
use axum::http::{Method, Uri};
use axum::routing::any;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use quickcloud::exit::Outcome;
use role::{LinkReport, LinkState, PingedLink, RoleSpec};

use crate::roles::{BAD, Behaviour, GOOD, TestRole, scripted, spec};
use crate::running::{Running, quick, request, start};

struct FakeLink(Instant);

impl PingedLink for FakeLink {
    fn report(&self) -> LinkReport {
        LinkReport {
            state: LinkState::Attached,
            guid: Some("s-1-VM".to_owned()),
            endpoint: Some("10.0.0.5:8250".to_owned()),
            peer: Some("10.0.0.5:8250".parse().unwrap()),
            host_id: Some(12),
            ping_interval: Some(Duration::from_secs(60)),
            last_ping: Some(self.0),
            last_answer: Some(self.0),
            round_trip: Some(Duration::from_micros(1500)),
            last_error: None,
            retry_at: None,
            in_flight: 3,
            certificate_end: Some(1_900_000_000),
        }
    }

    fn ping(&self) {}
}

async fn echo(method: Method, uri: Uri, Path(name): Path<String>, body: String) -> String {
    format!("{method} {uri} {name} {body}")
}

async fn planted() -> &'static str {
    panic!("planted")
}

/// A role with a link, metrics, details, routes and a fault.
fn linked() -> Arc<dyn RoleSpec> {
    scripted(GOOD, |cx| async move {
        let link: Arc<dyn PingedLink> = Arc::new(FakeLink(Instant::now()));
        cx.heartbeat.register(cx.kind, &link);
        cx.health.publish("sessions", || serde_json::json!(["one"]));
        let mut registry = Registry::default();
        let sessions = Gauge::<f64, AtomicU64>::default();
        sessions.set(1.0);
        registry.register("quickcloud_good_sessions", "Sessions open", sessions);
        cx.health.install_metrics(registry);
        cx.admin.publish(
            Router::new()
                .route("/echo/{name}", any(echo))
                .route("/panic", any(planted))
                .route("/large", any(|| async { vec![0_u8; 9 << 20] })),
        );
        cx.health.set_condition("store", "store read-only");
        cx.health.started();
        cx.shutdown.cancelled().await;
    })
}

pub(crate) async fn degraded() -> Running {
    let running = start(vec![linked()], |_| {}).await;
    running.until(GOOD, "degraded", |row| row.summary().contains("degraded")).await;
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_roles_links_and_details() {
    let running = degraded().await;
    let status = running.status().await;
    assert_eq!(status["ready"], false);
    assert_eq!(status["admin_address"], running.addr.to_string());
    let role = &status["roles"][0];
    assert_eq!(role["role"], "good");
    assert_eq!(role["health"], "degraded");
    assert_eq!(role["reason"], "store read-only");
    assert_eq!(role["details"]["sessions"], serde_json::json!(["one"]));
    assert_eq!(status["links"].as_array().unwrap().len(), 1);
    let link = &status["links"][0];
    assert_eq!((&link["role"], &link["guid"]), (&"good".into(), &"s-1-VM".into()));
    assert_eq!(link["state"], "attached");
    assert_eq!(link["host_id"], 12);
    assert_eq!(link["round_trip_ms"], 1.5);
    assert_eq!(link["in_flight"], 3);
    assert!(link["last_ping_ago_ms"].is_u64());
    assert_eq!(running.stop().await, Outcome::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_names_who_is_not_ready() {
    let running = degraded().await;
    let (code, body) = running.get("/readyz").await;
    let entry = r#"{"role":"good","health":"degraded","reason":"store read-only"}"#;
    assert_eq!(code, 503);
    assert_eq!(body, format!(r#"{{"ready":false,"stopping":false,"not_ready":[{entry}]}}"#));
    assert_eq!(running.stop().await, Outcome::Clean);

    let running = start(vec![spec(&TestRole::new(GOOD, Behaviour::Serve))], |_| {}).await;
    running.until_ready(GOOD).await;
    assert_eq!(running.get("/readyz").await.0, 200);
    assert_eq!(running.stop().await, Outcome::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_open_metrics_with_those_of_the_roles() {
    let running = degraded().await;
    let (code, text) = running.get("/metrics").await;
    assert_eq!(code, 200);
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert_eq!(text.matches("# EOF").count(), 1);
    for line in [
        "quickcloud_role_ready{role=\"good\"} 0.0",
        "quickcloud_role_health{role=\"good\",health=\"degraded\"} 1.0",
        "quickcloud_role_health{role=\"good\",health=\"failed\"} 0.0",
        "quickcloud_role_restarts_total{role=\"good\"} 0.0",
        "quickcloud_link_attached{role=\"good\"} 1.0",
        "quickcloud_link_round_trip_seconds{role=\"good\"} 0.0015",
        "quickcloud_link_commands_in_flight{role=\"good\"} 3.0",
        "quickcloud_good_sessions 1.0",
        "# TYPE process_resident_memory_bytes gauge",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing:\n{text}");
    }
    assert!(text.contains("\nprocess_open_fds "), "{text}");
    assert_eq!(running.stop().await, Outcome::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_and_the_last_error_are_in_the_status() {
    let running = start(vec![spec(&TestRole::new(BAD, Behaviour::Dependency))], quick).await;
    running.until(BAD, "restarts", |row| row.restarts >= 2).await;
    let status = running.status().await;
    let role = &status["roles"][0];
    assert!(role["restarts"].as_u64().unwrap() >= 2);
    assert_eq!(role["last_error"]["text"], "cannot reach the peer: connection refused");
    assert!(role["last_error"]["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(running.stop().await, Outcome::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_large_bodies_are_refused() {
    let running = degraded().await;
    assert_eq!(running.get("/nothing").await.0, 404);
    let body = "x".repeat(5000);
    let text = format!(
        "PUT /log-filter HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(request(running.addr, &text).await.0, 413);
    assert_eq!(running.stop().await, Outcome::Clean);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_has_routes_of_its_own_while_it_runs() {
    let idle = spec(&TestRole::new(BAD, Behaviour::Serve));
    let running = start(vec![linked(), idle], |_| {}).await;
    running.until(GOOD, "degraded", |row| row.summary().contains("degraded")).await;
    running.until_ready(BAD).await;
    let get = async |path: &str| running.get(path).await;
    let (code, body) = get("/roles/good/echo/a%2Fb?x=1").await;
    assert_eq!((code, body.as_str()), (200, "GET /echo/a%2Fb?x=1 a/b "));
    let put = "PUT /roles/good/echo/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
               Content-Length: 2\r\n\r\nhi";
    assert_eq!(request(running.addr, put).await, (200, "PUT /echo/a a hi".to_owned()));
    assert_eq!(get("/roles/good/nothing").await.0, 404);
    assert_eq!(get("/roles/bad/echo/a").await.0, 404);
    assert_eq!(get("/roles/other/echo/a").await.0, 404);
    let (code, body) = get("/roles/good/panic").await;
    assert_eq!((code, body.contains("panicked")), (500, true), "{body}");
    let (code, body) = get("/roles/good/large").await;
    assert_eq!((code, body.contains("broke off")), (500, true), "{body}");
    assert_eq!(get("/livez").await.0, 200);
    assert_eq!(running.stop().await, Outcome::Clean);
}
