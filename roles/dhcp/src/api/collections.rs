//! Pages of a collection, ordered by id.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use dhcp_api::answer::Page;
use dhcp_api::problem::ProblemKind;
use serde::{Deserialize, Serialize};

use super::problem::Refusal;

const DEFAULT: usize = 100;
const LARGEST: usize = 1000;

/// The query of a request.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    query
        .map(|Query(query)| query)
        .map_err(|rejection| Refusal::new(ProblemKind::Malformed, rejection.body_text()))
}

/// Query of a collection.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Paging {
    pub(super) limit: Option<usize>,
    pub(super) cursor: Option<String>,
}

/// Query of a removal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    #[serde(default)]
    pub(super) cascade: bool,
}

/// Where a page starts and how long it is.
#[derive(Clone)]
pub(super) struct Window {
    limit: usize,
    after: Option<String>,
}

impl Window {
    /// `cursor` is the `next_cursor` of the page before.
    pub(super) fn new(limit: Option<usize>, cursor: Option<String>) -> Result<Self, Refusal> {
        let limit = limit.unwrap_or(DEFAULT);
        if !(1..=LARGEST).contains(&limit) {
            let text = format!("limit {limit} is not between 1 and {LARGEST}");
            return Err(Refusal::new(ProblemKind::Malformed, text));
        }
        Ok(Self { limit, after: cursor })
    }

    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether an entry lies behind the pages before, for entries that are dear to make.
    pub(super) fn is_after(&self, id: &str) -> bool {
        self.after.as_deref().is_none_or(|after| id > after)
    }

    pub(super) fn of_query(paging: Result<Query<Paging>, QueryRejection>) -> Result<Self, Refusal> {
        let Paging { limit, cursor } = query(paging)?;
        Self::new(limit, cursor)
    }

    /// Answers with the page of `items`, which are ordered by the id they come with.
    pub(super) fn of<T: Serialize>(
        self,
        generation: u64,
        items: impl Iterator<Item = (String, T)>,
    ) -> Response {
        let mut rest = items.skip_while(|(id, _)| !self.is_after(id));
        let page: Vec<_> = rest.by_ref().take(self.limit).collect();
        let more = rest.next().is_some();
        let next_cursor = page.last().filter(|_| more).map(|(id, _)| id.clone());
        let items = page.into_iter().map(|(_, item)| item).collect();
        let page = Page { items, next_cursor, revision: generation };
        (StatusCode::OK, axum::Json(page)).into_response()
    }
}
