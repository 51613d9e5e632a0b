//! Uploads by browser: the signed order that a user takes to the agent, and the questions to the
//! agent how it goes.
//!
//! The agent is told nothing beforehand: the order is sealed with the key that it got at set-up.

use std::sync::Arc;
use std::time::Duration;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use agent_protocol::storage::{
    PostUploadOrder, UploadEntityType, UploadStatusAnswer, UploadStatusCommand, UploadStatusState,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use serde::Serialize;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::commands::base;
use crate::config::WallClock;
use crate::core::Core;
use crate::events::EventKind;
use crate::images::{self, Image, ImageError, ImageKind, ImageState, NewImage};
use crate::random;
use crate::sync::lock;

/// How long an order is valid, and how long it is waited for: `upload.operation.timeout`.
const VALID: Duration = Duration::from_secs(60 * 60);
const GIB: i64 = 1 << 30;
const NOT_UP: &str = "the upload failed because the storage host is not up";
const ABANDONED: &str = "nothing was uploaded in time";

/// What the API answers to whoever wants to upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UploadParameters {
    /// UUID of the record.
    pub id: String,
    /// Where the file is posted to.
    #[serde(rename = "postURL")]
    pub post_url: String,
    /// The sealed order.
    pub metadata: String,
    /// Until when.
    pub expires: String,
    /// Over the three.
    pub signature: String,
}

impl UploadParameters {
    /// Seals and signs an order as the server does, with its `upload.post.secret.key`; `None` when the
    /// order cannot be sealed.
    pub fn sign(
        key: &str,
        order: &PostUploadOrder,
        post_url: String,
        expires: String,
    ) -> Option<Self> {
        sign(key, order, post_url, expires, random::bytes().ok()?)
    }
}

/// Makes a record that waits for its file, and the order for the browser; gives the record's number
/// too.
pub(crate) fn announce(
    core: &Arc<Core>,
    wanted: NewImage,
) -> Result<(i64, UploadParameters), ImageError> {
    let failed = |id, source| ImageError::Send { id, operation: "announce", source };
    let (id, image, key) = {
        let mut images = lock(&core.images);
        let store = images
            .store_with_room(&core.config)
            .ok_or_else(|| ImageError::NoStore(wanted.name.clone()))?;
        let id = images.register(wanted, store);
        images.update(id, |image| image.state = ImageState::NotUploaded);
        let image = images.get(id).ok_or(ImageError::Unknown(id))?;
        (id, image, images.upload_key())
    };
    let host = core.storage_host().map_err(|source| failed(id, source));
    let parameters = host.and_then(|(host, _)| {
        let address = core.row(&host).map(|row| row.public_address.clone());
        let address = address.or(host.public_address).unwrap_or_default();
        let base = core.config.images.upload_base.clone();
        let base = base.unwrap_or_else(|| format!("https://{address}"));
        let order = order(core, &image, address);
        let expires = expiry(&core.config.clock).ok_or(ImageError::Unknown(id))?;
        let url = format!("{base}/upload/{}", image.uuid);
        UploadParameters::sign(key.reveal(), &order, url, expires).ok_or(ImageError::Unknown(id))
    });
    let parameters = parameters.inspect_err(|_failed| lock(&core.images).remove(id))?;
    core.journal.record(0, None, EventKind::Image { id });
    let watching = Arc::clone(core);
    core.tasks.spawn(async move { watch(&watching, id).await });
    Ok((id, parameters))
}

