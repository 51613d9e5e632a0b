//! From the start-up command to Up, and refusals, as recorded.

use management_server::{EventKind, HostState};

use crate::agent::Agent;
use crate::recorded::{Line, assert_like, conversation};
use crate::{SOON, bare, start, with_rows, with_static_console};

/// Plays the agent's side of a recorded registration and compares every message of ours with the
/// recorded one, until the second ready command is answered.
pub(crate) async fn register_like(agent: &mut Agent, lines: &[Line]) {
    let mut last = None;
    let mut ready = 0;
    for line in lines {
        if line.from_server {
            let ours = agent.receive().await;
            assert_like(&ours, line);
            if line.class() == "ReadyCommand" {
                agent.host = ours.body()["hostId"].as_i64().unwrap();
            }
            last = Some(ours);
        } else if line.pair.is_some() {
            ready += usize::from(line.class() == "ReadyAnswer");
            agent.answer_raw(last.as_ref().unwrap(), &line.text()).await;
        } else {
            agent.host = line.agent;
            agent.request(line.flags, &line.text()).await;
        }
        if ready == 2 {
            return;
        }
    }
    panic!("no second ready command in the recording");
}

#[tokio::test]
async fn storage_with_a_row_is_set_up_as_recorded() {
    let server = start(with_rows()).await;
    let mut agent = Agent::connect(&server).await;
    register_like(&mut agent, &conversation("ss-images")).await;
    let guid = "SecondaryStorage.1-NfsSecondaryStorageResource";
    let host = server.wait_for_host(guid, HostState::Up, SOON).await.unwrap();
    assert_eq!((host.name.as_str(), host.zone_id, host.pod_id), ("s-900-VM", 1, Some(1)));
    assert_eq!(host.public_address.as_deref(), Some("10.77.1.2"));
    assert!(host.attached && host.connects == 1);
}

#[tokio::test]
async fn a_console_proxy_with_a_row_gets_its_key_as_recorded() {
    let server = start(with_rows()).await;
    let mut agent = Agent::connect(&server).await;
    register_like(&mut agent, &conversation("cp-consoles")).await;
    let host = server.host("Proxy.901-ConsoleProxyResource").unwrap();
    assert_eq!(host.proxy_vm, Some(901));
}

#[tokio::test]
async fn a_host_without_a_row_only_gets_the_ready_commands() {
    let server = start(bare()).await;
    let mut agent = Agent::connect(&server).await;
    register_like(&mut agent, &conversation("link-cp-without-row")).await;
    let mut agent = Agent::connect(&server).await;
    register_like(&mut agent, &conversation("link-odd-requests")).await;
    assert_eq!(server.hosts().len(), 2);
}

#[tokio::test]
async fn a_static_console_proxy_gets_its_key_without_a_row() {
    let server = start(with_static_console()).await;
    let mut agent = Agent::connect(&server).await;
    register_like(&mut agent, &conversation("cp-static")).await;
}

#[tokio::test]
async fn an_unknown_zone_and_architecture_are_refused_as_recorded_and_the_link_stays() {
    let server = start(bare()).await;
    for name in ["link-refused-zone", "link-refused-arch"] {
        let lines = conversation(name);
        let mut agent = Agent::connect(&server).await;
        let startup = &lines[0];
        agent.request(startup.flags, &startup.text()).await;
        for line in &lines[1..] {
            let ours = agent.receive().await;
            assert_like(&ours, line);
        }
        let refused = |host: &management_server::Host| host.guid.starts_with("agent-b");
        assert!(name != "link-refused-zone" || !server.hosts().iter().any(refused));
        // The link is still good for a better start-up command.
        let better = startup.text().replace("nozone", "z3").replace("sparc", "aarch64");
        agent.start_up(&better).await;
        agent.become_ready().await;
        let guid = startup.json[0].as_object().unwrap().values().next().unwrap()["guid"].clone();
        let host = server.wait_for_host(guid.as_str().unwrap(), HostState::Up, SOON).await;
        host.unwrap();
    }
}

#[tokio::test]
async fn zones_and_pods_are_found_by_number_and_the_default_pair_takes_the_first() {
    let server = start(bare()).await;
    let startup = conversation("link-no-pings")[0].text();
    for (zone, pod, expected) in
        [("2", "2", (2, Some(2))), ("z1", "nopod", (1, None)), ("Default", "default", (1, Some(1)))]
    {
        let mut agent = Agent::connect(&server).await;
        let text = startup
            .replace(r#""dataCenter":"z3""#, &format!(r#""dataCenter":"{zone}""#))
            .replace(r#""pod":"p3""#, &format!(r#""pod":"{pod}""#));
        agent.start_up(&text).await;
        agent.become_ready().await;
        let guid = "agent-h-NfsSecondaryStorageResource";
        let host = server.wait_for_host(guid, HostState::Up, SOON).await.unwrap();
        assert_eq!((host.zone_id, host.pod_id), expected);
    }
}

#[tokio::test]
async fn a_row_is_kept_and_found_with_and_without_the_suffix() {
    let server = start(bare()).await;
    let startup = conversation("link-no-pings")[0].text();
    let bare_guid = startup.replace("agent-h-NfsSecondaryStorageResource", "agent-h");
    for text in [&bare_guid, &startup] {
        let mut agent = Agent::connect(&server).await;
        agent.start_up(text).await;
        agent.become_ready().await;
        assert_eq!(agent.host, 1);
    }
    let hosts = server.hosts();
    assert_eq!((hosts.len(), hosts[0].connects), (1, 2));
}

#[tokio::test]
async fn a_second_link_with_the_same_guid_takes_the_host_over() {
    let server = start(bare()).await;
    let mut old = Agent::connect(&server).await;
    register_like(&mut old, &conversation("link-taken-over")).await;
    let mut new = Agent::connect(&server).await;
    register_like(&mut new, &conversation("link-taking-over")).await;
    old.expect_close().await;
    assert_eq!(old.host, new.host);
    let guid = "agent-j-NfsSecondaryStorageResource";
    let host = server.wait_for_host(guid, HostState::Up, SOON).await.unwrap();
    assert!(host.attached);
    assert_eq!(new.ping().await.body()["sendStartup"], false);
    let mut events = server.events();
    let link = events
        .find("the take-over", SOON, |event| {
            matches!(event.kind, EventKind::TakenOver).then_some(event.link)
        })
        .await
        .unwrap();
    assert_eq!(link, 1);
}

#[tokio::test]
async fn a_second_start_up_on_one_link_is_answered_twice_and_ends_the_link() {
    let server = start(bare()).await;
    let startup = conversation("link-no-pings")[0].text();
    let mut agent = Agent::connect(&server).await;
    agent.start_up(&startup).await;
    agent.become_ready().await;
    agent.start_up(&startup).await;
    let late = agent.receive().await;
    assert_eq!(late.class(), "StartupAnswer");
    assert_eq!(late.body()["hostId"], 1);
    assert_eq!(late.body()["hostName"], "agent-h");
    while agent.next().await.is_ok() {}
    let row = server.wait_for("the row without an agent", SOON, |server| {
        server.hosts().into_iter().find(|host| !host.attached)
    });
    assert_eq!(row.await.unwrap().state, HostState::Alert);
}
