//! What an operator would look at when a link does not come up: the servers' names, the way to
//! them, TLS and trust, our own certificate, the clock.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use role::{DoctorCheck, DoctorContext, DoctorFinding, TaskScope};
use tokio::net::{TcpStream, lookup_host};

use crate::config::LinkConfig;
use crate::connect::{self, ConnectError};
use crate::endpoints::Endpoint;
use crate::own::{certificates_of, own_certificate};

const DAY: i64 = 86_400;
/// A certificate that ends within so many days is a fault, and within so many a warning.
const FAULT_DAYS: i64 = 7;
const WARNING_DAYS: i64 = 30;
/// The caller gives up after ten seconds; every server gets a share.
const BUDGET: Duration = Duration::from_secs(8);

/// The checks of one link. Names begin with "link.".
pub fn checks(link: &LinkConfig) -> Vec<DoctorCheck> {
    let management = &link.management;
    let endpoints: Vec<Endpoint> = management
        .servers
        .iter()
        .map(|server| Endpoint {
            host: server.host.clone(),
            port: server.port.unwrap_or(management.port),
        })
        .collect();
    let share = BUDGET / u32::try_from(endpoints.len().max(1)).unwrap_or(1);
    let (names, ways) = (endpoints.clone(), endpoints.clone());
    let (tls, own, clock) = (link.clone(), link.clone(), link.clone());
    vec![
        DoctorCheck::network("link.name", move |_cx| resolve(names.clone())),
        DoctorCheck::network("link.reachable", move |_cx| reach(ways.clone(), share)),
        DoctorCheck::network("link.tls", move |_cx| greet(tls.clone(), endpoints.clone(), share)),
        DoctorCheck::machine("link.certificate", move |cx| {
            let link = own.clone();
            blocking(move || certificate(&link, now(&cx)))
        }),
        DoctorCheck::machine("link.clock", move |cx| {
            let link = clock.clone();
            blocking(move || look_at_clock(&link, now(&cx)))
        }),
    ]
}

fn now(cx: &DoctorContext) -> i64 {
    cx.host.clock.unix_ms() / 1000
}

async fn blocking(look: impl FnOnce() -> DoctorFinding + Send + 'static) -> DoctorFinding {
    let looked = TaskScope::new().blocking("look", look).await;
    looked.unwrap_or_else(|error| DoctorFinding::Skipped(bedrock::chain(&error)))
}

/// Faults of some servers are a warning as long as another one is sound.
fn verdict(good: Vec<String>, bad: Vec<(String, String)>) -> DoctorFinding {
    let Some((_, remedy)) = bad.first().cloned() else {
        return DoctorFinding::Good(good.join("; "));
    };
    let problems: Vec<String> = bad.into_iter().map(|(problem, _)| problem).collect();
    let problem = problems.join("; ");
    if good.is_empty() {
        DoctorFinding::Fault { problem, remedy }
    } else {
        DoctorFinding::Warning { problem: format!("{problem}; but {}", good.join("; ")), remedy }
    }
}

async fn resolve(endpoints: Vec<Endpoint>) -> DoctorFinding {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for endpoint in &endpoints {
        let remedy = "correct management.servers, /etc/hosts or the name servers of this host";
        match lookup_host((endpoint.host.as_str(), endpoint.port)).await {
            Ok(found) => {
                let found: Vec<String> = found.map(|address| address.ip().to_string()).collect();
                if found.is_empty() {
                    bad.push((format!("{} has no address", endpoint.host), remedy.to_owned()));
                } else {
                    good.push(format!("{} is {}", endpoint.host, found.join(", ")));
                }
            }
            Err(error) => {
                let problem = format!("cannot resolve {}: {error}", endpoint.host);
                bad.push((problem, remedy.to_owned()));
            }
        }
    }
    verdict(good, bad)
}

async fn reach(endpoints: Vec<Endpoint>, share: Duration) -> DoctorFinding {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for endpoint in &endpoints {
        let before = Instant::now();
        let target = (endpoint.host.as_str(), endpoint.port);
        match tokio::time::timeout(share, TcpStream::connect(target)).await {
            Ok(Ok(stream)) => {
                let way = stream
                    .local_addr()
                    .map_or_else(|_odd| String::new(), |local| format!(" from {}", local.ip()));
                let took = before.elapsed().as_millis();
                good.push(format!("{endpoint} answers within {took} ms{way}"));
            }
            Ok(Err(error)) => bad.push(unreachable(endpoint, &error)),
            Err(_elapsed) => bad.push((
                format!("{endpoint} does not answer within {share:?}"),
                format!("a firewall on the way drops TCP {}, or the host is down", endpoint.port),
            )),
        }
    }
    verdict(good, bad)
}

