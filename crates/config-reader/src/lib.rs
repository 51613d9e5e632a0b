//! Reading the configuration: typed, strict, and every violation at once.
//!
//! | module | what |
//! |---|---|
//! | `section` | [`Section`]: one table, read key by key |
//! | `values` | durations and sizes with their units |
//! | `violation` | [`Violations`]: everything wrong, with place and remedy |
//! | `effective` | [`Effective`]: what holds for a key; [`changes`] between two readings |

mod effective;
mod section;
mod values;
mod violation;

pub use effective::{Effective, Fingerprint, changes};
pub use section::Section;
pub use values::{format_bytes, format_duration, parse_bytes, parse_duration};
pub use violation::{Violation, Violations};
