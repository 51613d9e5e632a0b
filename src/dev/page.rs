//! The page and its JSON: what it shows and what its forms do, each over the real wire.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agent_protocol::storage::ImageFormat;
use axum::body::{Body, Bytes};
use axum::extract::rejection::JsonRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use bedrock::chain;
use http_client::{Client, ClientError, Method};
use http_front::{HttpLimits, Peer, serve as serve_http};
use management_server::{Image, ImageKind, ImageState, ManagementServer, NewImage};
use serde::Deserialize;
use serde_json::{Value, json};
use status_api::ProcessStatus;

use super::cloud::Cloud;
use super::consoles::{ConsolePorts, Consoles};
use super::environment::{DevEnvironment, ZONE};
use super::machines::Machine;
use super::origin::guarded;
use super::{sample, uploads};

/// The demo zone of the dhcp role.
pub(crate) const SUBNET: &str = "demo";

#[derive(Clone)]
struct Page {
    server: ManagementServer,
    machines: Arc<[Machine]>,
    admin: Client,
    dhcp: Client,
    cloud: Cloud,
    consoles: Consoles,
    console_ports: ConsolePorts,
    origin: Arc<str>,
    /// Of links, and of links over https.
    links: [Arc<str>; 2],
}

/// Serves until the demo stops.
pub(crate) async fn serve(demo: &DevEnvironment) {
    let Some(listener) = demo.page.lock().await.take() else { return };
    let page = Page {
        server: demo.server.clone(),
        machines: demo.machines.clone().into(),
        admin: Client::tcp(demo.admin_address),
        dhcp: Client::unix(&demo.socket),
        cloud: demo.cloud.clone(),
        consoles: Consoles {
            machines: demo.machines.clone(),
            hosts: demo.hosts(),
            admin: Client::tcp(demo.admin_address),
        },
        console_ports: demo.console_ports(),
        origin: format!("http://{}", demo.page_address).into(),
        links: [
            format!("http://{}", demo.public).into(),
            format!("https://{}", demo.secure).into(),
        ],
    };
    let limits = HttpLimits { connections: 64, ..HttpLimits::default() };
    serve_http(listener, guarded(router(page)), limits, demo.tasks.clone(), demo.stop.clone())
        .await;
}

/// The dashboard's, and what this page has besides.
const STYLE: &str =
    concat!(include_str!("../admin/dashboard/base.css"), include_str!("page/style.css"));

fn router(page: Page) -> Router {
    // Uploads go to the storage role, which is another origin, as in a real cloud.
    let [storage, _] = &page.links;
    let policy =
        format!("default-src 'self'; connect-src 'self' {storage}; frame-ancestors 'none'");
    let asset = |kind: &'static str, text: &'static str| {
        let policy = policy.clone();
        get(move || async move {
            let kind = (header::CONTENT_TYPE, kind.to_owned());
            ([kind, (header::CONTENT_SECURITY_POLICY, policy)], text)
        })
    };
    Router::new()
        .route("/", asset("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/app.js", asset("text/javascript; charset=utf-8", include_str!("page/app.js")))
        .route("/style.css", asset("text/css; charset=utf-8", STYLE))
        .route("/api/state", get(state))
        .route("/api/templates", post(register))
        .route("/api/templates/{id}", delete(remove))
        .route("/api/templates/{id}/link", post(link))
        .route("/api/samples/{name}", post(register_sample))
        .route("/api/vms/{name}/console", post(console))
        .route("/api/reservations", post(reserve))
        .route("/api/reservations/{id}", delete(release))
        .route("/samples/{name}", get(download_sample))
        .route("/favicon.ico", get(|| async { StatusCode::NO_CONTENT }))
        .merge(page.cloud.clone().routes())
        .merge(uploads::routes(page.server.clone()))
        .merge(page.consoles.clone().routes())
        .with_state(page)
}

/// An error for the page: one sentence.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "detail": self.1 }))).into_response()
    }
}

fn bad(text: impl Into<String>) -> Refusal {
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, text.into())
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Refusal {
    Refusal(StatusCode::BAD_GATEWAY, chain(error))
}

/// What the dhcp role refuses is told in its words, what fails on the way as a failure.
fn refused(error: ClientError) -> Refusal {
    match error {
        ClientError::Refused { status, detail, .. } if status.is_client_error() => {
            Refusal(status, detail)
        }
        error => failed(&error),
    }
}

/// What a form of the page sends.
pub(crate) type Form<T> = Result<Json<T>, JsonRejection>;

pub(crate) fn form<T>(form: Form<T>) -> Result<T, Refusal> {
    let Json(fields) = form.map_err(|wrong| Refusal(wrong.status(), wrong.body_text()))?;
    Ok(fields)
}

