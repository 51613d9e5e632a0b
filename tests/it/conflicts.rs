//! Two roles that claim the same thing are told so before anything is bound.

use std::net::SocketAddr;

use quickcloud::exit::Outcome;
use role::Resource;

use crate::roles::{BAD, GOOD, TestRole, spec};
use crate::running::{stock, try_start};

fn tcp(text: &str) -> Resource {
    Resource::Tcp(text.parse().unwrap())
}

async fn conflict(first: Resource, second: Resource) -> Option<(Outcome, String)> {
    let (one, other) = (TestRole::claiming(BAD, first), TestRole::claiming(GOOD, second));
    match try_start(vec![spec(&one), spec(&other)], stock).await {
        Ok(running) => {
            assert_eq!(running.stop().await, Outcome::Clean);
            None
        }
        Err(error) => {
            assert_eq!(one.times_run() + other.times_run(), 0);
            Some((error.outcome(), error.to_string()))
        }
    }
}

#[tokio::test]
async fn both_claimants_are_named() {
    let text = "roles claim the same resource: role bad (misbehaved) needs TCP 0.0.0.0:80, \
                role good (well behaved) needs TCP 10.0.0.1:80";
    let found = conflict(tcp("0.0.0.0:80"), tcp("10.0.0.1:80")).await;
    assert_eq!(found, Some((Outcome::Configuration, text.to_owned())));
    let text = "roles claim the same resource: role bad (misbehaved) and role good (well behaved) \
                both need interface br0";
    let bridge = || Resource::Interface("br0".to_owned());
    let found = conflict(bridge(), bridge()).await;
    assert_eq!(found, Some((Outcome::Configuration, text.to_owned())));
}

#[tokio::test]
async fn routes_of_one_port_are_shared_unless_they_are_the_same() {
    let addr: SocketAddr = "0.0.0.0:80".parse().unwrap();
    let route = |prefix| Resource::HttpRoute { addr, prefix };
    assert_eq!(conflict(route("/"), route("/copy/")).await, None);
    assert!(conflict(route("/"), route("/")).await.is_some());
    assert_eq!(conflict(tcp("127.0.0.1:81"), tcp("127.0.0.1:82")).await, None);
}

#[tokio::test]
async fn a_role_cannot_have_the_admin_address() {
    let role = TestRole::claiming(BAD, tcp("0.0.0.0:8251"));
    let started = try_start(vec![spec(&role)], |config| {
        config.admin_address = "127.0.0.1:8251".parse().unwrap();
    })
    .await;
    let text = started.err().unwrap().to_string();
    assert!(text.contains("the supervisor needs TCP 127.0.0.1:8251, role bad"), "{text}");
}
