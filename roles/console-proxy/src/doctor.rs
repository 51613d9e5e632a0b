//! What an operator would look at when consoles are not as they should be, and what makes a start
//! impossible.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_client::Client;
use role::tasks::BlockingError;
use role::{DoctorCheck, DoctorFinding, PreflightError, TaskScope};
use status_api::{Notes, ProcessStatus};

use crate::certificate::{Source, date, problem_of};
use crate::config::{BrowserTls, ConsoleProxyConfig};

/// A certificate that ends within so many seconds is told.
const SOON: i64 = 14 * 86_400;
/// Where a process writes its admin address, in its state directory.
const ADDRESS_FILE: &str = "admin.addr";
/// How long the running process is waited for.
const ASKING: Duration = Duration::from_secs(3);

pub(crate) fn checks(config: &ConsoleProxyConfig) -> Vec<DoctorCheck> {
    let page = config.novnc_dir.clone();
    let listen: Vec<_> = config.listen.iter().chain(&config.tls.listen).copied().collect();
    let (tls, public) = (config.tls.clone(), config.identity.public_address);
    let running = config.state_directory.parent().map(|directory| directory.join(ADDRESS_FILE));
    let mut checks = management_link::doctor::checks(&config.link());
    checks.extend([
        DoctorCheck::machine("console.page", move |_cx| {
            let page = page.clone();
            async {
                let found = look(move || page_finding(page)).await;
                found.unwrap_or_else(|error| DoctorFinding::Skipped(bedrock::chain(&error)))
            }
        }),
        DoctorCheck::machine("console.certificate", move |_cx| {
            let tls = tls.clone();
            async move {
                let found = look(move || certificate_finding(&tls, public)).await;
                found.unwrap_or_else(|error| DoctorFinding::Skipped(bedrock::chain(&error)))
            }
        }),
        DoctorCheck::machine("console.listen", move |_cx| {
            let finding = listen_finding(&listen);
            async { finding }
        }),
        DoctorCheck::machine("console.proxies", move |_cx| proxies_finding(running.clone())),
    ]);
    checks
}

/// Only the running process sees who brings requests: it is asked what it has to say of them.
async fn proxies_finding(address: Option<PathBuf>) -> DoctorFinding {
    let read = look(move || address.and_then(|file| std::fs::read_to_string(file).ok())).await;
    let Some(address) = read.ok().flatten() else {
        let text = "no process runs in this state directory that could tell of its clients";
        return DoctorFinding::Skipped(text.to_owned());
    };
    let admin = Client::tcp(address.trim()).timeout(ASKING);
    let status: ProcessStatus = match admin.get("/status").await {
        Ok(status) => status,
        Err(error) => return DoctorFinding::Skipped(bedrock::chain(&error)),
    };
    let own = status.roles.into_iter().find(|role| role.role == crate::KIND.short);
    let notes = own.and_then(|role| role.details.notes).map(|Notes(notes)| notes);
    match notes.unwrap_or_default() {
        notes if notes.is_empty() => {
            DoctorFinding::Good("clients come directly, or by proxies that are known".to_owned())
        }
        notes => DoctorFinding::Warning {
            problem: notes.join("; "),
            remedy:
                "set roles.console_proxy.trusted_proxies, or proxy_protocol for one that sends \
                     PROXY headers"
                    .to_owned(),
        },
    }
}

/// Looks at files away from the runtime's threads.
pub(crate) async fn look<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, BlockingError> {
    TaskScope::new().blocking("a look at files", work).await
}

fn page_finding(directory: Option<PathBuf>) -> DoctorFinding {
    let Some(directory) = directory else {
        return DoctorFinding::Good("the built-in console page is served".to_owned());
    };
    match without_page(&directory) {
        Some(error) => DoctorFinding::Fault { problem: error.problem, remedy: error.remedy },
        None => DoctorFinding::Good(format!("{} has a console page", directory.display())),
    }
}

/// What can be told of the certificate without the running process; `quickcloud status` tells of the
/// one that the management server sent.
fn certificate_finding(tls: &BrowserTls, public: IpAddr) -> DoctorFinding {
    let Some(files) = &tls.files else {
        let text = "no certificate_file is set: consoles are served over TLS with what the \
                    management server sends";
        return DoctorFinding::Good(text.to_owned());
    };
    let remedy = "correct roles.console_proxy.certificate_file, certificate_key_file or url_domain";
    let pair = match tls_material::read_pair(&files.certificate, &files.key) {
        Ok(pair) => pair,
        Err(error) => {
            let problem = bedrock::chain(&error);
            return DoctorFinding::Fault { problem, remedy: remedy.to_owned() };
        }
    };
    let now = jiff::Timestamp::now().as_second();
    let shown = files.certificate.display();
    let expected = tls.host_of_links(public);
    if let Some(problem) = problem_of(Source::Files, &pair, expected.as_deref(), now) {
        let problem = format!("browsers will not accept {shown}: {problem}");
        return DoctorFinding::Fault { problem, remedy: remedy.to_owned() };
    }
    let expires = pair.cert.first().and_then(key_store::certificate::expires_at);
    let until = expires.and_then(date).unwrap_or_default();
    match expires {
        Some(at) if at < now + SOON => DoctorFinding::Warning {
            problem: format!("{shown} expires at {until}"),
            remedy: "renew it; a renewed file is taken up without a restart".to_owned(),
        },
        _ => DoctorFinding::Good(format!("{shown} is valid until {until}")),
    }
}