async fn state(State(page): State<Page>) -> Json<Value> {
    let status = page.admin.get::<ProcessStatus>("/status").await.ok();
    let templates: Vec<Value> = page.server.images().iter().map(template).collect();
    let machines: Vec<Value> = page
        .machines
        .iter()
        .map(|machine| {
            let keys: String =
                machine.screen.keys().into_iter().filter_map(char::from_u32).collect();
            let tls = if machine.encrypted { ", TLS" } else { "" };
            let screen = format!("vnc {}{tls}", machine.address());
            json!({"name": machine.name, "screen": screen, "keys": keys})
        })
        .collect();
    let (reservations, dhcp) = match reservations(&page.dhcp).await {
        Ok(list) => (list, None),
        Err(error) => (Vec::new(), Some(chain(&error))),
    };
    Json(json!({
        "server": page.server.address().to_string(),
        "zone": ZONE,
        "roles": status.as_ref().map_or(&[][..], |status| &status.roles),
        "links": status.as_ref().map_or(&[][..], |status| &status.links),
        "vms": machines,
        "templates": templates,
        "reservations": reservations,
        "machines": page.cloud.machines(&page.dhcp).await,
        "dhcp": dhcp,
    }))
}

fn template(image: &Image) -> Value {
    let (state, error) = match image.state {
        ImageState::NotDownloaded => ("waiting", None),
        ImageState::NotUploaded => ("waiting for its file", None),
        ImageState::InProgress if image.wanted.url.is_empty() => ("uploading", None),
        ImageState::InProgress => ("downloading", None),
        ImageState::Downloaded => ("ready", None),
        ImageState::Failed => ("failed", Some(&image.message)),
    };
    json!({
        "id": image.id,
        "name": image.wanted.name,
        "format": image.wanted.format.as_str(),
        "kind": match image.wanted.kind {
            ImageKind::Template => "template",
            ImageKind::Iso => "ISO",
            ImageKind::Volume => "volume",
        },
        "machine": image.machine.as_ref().map(|machine| {
            let disks = machine.disks.as_ref().map_or(0, Vec::len);
            let networks = machine.networks.as_ref().map_or(0, Vec::len);
            format!("a machine with disks: {disks}, networks: {networks}")
        }),
        "state": state,
        "error": error,
        "percent": image.percent,
        "size": image.size,
        "physical_size": (image.physical_size > 0).then_some(image.physical_size),
    })
}

