//! Problems as answers: which kind an error is, and how it leaves the server.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dhcp_api::problem::{Fault, Problem, ProblemKind};
use dhcp_api::read::{Faults, Place};
use dhcp_api::words::Invalid;
use serde_json::Value;

use crate::desired::{ChangeError, ConflictKind};
use crate::store::StoreError;

/// A problem on its way to the client.
#[derive(Debug, Clone)]
pub(super) struct Refusal(pub(super) Box<Problem>);

impl Refusal {
    pub(super) fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Problem::new(kind, detail).into()
    }

    /// For an error that the framework answers itself, such as a path that is not UTF-8.
    pub(super) fn unspoken(response: &Response) -> Option<Self> {
        let status = response.status();
        (status.is_client_error() || status.is_server_error()).then(|| {
            let client = status.is_client_error();
            let kind = if client { ProblemKind::Malformed } else { ProblemKind::Storage };
            let reason = status.canonical_reason().unwrap_or("not answered");
            Self::new(kind, format!("the request is not understood: {reason}"))
        })
    }

    /// The response, with the fields only the outermost layer knows.
    pub(super) fn complete(self, path: &str, request_id: &str) -> Response {
        let mut problem = *self.0;
        problem.instance = path.to_owned();
        problem.request_id = request_id.to_owned();
        let status = StatusCode::from_u16(problem.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(problem)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

impl IntoResponse for Refusal {
    /// An empty response that carries the problem to the outermost layer.
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(Box::new(problem))
    }
}

impl From<Faults> for Refusal {
    fn from(faults: Faults) -> Self {
        Problem::from(faults).into()
    }
}

/// One value that is not valid.
pub(super) fn invalid(field: &str, value: Value, invalid: Invalid) -> Refusal {
    let pointer = field.replace(']', "").replace(['.', '['], "/");
    Problem::fault(Fault {
        field: field.to_owned(),
        pointer: format!("/{pointer}"),
        value,
        reason: invalid.reason,
        remedy: invalid.remedy.to_owned(),
    })
    .into()
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let detail = error.to_string();
        match error {
            ChangeError::NotFound { .. } => Self::new(ProblemKind::NotFound, detail),
            ChangeError::Invalid { field, value, reason, remedy } => {
                invalid(field, Value::from(value), Invalid { reason, remedy })
            }
            ChangeError::Conflict { kind, field, value, owner } => {
                let kind = match kind {
                    ConflictKind::Address => ProblemKind::AddressConflict,
                    ConflictKind::Mac => ProblemKind::MacConflict,
                    ConflictKind::HostName => ProblemKind::HostNameConflict,
                    ConflictKind::Subnet => ProblemKind::SubnetOverlap,
                };
                let problem = Problem {
                    field: Some(field.to_owned()),
                    value: Some(value),
                    conflicts_with: Some(owner),
                    ..Problem::new(kind, detail)
                };
                problem.remedy("choose another value, or change the owner first").into()
            }
            ChangeError::Several(faults) => several(faults, detail),
            ChangeError::InUse { .. } => Problem::new(ProblemKind::InUse, detail)
                .remedy("take it out of whatever names it first")
                .into(),
            ChangeError::NotEmpty { .. } => Problem::new(ProblemKind::NotEmpty, detail)
                .remedy("remove the contents first, or add cascade=true")
                .into(),
            ChangeError::PreconditionFailed { .. } => {
                Problem::new(ProblemKind::PreconditionFailed, detail)
                    .remedy("read the resource again and repeat with its ETag")
                    .into()
            }
            ChangeError::PreconditionRequired { revision, .. } => {
                let kind = ProblemKind::PreconditionRequired;
                Problem { revision: Some(revision), ..Problem::new(kind, detail) }.into()
            }
            ChangeError::Limit { limit, .. } => {
                let limit = u64::try_from(limit).ok();
                Problem { limit, ..Problem::new(ProblemKind::LimitExceeded, detail) }.into()
            }
            ChangeError::MassDelete { .. } => Problem::new(ProblemKind::MassDelete, detail)
                .remedy("look at it with dry_run=true, or confirm with force=true")
                .into(),
            ChangeError::Owned { .. } => Problem::new(ProblemKind::Owned, detail)
                .remedy("change it where it comes from")
                .into(),
        }
    }
}

/// Every fault of a body, with its place; the kind is that of the first.
fn several(faults: Vec<(Place, ChangeError)>, detail: String) -> Refusal {
    let Some((_, first)) = faults.first() else {
        return Refusal::new(ProblemKind::InvalidValue, detail);
    };
    let mut problem = *Refusal::from(first.clone()).0;
    problem.detail = detail;
    problem.errors = faults.into_iter().map(|(place, error)| fault(&place, error)).collect();
    problem.into()
}

/// One fault of a body.
pub(super) fn fault(place: &Place, error: ChangeError) -> Fault {
    match error {
        ChangeError::Invalid { field, value, reason, remedy } => {
            place.within(field).fault(value.into(), reason, remedy.to_owned())
        }
        ChangeError::Conflict { field, value, owner, .. } => {
            let remedy = "choose another value, or change the owner first";
            let reason = format!("{value} belongs to {owner} already");
            place.within(field).fault(value.into(), reason, remedy.to_owned())
        }
        other => {
            let problem = *Refusal::from(other).0;
            let remedy = problem.remedy.unwrap_or_else(|| "leave it out".to_owned());
            place.fault(Value::Null, problem.detail, remedy)
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refused) => refused.into(),
            StoreError::Write(_) | StoreError::Blocking(_) | StoreError::Addresses(_) => {
                Self::new(ProblemKind::Storage, bedrock::chain(&error))
            }
            StoreError::Stopping => Self::new(ProblemKind::InstanceDown, error.to_string()),
        }
    }
}
