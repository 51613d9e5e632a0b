//! The signed values, from options or from the answer of the API.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::UploadOptions;

/// Answers have a few kilobytes.
const MAX_ANSWER: u64 = 1 << 20;

/// What the API answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) url: String,
    pub(super) metadata: String,
    pub(super) expires: String,
    pub(super) signature: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    #[error("{} is not the JSON answer of the API", .0.display())]
    Json(PathBuf, #[source] serde_json::Error),
    #[error(
        "{} has no postURL, metadata, expires and signature: give the whole answer of \
         getUploadParamsForTemplate, getUploadParamsForIso or getUploadParamsForVolume",
        .0.display()
    )]
    Incomplete(PathBuf),
    #[error(
        "{0:?} is not the URL of an upload: it begins with http and ends in /upload/ and an id"
    )]
    Url(String),
}

impl Order {
    pub(super) fn of(options: &UploadOptions) -> Result<Self, OrderError> {
        let order = match (&options.params, &options.url) {
            (Some(path), _) => Self::read(path)?,
            (None, url) => {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                Self {
                    url: text(url),
                    metadata: text(&options.metadata),
                    expires: text(&options.expires),
                    signature: text(&options.signature),
                }
            }
        };
        let is_http = order.url.starts_with("http://") || order.url.starts_with("https://");
        match order.url.rsplit_once("/upload/") {
            Some((_, id)) if is_http && !id.is_empty() && !id.contains(['/', '?', '#']) => {
                Ok(order)
            }
            _ => Err(OrderError::Url(order.url)),
        }
    }

    fn read(path: &Path) -> Result<Self, OrderError> {
        let failed = |error| OrderError::Read(path.to_owned(), error);
        let mut text = String::new();
        let source: Box<dyn Read> = if path == Path::new("-") {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(path).map_err(failed)?)
        };
        source.take(MAX_ANSWER).read_to_string(&mut text).map_err(failed)?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|error| OrderError::Json(path.to_owned(), error))?;
        Self::find(&value).ok_or_else(|| OrderError::Incomplete(path.to_owned()))
    }

    /// Wherever in the answer it is.
    fn find(value: &Value) -> Option<Self> {
        let text = |key: &str| value.get(key)?.as_str().map(str::to_owned);
        let here = || {
            Some(Self {
                url: text("postURL")?,
                metadata: text("metadata")?,
                expires: text("expires")?,
                signature: text("signature")?,
            })
        };
        here().or_else(|| match value {
            Value::Object(inner) => inner.values().find_map(Self::find),
            Value::Array(inner) => inner.iter().find_map(Self::find),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_are_found_wherever_they_are() {
        let inner = serde_json::json!({"id": "x", "postURL": "https://h/upload/x", "metadata": "m",
            "expires": "e", "signature": "s"});
        let expected = Order {
            url: "https://h/upload/x".into(),
            metadata: "m".into(),
            expires: "e".into(),
            signature: "s".into(),
        };
        for answer in [
            inner.clone(),
            serde_json::json!({ "getuploadparams": inner }),
            serde_json::json!({"postuploadisoresponse": {"count": 1, "getuploadparams": inner}}),
            serde_json::json!([{ "a": [inner] }]),
        ] {
            assert_eq!(Order::find(&answer).as_ref(), Some(&expected), "{answer}");
        }
        assert_eq!(Order::find(&serde_json::json!({"postURL": "u"})), None);
    }
}
