//! The keys of `[roles.secondary_storage]` about uploads.

use std::time::Duration;

use axum::http::HeaderValue;
use config_reader::Section;

use super::order::UploadKey;

/// What holds for every upload.
#[derive(Debug, Clone)]
pub struct UploadSettings {
    /// For hosts that the management server does not set up; the server's own key is taken besides.
    pub key: Option<UploadKey>,
    /// At the same time, resumable ones that pause included.
    pub at_once: usize,
    /// Pages that browsers may upload from; empty for all.
    pub origins: Vec<String>,
    /// How long a resumable upload may pause.
    pub pause: Duration,
}

const AT_ONCE: usize = 16;
const PAUSE: Duration = Duration::from_secs(15 * 60);

/// Reads the keys, reporting every violation.
pub(crate) fn read(section: &mut Section<'_>) -> UploadSettings {
    const ORIGINS: &str = "give origins as browsers send them: [\"https://cloud.example.org\"]";
    let key = section.secret("upload_key");
    if key.as_ref().is_some_and(|key| key.reveal().is_empty()) {
        section.violation(
            "upload_key",
            "an empty key signs nothing",
            "give the management server's upload.post.secret.key, or leave it out",
        );
    }
    let at_once = section.or_default("max_uploads", AT_ONCE, "give a number from 1 to 256");
    if !(1..=256).contains(&at_once) {
        let problem = format!("{at_once} is out of range");
        section.violation("max_uploads", problem, "give a number from 1 to 256");
    }
    let origins: Vec<String> = section.list("upload_origins", ORIGINS);
    for origin in origins.iter().filter(|origin| !is_origin(origin)) {
        section.violation("upload_origins", format!("{origin:?} is not an origin"), ORIGINS);
    }
    let pause = section.duration("upload_pause", PAUSE);
    if pause.is_zero() {
        section.violation("upload_pause", "0 would end every pause", "give a time: \"15m\"");
    }
    UploadSettings { key, at_once, origins, pause }
}

/// Scheme and host, perhaps a port, nothing behind it.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '?', '#', '*', ' ']))
        && HeaderValue::from_str(text).is_ok()
}
