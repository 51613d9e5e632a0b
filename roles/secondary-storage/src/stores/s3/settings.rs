//! What a command says of a bucket.

use std::time::Duration;

use agent_protocol::storage::S3TO;
use bedrock::Secret;
use reqwest::Url;

/// The values of the server's own client where a command has none.
const CONNECT: Duration = Duration::from_secs(10);
const SOCKET: Duration = Duration::from_secs(50);
const TTL: Duration = Duration::from_secs(60);
const RETRIES: u32 = 3;
const MAX_RETRIES: u32 = 10;
/// Where nobody tells another one.
const REGION: &str = "us-east-1";

/// Why it is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("the S3 store has no {0}")]
    Missing(&'static str),
    #[error("the S3 store's endpoint is not a host or URL: {0}")]
    EndPoint(String),
    #[error("{0:?} is not the name of a bucket")]
    Bucket(String),
}

/// A bucket, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// Scheme, host and port; with virtual-host style the host has the bucket in it.
    pub base: Url,
    pub bucket: String,
    /// The bucket is the first part of the path.
    pub is_path_style: bool,
    pub access_key: String,
    pub secret_key: Secret<String>,
    pub region: String,
    pub keep_alive: bool,
    pub connect_timeout: Duration,
    /// Between two pieces of an answer.
    pub socket_timeout: Duration,
    /// How long an idle connection is kept.
    pub connection_ttl: Duration,
    pub retries: u32,
    pub reduced_redundancy: bool,
}

impl S3Settings {
    pub fn of(s3: &S3TO) -> Result<Self, SettingsError> {
        let text = |text: Option<&str>, name| {
            let text = text.map(str::trim).filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or(SettingsError::Missing(name))
        };
        let bucket = text(s3.bucket_name.as_deref(), "bucket")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if bucket.len() > 255 || !bucket.chars().all(is_name) || bucket.starts_with('.') {
            return Err(SettingsError::Bucket(bucket));
        }
        let access_key =
            text(s3.access_key.as_ref().map(|key| key.reveal().as_str()), "access key")?;
        let secret_key =
            text(s3.secret_key.as_ref().map(|key| key.reveal().as_str()), "secret key")?;
        let mut base = end_point(s3.end_point.as_deref(), s3.https_flag == Some(true))?;
        let host = base.host_str().unwrap_or_default().to_ascii_lowercase();
        let is_amazon = host.ends_with(".amazonaws.com") || host.ends_with(".amazonaws.com.cn");
        // Whoever writes the bucket before the host wants it there; Amazon wants it of everybody. A name
        // with dots would not be covered by the certificate.
        let prefix = format!("{}.", bucket.to_ascii_lowercase());
        let mut is_path_style = !host.starts_with(&prefix);
        if is_path_style && is_amazon && !bucket.contains('.') {
            let named = base.set_host(Some(&format!("{prefix}{host}")));
            named.map_err(|error| SettingsError::EndPoint(error.to_string()))?;
            is_path_style = false;
        }
        let milliseconds = |value: Option<i32>, default| {
            let value =
                value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
            value.map_or(default, Duration::from_millis)
        };
        let retries = s3.max_error_retry.and_then(|count| u32::try_from(count).ok());
        Ok(Self {
            region: region_of(&host).unwrap_or(REGION).to_owned(),
            base,
            bucket,
            is_path_style,
            access_key,
            secret_key: Secret::new(secret_key),
            keep_alive: s3.use_tcp_keep_alive == Some(true),
            connect_timeout: milliseconds(s3.connection_timeout, CONNECT),
            socket_timeout: milliseconds(s3.socket_timeout, SOCKET),
            connection_ttl: milliseconds(s3.connection_ttl, TTL),
            retries: retries.unwrap_or(RETRIES).min(MAX_RETRIES),
            reduced_redundancy: s3.enable_rrs,
        })
    }

    /// The name of the store here.
    pub fn url(&self) -> String {
        let host = self.base.host_str().unwrap_or_default();
        let port = self.base.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("s3://{host}{port}/{}", self.bucket)
    }

    /// Tells buckets of the same name apart.
    pub fn key(&self) -> String {
        format!("{}{}", self.base, self.bucket)
    }
}

