//! What an operator would look at when consoles are not as they should be, and what makes a start
//! impossible.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use role::tasks::BlockingError;
use role::{DoctorCheck, DoctorFinding, PreflightError, TaskScope};

use crate::certificate::{Source, date, problem_of};
use crate::config::{BrowserTls, ConsoleProxyConfig};

/// A certificate that ends within so many seconds is told.
const SOON: i64 = 14 * 86_400;

pub(crate) fn checks(config: &ConsoleProxyConfig) -> Vec<DoctorCheck> {
    let page = config.novnc_dir.clone();
    let listen: Vec<_> = config.listen.iter().chain(&config.tls.listen).copied().collect();
    let (tls, public) = (config.tls.clone(), config.identity.public_address);
    vec![
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
    ]
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
