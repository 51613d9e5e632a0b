//! Reading the configuration: typed, strict, and every violation at once.

mod section;

pub use section::{
    Effective, Section, Violation, Violations, format_bytes, format_duration, parse_bytes,
    parse_duration,
};
