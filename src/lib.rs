//! Placeholder while the supervisor lands.
