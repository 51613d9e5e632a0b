//! How the command line finds and asks the running process.

use std::path::PathBuf;
use std::time::Duration;

use bedrock::chain;
use clap::Args;
use http_client::{Client, ClientError};

use crate::admin::AddressFile;
use crate::config::{self, ADMIN_ADDRESS, LoadError, STATE_DIRECTORY, Sources};
use crate::output::complain;

/// Where the running process is.
#[derive(Debug, Args)]
pub(super) struct AdminOptions {
    /// Admin address of the running process
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Configuration file of the running process, to find its admin address
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One value, put over the file, as for run
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl AdminOptions {
    /// A client of the admin listener: `--admin`, else what the process left in its state directory,
    /// else what the file says.
    pub(super) fn client(&self, timeout: Duration) -> Result<Client, LoadError> {
        Ok(Client::tcp(self.address()?).timeout(timeout))
    }

    fn address(&self) -> Result<String, LoadError> {
        if let Some(address) = &self.admin {
            return Ok(address.clone());
        }
        let sources =
            Sources { file: self.config.clone(), set: self.set.clone(), ..Sources::default() };
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
}

/// Says why the process gave no answer, and what to look at.
pub(super) fn complain_of_client(error: &ClientError) {
    let text = match error {
        ClientError::Connect { endpoint, source } => format!(
            "nothing listens on {endpoint}; is `quickcloud run` running, and is this its admin \
             address? Give --admin ADDR, or the --config FILE it was started with: {source}"
        ),
        ClientError::Unusable { endpoint, .. } | ClientError::Exchange { endpoint, .. } => {
            format!("{endpoint} answers, but not as quickcloud does: {}", chain(error))
        }
        ClientError::Timeout { .. } | ClientError::Refused { .. } => chain(error),
    };
    complain(&format!("error: {text}\n"));
}
