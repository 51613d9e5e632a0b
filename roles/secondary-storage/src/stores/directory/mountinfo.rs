//! What the kernel says about a mount, and whether it is the store that was asked for.
//!
//! A directory that holds somebody else's file system is worse than none: the server would forget or
//! delete what it does not find there. So a mount that names another server or another export is
//! refused, whoever made it; options that only hurt are told.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::mount::MountError;
use crate::stores::url::StoreUrl;

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub point: PathBuf,
    pub fs_type: String,
    /// What was mounted: `10.0.0.9:/export/sec`, `/dev/sdb1`.
    pub source: String,
    /// Of the mount and of the file system.
    pub options: Vec<String>,
}

/// What a mount should be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub url: &'a StoreUrl,
    /// Addresses of the URL's host, as far as they are known.
    pub addresses: &'a [IpAddr],
    /// What the operator says is mounted there, in place of what follows from the URL.
    pub source: Option<&'a str>,
    pub version: Option<&'a str>,
}

/// What is mounted at exactly this path; of several the one on top. Blocks, but only on `/proc`.
pub fn mounted_at(path: &Path) -> Result<Option<Mount>, MountError> {
    let table = std::fs::read("/proc/self/mountinfo").map_err(MountError::Mounts)?;
    let table = String::from_utf8_lossy(&table);
    Ok(table.lines().filter_map(parse).rfind(|mount| mount.point == path))
}

