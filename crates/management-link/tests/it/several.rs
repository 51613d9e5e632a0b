//! More than one management server.

use role::LinkState;
use serde_json::json;

use crate::bench::{Bench, config};
use crate::server::Server;

#[tokio::test]
async fn a_server_that_closes_at_once_is_passed_over() {
    let (busy, good) = (Server::start().await, Server::start().await);
    let bench = Bench::with(config(&[&busy, &good]), None);
    drop(busy.accept_tcp().await);
    let (conversation, _) = good.register(12).await;
    bench.attached().await;
    assert_eq!(bench.report().peer, Some(good.address));
    drop(conversation);
    bench.stop().await;
}

#[tokio::test]
async fn a_migration_goes_to_the_server_that_lives() {
    // The same certificate, as in a cluster. Addresses differ in the port only, so the list to
    // avoid cannot name the first: the current server is left out anyway.
    let first = Server::start().await;
    let dead = Server::start().await;
    let second = Server::with(crate::peer::Authority::new(), first.authority.server_config()).await;
    let management = config(&[&first, &dead, &second]);
    drop(dead);
    let bench = Bench::with(management, None);
    let (mut conversation, startup) = first.register(12).await;
    assert_eq!(startup.body()["connectionTransferred"], false);
    bench.keeps("management-ca.pem", "CERTIFICATE").await;
    let migrate = "com.cloud.agent.api.MigrateAgentConnectionCommand";
    let answer = conversation.ask(migrate, &json!({"avoidMsList": ["10.9.9.9"]})).await;
    assert_eq!(answer.class(), "MigrateAgentConnectionAnswer");
    assert_eq!(answer.body()["result"], true);
    assert!(conversation.try_receive().await.is_none());

    // The probe comes first and says nothing.
    drop(second.accept_tcp().await);
    let (conversation, startup) = second.register(12).await;
    assert_eq!(startup.body()["connectionTransferred"], true);
    bench.attached().await;
    assert_eq!(bench.report().peer, Some(second.address));
    drop(conversation);
    bench.reaches(LinkState::Disconnected).await;
    bench.stop().await;
}

#[tokio::test]
async fn the_preferred_server_is_gone_back_to() {
    let first = Server::start().await;
    let second = Server::with(crate::peer::Authority::new(), first.authority.server_config()).await;
    let mut management = config(&[&first, &second]);
    management.limits.preferred_check_interval = Some(std::time::Duration::from_millis(30));
    let bench = Bench::with(management, None);
    drop(first.accept_tcp().await);
    let (mut conversation, _) = second.register(12).await;
    bench.keeps("management-ca.pem", "CERTIFICATE").await;
    // The probe, then the link.
    drop(first.accept_tcp().await);
    assert!(conversation.try_receive().await.is_none());
    let (conversation, startup) = first.register(12).await;
    assert_eq!(startup.body()["connectionTransferred"], false);
    bench.attached().await;
    drop(conversation);
    bench.stop().await;
}
