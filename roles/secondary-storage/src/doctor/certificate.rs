//! The operator's certificate for links and uploads: whether browsers will take it, and until when.

use std::net::IpAddr;

use key_store::certificate::{alternative_names, expires_at};
use role::DoctorFinding;

use super::fault;
use crate::serving::config::TlsFiles;

const DAY: i64 = 86_400;
/// An end within so many days is a fault, and within so many a warning.
const FAULT_DAYS: i64 = 7;
const WARNING_DAYS: i64 = 30;

/// Looks at the files as they are served. `now` is in seconds since 1970. Blocks.
pub(super) fn look(files: &TlsFiles, public: IpAddr, now: i64) -> DoctorFinding {
    let remedy = "correct roles.secondary_storage.certificate_file or certificate_key_file";
    let pair = match tls_material::read_pair(&files.certificate, &files.key) {
        Ok(pair) => pair,
        Err(error) => return fault(bedrock::chain(&error), remedy),
    };
    let Some(own) = pair.cert.first() else {
        return fault("there is no certificate in the file".to_owned(), remedy);
    };
    let shown = files.certificate.display();
    let names = alternative_names(own);
    let renew = "renew it; a renewed file is taken up without a restart";
    let Some(end) = expires_at(own) else {
        return fault(format!("the end of {shown} cannot be read"), remedy);
    };
    let days = (end - now).div_euclid(DAY);
    let told = names.join(", ");
    match days {
        ..0 => return fault(format!("{shown}, for {told}, has expired"), renew),
        0..FAULT_DAYS => {
            return fault(format!("{shown}, for {told}, expires within {} days", days + 1), renew);
        }
        FAULT_DAYS..WARNING_DAYS => {
            let problem = format!("{shown}, for {told}, expires within {} days", days + 1);
            return DoctorFinding::Warning { problem, remedy: renew.to_owned() };
        }
        _ => {}
    }
    // With secstorage.ssl.cert.domain links hold a name; else the address.
    let is_name = |name: &String| name.parse::<IpAddr>().is_err();
    if !names.iter().any(|name| is_name(name) || name.parse() == Ok(public)) {
        return DoctorFinding::Warning {
            problem: format!("links name {public}, and {shown} is for {told}"),
            remedy: "have one issued for the address, or for a name and set \
                     secstorage.ssl.cert.domain at the server"
                .to_owned(),
        };
    }
    DoctorFinding::Good(format!("{shown}, for {told}, has {days} days"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use super::*;

    /// Where the pair lies that was made for `name` in 2026, and when it ends.
    fn made(folder: &std::path::Path, name: &str) -> (TlsFiles, i64) {
        let file = folder.join("storage.pem");
        let made: SystemTime = UNIX_EPOCH + Duration::from_secs(1_780_000_000);
        let pair = tls_material::own_pair(&file, &[name.to_owned()], made).unwrap();
        let end = expires_at(&pair.cert[0]).unwrap();
        (TlsFiles { certificate: file.clone(), key: file }, end)
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
    fn names_and_end_of_the_certificate_are_judged() {
        let folder = tempfile::tempdir().unwrap();
        let here: IpAddr = [192, 0, 2, 1].into();
        let (files, end) = made(folder.path(), "192.0.2.1");
        let at = |days: i64, address: IpAddr| told(look(&files, address, end - days * DAY));
        assert!(at(31, here).starts_with("good: "), "{}", at(31, here));
        assert!(at(29, here).starts_with("warning: "), "{}", at(29, here));
        assert!(at(6, here).starts_with("fault: "), "{}", at(6, here));
        assert!(at(-1, here).ends_with("has expired"), "{}", at(-1, here));
        let elsewhere = at(31, [192, 0, 2, 9].into());
        assert!(elsewhere.starts_with("warning: links name 192.0.2.9"), "{elsewhere}");
        std::fs::write(&files.certificate, "tea").unwrap();
        assert!(at(31, here).starts_with("fault: "), "{}", at(31, here));
    }
}
