//! `quickcloud dev --check`: the demo without a person, to the end.
//!
//! Each step does what the page's buttons do and looks at what came of it. A step that fails says
//! what it saw; the others still run, so that one run tells everything.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bedrock::chain;
use hyper::Method;
use hyper::http::Uri;
use management_server::{HostState, ImageKind, ImageState, NewImage};
use serde_json::Value;

use super::lab::{Lab, Machine, ZONE};
use super::rest::{At, call, fetch};
use super::{page, sample, viewer};
use crate::cli::output::say;
use crate::exit::Outcome;

const PATIENCE: Duration = Duration::from_secs(30);
/// The key typed into the consoles: the letter q.
const KEY: u32 = 0x71;
const MAC: &str = "02:00:00:00:00:63";

type Step = Result<String, String>;

/// Runs every step; clean when none failed.
pub(crate) async fn run(lab: &Lab) -> Outcome {
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
    report("registration", started, registration(lab).await);
    for machine in &lab.machines {
        let started = Instant::now();
        report(&machine.name, started, console(lab, machine).await);
    }
    let started = Instant::now();
    report("template", started, template(lab).await);
    let started = Instant::now();
    report("bad template", started, bad_template(lab).await);
    let started = Instant::now();
    report("reservation", started, reservation(lab).await);
    let started = Instant::now();
    report("status", started, status(lab).await);
    if failures == 0 { Outcome::Clean } else { Outcome::Failed }
}

/// Both hosts are Up on the server.
async fn registration(lab: &Lab) -> Step {
    let up = |server: &management_server::ManagementServer| {
        let hosts = server.hosts();
        let up = hosts.iter().filter(|host| host.state == HostState::Up).count();
        (up >= 2).then_some(hosts)
    };
    let hosts = lab.server.wait_for("two hosts up", PATIENCE, up).await.map_err(|e| chain(&e))?;
    let names: Vec<String> =
        hosts.iter().map(|host| format!("{} is host {}", host.name, host.id)).collect();
    Ok(names.join(", "))
}

/// A link shows the page, a picture, and takes keys; a second use is refused.
async fn console(lab: &Lab, machine: &Machine) -> Step {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let link = lab.server.console_link(&machine.uuid, client, None).await.map_err(|e| chain(&e))?;
    let (address, path) = split(&link.url)?;
    let (status, body) =
        fetch(&At::Tcp(address), Method::GET, &path, None).await.map_err(|e| chain(&e))?;
    if !status.is_success() || !body.starts_with(b"<!") {
        return Err(format!("the page of the link answers {status}"));
    }
    let seen = viewer::look(&link.url, KEY).await?;
    let deadline = Instant::now() + PATIENCE;
    while !machine.screen.keys().contains(&KEY) {
        if Instant::now() > deadline {
            return Err("the key typed did not reach the screen".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if let Ok(again) = viewer::look(&link.url, KEY).await {
        return Err(format!("the link worked a second time, with {} colours", again.colours));
    }
    Ok(format!(
        "{}x{} pixels, more than {} colours, key arrived, second use refused",
        seen.width,
        seen.height,
        seen.colours - 1
    ))
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

fn sample_image(lab: &Lab, name: &str) -> NewImage {
    NewImage {
        kind: ImageKind::Template,
        name: name.to_owned(),
        url: format!("http://{}/samples/{name}", lab.page_address),
        format: agent_protocol::storage::ImageFormat::Qcow2,
        hvm: true,
        checksum: None,
    }
}

async fn settled(lab: &Lab, name: &str) -> Result<management_server::Image, String> {
    let id = lab.server.register_template(sample_image(lab, name)).map_err(|e| chain(&e))?;
    let done = |image: &management_server::Image| {
        matches!(image.state, ImageState::Downloaded | ImageState::Failed)
    };
    lab.server.wait_for_image(id, PATIENCE, done).await.map_err(|e| chain(&e))
}

/// A template is downloaded, has the right size, and can be fetched back through a link.
async fn template(lab: &Lab) -> Step {
    let image = settled(lab, "qcow2").await?;
    if image.state == ImageState::Failed {
        return Err(image.message);
    }
    let size = u64::try_from(image.size).unwrap_or(0);
    if size != sample::QCOW2_VIRTUAL_SIZE {
        return Err(format!("virtual size {size}, expected {}", sample::QCOW2_VIRTUAL_SIZE));
    }
    let link = lab.server.create_link(image.id).await.map_err(|e| chain(&e))?;
    let (address, path) = split(&link.url)?;
    let (status, bytes) =
        fetch(&At::Tcp(address), Method::GET, &path, None).await.map_err(|e| chain(&e))?;
    if !status.is_success() || bytes != sample::qcow2() {
        return Err(format!("the link answers {status} with {} bytes", bytes.len()));
    }
    lab.server.delete_image(image.id).await.map_err(|e| chain(&e))?;
    Ok(format!("{} bytes, virtual size {size}, fetched back through a link", bytes.len()))
}

/// Something that is not an image is refused in words.
async fn bad_template(lab: &Lab) -> Step {
    let image = settled(lab, "broken").await?;
    match image.state {
        ImageState::Failed if !image.message.is_empty() => {
            Ok(format!("refused: {}", image.message))
        }
        ImageState::Failed => Err("refused without a reason".to_owned()),
        _ => Err("accepted".to_owned()),
    }
}

/// A reservation is stored and rendered for dnsmasq.
async fn reservation(lab: &Lab) -> Step {
    let dhcp = At::Socket(lab.socket.clone());
    page::put_reservation(&dhcp, "check", MAC, "10.99.0.99").await.map_err(|e| chain(&e))?;
    let path = "/v1/instances/main/config?file=hosts";
    let deadline = Instant::now() + PATIENCE;
    loop {
        let hosts = call(&dhcp, Method::GET, path, None).await.map_err(|e| chain(&e))?;
        let text = hosts.as_str().map_or_else(|| hosts.to_string(), str::to_owned);
        if let Some(line) = text.lines().find(|line| line.contains(MAC)) {
            let served = match &lab.no_dhcp {
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
async fn status(lab: &Lab) -> Step {
    let admin = At::Tcp(lab.admin_address);
    let document = call(&admin, Method::GET, "/status", None).await.map_err(|e| chain(&e))?;
    let roles = document.get("roles").and_then(Value::as_array).cloned().unwrap_or_default();
    let text =
        |role: &Value, key: &str| role.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
    let mut words = Vec::new();
    for role in &roles {
        let (name, health, reason) =
            (text(role, "role"), text(role, "health"), text(role, "reason"));
        let excused = name == "dhcp" && health == "degraded" && lab.no_dhcp.is_some();
        if health != "ready" && !excused {
            return Err(format!("{name} is {health}: {reason}"));
        }
        let because = if reason.is_empty() { reason } else { format!(" ({reason})") };
        words.push(format!("{name} {health}{because}"));
    }
    if words.len() == 3 { Ok(words.join(", ")) } else { Err(format!("{} roles", words.len())) }
}
