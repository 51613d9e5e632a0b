//! Where the API is and whose keys it is asked with.

use std::path::PathBuf;

use bedrock::Secret;
use clap::Args;
use cloudstack_api::{ApiUrl, Client, ClientConfig, Credentials};

use crate::config::{Sources, read_table};
use crate::zone::ApiFiles;

#[derive(Debug, Args)]
pub(in crate::cli) struct ApiOptions {
    /// The API: http://10.0.0.5:8080/client/api. Repeatable: servers of one cloud
    #[arg(long, env = "CLOUDSTACK_ENDPOINT")]
    url: Vec<String>,
    /// File with the API key, closed to others
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// File with the secret key, closed to others
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<PathBuf>,
    /// Certificates trusted for https besides the system's (PEM)
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Take all of these from roles.dhcp.sync of this configuration
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What a client is made of.
#[derive(Debug)]
pub(in crate::cli) struct Access {
    urls: Vec<ApiUrl>,
    credentials: Credentials,
    ca_file: Option<PathBuf>,
    /// Hosts of the URLs.
    pub(in crate::cli) hosts: Vec<String>,
    /// As given, for a configuration.
    pub(in crate::cli) files: ApiFiles,
}

impl ApiOptions {
    /// Options before the environment before the configuration.
    pub(in crate::cli) fn access(&self) -> Result<Access, String> {
        let mut files = self.configured()?;
        if !self.url.is_empty() {
            files.urls.clone_from(&self.url);
        }
        let given = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        for (given, there) in [
            (given(&self.api_key_file), &mut files.api_key_file),
            (given(&self.secret_key_file), &mut files.secret_key_file),
            (given(&self.ca_file), &mut files.ca_file),
        ] {
            if given.is_some() {
                *there = given;
            }
        }
        if files.urls.is_empty() {
            return Err("no API is named: give --url, CLOUDSTACK_ENDPOINT, or --config with \
                        roles.dhcp.sync"
                .to_owned());
        }
        let mut urls = Vec::new();
        for url in &files.urls {
            urls.push(url.parse::<ApiUrl>().map_err(|problem| format!("--url {url}: {problem}"))?);
        }
        let credentials = Credentials {
            api_key: key(files.api_key_file.as_deref(), "CLOUDSTACK_KEY", "--api-key-file")?,
            secret_key: key(
                files.secret_key_file.as_deref(),
                "CLOUDSTACK_SECRET",
                "--secret-key-file",
            )?,
        };
        let hosts = urls.iter().map(|url| url.host().to_owned()).collect();
        let ca_file = files.ca_file.as_ref().map(PathBuf::from);
        Ok(Access { urls, credentials, ca_file, hosts, files })
    }

    fn configured(&self) -> Result<ApiFiles, String> {
        if self.config.is_none() {
            return Ok(ApiFiles::default());
        }
        let sources = Sources { file: self.config.clone(), ..Sources::default() };
        let (table, _) = read_table(&sources).map_err(|error| bedrock::chain(&error))?;
        let sync = table.get("roles").and_then(|roles| roles.get("dhcp")?.get("sync"));
        let Some(sync) = sync else { return Ok(ApiFiles::default()) };
        let text = |key: &str| sync.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        let urls = match sync.get("urls") {
            Some(toml::Value::Array(list)) => {
                list.iter().filter_map(toml::Value::as_str).map(str::to_owned).collect()
            }
            Some(toml::Value::String(url)) => vec![url.clone()],
            _ => Vec::new(),
        };
        Ok(ApiFiles {
            urls,
            api_key_file: text("api_key_file"),
            secret_key_file: text("secret_key_file"),
            ca_file: text("ca_file"),
        })
    }
}

/// A key from its file, else from the environment; never from the command line, which others see.
fn key(file: Option<&str>, variable: &str, option: &str) -> Result<Secret<String>, String> {
    let given = std::env::var_os(variable).and_then(|value| value.into_string().ok());
    match (file, given) {
        (Some(path), _) => bedrock::files::read_secret(path.as_ref()),
        (None, Some(key)) if !key.trim().is_empty() => Ok(Secret::new(key.trim().to_owned())),
        (None, _) => {
            Err(format!("no key is given: name its file with {option}, or set {variable}"))
        }
    }
}

impl Access {
    pub(in crate::cli) fn client(&self) -> Result<Client, String> {
        let own = match &self.ca_file {
            Some(path) => {
                tls_material::read_certificates(path).map_err(|error| bedrock::chain(&error))?
            }
            None => Vec::new(),
        };
        let tls = tls_material::https::client_config(own, "give its CA certificate as --ca-file")
            .map_err(|error| bedrock::chain(&error))?;
        let (urls, credentials) = (self.urls.clone(), self.credentials.clone());
        let clock = role::Host::system().clock;
        let now = move || clock.now();
        Ok(Client::new(ClientConfig::new(urls, credentials, tls, now)))
    }
}
