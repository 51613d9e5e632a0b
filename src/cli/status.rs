//! `quickcloud status`: asks the running process and shows its answer as a table.

mod table;

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::StatusOptions;
use super::check::complain_of_load;
use super::output::{complain_of, say};
use crate::admin::AddressFile;
use crate::config::{self, ADMIN_ADDRESS, STATE_DIRECTORY, Sources};
use crate::exit::Outcome;

const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_secs(2);
/// A status document is a few KiB; more than this is not ours.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error(
        "nothing listens on {address}; is `quickcloud run` running, and is this its admin address? \
         Give --admin ADDR, or the --config FILE it was started with"
    )]
    Connect { address: String, source: std::io::Error },
    #[error("no answer from {address} within {PATIENCE:?}")]
    Timeout { address: String },
    #[error("cannot talk to {address}")]
    Exchange { address: String, source: hyper::Error },
    #[error("{address} answers, but not as quickcloud does: {what}")]
    Foreign { address: String, what: String },
}

pub(super) fn status(options: StatusOptions) -> Outcome {
    let address = match address(&options) {
        Ok(address) => address,
        Err(error) => return complain_of_load(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain_of(&error);
            return Outcome::System;
        }
    };
    runtime.block_on(async {
        loop {
            let document = match ask(&address).await {
                Ok(document) => document,
                Err(error) => {
                    complain_of(&error);
                    return Outcome::Failed;
                }
            };
            let text = match (options.json, options.watch) {
                (true, true) => format!("{document}\n"),
                (true, false) => format!("{document:#}\n"),
                (false, true) => format!("{CLEAR}{}", table::render(&document)),
                (false, false) => table::render(&document),
            };
            let written = say(&text);
            if !options.watch || written != Outcome::Clean {
                return written;
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}

/// `--admin`, else what the process left in its state directory, else what the file says.
fn address(options: &StatusOptions) -> Result<String, config::LoadError> {
    if let Some(address) = &options.admin {
        return Ok(address.clone());
    }
    let sources =
        Sources { file: options.config.clone(), set: options.set.clone(), ..Sources::default() };
    let (table, _set) = config::read_table(&sources)?;
    let key = |name: &str| {
        let value = table.get("supervisor").and_then(|supervisor| supervisor.get(name));
        value.and_then(toml::Value::as_str)
    };
    let directory = key("state_directory").unwrap_or(STATE_DIRECTORY);
    if let Some(address) = AddressFile::read(directory.as_ref()) {
        return Ok(address.to_string());
    }
    Ok(key("admin_address").map_or_else(|| ADMIN_ADDRESS.to_string(), str::to_owned))
}

async fn ask(address: &str) -> Result<Value, StatusError> {
    let timeout = || StatusError::Timeout { address: address.to_owned() };
    tokio::time::timeout(PATIENCE, exchange(address)).await.map_err(|_elapsed| timeout())?
}

async fn exchange(address: &str) -> Result<Value, StatusError> {
    let connect = |source| StatusError::Connect { address: address.to_owned(), source };
    let exchange = |source| StatusError::Exchange { address: address.to_owned(), source };
    let foreign = |what: String| StatusError::Foreign { address: address.to_owned(), what };
    let stream = TcpStream::connect(address).await.map_err(connect)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(exchange)?;
    let request = hyper::Request::get("/status")
        .header(hyper::header::HOST, address)
        .body(Empty::<Bytes>::new())
        .map_err(|error| foreign(error.to_string()))?;
    let answer = async move {
        let response = sender.send_request(request).await.map_err(exchange)?;
        if response.status() != hyper::StatusCode::OK {
            return Err(foreign(format!("HTTP {}", response.status())));
        }
        let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
        let body = body.map_err(|error| foreign(error.to_string()))?.to_bytes();
        serde_json::from_slice::<Value>(&body).map_err(|error| foreign(error.to_string()))
    };
    // The connection ends once its sender, which the block above owns, is gone.
    let (document, _connection) = tokio::join!(answer, connection);
    let document = document?;
    if document.get("roles").and_then(Value::as_array).is_none() {
        return Err(foreign("the answer lists no roles".to_owned()));
    }
    Ok(document)
}
