//! The objects of a store: templates, ISOs and volumes, each a directory with a properties file.

pub mod delete;
pub mod inventory;
pub mod ovf;
pub mod verify;