fn expiry(clock: &WallClock) -> Option<String> {
    let end = clock.now().checked_add(VALID).ok()?;
    Some(end.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// What the agent finds inside the metadata.
fn order(core: &Core, image: &Image, address: String) -> PostUploadOrder {
    let is_volume = image.wanted.kind == ImageKind::Volume;
    let command = images::download_command(&core.config, image, "", 0);
    let limit = command.max_download_size_in_bytes.unwrap_or_default();
    PostUploadOrder {
        entity_id: image.id,
        entity_uuid: Some(image.uuid.clone()),
        absolute_path: command.install_path,
        checksum: image.wanted.checksum.clone(),
        entity_type: Some(if is_volume { "VOLUME" } else { "TEMPLATE" }.to_owned()),
        name: Some(image.unique_name.clone()),
        requires_hvm: !is_volume && image.wanted.hvm,
        image_format: Some(image.wanted.format.clone()),
        data_to: Some(image.store.as_str().into()),
        data_to_role: Some("Image".to_owned()),
        remote_end_point: (!is_volume).then_some(address),
        max_upload_size: Some(limit.div_euclid(GIB).max(1).to_string()),
        description: (!is_volume).then(|| image.wanted.name.clone()),
        max_secondary_storage: -1,
        process_timeout: if is_volume { 3_600 } else { 0 },
        account_id: command.account_id,
        ..PostUploadOrder::default()
    }
}

/// Seals and signs an order; `None` when it cannot be sealed.
fn sign(
    key: &str,
    order: &PostUploadOrder,
    post_url: String,
    expires: String,
    nonce: [u8; 12],
) -> Option<UploadParameters> {
    let cipher = Aes256Gcm::new(&Key::<Aes256Gcm>::from(<[u8; 32]>::from(Sha256::digest(key))));
    let plain = serde_json::to_vec(order).ok()?;
    let payload = Payload { msg: &plain, aad: b"" };
    let sealed = cipher.encrypt(&Nonce::from(nonce), payload).ok()?;
    let metadata = STANDARD.encode([nonce.as_slice(), &sealed].concat());
    let mut mac = <Hmac<Sha1> as hmac::digest::KeyInit>::new_from_slice(key.as_bytes()).ok()?;
    for part in [&metadata, &post_url, &expires] {
        mac.update(part.as_bytes());
    }
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let id = order.entity_uuid.clone().unwrap_or_default();
    Some(UploadParameters { id, post_url, metadata, expires, signature })
}

/// Asks for an upload until it is over.
async fn watch(core: &Core, id: i64) {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(core.config.images.poll_interval).await;
        let Some(image) = lock(&core.images).get(id) else { return };
        let Ok((_, attachment)) = core.storage_host() else {
            return fail(core, id, NOT_UP);
        };
        let is_volume = image.wanted.kind == ImageKind::Volume;
        let question = UploadStatusCommand {
            entity_uuid: Some(image.uuid.clone()),
            entity_type: Some(if is_volume {
                UploadEntityType::Volume
            } else {
                UploadEntityType::Template
            }),
            base: base(&random::log_id().unwrap_or_default()),
            ..UploadStatusCommand::default()
        };
        let asked = core.ask(&attachment, &question, core.answer_timeout(0)).await;
        // An answer of another class, or none, is looked past.
        let answer = asked.ok().and_then(|answer| answer.open::<UploadStatusAnswer>().ok());
        if answer.is_some_and(|answer| take(core, id, answer)) {
            return;
        }
        if begun.elapsed() > VALID {
            return fail(core, id, ABANDONED);
        }
    }
}

/// Stores an answer in the record; `true` when it is the last.
fn take(core: &Core, id: i64, answer: UploadStatusAnswer) -> bool {
    let is_last = match answer.status {
        Some(UploadStatusState::InProgress) => {
            lock(&core.images).update(id, |image| {
                image.state = ImageState::InProgress;
                image.percent = answer.download_percent;
            });
            false
        }
        Some(UploadStatusState::Completed) => {
            lock(&core.images).update(id, |image| {
                image.state = ImageState::Downloaded;
                image.percent = 100;
                image.install_path = answer.install_path;
                image.size = answer.virtual_size;
                image.physical_size = answer.physical_size;
                image.machine = answer.ovf_information.map(Box::new);
            });
            true
        }
        Some(UploadStatusState::Error) => {
            fail(core, id, answer.base.details.as_deref().unwrap_or_default());
            return true;
        }
        _ => return false,
    };
    core.journal.record(0, None, EventKind::Image { id });
    is_last
}

fn fail(core: &Core, id: i64, text: &str) {
    lock(&core.images).update(id, |image| {
        image.state = ImageState::Failed;
        text.clone_into(&mut image.message);
    });
    core.journal.record(0, None, EventKind::Image { id });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed apart, with another implementation of the ciphers.
    #[test]
    fn an_order_is_signed_as_the_original_does() {
        const KEY: &str = "k3Zq0mJb2mJ0f5o1f0V7yQ";
        let url = "https://203.0.113.10/upload/5b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33".to_owned();
        let expires = "2025-10-30T13:05:09.123Z".to_owned();
        let nonce = std::array::from_fn(|at| at as u8);
        let order = PostUploadOrder { entity_id: 1, ..PostUploadOrder::default() };
        let made = sign(KEY, &order, url, expires, nonce).unwrap();
        let sealed = STANDARD.decode(&made.metadata).unwrap();
        assert_eq!(sealed[..12], nonce);
        // The first bytes of every order are the same, and so is what they are sealed to.
        assert!(made.metadata.starts_with("AAECAwQFBgcICQoLf9hi01FbBA3eLBg7"), "{}", made.metadata);
        let signed = [made.metadata.as_str(), &made.post_url, &made.expires].concat();
        let mut mac =
            <Hmac<Sha1> as hmac::digest::KeyInit>::new_from_slice(KEY.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        mac.verify_slice(&STANDARD.decode(&made.signature).unwrap()).unwrap();
    }
}
