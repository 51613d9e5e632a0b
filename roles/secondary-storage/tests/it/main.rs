//! The role's handlers on real directories, against an image server with every fault there is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "test code"
)]

mod admin;
mod bench;
mod broken_off;
mod buckets;
mod cases;
mod codings;
mod crash;
mod data_disks;
mod drives;
mod drops;
mod endings;
mod formats;
mod ganesha;
mod ganesha_server;
mod images;
mod in_memory;
mod inventory;
mod links;
mod memory;
mod metalinks;
mod migrations;
mod mounts;
mod nfs_engine;
mod nfs_names;
mod nfs_server;
mod objects;
mod odd_servers;
mod on_directory;
mod on_nfs;
mod over_link;
mod ranges;
mod real_buckets;
mod recorded;
mod restarts;
mod s3_server;
mod scripted;
mod secure;
mod several;
mod several_hosts;
mod slow_servers;
mod snapshots;
mod sources;
mod stalled;
mod stopped;
mod stores;
mod upload_client;
mod upload_page;
mod uploads;
mod uploads_again;
mod uploads_crash;
mod uploads_ova;
mod uploads_recorded;
mod uploads_tus;
mod wrapped;

/// What most tests run on.
type Bench = bench::Bench<bench::OnDirectory>;
