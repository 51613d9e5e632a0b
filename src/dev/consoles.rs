//! Consoles on the demo's page and in its check: over https, following a machine that moves, coming
//! back, ended by an operator.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::extract::{Path as PathOf, State};
use axum::http::StatusCode;
use axum::routing::post;
use bedrock::chain;
use http_client::{Client, Method};
use serde_json::{Value, json};
use status_api::{ConsoleStatus, ProcessStatus};

use super::environment::DevEnvironment;
use super::machines::{Hosts, Machine};
use super::page::Refusal;
use super::secure;
use super::viewer::{self, Viewer};

const TIMEOUT: Duration = Duration::from_secs(30);
const KICKED: &str = "ended from the demo's page";

/// What the page's buttons need.
#[derive(Clone)]
pub(crate) struct Consoles {
    pub(crate) machines: Vec<Machine>,
    pub(crate) hosts: Hosts,
    pub(crate) admin: Client,
}

/// Where the same consoles are shown without TLS and with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConsolePorts {
    pub(crate) plain: u16,
    pub(crate) tls: u16,
}

impl ConsolePorts {
    /// The same link on the listener that speaks TLS; a link names its port twice.
    pub(crate) fn over_https(self, link: &str) -> String {
        let Self { plain, tls } = self;
        link.replacen("http://", "https://", 1)
            .replacen(&format!(":{plain}/"), &format!(":{tls}/"), 1)
            .replacen(&format!("port={plain}"), &format!("port={tls}"), 1)
    }
}

impl Consoles {
    pub(crate) fn routes<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        Router::new()
            .route("/api/vms/{name}/move", post(move_away))
            .route("/api/consoles/{id}/kick", post(kick))
            .with_state(self)
    }
}

async fn move_away(
    State(consoles): State<Consoles>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Refusal> {
    let machine = consoles.machines.iter().find(|machine| machine.name == name);
    let Some(machine) = machine else {
        let detail = format!("there is no machine {name:?}");
        return Err(Refusal(StatusCode::UNPROCESSABLE_ENTITY, detail));
    };
    let moved = machine.move_away(&consoles.hosts).await;
    moved.map_err(|error| Refusal(StatusCode::BAD_GATEWAY, chain(&error)))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn kick(
    State(consoles): State<Consoles>,
    PathOf(id): PathOf<u32>,
) -> Result<Json<Value>, Refusal> {
    let ended = end(&consoles.admin, id).await;
    let console = ended.map_err(|detail| Refusal(StatusCode::BAD_GATEWAY, detail))?;
    Ok(Json(json!({ "name": console.name })))
}

async fn end(admin: &Client, id: u32) -> Result<ConsoleStatus, String> {
    let path = format!("/roles/cp/consoles/{id}/end");
    let body = json!({ "message": KICKED });
    admin.call(Method::POST, &path, Some(&body)).await.map_err(|error| chain(&error))
}

/// The console page over https, with the proxy's own certificate, and a picture through it.
pub(crate) async fn over_https(demo: &DevEnvironment, key: u32) -> Result<String, String> {
    let machine = demo.machines.first().ok_or("there is no machine")?;
    let link = link(demo, machine).await?;
    let url = demo.console_ports().over_https(&link);
    let (_, path) =
        url.split_once("//").and_then(|(_, rest)| rest.split_once('/')).unwrap_or_default();
    let (address, certificate) = (demo.console_secure, &demo.console_certificate);
    let page = secure::fetch(address, &format!("/{path}"), certificate).await?;
    if !page.starts_with(b"<!") {
        return Err("the page over https is none".to_owned());
    }
    let viewer = Viewer::open_over_tls(&url, address, certificate);
    let seen = viewer.await?.look(key).await?;
    Ok(format!("page and picture, {}x{} pixels", seen.width, seen.height))
}

/// A page whose machine moves comes back to it by itself, and not any more once it was ended.
pub(crate) async fn moved_and_ended(demo: &DevEnvironment) -> Result<String, String> {
    let machine = demo.machines.last().ok_or("there is no machine")?;
    let link = link(demo, machine).await?;
    let mut viewer = page(&link, None).await?;
    let opened = viewer.told("opened").await?;
    if opened.get("encrypted").and_then(Value::as_bool) != Some(machine.encrypted) {
        return Err(format!("the host of {} is said to be {opened}", machine.name));
    }
    let ticket = opened.get("ticket").and_then(Value::as_str).unwrap_or_default().to_owned();
    let from = machine.address();
    machine.move_away(&demo.hosts()).await.map_err(|error| chain(&error))?;
    let closed = viewer.closed().await?;
    if closed.0 != 4000 {
        return Err(format!("the console of a machine that moved ended with {closed:?}"));
    }
    let mut viewer = page(&link, Some(&ticket)).await?;
    let opened = viewer.told("opened").await?;
    let session = opened.get("session").and_then(Value::as_u64).unwrap_or_default();
    let admin = Client::tcp(demo.admin_address);
    until_known(&admin, session).await?;
    end(&admin, u32::try_from(session).unwrap_or_default()).await?;
    let closed = viewer.closed().await?;
    if closed != (4001, KICKED.to_owned()) {
        return Err(format!("a console that was ended ended with {closed:?}"));
    }
    match page(&link, Some(&ticket)).await {
        Ok(_) => Err("a console that was ended could be opened again".to_owned()),
        Err(_refused) => {
            Ok(format!("from {from} to {}, back by itself, ended for good", machine.address()))
        }
    }
}

async fn until_known(admin: &Client, session: u64) -> Result<(), String> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let status: ProcessStatus = admin.get("/status").await.map_err(|error| chain(&error))?;
        let consoles = status.role("cp").and_then(|role| role.details.consoles.clone());
        if consoles.unwrap_or_default().iter().any(|console| u64::from(console.id) == session) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err("the console that came back is not among the open ones".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn page(link: &str, ticket: Option<&str>) -> Result<Viewer, String> {
    Viewer::open(link, viewer::Client::Page { ticket }).await
}

async fn link(demo: &DevEnvironment, machine: &Machine) -> Result<String, String> {
    let client = IpAddr::from([127, 0, 0, 1]);
    let link = demo.server.console_link(&machine.uuid, client, None).await;
    Ok(link.map_err(|error| chain(&error))?.url)
}
