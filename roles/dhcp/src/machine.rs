//! What the role asks the kernel: interfaces and their addresses, our capabilities, accounts,
//! processes left over from a killed predecessor.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};

use dhcp_api::words::InterfaceName;

/// IPv4 addresses with the interface that has them.
pub(crate) fn interface_addresses() -> io::Result<Vec<(String, Ipv4Addr)>> {
    let interfaces = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        Some((interface.interface_name, address))
    });
    Ok(interfaces.collect())
}

/// IPv4 addresses of one interface, the main one first.
pub(crate) fn addresses_of(name: &InterfaceName) -> io::Result<Vec<Ipv4Addr>> {
    let all = interface_addresses()?.into_iter();
    Ok(all.filter(|(owner, _)| owner == name.as_str()).map(|(_, address)| address).collect())
}

/// Whether the kernel has the interface. Absent is only what it calls absent.
pub(crate) fn interface_exists(name: &InterfaceName) -> io::Result<bool> {
    match nix::net::if_::if_nametoindex(name.as_str()) {
        Ok(_) => Ok(true),
        Err(nix::errno::Errno::ENODEV | nix::errno::Errno::ENXIO) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Capabilities dnsmasq needs, by the number the kernel gives them and the name `setpriv` takes.
const NEEDED: [(u8, &str); 3] = [(12, "net_admin"), (10, "net_bind_service"), (13, "net_raw")];

/// `+net_admin,+net_bind_service,+net_raw`.
pub(crate) fn needed_capabilities() -> String {
    NEEDED.map(|(_, name)| format!("+{name}")).join(",")
}

/// The needed capabilities this process cannot hand on; empty when all is well.
pub(crate) fn missing_capabilities() -> io::Result<Vec<&'static str>> {
    let status = fs::read_to_string("/proc/self/status")?;
    Ok(missing_in(&status, nix::unistd::geteuid().is_root()))
}

fn missing_in(status: &str, is_root: bool) -> Vec<&'static str> {
    // A plain user hands on only the ambient set, root what it has.
    let key = if is_root { "CapEff:" } else { "CapAmb:" };
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED.iter().filter(|(bit, _)| mask & (1 << bit) == 0).map(|(_, name)| *name).collect()
}

/// As whom dnsmasq runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RunAs {
    /// As ourselves, a plain user with ambient capabilities.
    Plain,
    /// As root, for want of an account that can reach the files.
    Root,
    Account {
        name: String,
        user: u32,
        group: u32,
    },
}

/// Account of the distribution's package.
const ACCOUNT: &str = "dnsmasq";

/// Chooses the account: the configured one, else the package's if it can reach `directory`, else
/// our own.
pub(crate) fn run_as(configured: Option<&str>, directory: &Path) -> Result<RunAs, String> {
    if !nix::unistd::geteuid().is_root() {
        return match configured {
            Some(name) => {
                Err(format!("cannot run dnsmasq as {name}: only root can change accounts"))
            }
            None => Ok(RunAs::Plain),
        };
    }
    let name = configured.unwrap_or(ACCOUNT);
    if name == "root" {
        return Ok(RunAs::Root);
    }
    let account = User::from_name(name)
        .map_err(|error| format!("cannot look up the account {name}: {error}"))?;
    let reachable = is_reachable(directory)
        .map_err(|error| format!("cannot look at {}: {error}", directory.display()))?;
    match (account, configured) {
        (Some(account), _) if reachable => Ok(RunAs::Account {
            name: name.to_owned(),
            user: account.uid.as_raw(),
            group: account.gid.as_raw(),
        }),
        (_, None) => Ok(RunAs::Root),
        (None, Some(name)) => Err(format!("account {name} does not exist")),
        (Some(_), Some(name)) => Err(format!(
            "account {name} cannot reach {}: a directory above it is closed to others",
            directory.display()
        )),
    }
}

/// Whether every directory above lets others through.
fn is_reachable(directory: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt;
    for parent in directory.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
        if fs::metadata(parent)?.permissions().mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a process was stopped by a signal. One that is traced is not.
pub(crate) fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
}

/// Kills every dnsmasq that was started with our main file; such a process is the orphan of a
/// predecessor. Returns how many there were.
pub(crate) fn kill_orphans(main_file: &Path) -> io::Result<usize> {
    let argument = format!("--conf-file={}", main_file.display());
    let mut killed = 0;
    for entry in fs::read_dir("/proc")? {
        let Ok(entry) = entry else { continue };
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process that ends meanwhile is not an orphan, and a zombie has no arguments.
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
        let mut arguments = arguments.split(|byte| *byte == 0);
        let program = arguments.next().unwrap_or_default();
        if !program.ends_with(b"dnsmasq") || !arguments.any(|a| a == argument.as_bytes()) {
            continue;
        }
        match kill(Pid::from_raw(pid), Signal::SIGKILL) {
            Ok(()) => killed += 1,
            Err(nix::errno::Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(killed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_needs_effective_and_a_plain_user_ambient_capabilities() {
        let status = "CapEff:\t0000000000003400\nCapAmb:\t0000000000000400\n";
        assert!(missing_in(status, true).is_empty());
        assert_eq!(missing_in(status, false), ["net_admin", "net_raw"]);
        assert_eq!(missing_in("", true).len(), 3);
    }

    #[test]
    fn a_directory_closed_to_others_is_not_reachable() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let set = |mode| {
            fs::set_permissions(root.path(), fs::Permissions::from_mode(mode)).unwrap();
        };
        set(0o700);
        assert!(!is_reachable(&root.path().join("state")).unwrap());
        set(0o711);
        assert!(is_reachable(&root.path().join("state")).unwrap());
    }
}
