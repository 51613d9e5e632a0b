//! `quickcloud wire decode`: reads a recording, prints its frames one after the other.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use agent_protocol::decode::{DecodeError, Layout, frames};
use agent_protocol::frame::DEFAULT_MAX_INFLATED;

use crate::exit::Outcome;
use crate::output::{complain_of, say};

/// The longest recording taken; it is held in memory.
const INPUT_LIMIT: u64 = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
enum WireError {
    #[error("cannot read {name}")]
    Read { name: String, source: std::io::Error },
    #[error("{name} is longer than {INPUT_LIMIT} bytes")]
    TooLong { name: String },
    #[error("cannot decode {name}")]
    Decode { name: String, source: DecodeError },
    #[error("cannot write frame {number} as JSON")]
    Json { number: u64, source: serde_json::Error },
}

pub(super) fn decode(file: Option<&Path>, json: bool) -> Outcome {
    let file = file.filter(|path| path.as_os_str() != "-");
    let name = file.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
    match decode_named(file, &name, json) {
        Ok(outcome) => outcome,
        Err(error) => {
            complain_of(&error);
            Outcome::Failed
        }
    }
}

fn decode_named(file: Option<&Path>, name: &str, json: bool) -> Result<Outcome, WireError> {
    let input = read(file).map_err(|source| WireError::Read { name: name.to_owned(), source })?;
    if u64::try_from(input.len()).is_ok_and(|length| length > INPUT_LIMIT) {
        return Err(WireError::TooLong { name: name.to_owned() });
    }
    for frame in frames(&input, DEFAULT_MAX_INFLATED) {
        let frame = frame.map_err(|source| WireError::Decode { name: name.to_owned(), source })?;
        let text = if json {
            let number = frame.number;
            frame.to_json().map_err(|source| WireError::Json { number, source })? + "\n"
        } else {
            frame.to_text(Layout::Pretty) + "\n"
        };
        let written = say(&text);
        if written != Outcome::Clean {
            return Ok(written);
        }
    }
    Ok(Outcome::Clean)
}

fn read(file: Option<&Path>) -> std::io::Result<Vec<u8>> {
    let mut input = Vec::new();
    match file {
        Some(path) => File::open(path)?.take(INPUT_LIMIT + 1).read_to_end(&mut input)?,
        None => std::io::stdin().lock().take(INPUT_LIMIT + 1).read_to_end(&mut input)?,
    };
    Ok(input)
}
