//! Why a call gave no document.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;

use crate::Endpoint;

/// Why a call gave no document.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot reach {endpoint}")]
    Connect { endpoint: Endpoint, source: std::io::Error },
    #[error("{call}: no answer from {endpoint} within {timeout:?}")]
    Timeout { endpoint: Endpoint, call: String, timeout: Duration },
    #[error("{call}: the exchange with {endpoint} broke off")]
    Exchange { endpoint: Endpoint, call: String, source: hyper::Error },
    #[error("{call}: {endpoint} gives no usable answer: {problem}")]
    Unusable { endpoint: Endpoint, call: String, problem: String },
    /// The service's own words.
    #[error("{call}: {status}: {detail}")]
    Refused { call: String, status: StatusCode, detail: String },
}

impl ClientError {
    /// The status of an answer that is not a success.
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Connect { .. }
            | Self::Timeout { .. }
            | Self::Exchange { .. }
            | Self::Unusable { .. } => None,
        }
    }
}

/// What a problem document says: its detail, or every fault of a field, each with the remedy.
pub(crate) fn words(document: &Value) -> String {
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    let sentence = |what: String, remedy: Option<String>| match remedy {
        Some(remedy) => format!("{what}; {remedy}"),
        None => what,
    };
    let faults = document.get("errors").and_then(Value::as_array).into_iter().flatten();
    let faults: Vec<String> = faults
        .filter_map(|fault| {
            let value = fault.get("value").cloned().unwrap_or_default();
            let what = format!("{} {value} {}", text(fault, "field")?, text(fault, "reason")?);
            Some(sentence(what, text(fault, "remedy")))
        })
        .collect();
    if !faults.is_empty() {
        return faults.join("\n");
    }
    match (text(document, "detail"), document) {
        (Some(detail), _) => sentence(detail, text(document, "remedy")),
        (None, Value::String(text)) => text.trim().to_owned(),
        (None, other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_problem_is_told_with_its_remedy() {
        let fault = |field: &str| json!({"field": field, "value": "zz", "reason": "is not an address", "remedy": "give one"});
        for (document, expected) in [
            (
                json!({"detail": "not used", "errors": [fault("mac"), fault("ipv4")]}),
                "mac \"zz\" is not an address; give one\nipv4 \"zz\" is not an address; give one",
            ),
            (
                json!({"detail": "the name is taken", "remedy": "choose another"}),
                "the name is taken; choose another",
            ),
            (json!({"detail": "not found"}), "not found"),
            (json!("plain\n"), "plain"),
        ] {
            assert_eq!(words(&document), expected);
        }
    }
}
