//! Errors as RFC 9457 problem bodies: what is wrong, with field, value and remedy.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::read::Faults;

/// What every `type` of a problem starts with.
pub const TYPE_PREFIX: &str = "urn:quickcloud:dhcp:";

macro_rules! kinds {
    ($($(#[$meta:meta])* $name:ident = $slug:literal, $status:literal, $title:literal;)*) => {
        /// Kind of a problem; the last part of its type.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ProblemKind {
            $($(#[$meta])* $name,)*
        }

        impl ProblemKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            const fn parts(self) -> (&'static str, u16, &'static str) {
                match self {
                    $(Self::$name => ($slug, $status, $title),)*
                }
            }
        }
    };
}

kinds! {
    Malformed = "malformed-request", 400, "The request cannot be read";
    UnknownField = "unknown-field", 400, "The body has fields nobody knows";
    Unauthenticated = "unauthenticated", 401, "A token is needed";
    Forbidden = "forbidden", 403, "The token does not allow it";
    NotFound = "not-found", 404, "Not found";
    MethodNotAllowed = "method-not-allowed", 405, "Method not allowed";
    AddressConflict = "address-conflict", 409, "Address already reserved";
    MacConflict = "mac-conflict", 409, "MAC address already reserved";
    HostNameConflict = "hostname-conflict", 409, "Name already taken";
    SubnetOverlap = "subnet-overlap", 409, "Subnets overlap";
    NotEmpty = "not-empty", 409, "The resource is not empty";
    InUse = "in-use", 409, "The resource is in use";
    Owned = "owned-by-sync", 409, "Owned by the management server";
    MassDelete = "mass-delete-held", 409, "Too much would go";
    PreconditionFailed = "precondition-failed", 412, "Precondition failed";
    PreconditionRequired = "precondition-required", 428, "Precondition required";
    TooLarge = "too-large", 413, "The body is too large";
    InvalidValue = "invalid-value", 422, "A value is not valid";
    LimitExceeded = "limit-exceeded", 409, "A limit is reached";
    SyncOff = "sync-off", 409, "No sync is configured";
    SyncFailed = "sync-failed", 502, "The management server's book could not be read";
    ApplyFailed = "apply-failed", 502, "dnsmasq does not serve it";
    InstanceDown = "instance-down", 503, "dnsmasq is down";
    Storage = "storage", 500, "The state could not be written";
    Timeout = "timeout", 503, "The request took too long";
}

impl ProblemKind {
    /// The last part of the type.
    pub const fn slug(self) -> &'static str {
        self.parts().0
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        self.parts().1
    }

    pub const fn title(self) -> &'static str {
        self.parts().2
    }
}

/// One field of a body that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fault {
    /// Path in the body: `options[1]`.
    pub field: String,
    /// The same place as a JSON pointer (RFC 6901): `/options/1`.
    pub pointer: String,
    /// What was given; null when nothing was, or too much.
    pub value: Value,
    pub reason: String,
    pub remedy: String,
}

/// Body of an error, `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Problem {
    /// `urn:quickcloud:dhcp:` and the kind.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// Path of the request.
    #[serde(default)]
    pub instance: String,
    #[serde(default)]
    pub request_id: String,
    /// Every fault of the body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The field in conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The value in conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Who has the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conflicts_with: Option<String>,
    /// The resource's revision now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The limit that is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Generation the stored change made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

impl Problem {
    pub fn new(kind: ProblemKind, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("{TYPE_PREFIX}{}", kind.slug()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            instance: String::new(),
            request_id: String::new(),
            errors: Vec::new(),
            remedy: None,
            field: None,
            value: None,
            conflicts_with: None,
            revision: None,
            limit: None,
            generation: None,
        }
    }

    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// A value that is not valid, alone.
    pub fn fault(fault: Fault) -> Self {
        let detail = format!("{} {}", fault.field, fault.reason);
        Self { errors: vec![fault], ..Self::new(ProblemKind::InvalidValue, detail) }
    }
}

impl From<Faults> for Problem {
    fn from(faults: Faults) -> Self {
        let (unknown, errors) = faults.into_parts();
        let kind = if unknown { ProblemKind::UnknownField } else { ProblemKind::InvalidValue };
        let first = errors.first().map(|fault| match fault.field.as_str() {
            "" => format!("the body {}", fault.reason),
            field => format!("{field} {}", fault.reason),
        });
        Self { errors, ..Self::new(kind, first.unwrap_or_default()) }
    }
}
