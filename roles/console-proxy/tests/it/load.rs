//! Many consoles at a time.

use std::time::Instant;

use crate::viewer::{PATCHES, upgrade};
use crate::world::{LIMIT, Options, start, vm};

const COUNT: usize = 100;

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_consoles_open_are_counted_and_close() {
    let world = start(Options::default()).await;
    for number in 1..=COUNT {
        world.server.put_vm(vm(number, world.screen_addr));
    }
    let started = Instant::now();
    let consoles = (1..=COUNT).map(|number| {
        let world = &world;
        async move {
            let (link, mut viewer) = world.console(number).await;
            assert_eq!(viewer.patches().await, PATCHES);
            (link, viewer)
        }
    });
    let consoles = futures_util::future::join_all(consoles).await;
    println!("{COUNT} consoles with a picture each after {:?}", started.elapsed());
    assert_eq!(world.open(), COUNT);
    testkit::eventually("all reported", LIMIT, || {
        (world.server.proxy_loads().get(&901)?.connections == COUNT).then_some(())
    })
    .await;
    let load = world.server.proxy_loads()[&901].clone();
    assert!(load.details.len() < 60_000, "{}", load.details.len());
    let links: Vec<_> = consoles.into_iter().map(|(link, _viewer)| link).collect();
    for link in &links {
        world.closed_in_books(link).await;
    }
    assert_eq!((world.open(), world.screen.viewers()), (0, 0));
}

/// Ends that viewers say and ends that they do not, in turns.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_consoles_that_opened_and_closed_leave_nothing_behind() {
    const AT_A_TIME: usize = 10;
    let world = start(Options::default()).await;
    for number in 1..=AT_A_TIME {
        world.server.put_vm(vm(number, world.screen_addr));
    }
    let before = world.cx.tasks.len();
    for round in 0..1000 / AT_A_TIME {
        let consoles = (1..=AT_A_TIME).map(|number| world.console(number));
        for (_link, mut viewer) in futures_util::future::join_all(consoles).await {
            if round % 2 == 0 {
                viewer.socket.close(None).await.unwrap();
            }
        }
        world.until_open(0).await;
    }
    testkit::eventually("connections and tasks end", LIMIT, || {
        let listeners = world.cx.http.listeners();
        let connections: usize = listeners.iter().map(|listener| listener.connections).sum();
        let is_clean = connections == 0 && world.screen.viewers() == 0;
        (is_clean && world.cx.tasks.len() <= before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_consoles_than_places_are_turned_away_before_anything_is_used_up() {
    let world = start(Options { role: "sessions = 1".into(), ..Options::default() }).await;
    world.server.put_vm(vm(2, world.screen_addr));
    let (_link, _viewer) = world.console(1).await;
    let link = world.link(2).await;
    let error = upgrade(world.addr, &crate::viewer::raw_path(&link, None)).await.unwrap_err();
    assert!(error.to_string().contains("503"), "{error}");
    assert!(!world.session(&link).acquired);
}
