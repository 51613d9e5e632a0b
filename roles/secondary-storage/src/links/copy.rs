//! `/copy/SecStorage/<directory>/<path>`: files for the storage hosts of other zones.
//!
//! The management server composes these URLs and gives them to another zone's host as an ordinary
//! download, without credentials. So whoever is named by the server, or by the operator, may fetch by
//! its address; everybody else needs the credentials. Nothing can be listed, no link is followed, and
//! names that begin with a dot are not served: they are our own notes.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bedrock::Secret;
use http_front::ClientAddress;
use percent_encoding::percent_decode_str;

use super::files::Serving;
use super::serve::{refusal, unreadable};
use crate::live::Live;
use crate::serving::config::{Credentials, LiveServing};
use crate::serving::page;
use crate::setup::ServerSettings;
use crate::stores::{EntryKind, InstallPath, Store, Stores, Work};

/// Path prefix of everything that can be copied.
pub const PREFIX: &str = "/copy/SecStorage/";
/// What the server writes where it has no directory of the store on record.
const NO_DIRECTORY: &str = "null";

/// Who may copy. Cloneable; clones share everything.
#[derive(Debug, Clone)]
pub struct CopyRules {
    pub settings: Live<LiveServing>,
    pub server: ServerSettings,
    /// From the management server at set-up; it sends them at each connection.
    sent: Arc<RwLock<Option<Credentials>>>,
}

impl CopyRules {
    pub fn new(settings: Live<LiveServing>, server: ServerSettings) -> Self {
        Self { settings, server, sent: Arc::default() }
    }

    /// Takes the server's credentials; without both there are none.
    pub fn take(&self, user: Option<&str>, password: Option<&Secret<String>>) {
        let taken = match (user, password) {
            (Some(user), Some(password)) if !user.is_empty() && !password.reveal().is_empty() => {
                Some(Credentials { user: user.to_owned(), password: password.clone() })
            }
            _ => None,
        };
        *self.sent.write().unwrap_or_else(PoisonError::into_inner) = taken;
    }

    fn credentials(&self) -> Vec<Credentials> {
        let sent = self.sent.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.settings.get().copy.credentials.clone().into_iter().chain(sent).collect()
    }

