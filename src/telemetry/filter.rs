//! Which events are logged: a level for all, or one per component.
//!
//! tracing's `EnvFilter` would also pick events by the fields of their spans; it costs a regular
//! expression engine in the binary, and a look at each span.

use tracing_subscriber::filter::{LevelFilter, Targets};

/// A directive is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "directive {directive:?} is neither a level (off, error, warn, info, debug, trace) nor \
     COMPONENT=LEVEL"
)]
pub struct DirectiveError {
    directive: String,
}

/// Reads directives with commas between them, strictly: `info`, `dhcp=debug`,
/// `warn,http_front::tls=trace`. What no directive names is off. No directive at all
/// logs errors.
///
/// # Errors
/// The first directive that is not one.
pub fn parse_filter(text: &str) -> Result<Targets, DirectiveError> {
    let mut filter = Targets::new();
    let mut is_empty = true;
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let error = || DirectiveError { directive: directive.to_owned() };
        let level = |text: &str| text.trim().parse::<LevelFilter>().map_err(|_odd| error());
        filter = match directive.split_once('=') {
            None => filter.with_default(level(directive)?),
            Some((component, text)) if is_component(component.trim()) => {
                filter.with_target(component.trim(), level(text)?)
            }
            Some(_) => return Err(error()),
        };
        is_empty = false;
    }
    Ok(if is_empty { filter.with_default(LevelFilter::ERROR) } else { filter })
}

/// A Rust path: what events carry as their target.
fn is_component(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    text.split("::").all(part)
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_component_has_its_own_level() {
        let filter = parse_filter("info, dhcp=debug ,http_front::tls=off,").unwrap();
        for (target, level, enabled) in [
            ("quickcloud", Level::INFO, true),
            ("quickcloud", Level::DEBUG, false),
            ("dhcp::sync", Level::DEBUG, true),
            ("http_front", Level::WARN, true),
            ("http_front::tls", Level::ERROR, false),
        ] {
            assert_eq!(filter.would_enable(target, &level), enabled, "{target} {level}");
        }
        assert!(parse_filter("").unwrap().would_enable("dhcp", &Level::ERROR));
        assert!(!parse_filter("off").unwrap().would_enable("dhcp", &Level::ERROR));
    }

    #[test]
    fn what_is_not_a_directive_is_named() {
        for (text, directive) in [
            ("verbose", "verbose"),
            ("info,dhcp=loud", "dhcp=loud"),
            ("a=b=c", "a=b=c"),
            ("=info", "=info"),
            ("info,[link{logid=7}]=debug", "[link{logid=7}]=debug"),
        ] {
            let error = parse_filter(text).unwrap_err();
            assert_eq!(error.directive, directive);
        }
    }
}
