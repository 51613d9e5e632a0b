//! Calls over both kinds of listeners, and every way they fail.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};

use super::*;

/// Answers one connection with `answer`, after the request was read to its last byte; gives the
/// request.
async fn serve(mut stream: impl Stream, answer: String, body_end: &str) -> String {
    let mut request = String::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(body_end) {
        let length = stream.read(&mut buffer).await.unwrap();
        assert_ne!(length, 0, "{request}");
        request.push_str(std::str::from_utf8(buffer.get(..length).unwrap()).unwrap());
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    request
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A call to a listener that answers `answer`.
async fn call_of<T: DeserializeOwned>(answer: String) -> Result<T, ClientError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::tcp(listener.local_addr().unwrap()).timeout(Duration::from_secs(5));
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, answer, "\r\n\r\n").await
    };
    let (outcome, _request) = tokio::join!(client.get("/x"), server);
    outcome
}

#[tokio::test]
async fn a_call_goes_over_a_unix_socket_with_its_body() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("api.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let client = Client::unix(&path);
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        serve(stream, answer("200 OK", "[1,2]"), "{\"a\":1}").await
    };
    let body = serde_json::json!({"a": 1});
    let (outcome, request) =
        tokio::join!(client.call::<Vec<u8>>(Method::PUT, "/v1/x?y=1", Some(&body)), server);
    assert_eq!(outcome.unwrap(), [1, 2]);
    assert!(request.starts_with("PUT /v1/x?y=1 HTTP/1.1\r\nhost: localhost\r\n"), "{request}");
    assert!(request.contains("content-type: application/json\r\n"), "{request}");
}

#[tokio::test]
async fn answers_are_typed_and_any_value_takes_texts_and_nothing() {
    assert_eq!(call_of::<u8>(answer("200 OK", "7")).await.unwrap(), 7);
    let text: Value = call_of(answer("200 OK", "plain text")).await.unwrap();
    assert_eq!(text, "plain text");
    let nothing: Value = call_of("HTTP/1.1 204 No Content\r\n\r\n".to_owned()).await.unwrap();
    assert_eq!(nothing, Value::Null);
    call_of::<()>("HTTP/1.1 204 No Content\r\n\r\n".to_owned()).await.unwrap();
}

#[tokio::test]
async fn failures_name_the_endpoint_and_the_cause() {
    let error = call_of::<u8>(answer("200 OK", "[]")).await.unwrap_err();
    assert!(matches!(error, ClientError::Unusable { .. }), "{error}");
    let error = call_of::<u8>("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab".to_owned()).await;
    assert!(matches!(error, Err(ClientError::Unusable { .. } | ClientError::Exchange { .. })));
    let error = call_of::<u8>("nonsense\r\n\r\n".to_owned()).await.unwrap_err();
    assert!(matches!(error, ClientError::Exchange { .. }), "{error}");
    let refused = answer("409 Conflict", r#"{"detail":"taken","remedy":"choose another"}"#);
    let error = call_of::<u8>(refused).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::CONFLICT));
    assert_eq!(error.to_string(), "GET /x: 409 Conflict: taken; choose another");
    let error = Client::unix("/nowhere/api.sock").get::<u8>("/x").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot reach /nowhere/api.sock");
}

#[tokio::test]
async fn a_service_that_is_silent_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::tcp(listener.local_addr().unwrap()).timeout(Duration::from_millis(50));
    let error = client.get::<u8>("/x").await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
}
