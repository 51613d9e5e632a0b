//! What dnsmasq says on stderr, as events. Its log is the only place where it confirms a reload
//! and complains about a line.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use dhcp_api::words::MacAddress;

/// One line of the log, as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogEvent {
    /// A file was read: by a start, a reload or a watched directory.
    Read(PathBuf),
    /// Something in our files was not taken; the whole line.
    Rejected(String),
    /// A DHCP message, by its name without the `DHCP`.
    Message {
        kind: &'static str,
        ignored: bool,
        /// Whose it is.
        mac: Option<MacAddress>,
    },
    /// An address is reserved but cannot be given now.
    Withheld(String),
    /// A client says that somebody else has its address, which nobody gets for a while.
    Declined(Ipv4Addr),
    /// An option did not fit into an answer.
    Dropped(String),
    Other,
}

const MESSAGES: [&str; 8] =
    ["DISCOVER", "OFFER", "REQUEST", "ACK", "NAK", "DECLINE", "RELEASE", "INFORM"];

const REJECTIONS: [&str; 6] = [
    "duplicate dhcp-host IP address",
    "bad DHCP host name",
    "ignoring invalid line in lease database",
    "failed to load names from",
    "failed to read",
    "no leases left",
];

const WITHHELD: [&str; 2] =
    ["not using configured address", "no address range available for DHCP request"];

const DECLINED: &str = "disabling DHCP static address ";

const DROPPED: &str = "cannot send DHCP/BOOTP option ";

/// Takes `dnsmasq-dhcp[15958]: ` off.
pub(crate) fn message(line: &str) -> &str {
    match line.split_once("]: ") {
        Some((prefix, rest)) if prefix.starts_with("dnsmasq") => rest,
        _ => line,
    }
}

/// Reads one line.
pub(crate) fn parse(line: &str) -> LogEvent {
    let text = message(line);
    if let Some(rest) = text.strip_prefix("read ") {
        // "read /x/names.d/base - 2 names"
        let path = rest.rsplit_once(" - ").map_or(rest, |(path, _)| path);
        return LogEvent::Read(PathBuf::from(path));
    }
    if let Some(rest) = text.strip_prefix("DHCP")
        && let Some(kind) = MESSAGES
            .into_iter()
            .find(|kind| rest.strip_prefix(kind).is_some_and(|rest| rest.starts_with('(')))
    {
        let mac = rest.split(' ').find_map(|word| word.parse().ok());
        return LogEvent::Message { kind, ignored: text.ends_with(" ignored"), mac };
    }
    let names_a_line = text.contains(" at line ") && text.contains(" of ");
    if names_a_line || REJECTIONS.iter().any(|start| text.starts_with(start)) {
        return LogEvent::Rejected(text.to_owned());
    }
    if text.starts_with(DROPPED) {
        return LogEvent::Dropped(text.to_owned());
    }
    if let Some(rest) = text.strip_prefix(DECLINED) {
        let address = rest.split(' ').next().and_then(|word| word.parse().ok());
        return address.map_or_else(|| LogEvent::Withheld(text.to_owned()), LogEvent::Declined);
    }
    if WITHHELD.iter().any(|start| text.starts_with(start)) {
        return LogEvent::Withheld(text.to_owned());
    }
    LogEvent::Other
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: LogEvent) {
        assert_eq!(parse(line), expected, "{line}");
    }

    #[test]
    fn lines_of_dnsmasq_2_90() {
        check(
            "dnsmasq[7]: read /x/names.d/base - 2 names",
            LogEvent::Read("/x/names.d/base".into()),
        );
        check("dnsmasq-dhcp[7]: read /x/base.hosts", LogEvent::Read("/x/base.hosts".into()));
        check(
            "dnsmasq-dhcp[7]: DHCPDISCOVER(br0) 02:00:00:00:00:99 ignored",
            LogEvent::Message {
                kind: "DISCOVER",
                ignored: true,
                mac: "02:00:00:00:00:99".parse().ok(),
            },
        );
        check(
            "dnsmasq-dhcp[7]: DHCPACK(br0) 10.77.0.50 02:00:00:00:00:32 web-1",
            LogEvent::Message {
                kind: "ACK",
                ignored: false,
                mac: "02:00:00:00:00:32".parse().ok(),
            },
        );
        let line = "duplicate dhcp-host IP address 10.77.0.51 at line 1 of /x/hosts.d/2";
        check(&format!("dnsmasq[7]: {line}"), LogEvent::Rejected(line.to_owned()));
        let line = "not using configured address 10.77.0.50 because it is leased to 02:…";
        check(&format!("dnsmasq-dhcp[7]: {line}"), LogEvent::Withheld(line.to_owned()));
        let line = "cannot send DHCP/BOOTP option 43: no space left in packet";
        check(&format!("dnsmasq-dhcp[7]: {line}"), LogEvent::Dropped(line.to_owned()));
        check(
            "dnsmasq-dhcp[7]: disabling DHCP static address 10.77.0.50 for 10m",
            LogEvent::Declined(Ipv4Addr::new(10, 77, 0, 50)),
        );
        check("dnsmasq[7]: cleared cache", LogEvent::Other);
        check("", LogEvent::Other);
    }
}