fn listen_finding(listen: &[SocketAddr]) -> DoctorFinding {
    match listen.iter().find_map(not_local) {
        Some(error) => DoctorFinding::Fault { problem: error.problem, remedy: error.remedy },
        None => {
            let addrs: Vec<String> = listen.iter().map(ToString::to_string).collect();
            DoctorFinding::Good(format!("{} can be listened on here", addrs.join(", ")))
        }
    }
}

/// A directory without a page, or one that cannot be looked into.
pub(crate) fn without_page(directory: &Path) -> Option<PreflightError> {
    let page = directory.join("vnc.html");
    let problem = match std::fs::File::open(&page).and_then(|file| file.metadata()) {
        Ok(metadata) if metadata.is_file() => return None,
        Ok(_) => format!("{} is not a file", page.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            format!("{} has no vnc.html", directory.display())
        }
        Err(error) => format!("cannot read {}: {error}", page.display()),
    };
    let remedy = "give a readable directory with a complete noVNC, or leave out \
                  roles.console_proxy.novnc_dir";
    Some(PreflightError { problem, remedy: remedy.to_owned() })
}

/// An address of another machine cannot be listened on.
pub(crate) fn not_local(addr: &SocketAddr) -> Option<PreflightError> {
    let probe = SocketAddr::new(addr.ip(), 0);
    let error = std::net::UdpSocket::bind(probe).err()?;
    (error.kind() == ErrorKind::AddrNotAvailable).then(|| PreflightError {
        problem: format!("{} is not an address of this machine", addr.ip()),
        remedy: "correct roles.console_proxy.listen".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_not_there_is_told_from_one_that_cannot_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let problem = || without_page(directory.path()).map(|error| error.problem);
        assert!(problem().unwrap().ends_with("has no vnc.html"));
        let page = directory.path().join("vnc.html");
        std::os::unix::fs::symlink("vnc.html", &page).unwrap();
        assert!(problem().unwrap().starts_with("cannot read"), "{:?}", problem());
        std::fs::remove_file(&page).unwrap();
        std::fs::create_dir(&page).unwrap();
        assert!(problem().unwrap().ends_with("vnc.html is not a file"));
        std::fs::remove_dir(&page).unwrap();
        std::fs::write(&page, "<p>").unwrap();
        assert_eq!(problem(), None);
        assert!(matches!(page_finding(Some(directory.path().into())), DoctorFinding::Good(_)));
        assert!(matches!(page_finding(None), DoctorFinding::Good(_)));
    }

    #[tokio::test]
    async fn what_the_running_process_says_of_its_clients_is_passed_on() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(ADDRESS_FILE);
        assert!(matches!(proxies_finding(Some(file.clone())).await, DoctorFinding::Skipped(_)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        std::fs::write(&file, format!("{}\n", listener.local_addr().unwrap())).unwrap();
        let answer = |notes: &[&str]| {
            let body = serde_json::json!({
                "version": "1", "pid": 1, "state": "running", "ready": true, "started_at": null,
                "uptime_ms": 5, "admin_address": "127.0.0.1:1", "roles": [{
                    "role": "cp", "title": "t", "health": "ready", "since": null, "restarts": 0,
                    "details": {"notes": notes},
                }],
            });
            let body = body.to_string();
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        };
        let answers = [answer(&["192.0.2.1 sends X-Forwarded-For"]), answer(&[])];
        let serving = tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0, "no request came");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let found = proxies_finding(Some(file.clone())).await;
        let DoctorFinding::Warning { problem, .. } = found else { panic!("{found:?}") };
        assert_eq!(problem, "192.0.2.1 sends X-Forwarded-For");
        let found = proxies_finding(Some(file.clone())).await;
        assert!(matches!(found, DoctorFinding::Good(_)), "{found:?}");
        serving.await.unwrap();
        // A file that a killed process left names nobody.
        assert!(matches!(proxies_finding(Some(file)).await, DoctorFinding::Skipped(_)));
    }

    #[test]
    fn an_address_of_another_machine_is_named() {
        let other = "192.0.2.1:80".parse().unwrap();
        let local = "127.0.0.1:80".parse().unwrap();
        let DoctorFinding::Fault { problem, .. } = listen_finding(&[local, other]) else {
            panic!("not a fault");
        };
        assert_eq!(problem, "192.0.2.1 is not an address of this machine");
        assert!(matches!(listen_finding(&[local]), DoctorFinding::Good(_)));
    }
}