/// The demo zone's reservations with whether each is leased.
async fn reservations(dhcp: &Client) -> Result<Vec<Value>, ClientError> {
    let path = format!("/v1/zones/{ZONE}/reservations?limit=1000");
    let document = match dhcp.get::<Value>(&path).await {
        Ok(document) => document,
        // Before the first reservation there is no zone.
        Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let items = document.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(items
        .iter()
        .map(|item| {
            let field = |name: &str| item.get(name).cloned().unwrap_or_default();
            let leased = item.pointer("/status/leased").and_then(Value::as_bool).unwrap_or(false);
            json!({
                "id": field("id"),
                "hostname": field("hostname"),
                "mac": field("mac"),
                "ipv4": field("ipv4"),
                "leased": leased,
            })
        })
        .collect())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    name: String,
    url: String,
    format: String,
    kind: Option<String>,
    checksum: Option<String>,
}

async fn register(
    State(page): State<Page>,
    wanted: Form<Registration>,
) -> Result<Json<Value>, Refusal> {
    let wanted = form(wanted)?;
    if !wanted.url.starts_with("http://") && !wanted.url.starts_with("https://") {
        return Err(bad(format!("{:?} is not an http or https URL", wanted.url)));
    }
    register_image(&page.server, wanted)
}

/// What somebody wants to have, as the forms say it.
pub(super) fn image(
    name: String,
    url: String,
    format: &str,
    kind: Option<&str>,
    checksum: Option<String>,
) -> Result<NewImage, Refusal> {
    let format = match format {
        "QCOW2" => ImageFormat::Qcow2,
        "RAW" => ImageFormat::Raw,
        "VHD" => ImageFormat::Vhd,
        "VMDK" => ImageFormat::Vmdk,
        "OVA" => ImageFormat::Ova,
        "ISO" => ImageFormat::Iso,
        other => return Err(bad(format!("{other:?} is none of QCOW2, RAW, VHD, VMDK, OVA, ISO"))),
    };
    let kind = match kind {
        Some("volume") => ImageKind::Volume,
        Some("template") | None if format == ImageFormat::Iso => ImageKind::Iso,
        Some("template") | None => ImageKind::Template,
        Some(other) => return Err(bad(format!("{other:?} is neither template nor volume"))),
    };
    Ok(NewImage { kind, name, url, format, hvm: true, checksum })
}

fn register_image(server: &ManagementServer, wanted: Registration) -> Result<Json<Value>, Refusal> {
    let Registration { name, url, format, kind, checksum } = wanted;
    let image = image(name, url, &format, kind.as_deref(), checksum)?;
    let id = server.register_template(image).map_err(|error| failed(&error))?;
    Ok(Json(json!({ "id": id })))
}

async fn register_sample(
    State(page): State<Page>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let (title, format, kind) = match name.as_str() {
        "qcow2" => ("sample QCOW2", "QCOW2", None),
        "slow" => ("sample RAW, slow", "RAW", None),
        "ova" => ("sample OVA", "OVA", None),
        "volume" => ("sample volume", "QCOW2", Some("volume")),
        "broken" => ("no image at all", "QCOW2", None),
        other => return Err(bad(format!("there is no sample {other:?}"))),
    };
    let wanted = Registration {
        name: title.to_owned(),
        url: format!("{}/samples/{name}", page.origin),
        format: format.to_owned(),
        kind: kind.map(str::to_owned),
        checksum: None,
    };
    register_image(&page.server, wanted)
}

async fn remove(State(page): State<Page>, Path(id): Path<i64>) -> Result<StatusCode, Refusal> {
    page.server.delete_image(id).await.map_err(|error| failed(&error))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn link(State(page): State<Page>, Path(id): Path<i64>) -> Result<Json<Value>, Refusal> {
    let link = page.server.create_link(id).await.map_err(|error| failed(&error))?;
    let [plain, secure] = &page.links;
    let over_https = link.url.strip_prefix(&**plain).map(|path| format!("{secure}{path}"));
    Ok(Json(json!({ "url": link.url, "https": over_https })))
}

async fn console(
    State(page): State<Page>,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refusal> {
    let machine = page
        .machines
        .iter()
        .find(|machine| machine.name == name)
        .ok_or_else(|| bad(format!("there is no machine {name:?}")))?;
    let client = match peer {
        Peer::Tcp { remote, .. } => remote.ip(),
        Peer::Unix => IpAddr::from([127, 0, 0, 1]),
    };
    let link = page.server.console_link(&machine.uuid, client, None).await;
    let link = link.map_err(|error| failed(&error))?;
    let secure = page.console_ports.over_https(&link.url);
    Ok(Json(json!({ "url": link.url, "secure_url": secure })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reservation {
    hostname: String,
    mac: String,
    ipv4: String,
}

async fn reserve(
    State(page): State<Page>,
    wanted: Form<Reservation>,
) -> Result<Json<Value>, Refusal> {
    let wanted = form(wanted)?;
    let document = put_reservation(&page.dhcp, &wanted.hostname, &wanted.mac, &wanted.ipv4)
        .await
        .map_err(refused)?;
    Ok(Json(document))
}

/// Makes zone and subnet if they are missing, then the reservation.
pub(crate) async fn put_reservation(
    dhcp: &Client,
    hostname: &str,
    mac: &str,
    ipv4: &str,
) -> Result<Value, ClientError> {
    let zone = format!("/v1/zones/{ZONE}");
    let subnet = format!("{zone}/subnets/{SUBNET}");
    let parts = [
        (zone.clone(), json!({ "domain": "demo.test", "dns_servers": "self" })),
        (
            subnet,
            json!({
                "cidr": "10.99.0.0/24",
                "gateway": "10.99.0.1",
                "attachment": { "kind": "interface", "name": super::bridge::INTERFACE },
            }),
        ),
    ];
    for (path, body) in parts {
        match dhcp.get::<Value>(&path).await {
            Ok(_there) => {}
            Err(ClientError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                dhcp.call::<Value>(Method::PUT, &path, Some(&body)).await?;
            }
            Err(error) => return Err(error),
        }
    }
    // Whatever was typed becomes one segment of the path; the role judges the address itself.
    let digits: String = mac.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    let path = format!("{zone}/reservations/nic-{}", digits.to_ascii_lowercase());
    let body = json!({ "mac": mac, "ipv4": ipv4, "hostname": hostname, "subnet": SUBNET });
    dhcp.call(Method::PUT, &path, Some(&body)).await
}

async fn release(State(page): State<Page>, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    if !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_:.".contains(c)) {
        return Err(bad(format!("{id:?} is not a reservation")));
    }
    let path = format!("/v1/zones/{ZONE}/reservations/{id}");
    page.dhcp.call::<Value>(Method::DELETE, &path, None::<&()>).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Images to register when there is no network. The raw one comes at 2 MiB/s.
async fn download_sample(Path(name): Path<String>) -> Result<Response, Refusal> {
    match name.as_str() {
        "qcow2" | "volume" => Ok(sample::qcow2().into_response()),
        "ova" => Ok(sample::ova().into_response()),
        "broken" => Ok("<html>this is not a disk image</html>\n".repeat(100).into_response()),
        "slow" => {
            let piece = Bytes::from(sample::slow_piece());
            let pieces = futures_util::stream::unfold(0, move |sent: usize| {
                let piece = piece.clone();
                async move {
                    if sent >= sample::SLOW_SIZE {
                        return None;
                    }
                    tokio::time::sleep(Duration::from_millis(125)).await;
                    Some((Ok::<_, Infallible>(piece.clone()), sent + piece.len()))
                }
            });
            let length = [(header::CONTENT_LENGTH, sample::SLOW_SIZE.to_string())];
            Ok((length, Body::from_stream(pieces)).into_response())
        }
        other => Err(bad(format!("there is no sample {other:?}"))),
    }
}
