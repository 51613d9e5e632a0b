//! Placeholder while the supervisor lands.
fn main() {}
