//! Placeholder while the crate lands.