    /// Lets a client through, by its address or by its credentials; the log says by which.
    pub(super) fn admit(
        &self,
        client: Option<ClientAddress>,
        headers: &HeaderMap,
    ) -> Result<(), Box<Response>> {
        let address = client.map(|ClientAddress(address)| address.to_canonical());
        let shown = address.map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        if address.is_some_and(|address| self.is_allowed(address)) {
            tracing::info!(client = shown, by = "address", "copy to another storage host");
            return Ok(());
        }
        let Some(given) = headers.get(header::AUTHORIZATION) else {
            tracing::warn!(client = shown, "copy refused: not on the allow list");
            let text = format!(
                "{shown} may not copy from this host: it is neither a storage host that the \
                 management server named, nor in copy_allowed, and there were no credentials."
            );
            return Err(refusal(StatusCode::FORBIDDEN, &text));
        };
        if self.credentials().iter().any(|known| matches(given, known)) {
            tracing::info!(client = shown, by = "credentials", "copy to another storage host");
            return Ok(());
        }
        tracing::warn!(client = shown, "copy refused: wrong credentials");
        let mut response = page::text(StatusCode::UNAUTHORIZED, "These credentials are not right.");
        let challenge = HeaderValue::from_static("Basic realm=\"copy\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Err(Box::new(response))
    }

    fn is_allowed(&self, address: IpAddr) -> bool {
        let settings = self.settings.get();
        settings.copy.allowed.iter().any(|network| network.contains(address))
            || self.server.peers().iter().any(|peer| peer.to_canonical() == address)
    }
}

/// Whether an `Authorization` header has these credentials.
fn matches(given: &HeaderValue, known: &Credentials) -> bool {
    let text = given.to_str().unwrap_or_default();
    let Some((scheme, encoded)) = text.split_once(' ') else { return false };
    let decoded = STANDARD.decode(encoded.trim()).unwrap_or_default();
    let expected = format!("{}:{}", known.user, known.password.reveal());
    let same = aws_lc_rs::constant_time::verify_slices_are_equal(&decoded, expected.as_bytes());
    scheme.eq_ignore_ascii_case("basic") && same.is_ok()
}

/// Opens what a path below [`PREFIX`] names.
pub(super) async fn open(stores: &Stores, rest: &str) -> Result<Serving, Box<Response>> {
    let unknown = |text: &str| refusal(StatusCode::NOT_FOUND, text);
    let decoded = percent_decode_str(rest).decode_utf8();
    let decoded = decoded.map_err(|_odd| unknown("The path is not a text."))?;
    let (directory, path) = decoded
        .split_once('/')
        .ok_or_else(|| unknown("Only files can be copied, directories cannot be listed."))?;
    let path: InstallPath = path
        .parse()
        .ok()
        .filter(|path: &InstallPath| {
            path.parts().iter().all(|part| !part.as_str().starts_with('.'))
        })
        .ok_or_else(|| unknown("This is not a path of a store."))?;
    let candidates = candidates(stores, directory).await?;
    if candidates.is_empty() {
        let text = format!("No store of this host has the directory {directory:?}.");
        return Err(unknown(&text));
    }
    for store in candidates {
        match Serving::open(Arc::clone(&store), path.clone()).await {
            Ok(Some(serving)) => return Ok(serving),
            Ok(None) => {}
            Err(error) if is_no_file(&store, &path).await => {
                tracing::debug!(%path, error = bedrock::chain(&error), "not a file");
                return Err(unknown("Only files can be copied; directories cannot be listed."));
            }
            Err(error) => return Err(unreadable(&error, &path.to_string())),
        }
    }
    Err(unknown("There is no such file."))
}

/// Whether the path is there and is no file: a directory, or a link, which is never followed.
async fn is_no_file(store: &Store, path: &InstallPath) -> bool {
    let work = Work::new();
    let looking = store.engine().kind(&work, path.clone());
    let kind = store.run("look for a file", looking).await;
    matches!(kind, Ok(Some(EntryKind::Directory | EntryKind::Other)))
}

/// The stores that a directory's name in the server's records may mean.
async fn candidates(stores: &Stores, directory: &str) -> Result<Vec<Arc<Store>>, Box<Response>> {
    if directory == NO_DIRECTORY {
        // Paths have random names: at most one store has it.
        stores.open_configured().await;
        let mut ready = stores.ready();
        ready.sort_by_key(|store| store.url().key());
        return Ok(ready);
    }
    if stores.url_of_directory(directory).is_none() {
        stores.open_configured().await;
    }
    let Some(url) = stores.url_of_directory(directory) else { return Ok(Vec::new()) };
    let store = stores.open(&url, None).await;
    store.map(|store| vec![store]).map_err(|error| unreadable(&error, directory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serving::config::CopyAccess;

    fn rules(temp: &tempfile::TempDir) -> CopyRules {
        let copy = CopyAccess {
            allowed: vec!["198.51.100.0/24".parse().unwrap()],
            credentials: Some(Credentials {
                user: "own".to_owned(),
                password: Secret::new("geheim".to_owned()),
            }),
        };
        let live = LiveServing { tls_files: None, trusted_proxies: Vec::new(), copy };
        CopyRules::new(Live::new(live), ServerSettings::load(temp.path()).unwrap())
    }

    fn status(rules: &CopyRules, client: &str, authorization: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(pair) = authorization {
            let value = format!("Basic {}", STANDARD.encode(pair));
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        let client = Some(ClientAddress(client.parse().unwrap()));
        rules.admit(client, &headers).map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    /// 10.3 of the secondary storage notes, row 26.
    #[test]
    fn a_copy_is_for_named_hosts_or_with_credentials() {
        let temp = tempfile::tempdir().unwrap();
        let rules = rules(&temp);
        assert_eq!(status(&rules, "198.51.100.7", None), 200);
        assert_eq!(status(&rules, "::ffff:198.51.100.7", None), 200);
        assert_eq!(status(&rules, "203.0.113.9", None), 403);
        rules.server.set_peers(vec!["203.0.113.9".parse().unwrap()], false).unwrap();
        assert_eq!(status(&rules, "203.0.113.9", None), 200);
        assert_eq!(status(&rules, "192.0.2.1", Some("own:geheim")), 200);
        assert_eq!(status(&rules, "192.0.2.1", Some("own:wrong")), 401);
        assert_eq!(status(&rules, "192.0.2.1", Some("cloud:fromserver")), 401);
        rules.take(Some("cloud"), Some(&Secret::new("fromserver".to_owned())));
        assert_eq!(status(&rules, "192.0.2.1", Some("cloud:fromserver")), 200);
        rules.take(Some("cloud"), None);
        assert_eq!(status(&rules, "192.0.2.1", Some("cloud:fromserver")), 401);
        assert_eq!(status(&rules, "192.0.2.1", Some("cloud:")), 401);
    }
}
