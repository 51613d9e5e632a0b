//! Which certificate is served, and what is said of it.

use super::*;

/// As an unmodified 4.22 server sent it for `*.console.example`, with its password.
const KEY_STORE: &[u8] = include_bytes!("../../tests/vectors/console-tls.jks");
const PASSWORD: &str = "kVfFlopzkQl+Va0+4S35Jw==";

fn pair(names: &[&str], expired: bool) -> Arc<CertifiedKey> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    if expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let key = rcgen::KeyPair::generate().unwrap();
    let chain = vec![params.self_signed(&key).unwrap().der().clone()];
    key_store::pair(chain, key_store::private_key(key.serialized_der()).unwrap()).unwrap()
}

fn source(certificate: &BrowserCertificate) -> String {
    certificate.status().unwrap().source
}

#[test]
fn the_servers_key_store_is_served_and_told() {
    let certificate = BrowserCertificate::new(Some("127-0-0-3.console.example".to_owned()));
    assert_eq!(certificate.status(), None);
    let password = Secret::new(PASSWORD.to_owned());
    certificate.deliver(Some((KEY_STORE, &password))).unwrap();
    let status = certificate.status().unwrap();
    assert_eq!(status.source, "management server");
    assert_eq!(status.names, ["*.console.example", "console.example"]);
    assert_eq!(status.problem, None);
    // A key store that cannot be opened, or one that is not sent any more, pushes nothing out.
    let wrong = certificate.deliver(Some((KEY_STORE, &Secret::new("x".to_owned()))));
    assert!(matches!(wrong, Err(DeliveryError::KeyStore(_))), "{wrong:?}");
    certificate.deliver(None).unwrap();
    let named = certificate.state.lock().unwrap().served.as_ref().map(|(source, _)| *source);
    assert_eq!(named, Some(Source::Server));
}

#[test]
fn files_are_better_than_the_server_and_both_than_our_own() {
    let certificate = BrowserCertificate::new(None);
    let offer = |source, names: &[&str]| {
        certificate.offer(source, Some(pair(names, false))).unwrap();
    };
    offer(Source::Own, &["a"]);
    assert!(certificate.problem().unwrap().contains("self-signed"));
    offer(Source::Server, &["a"]);
    assert_eq!(source(&certificate), "management server");
    offer(Source::Files, &["a"]);
    offer(Source::Server, &["b"]);
    assert_eq!(source(&certificate), "files");
    assert_eq!(certificate.status().unwrap().names, ["a"]);
    let foreign =
        CertifiedKey::new(pair(&["c"], false).cert.clone(), Arc::clone(&pair(&["d"], false).key));
    assert!(certificate.offer(Source::Files, Some(Arc::new(foreign))).is_err());
    assert_eq!(certificate.status().unwrap().names, ["a"]);
}

#[test]
fn a_certificate_for_other_names_or_of_other_times_is_told() {
    let problem = |expected: &str, names: &[&str], expired| {
        let pair = pair(names, expired);
        problem_of(Source::Files, &pair, Some(expected), unix_now()).unwrap_or_default()
    };
    assert_eq!(problem("10-0-0-1.c.example", &["*.c.example"], false), "");
    assert_eq!(problem("10.0.0.1", &["10.0.0.1"], false), "");
    let words = problem("10-0-0-1.c.example", &["*.d.example", "10.0.0.1"], false);
    assert_eq!(words, "links name 10-0-0-1.c.example, and it is for *.d.example, 10.0.0.1");
    let words = problem("a", &["a"], true);
    assert!(words.starts_with("it expired at 2020-01-01"), "{words}");
}

#[test]
fn a_name_that_browsers_ask_for_and_the_certificate_has_not_is_told_until_it_is_replaced() {
    let certificate = BrowserCertificate::new(None);
    certificate.offer(Source::Files, Some(pair(&["a.example", "::1"], false))).unwrap();
    certificate.asked_for("a.example");
    certificate.asked_for("[::1]");
    assert_eq!(certificate.problem(), None);
    certificate.asked_for("10.0.0.9");
    let words = certificate.problem().unwrap();
    assert_eq!(words, "browsers come as 10.0.0.9, which the certificate is not for");
    certificate.offer(Source::Files, Some(pair(&["10.0.0.9"], false))).unwrap();
    assert_eq!(certificate.problem(), None);
}
