//! Pages of a collection, ordered by id.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::problem::{Problem, Slug};

const DEFAULT: usize = 100;
const LARGEST: usize = 1000;

/// The query of a request.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query
        .map(|Query(query)| query)
        .map_err(|rejection| Problem::new(Slug::Malformed, rejection.body_text()))
}

/// Where a page starts and how long it is.
pub(super) struct Page {
    limit: usize,
    after: Option<String>,
}

impl Page {
    /// `cursor` is the `next_cursor` of the page before.
    pub(super) fn new(limit: Option<usize>, cursor: Option<String>) -> Result<Self, Problem> {
        let limit = limit.unwrap_or(DEFAULT);
        if !(1..=LARGEST).contains(&limit) {
            let text = format!("limit {limit} is not between 1 and {LARGEST}");
            return Err(Problem::new(Slug::Malformed, text));
        }
        Ok(Self { limit, after: cursor })
    }

    /// Answers with the page of `items`, which are ordered by the id they come with.
    pub(super) fn of(
        self,
        generation: u64,
        items: impl Iterator<Item = (String, Value)>,
    ) -> Response {
        let mut rest =
            items.skip_while(|(id, _)| self.after.as_ref().is_some_and(|after| id <= after));
        let page: Vec<_> = rest.by_ref().take(self.limit).collect();
        let more = rest.next().is_some();
        let next = page.last().filter(|_| more).map(|(id, _)| id.clone());
        let items: Vec<Value> = page.into_iter().map(|(_, item)| item).collect();
        let body = json!({"items": items, "next_cursor": next, "revision": generation});
        (StatusCode::OK, axum::Json(body)).into_response()
    }
}
