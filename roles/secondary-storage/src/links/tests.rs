//! Links of a zone: made by one host, served and taken away by every other, ended, forgotten.

use super::*;
use crate::stores::registry::tests::{URL, setup};

const DIRECTORY: &str = "245aa84f-36c2-4a2b-ab08-c2efa8b16f18";
const HOUR: i64 = 3_600_000;

struct Host {
    links: Links,
    stores: Stores,
}

/// A host of the zone; several share the store of `temp`.
fn host(made: &crate::stores::registry::tests::Setup, state: &str) -> Host {
    let stores = made.stores.clone();
    let local = LocalTable::load(&made.temp.path().join(state)).unwrap();
    let lifetime = Live::new(Duration::from_hours(1));
    let links = Links::new(local, stores.clone(), TaskScope::new(), Arc::default(), lifetime);
    Host { links, stores }
}

fn name(file: &str) -> LinkName {
    LinkName::new(DIRECTORY, file).unwrap()
}

fn target(path: &str) -> Target {
    Target { store: URL.parse().unwrap(), path: path.parse().unwrap() }
}

#[tokio::test]
async fn a_link_made_by_one_host_is_served_and_removed_by_every_host() {
    let made = setup(&[URL]);
    let (one, two) = (host(&made, "one"), host(&made, "two"));
    let a = target("template/tmpl/2/320/a.qcow2");
    one.links.add(&name("a"), &a, 1).await.unwrap();
    assert_eq!(two.links.find(&name("a"), 1).await.unwrap(), Found::Target(a.clone()));
    assert_eq!(two.links.find(&name("b"), 1).await.unwrap(), Found::Unknown);
    two.links.sweep(1).await.unwrap();
    assert_eq!(two.links.status(1).links[0].link, format!("{DIRECTORY}/a"));
    assert_eq!(two.links.remove(&name("a"), 5).await.unwrap(), Some(a.clone()));
    for host in [&one, &two] {
        assert_eq!(host.links.find(&name("a"), 9).await.unwrap(), Found::Ended { at_ms: 5 });
    }
    assert_eq!(two.links.remove(&name("a"), 9).await.unwrap(), Some(a), "twice is fine");
    assert_eq!(two.links.find(&name("a"), 9).await.unwrap(), Found::Ended { at_ms: 5 });
    one.links.sweep(9).await.unwrap();
    assert_eq!(one.links.status(9).count, 0);
}

#[tokio::test]
async fn links_end_by_themselves_and_are_forgotten_later() {
    let made = setup(&[URL]);
    let Host { links, .. } = host(&made, "one");
    links.add(&name("a"), &target("template/tmpl/2/320/a"), 0).await.unwrap();
    let found = async |at| links.find(&name("a"), at).await.unwrap();
    assert!(matches!(found(HOUR - 1).await, Found::Target(_)));
    assert!(matches!(found(-HOUR).await, Found::Target(_)), "a clock set back ends nothing");
    assert_eq!(found(HOUR).await, Found::Ended { at_ms: HOUR });
    assert_eq!(links.status(HOUR - 5).links[0].expires_in_ms, Some(5));
    assert_eq!(links.sweep(HOUR).await.unwrap(), 0);
    assert_eq!(found(2 * HOUR).await, Found::Ended { at_ms: HOUR });
    let week = 8 * 24 * HOUR;
    assert_eq!(links.sweep(week).await.unwrap(), 1);
    assert_eq!(found(week).await, Found::Unknown);
    let tree = made.temp.path().join("sec/.quickcloud/links");
    assert_eq!(std::fs::read_dir(tree).unwrap().count(), 0);
}

#[tokio::test]
async fn links_end_with_what_they_lead_to() {
    let made = setup(&[URL]);
    let Host { links, stores } = host(&made, "one");
    for (file, path) in [("a", "template/tmpl/2/320/a"), ("b", "template/tmpl/2/3201/a")] {
        links.add(&name(file), &target(path), 0).await.unwrap();
    }
    let store = stores.open(&URL.parse().unwrap(), None).await.unwrap();
    let directory = "template/tmpl/2/320".parse().unwrap();
    assert_eq!(links.remove_below(&store, &directory, 7).await.unwrap(), 1);
    assert_eq!(links.find(&name("a"), 8).await.unwrap(), Found::Ended { at_ms: 7 });
    assert!(matches!(links.find(&name("b"), 8).await.unwrap(), Found::Target(_)));
}

#[tokio::test]
async fn a_link_of_an_earlier_version_or_of_a_store_without_room_is_this_hosts() {
    let made = setup(&[URL]);
    let state = made.temp.path().join("one");
    std::fs::create_dir_all(&state).unwrap();
    let old = format!(
        r#"{{"{DIRECTORY}/old":{{"store":"{URL}","path":"template/tmpl/2/320/a","created_ms":1}},
            "{DIRECTORY}/odd":{{"store":"{URL}","path":"../x","created_ms":1}}}}"#
    );
    std::fs::write(state.join("links.json"), old).unwrap();
    let (one, two) = (host(&made, "one"), host(&made, "two"));
    let found = Found::Target(target("template/tmpl/2/320/a"));
    assert_eq!(one.links.find(&name("old"), 1).await.unwrap(), found);
    assert_eq!(two.links.find(&name("old"), 1).await.unwrap(), Found::Unknown);
    assert_eq!(one.links.find(&name("odd"), 1).await.unwrap(), Found::Unknown);
    assert_eq!(one.links.status(1).count, 1);
    // Taken away, it is where everybody sees it.
    one.links.remove(&name("old"), 3).await.unwrap();
    assert_eq!(two.links.find(&name("old"), 4).await.unwrap(), Found::Ended { at_ms: 3 });
}

#[tokio::test]
async fn a_store_that_cannot_be_read_is_not_a_link_that_is_not_there() {
    let made = setup(&[URL]);
    let Host { links, .. } = host(&made, "one");
    links.add(&name("a"), &target("template/tmpl/2/320/a"), 0).await.unwrap();
    let place = made.temp.path().join("sec/.quickcloud/links").join(DIRECTORY);
    std::fs::write(place.join("link.json"), "{").unwrap();
    assert!(matches!(links.find(&name("a"), 1).await, Err(LinkError::Content(..))));
    std::fs::write(place.join("link.json"), r#"{"a":{"path":"../../etc","created_ms":0}}"#)
        .unwrap();
    assert!(links.find(&name("a"), 1).await.is_err(), "leads out of the store");
    std::fs::rename(made.temp.path().join("sec"), made.temp.path().join("away")).unwrap();
    assert!(links.find(&name("a"), 1).await.is_err());
    let odd = LinkName::new("not-a-uuid", "a").unwrap();
    assert_eq!(links.find(&odd, 1).await.unwrap(), Found::Unknown, "no store is asked");
}

#[test]
fn names_are_single_segments() {
    assert!(LinkName::new("a/b", "c").is_err());
    assert!(LinkName::new("..", "c").is_err());
    assert!(LinkName::new("a", "c/d").is_err());
    assert!(LinkName::of_url("nothing").is_none());
    let by_url = LinkName::of_url("https://10.77.1.2/userdata/245aa84f/g%20plain.qcow2?x#y");
    assert_eq!(by_url, LinkName::new("245aa84f", "g plain.qcow2").ok());
}
