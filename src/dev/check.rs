//! `quickcloud dev --check`: the demo without a person, to the end.
//!
//! Each step does what the page's buttons do and looks at what came of it. A step that fails says
//! what it saw; the others still run, so that one run tells everything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bedrock::chain;
use http_client::{Answer, Client, Method};
use hyper::http::Uri;
use management_server::{HostState, ImageKind, ImageState, NewImage};
use serde_json::Value;
use status_api::{HealthWord, ProcessStatus};

use super::environment::{DevEnvironment, ZONE};
use super::machines::Machine;
use super::viewer::{self, Viewer};
use super::{check_uploads, consoles, page, sample, secure};
use crate::exit::Outcome;
use crate::output::say;

pub(super) const TIMEOUT: Duration = Duration::from_secs(30);
/// The key typed into the consoles: the letter q.
const KEY: u32 = 0x71;
const MAC: &str = "02:00:00:00:00:63";

pub(super) type Step = Result<String, String>;

/// Runs every step; clean when none failed.
pub(crate) async fn run(demo: &DevEnvironment) -> Outcome {
    let mut failures = 0;
    let mut report = |name: &str, started: Instant, step: Step| {
        let (mark, text) = match step {
            Ok(text) => ("ok  ", text),
            Err(text) => {
                failures += 1;
                ("FAIL", text)
            }
        };
        say(&format!("{mark} {name:<12} {:>6} ms  {text}\n", started.elapsed().as_millis()));
    };
    let started = Instant::now();
    report("registration", started, registration(demo).await);
    for machine in &demo.machines {
        let started = Instant::now();
        report(&machine.name, started, console(demo, machine).await);
    }
    let started = Instant::now();
    report("https", started, consoles::over_https(demo, KEY).await);
    let started = Instant::now();
    report("moving", started, consoles::moved_and_ended(demo).await);
    let started = Instant::now();
    report("template", started, template(demo).await);
    let started = Instant::now();
    report("bad template", started, bad_template(demo).await);
    let started = Instant::now();
    report("upload", started, check_uploads::template(demo).await);
    let started = Instant::now();
    report("volume", started, check_uploads::volume(demo).await);
    let started = Instant::now();
    report("ova", started, check_uploads::ova(demo).await);
    let started = Instant::now();
    report("bad upload", started, check_uploads::bad(demo).await);
    let started = Instant::now();
    report("reservation", started, reservation(demo).await);
    let started = Instant::now();
    report("status", started, status(demo).await);
    if failures == 0 { Outcome::Clean } else { Outcome::Failed }
}

/// Both hosts are Up on the server.
async fn registration(demo: &DevEnvironment) -> Step {
    let up = |server: &management_server::ManagementServer| {
        let hosts = server.hosts();
        let up = hosts.iter().filter(|host| host.state == HostState::Up).count();
        (up >= 2).then_some(hosts)
    };
    let hosts = demo.server.wait_for("two hosts up", TIMEOUT, up).await.map_err(|e| chain(&e))?;
    let names: Vec<String> =
        hosts.iter().map(|host| format!("{} is host {}", host.name, host.id)).collect();
    Ok(names.join(", "))
}