fn end_point(text: Option<&str>, is_https: bool) -> Result<Url, SettingsError> {
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    // Without one the server's client goes to Amazon.
    let text = text.unwrap_or("s3.amazonaws.com");
    let wrong = || SettingsError::EndPoint(crate::redacted::RedactedUrl::of(text).to_string());
    let host = match text.split_once("://") {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") =>
        {
            rest
        }
        Some(_) => return Err(wrong()),
        None => text,
    };
    let scheme = if is_https { "https" } else { "http" };
    let url = Url::parse(&format!("{scheme}://{host}")).map_err(|_bad| wrong())?;
    let is_plain = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none();
    if is_plain && url.host_str().is_some() { Ok(url) } else { Err(wrong()) }
}

/// `s3.eu-west-1.amazonaws.com`, `s3-eu-west-1.amazonaws.com`, with a bucket before it or not.
fn region_of(host: &str) -> Option<&str> {
    let rest =
        host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let last = rest.rsplit('.').next()?;
    match last.strip_prefix("s3-") {
        Some(region) => Some(region),
        None if last == "s3" || last.is_empty() => None,
        None => Some(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(end_point: &str, bucket: &str) -> S3TO {
        S3TO {
            access_key: Some("AKIA".into()),
            secret_key: Some("secret".into()),
            end_point: Some(end_point.into()),
            bucket_name: Some(bucket.to_owned()),
            ..S3TO::default()
        }
    }

    #[test]
    fn the_bucket_is_in_the_path_or_in_the_host() {
        for (end_point, bucket, base, is_path_style, region) in [
            ("127.0.0.1:9000", "sec", "http://127.0.0.1:9000/", true, "us-east-1"),
            ("http://s3.example.net", "sec", "http://s3.example.net/", true, "us-east-1"),
            ("sec.s3.example.net", "sec", "http://sec.s3.example.net/", false, "us-east-1"),
            (
                "s3.eu-west-1.amazonaws.com",
                "sec",
                "http://sec.s3.eu-west-1.amazonaws.com/",
                false,
                "eu-west-1",
            ),
            (
                "s3-eu-west-1.amazonaws.com",
                "a.b",
                "http://s3-eu-west-1.amazonaws.com/",
                true,
                "eu-west-1",
            ),
            ("", "sec", "http://sec.s3.amazonaws.com/", false, "us-east-1"),
            ("[::1]:9000", "sec", "http://[::1]:9000/", true, "us-east-1"),
        ] {
            let found = S3Settings::of(&s3(end_point, bucket)).unwrap();
            assert_eq!(found.base.as_str(), base, "{end_point}");
            assert_eq!(
                (found.is_path_style, found.region.as_str()),
                (is_path_style, region),
                "{end_point}"
            );
        }
    }

    #[test]
    fn every_field_counts_and_what_cannot_be_is_named() {
        let all = S3TO {
            https_flag: Some(true),
            use_tcp_keep_alive: Some(true),
            connection_timeout: Some(5_000),
            socket_timeout: Some(6_000),
            connection_ttl: Some(7_000),
            max_error_retry: Some(2),
            enable_rrs: true,
            ..s3("h:9000", "sec")
        };
        let found = S3Settings::of(&all).unwrap();
        assert_eq!(found.base.as_str(), "https://h:9000/");
        assert_eq!(found.connect_timeout, Duration::from_secs(5));
        assert_eq!(found.socket_timeout, Duration::from_secs(6));
        assert_eq!(found.connection_ttl, Duration::from_secs(7));
        assert!(found.keep_alive && found.reduced_redundancy && found.retries == 2);
        assert!(!format!("{found:?}").contains("secret\""), "{found:?}");
        for (end_point, bucket, told) in [
            ("h", "", "no bucket"),
            ("h", "../x", "not the name of a bucket"),
            ("ftp://h", "b", "not a host or URL"),
            ("h/path", "b", "not a host or URL"),
            ("user:pass@h", "b", "not a host or URL"),
        ] {
            let error = S3Settings::of(&s3(end_point, bucket)).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("pass"), "{error}");
        }
    }
}
