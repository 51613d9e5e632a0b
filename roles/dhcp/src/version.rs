//! Which dnsmasq this is, from what `dnsmasq --version` prints.

/// Oldest release with everything the main file uses.
const OLDEST: (u32, u32) = (2, 80);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VersionError {
    #[error("the program set as roles.dhcp.dnsmasq does not say its version like dnsmasq")]
    Unknown,
    #[error("dnsmasq {0} is too old, 2.80 or newer is needed")]
    TooOld(String),
    #[error("dnsmasq {version} was built without {option}")]
    Lacks { version: String, option: &'static str },
}

/// The version, if it can do what we need.
pub(crate) fn parse(output: &str) -> Result<String, VersionError> {
    let mut lines = output.lines();
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("Dnsmasq version "))
        .and_then(|rest| rest.split_whitespace().next())
        .ok_or(VersionError::Unknown)?
        .to_owned();
    let number = |text: Option<&str>| -> Option<u32> {
        let text = text?;
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text.get(..end)?.parse().ok()
    };
    let mut parts = version.split('.');
    let (Some(major), Some(minor)) = (number(parts.next()), number(parts.next())) else {
        return Err(VersionError::Unknown);
    };
    if (major, minor) < OLDEST {
        return Err(VersionError::TooOld(version));
    }
    let options = output.lines().find_map(|line| line.strip_prefix("Compile time options: "));
    for option in ["DHCP", "inotify"] {
        if !options.unwrap_or_default().split_whitespace().any(|word| word == option) {
            return Err(VersionError::Lacks { version, option });
        }
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_understood_or_refused() {
        let check = |version: &str, options: &str| {
            parse(&format!(
                "Dnsmasq version {version}  Copyright (c) 2000-2024 Simon Kelley\nCompile time options: {options}\n"
            ))
        };
        assert_eq!(check("2.90", "IPv6 DHCP inotify dumpfile"), Ok("2.90".to_owned()));
        assert_eq!(check("2.91rc1", "DHCP inotify"), Ok("2.91rc1".to_owned()));
        assert_eq!(check("2.79", "DHCP inotify"), Err(VersionError::TooOld("2.79".to_owned())));
        assert!(matches!(
            check("2.90", "DHCP no-inotify"),
            Err(VersionError::Lacks { option: "inotify", .. })
        ));
        assert_eq!(parse("BusyBox v1.35"), Err(VersionError::Unknown));
        assert_eq!(check("x.y", "DHCP inotify"), Err(VersionError::Unknown));
    }
}