fn unreachable(endpoint: &Endpoint, error: &std::io::Error) -> (String, String) {
    use std::io::ErrorKind;
    let remedy = match error.kind() {
        ErrorKind::ConnectionRefused => format!(
            "nothing listens on port {} there, or a firewall refuses: is the management server \
             started, and is management.port right?",
            endpoint.port
        ),
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => {
            "this host has no route there: ip route get ADDRESS".to_owned()
        }
        _ => "see link.name; then try it with another program: nc -vz HOST PORT".to_owned(),
    };
    (format!("cannot connect to {endpoint}: {error}"), remedy)
}

/// As the link does it, up to the point where it would register.
async fn greet(link: LinkConfig, endpoints: Vec<Endpoint>, share: Duration) -> DoctorFinding {
    let tasks = TaskScope::new();
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for endpoint in &endpoints {
        let opening = connect::open(&link, Vec::new(), endpoint.clone(), &tasks);
        match tokio::time::timeout(share, opening).await {
            Ok(Ok(opened)) => {
                let whom = match opened.first_use {
                    true => "it will be trusted at first use; management.ca_file pins it",
                    false => "it is trusted",
                };
                let print = opened.presented.first().map(key_store::fingerprint);
                let print = print.unwrap_or_default();
                let end = end_of(opened.peer);
                good.push(format!("{endpoint}{end} presents SHA-256 {print}: {whom}"));
            }
            // The check of the way tells it better.
            Ok(Err(error)) if is_about_the_way(&error) => {
                return DoctorFinding::Skipped(bedrock::chain(&error));
            }
            Ok(Err(error)) => {
                let remedy = if error.does_not_heal() {
                    "do as the text says; quickcloud cert show tells the certificates of this \
                     host, quickcloud cert reset forgets them"
                } else {
                    "is that port the one for agents (8250), and not that of the API?"
                };
                bad.push((bedrock::chain(&error), remedy.to_owned()));
            }
            Err(_elapsed) => bad.push((
                format!("{endpoint} accepts connections, and no TLS handshake ends in {share:?}"),
                "the server is overloaded, or something else listens there".to_owned(),
            )),
        }
    }
    tasks.kill();
    verdict(good, bad)
}

fn is_about_the_way(error: &ConnectError) -> bool {
    matches!(
        error,
        ConnectError::Resolve { .. }
            | ConnectError::NoAddress(_)
            | ConnectError::Tcp { .. }
            | ConnectError::Timeout { .. }
    )
}

fn end_of(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(String::new, |peer| format!(" ({})", peer.ip()))
}

fn certificate(link: &LinkConfig, now: i64) -> DoctorFinding {
    let renew = "quickcloud cert renew (API provisionCertificate hostid=… reconnect=true)";
    let fault =
        |problem: String, remedy: &str| DoctorFinding::Fault { problem, remedy: remedy.to_owned() };
    let facts = match own_certificate(link) {
        Ok(Some(facts)) => facts,
        Ok(None) => {
            return DoctorFinding::Good(
                "no certificate of our own; only servers with ca.plugin.root.auth.strictness want \
                 one"
                .to_owned(),
            );
        }
        Err(error) => return fault(bedrock::chain(&error), "correct the file, or remove it"),
    };
    let Some(expires) = facts.expires else {
        return fault("the end of our certificate cannot be read".to_owned(), renew);
    };
    let days = (expires - now).div_euclid(DAY);
    let names = facts.names.join(", ");
    if expires <= now {
        fault(format!("our certificate for {names} has expired"), renew)
    } else if facts.issued > now {
        fault(
            format!("our certificate for {names} is not valid yet"),
            "this host's clock is behind: set it (chronyc makestep)",
        )
    } else if days < FAULT_DAYS {
        fault(format!("our certificate for {names} expires within {} days", days + 1), renew)
    } else if days < WARNING_DAYS {
        let problem = format!("our certificate for {names} expires within {} days", days + 1);
        DoctorFinding::Warning { problem, remedy: renew.to_owned() }
    } else {
        match missing_address(&facts.names) {
            Some(problem) => DoctorFinding::Warning {
                problem,
                remedy: "a strict server compares it with the address it sees us at; behind a \
                         balancer that translates it, issue one with the balancer's (API \
                         issueCertificate)"
                    .to_owned(),
            },
            None => DoctorFinding::Good(format!("our certificate for {names} has {days} days")),
        }
    }
}

