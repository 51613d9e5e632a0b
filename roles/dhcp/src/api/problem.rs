//! Errors as RFC 9457 problem bodies: what is wrong, with field, value and remedy.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::desired::{ChangeError, ConflictKind};
use crate::store::StoreError;

/// Kind of a problem; the last part of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slug {
    Malformed,
    UnknownField,
    NotFound,
    MethodNotAllowed,
    AddressConflict,
    MacConflict,
    HostNameConflict,
    SubnetOverlap,
    NotEmpty,
    OwnedBySync,
    PreconditionFailed,
    PreconditionRequired,
    TooLarge,
    InvalidValue,
    LimitExceeded,
    ApplyFailed,
    InstanceDown,
    Storage,
    Timeout,
}

impl Slug {
    const fn parts(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::Malformed => ("malformed-request", 400, "The request cannot be read"),
            Self::UnknownField => ("unknown-field", 400, "The body has fields nobody knows"),
            Self::NotFound => ("not-found", 404, "Not found"),
            Self::MethodNotAllowed => ("method-not-allowed", 405, "Method not allowed"),
            Self::AddressConflict => ("address-conflict", 409, "Address already reserved"),
            Self::MacConflict => ("mac-conflict", 409, "MAC address already reserved"),
            Self::HostNameConflict => ("hostname-conflict", 409, "Name already taken"),
            Self::SubnetOverlap => ("subnet-overlap", 409, "Subnets overlap"),
            Self::NotEmpty => ("not-empty", 409, "The resource is not empty"),
            Self::OwnedBySync => ("owned-by-sync", 409, "Owned by the management server"),
            Self::PreconditionFailed => ("precondition-failed", 412, "Precondition failed"),
            Self::PreconditionRequired => ("precondition-required", 428, "Precondition required"),
            Self::TooLarge => ("too-large", 413, "The body is too large"),
            Self::InvalidValue => ("invalid-value", 422, "A value is not valid"),
            Self::LimitExceeded => ("limit-exceeded", 409, "A limit is reached"),
            Self::ApplyFailed => ("apply-failed", 502, "dnsmasq does not serve it"),
            Self::InstanceDown => ("instance-down", 503, "dnsmasq is down"),
            Self::Storage => ("storage", 500, "The state could not be written"),
            Self::Timeout => ("timeout", 503, "The request took too long"),
        }
    }
}

/// One field of a body that is not valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Path in the body: `options[1].value`.
    pub(crate) field: String,
    pub(crate) value: Value,
    pub(crate) reason: String,
    pub(crate) remedy: String,
}

/// A problem on its way to the client.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    slug: Slug,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(slug: Slug, detail: impl Into<String>) -> Self {
        Self { slug, detail: detail.into(), more: Map::new() }
    }

    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// All faults of a body at once. There is at least one.
    pub(crate) fn faults(slug: Slug, faults: &[Fault]) -> Self {
        let detail = faults.first().map(|fault| format!("{} {}", fault.field, fault.reason));
        let errors: Vec<Value> = faults
            .iter()
            .map(|Fault { field, value, reason, remedy }| {
                json!({"field": field, "value": value, "reason": reason, "remedy": remedy})
            })
            .collect();
        Self::new(slug, detail.unwrap_or_default()).with("errors", errors)
    }

    /// For an error that the framework answers itself, such as a path that is no UTF-8.
    pub(crate) fn unspoken(response: &Response) -> Option<Self> {
        let status = response.status();
        (status.is_client_error() || status.is_server_error()).then(|| {
            let slug = if status.is_client_error() { Slug::Malformed } else { Slug::Storage };
            let reason = status.canonical_reason().unwrap_or("not answered");
            Self::new(slug, format!("the request is not understood: {reason}"))
        })
    }

    /// The response, with the fields only the outermost layer knows.
    pub(crate) fn complete(self, path: &str, request_id: &str) -> Response {
        let (slug, status, title) = self.slug.parts();
        let mut body = json!({
            "type": format!("urn:quickcloud:dhcp:{slug}"),
            "title": title,
            "status": status,
            "detail": self.detail,
            "instance": path,
            "request_id": request_id,
        });
        if let Some(body) = body.as_object_mut() {
            body.extend(self.more);
        }
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(body)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

impl IntoResponse for Problem {
    /// An empty response that carries the problem to the outermost layer.
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::NotFound { .. } => Self::new(Slug::NotFound, detail),
            ChangeError::Invalid { field, value, reason, remedy } => {
                let (field, value) = (field.to_owned(), Value::from(value));
                let fault = Fault { field, value, reason, remedy: remedy.to_owned() };
                Self::faults(Slug::InvalidValue, &[fault])
            }
            ChangeError::Conflict { kind, field, value, owner } => {
                let slug = match kind {
                    ConflictKind::Address => Slug::AddressConflict,
                    ConflictKind::Mac => Slug::MacConflict,
                    ConflictKind::HostName => Slug::HostNameConflict,
                    ConflictKind::Subnet => Slug::SubnetOverlap,
                };
                Self::new(slug, detail)
                    .with("field", field)
                    .with("value", value)
                    .with("conflicts_with", owner)
                    .with("remedy", "choose another value, or change the owner first")
            }
            ChangeError::NotEmpty { .. } => Self::new(Slug::NotEmpty, detail)
                .with("remedy", "remove the contents first, or add cascade=true"),
            ChangeError::PreconditionFailed { .. } => Self::new(Slug::PreconditionFailed, detail)
                .with("remedy", "read the resource again and repeat with its ETag"),
            ChangeError::PreconditionRequired { revision, .. } => {
                Self::new(Slug::PreconditionRequired, detail).with("revision", revision)
            }
            ChangeError::Limit { limit, .. } => {
                Self::new(Slug::LimitExceeded, detail).with("limit", limit)
            }
            ChangeError::Owned { .. } => Self::new(Slug::OwnedBySync, detail),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refused) => refused.into(),
            StoreError::Write(_) | StoreError::Blocking(_) => {
                Self::new(Slug::Storage, bedrock::chain(&error))
            }
            StoreError::Stopping => Self::new(Slug::InstanceDown, error.to_string()),
        }
    }
}
