//! Who may change the filter, and the file that says where we listen.

use super::*;

#[test]
fn only_callers_on_this_machine_are_local() {
    let from = |remote: &str| Peer::Tcp {
        remote: remote.parse().unwrap(),
        local: "10.0.0.1:8251".parse().unwrap(),
    };
    assert!(is_local(&from("127.0.0.1:4000")));
    assert!(is_local(&from("[::1]:4000")));
    assert!(is_local(&from("[::ffff:127.0.0.1]:4000")));
    assert!(is_local(&Peer::Unix));
    assert!(!is_local(&from("10.0.0.1:4000")));
    assert!(!is_local(&from("[::ffff:10.0.0.1]:4000")));
}

#[test]
fn the_address_file_is_removed_unless_another_process_took_it_over() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
    let file = AddressFile::write(directory.path(), one).unwrap();
    assert_eq!(AddressFile::read(directory.path()), Some(one));
    drop(file);
    assert_eq!(AddressFile::read(directory.path()), None);
    let first = AddressFile::write(directory.path(), one).unwrap();
    let second = AddressFile::write(directory.path(), other).unwrap();
    drop(first);
    assert_eq!(AddressFile::read(directory.path()), Some(other));
    drop(second);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
