//! One running role and a client of its API.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use config_reader::Violations;
use http_body_util::{BodyExt, Full};
use http_front::HttpFront;
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request};
use hyper_util::rt::TokioIo;
use role::kind::ConfigInput;
use role::{Health, HealthReporter, Heartbeat, Host, RoleContext, RoleError, RoleSpec, TaskScope};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::document::check_answer;

/// The role, running in this process.
pub(crate) struct Running {
    pub(crate) api: Api,
    pub(crate) health: HealthReporter,
    tasks: TaskScope,
    shutdown: CancellationToken,
    reload: role::Reload,
    run: JoinHandle<Result<(), RoleError>>,
}

/// The spec for a state directory; `more` is further TOML of the role's table.
pub(crate) fn spec(directory: &Path, more: &str) -> Arc<dyn RoleSpec> {
    let socket = directory.join("dhcp.sock");
    let text = format!("api_socket = {:?}\n{more}", socket.display().to_string());
    let text =
        if more.contains("interface") { text } else { format!("interface = \"br0\"\n{text}") };
    let (section, management) = (text.parse().unwrap(), toml::Table::new());
    let input =
        ConfigInput { section: &section, management: &management, state_directory: directory };
    let mut violations = Violations::new();
    let spec = (dhcp::DESCRIPTOR.configure)(input, &mut violations);
    spec.unwrap_or_else(|| panic!("{:?}", violations.list()))
}

impl Running {
    pub(crate) async fn start(directory: &Path, more: &str, host: Host) -> Self {
        // Shown by cargo when a test fails.
        let level = tracing::Level::DEBUG;
        drop(tracing_subscriber::fmt().with_test_writer().with_max_level(level).try_init());
        let spec = spec(directory, more);
        let (tasks, shutdown) = (TaskScope::new(), CancellationToken::new());
        let cx = RoleContext::new(
            spec.kind(),
            shutdown.clone(),
            tasks.clone(),
            Heartbeat::new(),
            HttpFront::new(tasks.clone()),
            host,
        );
        let (health, reload) = (cx.health.clone(), cx.reload.clone());
        let run = tokio::spawn(spec.build().run(cx));
        let api = Api { socket: directory.join("dhcp.sock") };
        let running = Self { api, health, tasks, shutdown, reload, run };
        eventually("the role has started", async || {
            (!matches!(running.health.health(), Health::Starting)).then_some(())
        })
        .await;
        running
    }

    /// Takes over another configuration.
    pub(crate) async fn reload(&self, directory: &Path, more: &str) -> status_api::ReloadReport {
        self.reload.begin(spec(directory, more)).expect("the role handles a reload").await
    }

    /// Stops the role and waits for its last task.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.run.await.unwrap().unwrap();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(10), self.tasks.wait()).await.unwrap();
    }

    pub(crate) fn degraded(&self) -> String {
        match self.health.health() {
            Health::Degraded { reason } => reason,
            other => panic!("not degraded: {other:?}"),
        }
    }
}

/// Polls until `check` gives something; fails after ten seconds.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A client of the API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) socket: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text);
        self
    }

    /// Checks a problem's status and type.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, slug: &str) -> Value {
        let answer = self.expect(status);
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let body = answer.json();
        assert_eq!(body["type"], format!("urn:quickcloud:dhcp:{slug}"), "{body}");
        assert_eq!(body["status"], status);
        body
    }

    pub(crate) fn tag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }
}

impl Api {
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let sent: Bytes = body.into();
        let mut request = Request::builder()
            .method(method.parse::<Method>().unwrap())
            .uri(path)
            .header("host", "x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(sent.clone())).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let kind = parts.headers.get("content-type").map(hyper::header::HeaderValue::as_bytes);
        let bytes = if kind == Some(b"text/event-stream") {
            // It has no end: what comes first.
            let mut body = body;
            body.frame().await.unwrap().unwrap().into_data().unwrap()
        } else {
            body.collect().await.unwrap().to_bytes()
        };
        connection.abort();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let answer = Answer { status: parts.status.as_u16(), headers: parts.headers, text };
        check_answer(method, path, &sent, &answer);
        answer
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[], body.to_string()).await
    }

    /// A write that nobody may answer to.
    pub(crate) async fn try_put(&self, path: &str, body: &Value) -> Option<()> {
        self.try_send("PUT", path, body.to_string()).await
    }

    /// A request to a process that may be ending or beginning; `None` when nobody answers it.
    pub(crate) async fn try_send(&self, method: &str, path: &str, body: String) -> Option<()> {
        let stream = UnixStream::connect(&self.socket).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        let connection = tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "x");
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let answered = sender.send_request(request).await.ok().map(drop);
        connection.abort();
        answered
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], "").await
    }

    pub(crate) async fn status(&self) -> Value {
        self.get("/v1/status").await.expect(200).json()
    }

    /// A zone "z1" of cs.example with subnet "s1", 10.77.0.0/24.
    pub(crate) async fn set_up(&self) {
        let answer = self.put("/v1/zones/z1", &json!({"domain": "cs.example"})).await;
        assert!(matches!(answer.status, 201 | 202), "{answer:?}");
        let subnet = json!({"cidr": "10.77.0.0/24", "gateway": "10.77.0.254"});
        let answer = self.put("/v1/zones/z1/subnets/s1", &subnet).await;
        assert!(matches!(answer.status, 201 | 202), "{answer:?}");
    }

    pub(crate) async fn reserve(&self, id: &str, mac: &str, ipv4: &str) -> Answer {
        let body = json!({"mac": mac, "ipv4": ipv4, "hostname": format!("vm-{id}")});
        self.put(&format!("/v1/zones/z1/reservations/{id}"), &body).await
    }
}
