//! The part of the check that uploads: what a browser posts, and what the server hears of it.

use std::path::Path;

use agent_protocol::storage::ImageFormat;
use bedrock::chain;
use management_server::{Image, ImageKind, ImageState, NewImage, UploadParameters};
use serde_json::Value;

use super::check::{Step, TIMEOUT};
use super::environment::DevEnvironment;
use super::{sample, secure};

const BOUNDARY: &str = "quickcloud-dev-check";

fn wanted(name: &str, kind: ImageKind, format: ImageFormat) -> NewImage {
    let (name, url) = (name.to_owned(), String::new());
    NewImage { kind, name, url, format, hvm: true, checksum: None }
}

/// Posts a form as a browser does, over https when the certificate is given; gives the server's record
/// of it, and what the browser is told.
async fn uploaded(
    demo: &DevEnvironment,
    wanted: NewImage,
    file: &[u8],
    authority: Option<&Path>,
) -> Result<(Image, u16, String), String> {
    let (id, parameters) = demo.server.announce_upload(wanted).map_err(|e| chain(&e))?;
    let address = if authority.is_some() { demo.secure } else { demo.public };
    let request = form(&parameters, &address.to_string(), file);
    let (status, body) = secure::send(address, &request, authority).await?;
    let over = |image: &Image| matches!(image.state, ImageState::Downloaded | ImageState::Failed);
    let image = demo.server.wait_for_image(id, TIMEOUT, over).await.map_err(|e| chain(&e))?;
    let body = String::from_utf8_lossy(&body).into_owned();
    Ok((image, status, body))
}

fn form(parameters: &UploadParameters, host: &str, file: &[u8]) -> Vec<u8> {
    let UploadParameters { id, post_url, metadata, expires, signature } = parameters;
    let part = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"files[]\"; filename=\"sample\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    );
    let end = format!("\r\n--{BOUNDARY}--\r\n");
    let length = part.len() + file.len() + end.len();
    let head = format!(
        "POST /upload/{id} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
         Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\
         x-signature: {signature}\r\nx-metadata: {metadata}\r\nx-expires: {expires}\r\n\
         x-post-url: {post_url}\r\n\r\n"
    );
    [head.as_bytes(), part.as_bytes(), file, end.as_bytes()].concat()
}

/// An upload that has to succeed; the record is deleted again by the caller.
async fn installed(
    demo: &DevEnvironment,
    wanted: NewImage,
    file: &[u8],
    size: u64,
    authority: Option<&Path>,
) -> Result<Image, String> {
    let (image, status, body) = uploaded(demo, wanted, file, authority).await?;
    if status != 200 || image.state == ImageState::Failed {
        return Err(format!("the browser is told {status} {body}, the server {}", image.message));
    }
    if u64::try_from(image.size) != Ok(size) {
        return Err(format!("virtual size {}, expected {size}", image.size));
    }
    Ok(image)
}

/// A template is uploaded over http and another over https, and listed.
pub(super) async fn template(demo: &DevEnvironment) -> Step {
    let file = sample::qcow2();
    for authority in [None, Some(demo.certificate.as_path())] {
        let wanted = wanted("upload", ImageKind::Template, ImageFormat::Qcow2);
        let size = sample::QCOW2_VIRTUAL_SIZE;
        let image = installed(demo, wanted, &file, size, authority).await?;
        demo.server.delete_image(image.id).await.map_err(|e| chain(&e))?;
    }
    Ok(format!("{} bytes over http and https, uploaded at the server's first question", file.len()))
}

/// A volume is uploaded, to the directory of volumes.
pub(super) async fn volume(demo: &DevEnvironment) -> Step {
    let wanted = wanted("data-1", ImageKind::Volume, ImageFormat::Qcow2);
    let size = sample::QCOW2_VIRTUAL_SIZE;
    let image = installed(demo, wanted, &sample::qcow2(), size, None).await?;
    let path = image.install_path.unwrap_or_default();
    if !path.starts_with("volumes/") {
        return Err(format!("the volume is at {path}"));
    }
    demo.server.delete_image(image.id).await.map_err(|e| chain(&e))?;
    Ok(format!("uploaded to {path}"))
}

/// An OVA is unpacked, and the machine that it describes is told.
pub(super) async fn ova(demo: &DevEnvironment) -> Step {
    let wanted = wanted("machine", ImageKind::Template, ImageFormat::Ova);
    let size = sample::OVA_VIRTUAL_SIZE;
    let image = installed(demo, wanted, &sample::ova(), size, None).await?;
    let machine = image.machine.ok_or("the server is told nothing of the machine")?;
    let disks = machine.disks.unwrap_or_default();
    let networks = machine.networks.unwrap_or_default();
    let (Some(disk), Some(network)) = (disks.first(), networks.first()) else {
        return Err(format!("{} disks and {} networks are told", disks.len(), networks.len()));
    };
    let path = disk.path.clone().unwrap_or_default();
    if !Path::new(&path).is_file() {
        return Err(format!("its disk {path} is not there"));
    }
    demo.server.delete_image(image.id).await.map_err(|e| chain(&e))?;
    let network = network.name.clone().unwrap_or_default();
    Ok(format!("unpacked, {} disk, network {network}", disks.len()))
}

/// What is no image is refused with the same reason to the browser and to the server.
pub(super) async fn bad(demo: &DevEnvironment) -> Step {
    let wanted = wanted("broken", ImageKind::Template, ImageFormat::Qcow2);
    let file = b"this is not a disk image\n".repeat(100);
    let (image, status, body) = uploaded(demo, wanted, &file, None).await?;
    let said: Value = serde_json::from_str(&body).unwrap_or_default();
    let said = said.get("message").and_then(Value::as_str).unwrap_or_default();
    if status != 400
        || image.state != ImageState::Failed
        || said.is_empty()
        || said != image.message
    {
        return Err(format!("the browser is told {status} {body}, the server {}", image.message));
    }
    Ok(format!("refused to both: {said}"))
}
