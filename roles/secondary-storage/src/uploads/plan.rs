//! What is to become of an upload: its order, in checked values.

use agent_protocol::storage::PostUploadOrder;
use disk_image::Format;

use super::error::UploadError;
use super::order::OrderError;
use crate::config::DownloadSettings;
use crate::ingest::digest::{Algorithm, Expectation};
use crate::ingest::intake::{Content, Order};
use crate::objects::inventory::Description;
use crate::stores::path::PathError;
use crate::stores::{FileName, InstallPath, ObjectKind, StoreUrl};

/// An order that can be carried out.
#[derive(Debug, Clone)]
pub struct Plan {
    pub kind: ObjectKind,
    pub about: Description,
    /// Whose object it is.
    pub account: i64,
    pub format: Format,
    pub store: StoreUrl,
    pub nfs_version: Option<String>,
    /// The object's directory below the store's root.
    pub directory: InstallPath,
    /// Of the file, when it does not follow from the object's name.
    pub image: Option<FileName>,
    pub expectation: Expectation,
    /// Largest file in bytes.
    pub limit: u64,
    /// What the account may have on secondary storage, in bytes.
    pub quota: Option<u64>,
    pub decompressed_limit: u64,
    /// How many times as long as what was received an image may be.
    pub decompression_ratio: u64,
}

const GIB: u64 = 1 << 30;

impl Plan {
    /// Checks everything that an order says; `id` is that of the URL.
    ///
    /// # Errors
    /// [`UploadError::Plan`], [`UploadError::Order`] when it is for another upload.
    pub fn of(
        order: &PostUploadOrder,
        id: &str,
        settings: &DownloadSettings,
    ) -> Result<Self, UploadError> {
        let bad = |text: String| UploadError::Plan(text);
        let path = |error: PathError| UploadError::Plan(error.to_string());
        let uuid = order.entity_uuid.as_deref().unwrap_or_default();
        if !uuid.eq_ignore_ascii_case(id) {
            return Err(OrderError::OtherUpload(uuid.to_owned()).into());
        }
        let kind = match order.entity_type.as_deref().map(str::to_ascii_uppercase).as_deref() {
            Some("TEMPLATE" | "ISO") => ObjectKind::Template,
            Some("VOLUME") => ObjectKind::Volume,
            other => return Err(bad(format!("{other:?} is not something to upload"))),
        };
        let name = order.name.as_deref().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| bad("the order names no object".to_owned()))?;
        let format = order.image_format.as_ref();
        let format = format.ok_or_else(|| bad("the order names no format".to_owned()))?;
        let format = Format::from_name(format.as_str())
            .map_err(|unknown| bad(format!("images {unknown}")))?;
        let directory: InstallPath =
            order.absolute_path.as_deref().unwrap_or_default().parse().map_err(path)?;
        if kind.directory(&directory).as_ref() != Some(&directory) {
            let text = format!("{directory} is not the directory of a template or volume");
            return Err(bad(text));
        }
        let store = order.data_to.as_deref().unwrap_or_default();
        let store: StoreUrl = store.parse().map_err(|error| bad(bedrock::chain(&error)))?;
        let image = match format {
            // As the original: by the id, not by the unique name as for an ISO that is downloaded.
            Format::Iso => Some(format!("{}.iso", id.to_ascii_lowercase()).parse().map_err(path)?),
            _ => None,
        };
        let limit = order.max_upload_size.as_deref().and_then(|text| text.trim().parse().ok());
        let limit = limit.filter(|gib: &u64| *gib > 0);
        let limit = limit.map_or(settings.size_limit, |gib| gib.saturating_mul(GIB));
        Ok(Self {
            kind,
            about: Description {
                id: order.entity_id,
                unique_name: name.to_owned(),
                description: order.description.clone(),
                hvm: order.requires_hvm,
            },
            account: order.account_id,
            format,
            store,
            nfs_version: order.nfs_version.clone(),
            directory,
            image,
            expectation: expectation(order.checksum.as_deref())?,
            limit,
            quota: quota(order.max_secondary_storage),
            decompressed_limit: settings.decompressed_limit.unwrap_or(limit.saturating_mul(4)),
            decompression_ratio: settings.decompression_ratio,
        })
    }

    /// In the words of the ingest. What can go on after a restart is known again by a digest.
    pub(super) fn order(&self, can_go_on: bool) -> Order {
        let is_wanted = can_go_on || self.expectation.is_given();
        let expectation = if is_wanted { self.expectation.clone() } else { Expectation::nothing() };
        Order {
            kind: self.kind,
            content: Content::Image(self.format),
            directory: self.directory.clone(),
            expectation,
            hashes: Vec::new(),
            decompressed_limit: self.decompressed_limit,
            decompression_ratio: self.decompression_ratio,
            own_name: None,
        }
    }
}

/// Bytes up to 4.22.0, GiB since; no installation allows less than a GiB or more than 2^30 of them.
fn quota(value: i64) -> Option<u64> {
    let value = u64::try_from(value).ok()?;
    Some(if value < GIB { value.saturating_mul(GIB) } else { value })
}

/// A tagged checksum as everywhere; a bare one by its length, as the original does for volumes.
/// Without one nobody asks for a digest but ourselves, to know a beginning again after a restart: the
/// fastest does.
fn expectation(given: Option<&str>) -> Result<Expectation, UploadError> {
    let given = given.unwrap_or_default().trim();
    if given.is_empty() {
        return Expectation::compute("SHA-256")
            .map_err(|error| UploadError::Plan(error.to_string()));
    }
    let tagged = if given.starts_with('{') {
        given.to_owned()
    } else {
        let Some(algorithm) = Algorithm::of_hex_len(given.len()) else {
            let text = "Please provide valid checksum: the length fits no algorithm";
            return Err(UploadError::Plan(text.to_owned()));
        };
        format!("{{{}}}{given}", algorithm.name())
    };
    Expectation::parse(Some(&tagged)).map_err(|error| UploadError::Plan(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_in_bytes_or_gib() {
        for (value, bytes) in [
            (-1, None),
            (0, Some(0)),
            (400, Some(400 << 30)),
            (429_496_729_600, Some(429_496_729_600)),
        ] {
            assert_eq!(quota(value), bytes, "{value}");
        }
    }

    #[test]
    fn a_bare_checksum_is_known_by_its_length() {
        let hash = "ab".repeat(32);
        let tagged = Expectation::parse(Some(&format!("{{SHA-256}}{hash}"))).unwrap();
        assert_eq!(expectation(Some(&hash.to_uppercase())).unwrap(), tagged);
        assert_eq!(expectation(Some("{sha-256}ab")).unwrap().algorithm, tagged.algorithm);
        assert!(!expectation(None).unwrap().is_given());
        assert!(expectation(Some("abc")).is_err() && expectation(Some("{FOO}abc")).is_err());
    }
}