/// A link shows the page, a picture, and takes keys; a second use is refused.
async fn console(demo: &DevEnvironment, machine: &Machine) -> Step {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let link =
        demo.server.console_link(&machine.uuid, client, None).await.map_err(|e| chain(&e))?;
    let (address, path) = split(&link.url)?;
    let Answer { status, body } = fetch(address, &path).await?;
    if !status.is_success() || !body.starts_with(b"<!") {
        return Err(format!("the page of the link answers {status}"));
    }
    let seen = Viewer::open(&link.url, viewer::Client::Plain).await?.look(KEY).await?;
    let deadline = Instant::now() + TIMEOUT;
    while !machine.screen.keys().contains(&KEY) {
        if Instant::now() > deadline {
            return Err("the key typed did not reach the screen".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if Viewer::open(&link.url, viewer::Client::Plain).await.is_ok() {
        return Err("the link worked a second time".to_owned());
    }
    Ok(format!(
        "{}x{} pixels, more than {} colours, key arrived, second use refused",
        seen.width,
        seen.height,
        seen.colours - 1
    ))
}

async fn fetch(address: SocketAddr, path: &str) -> Result<Answer, String> {
    Client::tcp(address).fetch(Method::GET, path, None).await.map_err(|e| chain(&e))
}

/// Address and path with query of a URL.
fn split(url: &str) -> Result<(SocketAddr, String), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url} is not a URL: {error}"))?;
    let authority = uri.authority().ok_or_else(|| format!("{url} names no host"))?;
    let address = authority
        .as_str()
        .parse()
        .or_else(|_no_port| format!("{authority}:80").parse())
        .map_err(|error| format!("{url}: {error}"))?;
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    Ok((address, path))
}

fn sample_image(demo: &DevEnvironment, name: &str) -> NewImage {
    NewImage {
        kind: ImageKind::Template,
        name: name.to_owned(),
        url: format!("http://{}/samples/{name}", demo.page_address),
        format: agent_protocol::storage::ImageFormat::Qcow2,
        hvm: true,
        checksum: None,
    }
}

async fn settled(demo: &DevEnvironment, name: &str) -> Result<management_server::Image, String> {
    let id = demo.server.register_template(sample_image(demo, name)).map_err(|e| chain(&e))?;
    let done = |image: &management_server::Image| {
        matches!(image.state, ImageState::Downloaded | ImageState::Failed)
    };
    demo.server.wait_for_image(id, TIMEOUT, done).await.map_err(|e| chain(&e))
}

/// A template is downloaded, has the right size, and can be fetched back through a link.
async fn template(demo: &DevEnvironment) -> Step {
    let image = settled(demo, "qcow2").await?;
    if image.state == ImageState::Failed {
        return Err(image.message);
    }
    let size = u64::try_from(image.size).unwrap_or(0);
    if size != sample::QCOW2_VIRTUAL_SIZE {
        return Err(format!("virtual size {size}, expected {}", sample::QCOW2_VIRTUAL_SIZE));
    }
    let link = demo.server.create_link(image.id).await.map_err(|e| chain(&e))?;
    let (address, path) = split(&link.url)?;
    let Answer { status, body: bytes } = fetch(address, &path).await?;
    if !status.is_success() || bytes != sample::qcow2() {
        return Err(format!("the link answers {status} with {} bytes", bytes.len()));
    }
    if secure::fetch(demo.secure, &path, &demo.certificate).await? != sample::qcow2() {
        return Err("the link gives other bytes over https".to_owned());
    }
    demo.server.delete_image(image.id).await.map_err(|e| chain(&e))?;
    let count = bytes.len();
    Ok(format!("{count} bytes, virtual size {size}, fetched back through a link, http and https"))
}

/// Something that is not an image is refused in words.
async fn bad_template(demo: &DevEnvironment) -> Step {
    let image = settled(demo, "broken").await?;
    match image.state {
        ImageState::Failed if !image.message.is_empty() => {
            Ok(format!("refused: {}", image.message))
        }
        ImageState::Failed => Err("refused without a reason".to_owned()),
        _ => Err("accepted".to_owned()),
    }
}

/// A reservation is stored and rendered for dnsmasq.
async fn reservation(demo: &DevEnvironment) -> Step {
    let dhcp = Client::unix(&demo.socket);
    page::put_reservation(&dhcp, "check", MAC, "10.99.0.99").await.map_err(|e| chain(&e))?;
    let path = "/v1/instances/main/config?file=hosts";
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let hosts: Value = dhcp.get(path).await.map_err(|e| chain(&e))?;
        let text = hosts.as_str().map_or_else(|| hosts.to_string(), str::to_owned);
        if let Some(line) = text.lines().find(|line| line.contains(MAC)) {
            let served = match &demo.no_dhcp {
                None => String::new(),
                Some(why) => format!(" (not served: {why})"),
            };
            return Ok(format!("rendered as {}{served}", line.trim()));
        }
        if Instant::now() > deadline {
            return Err(format!("zone {ZONE} was not rendered: {text}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Every role is ready, or degraded with a reason that this machine explains.
async fn status(demo: &DevEnvironment) -> Step {
    let admin = Client::tcp(demo.admin_address);
    let status: ProcessStatus = admin.get("/status").await.map_err(|e| chain(&e))?;
    let mut words = Vec::new();
    for role in &status.roles {
        let excused =
            role.role == "dhcp" && role.health == HealthWord::Degraded && demo.no_dhcp.is_some();
        let reason = role.reason.as_deref().map(|reason| format!(" ({reason})"));
        let text = format!("{} {}{}", role.role, role.health, reason.unwrap_or_default());
        if role.health != HealthWord::Ready && !excused {
            return Err(text);
        }
        words.push(text);
    }
    if words.len() == 3 { Ok(words.join(", ")) } else { Err(format!("{} roles", words.len())) }
}
