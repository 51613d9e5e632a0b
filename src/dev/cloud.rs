//! The demo's zone as the management server has it: a small server of the CloudStack API with
//! machines to make, rename and destroy, whose book the dhcp role reads by itself.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use axum::extract::{Path as Segment, State};
use axum::http::StatusCode;
use axum::routing::{post, put};
use axum::{Json, Router};
use demo_api::{DemoApi, Keys, World};
use http_client::Client;
use role::TaskScope;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::page::{Form, Refusal, form};

/// Name of the zone, at the server and at the dhcp role.
pub(crate) const ZONE: &str = "cloud";
/// Machines that a person needs, and no more.
const MOST: usize = 200;

/// The server, and what the role must know of it.
#[derive(Debug, Clone)]
pub(crate) struct Cloud {
    api: DemoApi,
    /// Keys and values of the role's configuration.
    pub(crate) settings: Vec<String>,
}

impl Cloud {
    /// Starts the server with two machines; the keys lie in `state`.
    pub(crate) async fn start(
        state: &Path,
        tasks: &TaskScope,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let mut world = World::basic(ZONE);
        for name in ["web-1", "db_1"] {
            world.deploy(name);
        }
        // Of nobody but this process, and over with it.
        let (api, secret) = (format!("key-{}", std::process::id()), "demo-secret".to_owned());
        let keys = Keys { api: api.clone(), secret: secret.clone() };
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let (server, serving) = DemoApi::start(address, world, keys, stop.clone()).await?;
        drop(tasks.spawn("demo API", serving));
        let mut settings = vec![
            format!("roles.dhcp.sync.urls=[\"{}\"]", server.url()),
            format!("roles.dhcp.sync.zone={ZONE}"),
            "roles.dhcp.sync.full_interval=5s".to_owned(),
        ];
        for (name, text) in [("api_key_file", api), ("secret_key_file", secret)] {
            let path = state.join(format!("cloud-{name}"));
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            let quoted = toml::Value::String(path.display().to_string());
            settings.push(format!("roles.dhcp.sync.{name}={quoted}"));
        }
        Ok(Self { api: server, settings })
    }

    /// Each machine as the server has it, and what the role makes of it.
    pub(crate) async fn machines(&self, dhcp: &Client) -> Vec<Value> {
        let path = format!("/v1/zones/{ZONE}/reservations?limit=1000");
        let known = dhcp.get::<Value>(&path).await.unwrap_or_default();
        let known = known.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
        let machines = self.api.with(|world| world.machines.clone());
        let shown = machines.iter().map(|machine| {
            let nic = machine.pointer("/nic/0").cloned().unwrap_or_default();
            let id = format!("nic:{}", nic.get("id").and_then(Value::as_str).unwrap_or_default());
            let reservation =
                known.iter().find(|r| r.get("id").and_then(Value::as_str) == Some(&id));
            let field = |name: &str| machine.get(name).cloned().unwrap_or_default();
            json!({
                "id": field("id"),
                "name": field("name"),
                "state": field("state"),
                "mac": nic.get("macaddress"),
                "ipv4": nic.get("ipaddress"),
                "known_as": reservation.and_then(|r| r.get("hostname")),
                "leased": reservation.and_then(|r| r.pointer("/status/leased")),
            })
        });
        shown.collect()
    }

    /// What the forms of the page do.
    pub(crate) fn routes<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        Router::new()
            .route("/api/machines", post(deploy))
            .route("/api/machines/{id}", put(rename).delete(expunge))
            .with_state(self)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

async fn deploy(State(cloud): State<Cloud>, named: Form<Named>) -> Result<Json<Value>, Refusal> {
    let Named { name } = form(named)?;
    let id = cloud.api.with(|world| {
        let id = if world.machines.len() < MOST { world.deploy(&name) } else { None }?;
        // It is seen while it starts, as at a real server.
        world.set(&id, "state", "Starting");
        Some(id)
    });
    let full = || Refusal(StatusCode::CONFLICT, "no address is left".to_owned());
    Ok(Json(json!({ "id": id.ok_or_else(full)? })))
}

async fn rename(
    State(cloud): State<Cloud>,
    Segment(id): Segment<String>,
    named: Form<Named>,
) -> Result<StatusCode, Refusal> {
    let Named { name } = form(named)?;
    cloud.api.with(|world| {
        world.set(&id, "name", name);
        world.set(&id, "state", "Running");
    });
    Ok(StatusCode::NO_CONTENT)
}

async fn expunge(State(cloud): State<Cloud>, Segment(id): Segment<String>) -> StatusCode {
    cloud.api.with(|world| world.expunge(&id));
    StatusCode::NO_CONTENT
}