/// None of the certificate's addresses is one of this machine.
fn missing_address(names: &[String]) -> Option<String> {
    let certified: Vec<IpAddr> = names.iter().filter_map(|name| name.parse().ok()).collect();
    let own = crate::nic::reachable_addresses();
    let fits = certified.is_empty() || own.is_empty() || certified.iter().any(|a| own.contains(a));
    (!fits).then(|| {
        let list: Vec<String> = certified.iter().map(ToString::to_string).collect();
        format!("our certificate names {}, and none is an address of this machine", list.join(", "))
    })
}

/// Certificates that begin in the future tell that the clock is behind.
fn look_at_clock(link: &LinkConfig, now: i64) -> DoctorFinding {
    let found = match certificates_of(link) {
        Ok(found) => found,
        // Told by link.certificate or link.tls.
        Err(error) => return DoctorFinding::Skipped(bedrock::chain(&error)),
    };
    let begins = found.trusted.iter().chain(&found.own).map(|facts| facts.issued).max();
    match begins {
        Some(issued) if issued > now => DoctorFinding::Fault {
            problem: "a certificate of the management server begins in the future of this host's \
                      clock"
                .to_owned(),
            remedy: "this host's clock is behind: set it (chronyc makestep, timedatectl)"
                .to_owned(),
        },
        Some(_) => DoctorFinding::Good("the clock is past every certificate's begin".to_owned()),
        None => DoctorFinding::Good("no certificate yet to compare the clock with".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use config_reader::Violations;

    use super::*;
    use crate::config::ManagementConfig;

    /// A link whose certificate holds for all of 2026; where it begins and ends.
    fn link(folder: &std::path::Path) -> (LinkConfig, i64, i64) {
        let mut params = rcgen::CertificateParams::new(vec!["host".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let (certificate, file) = (folder.join("a.crt"), folder.join("a.key"));
        std::fs::write(&certificate, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&file, key.serialize_pem()).unwrap();
        let text = format!(
            "servers = [\"127.0.0.1:1\"]\nclient_cert_file = \"{}\"\nclient_key_file = \"{}\"",
            certificate.display(),
            file.display()
        );
        let management =
            ManagementConfig::read(&text.parse().unwrap(), &mut Violations::new()).unwrap();
        let guid = "s-1-VM-NfsSecondaryStorageResource".to_owned();
        let link = LinkConfig { management, guid, state_directory: folder.to_owned() };
        let facts = own_certificate(&link).unwrap().unwrap();
        (link, facts.issued, facts.expires.unwrap())
    }

    fn told(finding: DoctorFinding) -> String {
        match finding {
            DoctorFinding::Good(text) => format!("good: {text}"),
            DoctorFinding::Warning { problem, .. } => format!("warning: {problem}"),
            DoctorFinding::Fault { problem, .. } => format!("fault: {problem}"),
            DoctorFinding::Skipped(text) => format!("skipped: {text}"),
        }
    }

    #[test]
    fn the_end_of_our_certificate_is_told_before_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let (link, begin, end) = link(folder.path());
        let at = |now: i64| told(certificate(&link, now));
        assert_eq!(at(end - 40 * DAY), "good: our certificate for host has 40 days");
        let soon = "our certificate for host expires within 21 days";
        assert_eq!(at(end - 20 * DAY - 1), format!("warning: {soon}"));
        assert!(at(end - 5 * DAY).starts_with("fault: our certificate for host expires within"));
        assert_eq!(at(end), "fault: our certificate for host has expired");
        assert_eq!(at(begin - 1), "fault: our certificate for host is not valid yet");
        std::fs::write(folder.path().join("a.crt"), "tea").unwrap();
        assert!(at(end).starts_with("fault: cannot take certificates"), "{}", at(end));
    }

    #[test]
    fn a_clock_that_is_behind_shows_in_certificates_from_the_future() {
        let folder = tempfile::tempdir().unwrap();
        let (link, begin, _) = link(folder.path());
        assert!(told(look_at_clock(&link, begin - DAY)).starts_with("fault: a certificate of the"));
        assert!(told(look_at_clock(&link, begin + DAY)).starts_with("good: "));
    }

    #[test]
    fn one_server_that_is_away_is_a_warning_as_long_as_another_is_there() {
        let bad = || vec![("a is away".to_owned(), "start it".to_owned())];
        assert_eq!(
            told(verdict(vec!["b answers".into()], bad())),
            "warning: a is away; but b answers"
        );
        assert_eq!(told(verdict(Vec::new(), bad())), "fault: a is away");
        assert_eq!(told(verdict(vec!["b answers".into()], Vec::new())), "good: b answers");
    }
}
