//! What an operator sees and does: the role's routes on the admin listener.

use agent_protocol::storage::{DownloadStatus, ImageFormat};
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::bench::{Bench, Kind};

impl<K: Kind> Bench<K> {
    /// Asks the role's routes as the admin listener does.
    pub async fn admin(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let router = secondary_storage::admin::router(&self.parts);
        let answer = router.oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

#[tokio::test]
async fn an_operator_lists_cancels_and_retries_downloads() {
    let bench: Bench = Bench::new().await;
    assert_eq!(bench.admin(Method::GET, "/jobs").await, (StatusCode::OK, serde_json::json!([])));
    let command = bench.download("gated/tiny.raw", ImageFormat::Raw);
    let answer = bench.half_way(&command).await;
    let id = answer.job_id.clone().unwrap();
    let (_, jobs) = bench.admin(Method::GET, "/jobs").await;
    assert_eq!(
        (&jobs[0]["job"], &jobs[0]["state"]),
        (&Value::from(id.as_str()), &"downloading".into())
    );
    assert_eq!((&jobs[0]["object"], &jobs[0]["percent"]), (&"template 320".into(), &50.into()));
    let retry = format!("/jobs/{id}/retry");
    let (status, body) = bench.admin(Method::POST, &retry).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(body["detail"].as_str().unwrap().contains("runs"), "{body}");
    let cancel = format!("/jobs/{id}/cancel");
    let (status, body) = bench.admin(Method::POST, &cancel).await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &"cancelled".into()));
    assert_eq!(bench.files(), Vec::<String>::new());
    assert_eq!(bench.admin(Method::POST, &cancel).await.0, StatusCode::CONFLICT);
    let (status, body) = bench.admin(Method::POST, &retry).await;
    assert_eq!((status, &body["job"]), (StatusCode::OK, &Value::from(id.as_str())));
    bench.images.open_gate();
    bench.images.open_gate();
    let done = bench.until_over(&command, answer).await;
    assert_eq!(done.download_status, Some(DownloadStatus::Downloaded));
    assert_eq!(bench.admin(Method::POST, &retry).await.0, StatusCode::CONFLICT);
    for verb in ["retry", "cancel"] {
        let (status, body) = bench.admin(Method::POST, &format!("/jobs/none/{verb}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body["detail"].as_str().unwrap().contains("none"), "{body}");
    }
}