/// Fields 5 and 6, then after the separator the type, the source and more options (proc(5)).
fn parse(line: &str) -> Option<Mount> {
    let (head, tail) = line.split_once(" - ")?;
    let mut head = head.split(' ').skip(4);
    let (point, own) = (unescape(head.next()?)?, head.next()?);
    let mut tail = tail.splitn(3, ' ');
    let (fs_type, source) = (tail.next()?, unescape(tail.next()?)?);
    let of_file_system = tail.next().unwrap_or_default().trim_end();
    let options = own.split(',').chain(of_file_system.split(','));
    let options = options.filter(|option| !option.is_empty()).map(str::to_owned).collect();
    Some(Mount { point: PathBuf::from(point), fs_type: fs_type.to_owned(), source, options })
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(field: &str) -> Option<String> {
    let mut out = Vec::with_capacity(field.len());
    let mut parts = field.split('\\');
    out.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (octal, rest) = part.split_at_checked(3)?;
        out.push(u8::from_str_radix(octal, 8).ok()?);
        out.extend_from_slice(rest.as_bytes());
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

impl Mount {
    /// Of its options that begin with `key=` the value of the last.
    fn value(&self, key: &str) -> Option<&str> {
        self.options.iter().rev().find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
    }

    fn has(&self, option: &str) -> bool {
        self.options.iter().any(|other| other == option)
    }

    fn is_network(&self) -> bool {
        matches!(self.fs_type.as_str(), "nfs" | "nfs4" | "cifs" | "smb3")
    }

    /// Whether this is the store; what an operator should know about it if it is.
    pub fn judge(&self, expected: Expected<'_>) -> Result<Vec<String>, MountError> {
        let mut notes = Vec::new();
        let refused = |wanted: String| {
            let found = format!("{} ({})", self.source, self.fs_type);
            Err(MountError::Another { path: self.point.clone(), found, wanted })
        };
        if let Some(source) = expected.source {
            if source.trim_end_matches('/') != self.source.trim_end_matches('/') {
                return refused(source.to_owned());
            }
        } else if self.is_network() {
            let (host, path) = split_source(&self.source);
            let wanted = format!("{}:{}", expected.url.host(), expected.url.path());
            if path.trim_end_matches('/') != expected.url.path().trim_end_matches('/') {
                return refused(wanted);
            }
            match host.parse::<IpAddr>() {
                _ if host.eq_ignore_ascii_case(expected.url.host()) => {}
                Ok(address) if expected.addresses.contains(&address) => {}
                Ok(_) if !expected.addresses.is_empty() => return refused(wanted),
                Ok(_) | Err(_) => {
                    let text = format!("mounted from {host}, which is taken for the store's host");
                    notes.push(text);
                }
            }
        }
        notes.extend(self.complaints(expected.version));
        Ok(notes)
    }

    /// What is not as it should be, and what to do about it.
    fn complaints(&self, version: Option<&str>) -> Vec<String> {
        let mut notes = Vec::new();
        if self.has("ro") {
            notes.push("mounted read-only: nothing can be stored or deleted".to_owned());
        }
        if self.fs_type.starts_with("nfs") {
            if self.has("hard") || !self.has("soft") {
                notes.push(
                    "mounted hard: while its server is silent, work on it cannot be ended; mount it \
                     with the option soft"
                        .to_owned(),
                );
            }
            if let (Some(wanted), Some(found)) = (version, self.value("vers"))
                && !same_version(wanted, found)
            {
                notes.push(format!(
                    "mounted with NFS version {found}, not {wanted}: unmount it to change that"
                ));
            }
        }
        notes
    }
}

/// `4` means any 4.x, as it does for mount.
fn same_version(wanted: &str, found: &str) -> bool {
    let major = |text: &str| text.split('.').next().map(str::to_owned);
    wanted == found || (!wanted.contains('.') && major(found).as_deref() == Some(wanted))
}

/// Host, without brackets, and path of `host:/path`, `[::1]:/path` or `//host/share`.
fn split_source(source: &str) -> (&str, &str) {
    if let Some(rest) = source.strip_prefix("//") {
        return rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    }
    if let Some((host, path)) = source.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
        return (host, path);
    }
    source.split_once(':').unwrap_or((source, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFS: &str = "71 29 0:52 / /mnt/my\\040sec rw,relatime shared:34 - nfs4 \
        10.0.0.9:/export/my\\040sec rw,vers=4.1,soft,proto=tcp,addr=10.0.0.9";

    fn judge(
        line: &str,
        url: &str,
        source: Option<&str>,
        version: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let url: StoreUrl = url.parse().unwrap();
        let addresses = ["10.0.0.9".parse().unwrap()];
        let expected = Expected { url: &url, addresses: &addresses, source, version };
        parse(line).unwrap().judge(expected).map_err(|error| error.to_string())
    }

    #[test]
    fn lines_of_the_kernel_are_read() {
        let mount = parse(NFS).unwrap();
        assert_eq!(mount.point, Path::new("/mnt/my sec"));
        assert_eq!(
            (mount.fs_type.as_str(), mount.source.as_str()),
            ("nfs4", "10.0.0.9:/export/my sec")
        );
        assert_eq!(mount.value("vers"), Some("4.1"));
        let line = "36 35 98:0 / /mnt/caf\\303\\251 rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(parse(line).unwrap().point, Path::new("/mnt/caf\u{e9}"));
        for odd in ["", "1 2 3 4 /x rw", "a - b", "1 2 3 4 /x\\9 rw - ext4 a rw"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
        assert!(mounted_at(Path::new("/proc")).unwrap().is_some());
        assert!(mounted_at(Path::new("/proc/self")).unwrap().is_none());
    }

    /// Row 38 of the weaknesses: the original looks for a text in the output of mount.
    #[test]
    fn row_38_another_server_or_export_is_refused_by_source() {
        let url = "nfs://10.0.0.9/export/my sec/";
        assert_eq!(judge(NFS, url, None, Some("4")), Ok(Vec::new()));
        assert_eq!(judge(NFS, "nfs://nas.example/export/my sec", None, None), Ok(Vec::new()));
        let error = judge(NFS, "nfs://10.0.0.9/export/my sec2", None, None).unwrap_err();
        assert!(
            error.starts_with("/mnt/my sec has 10.0.0.9:/export/my sec (nfs4) mounted, not "),
            "{error}"
        );
        let other = NFS.replace("10.0.0.9:/", "10.0.0.8:/");
        assert!(judge(&other, url, None, None).is_err());
        let source = Some("10.0.0.8:/export/my sec");
        assert_eq!(judge(&other, url, source, None), Ok(Vec::new()), "the operator knows better");
        assert!(judge(NFS, url, source, None).is_err());
        let local = "36 35 98:0 /sec /mnt/x rw - ext4 /dev/sdb1 rw";
        assert_eq!(judge(local, url, None, None), Ok(Vec::new()), "a bind mount is the operator's");
        assert!(judge(local, url, Some("/dev/sdc1"), None).is_err());
    }

    #[test]
    fn row_38_options_that_hurt_are_told() {
        let url = "nfs://10.0.0.9/export/my sec";
        let told = |line: &str, version| judge(line, url, None, version).unwrap().join("; ");
        assert!(told(NFS, Some("3")).contains("mounted with NFS version 4.1, not 3"));
        assert!(told(&NFS.replace("soft", "hard"), None).starts_with("mounted hard"));
        assert!(told(&NFS.replace(" rw,relatime", " ro,relatime"), None).contains("read-only"));
        let named = NFS.replace("10.0.0.9:/", "filer:/");
        assert!(told(&named, None).contains("taken for the store's host"));
    }

    proptest::proptest! {
        #[test]
        fn any_line_is_read_or_left(line in "[ -~\\\\0-9]{0,60}( - [ -~]{0,40})?") {
            if let Some(mount) = parse(&line) {
                let (host, path) = split_source(&mount.source);
                proptest::prop_assert!(host.len() + path.len() <= mount.source.len());
            }
        }
    }
}
