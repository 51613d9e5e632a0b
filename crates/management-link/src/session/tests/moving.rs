//! Several servers: lists, the preferred one, migration.

use agent_protocol::agent::{
    MigrateAgentConnectionAnswer, MigrateAgentConnectionCommand, SetupMSListAnswer,
};

use super::*;

fn endpoint(host: &str) -> Endpoint {
    Endpoint { host: host.to_owned(), port: 8250 }
}

fn list(hosts: &str, algorithm: &str, interval: i64) -> SetupMSListCommand {
    SetupMSListCommand {
        ms_list: texts(hosts),
        lb_algorithm: Some(algorithm.to_owned()),
        lb_check_interval: Some(interval),
        ..SetupMSListCommand::default()
    }
}

/// Attached to b, with a before it in the list.
fn at_second(algorithm: &str, interval: i64) -> Bench {
    let mut bench = Bench::new("b");
    bench.attach();
    let answer = sent(&bench.request(&list("a,b", algorithm, interval)));
    assert!(answer.open::<SetupMSListAnswer>().unwrap().base.result);
    bench
}

fn probes(actions: &[Action], host: &str) -> bool {
    has(actions, |action| *action == Action::Probe { endpoint: endpoint(host) })
}

#[test]
fn a_new_list_is_kept_with_its_algorithm_and_sent_with_the_next_startup() {
    let mut bench = at_second("roundrobin", 0);
    assert_eq!(bench.session.identity.server_list.as_deref(), Some("a,b@roundrobin"));
    bench.lose();
    let actions = bench.timer();
    assert_eq!(actions, [Action::Connect { link: 2, endpoint: endpoint("a") }]);
    match bench.step(Event::Connected).as_slice() {
        [Action::Startup { facts, .. }] => assert_eq!(facts.ms_host_list, "a,b@roundrobin"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_preferred_server_is_looked_for_again_and_again_and_gone_to_when_idle() {
    let mut bench = at_second("static", 30);
    assert!(probes(&bench.timer(), "a"));
    assert!(bench.step(Event::ProbeDone { endpoint: endpoint("a"), reachable: false }).is_empty());
    assert!(probes(&bench.timer(), "a"));
    let body = super::connecting::raw();
    bench.commands(0x23, vec![Envelope { class: "x.Y".to_owned(), body }]);
    // A command is in progress: not now.
    assert!(bench.step(Event::ProbeDone { endpoint: endpoint("a"), reachable: true }).is_empty());
    bench.step(Event::CommandDone { link: 1 });
    assert!(probes(&bench.timer(), "a"));
    let actions = bench.step(Event::ProbeDone { endpoint: endpoint("a"), reachable: true });
    assert!(closes(&actions));
    assert!(bench.wait() >= 5 * SECOND);
    let facts = bench.connect();
    assert_eq!(bench.session.endpoint, Some(endpoint("a")));
    assert!(!facts.connection_transferred);
}

#[test]
fn a_shuffled_list_is_checked_once() {
    let mut bench = at_second("shuffle", 30);
    assert!(probes(&bench.timer(), "a"));
    assert_eq!(bench.session.deadline(), None);
}

#[test]
fn no_look_for_the_preferred_server_when_it_is_ours_or_to_be_avoided_or_off() {
    let mut bench = Bench::new("a");
    bench.attach();
    bench.request(&list("a,b", "static", 30));
    assert!(bench.timer().is_empty());

    let mut bench = at_second("static", 30);
    bench.request(&SetupMSListCommand { avoid_ms_list: texts("a"), ..list("a,b", "static", 30) });
    assert!(bench.timer().is_empty());

    assert_eq!(at_second("static", 0).session.deadline(), None);
}

#[test]
fn the_local_interval_wins() {
    let mut bench = Bench::new("b");
    bench.session.settings.limits.preferred_check_interval = Some(7 * SECOND);
    bench.attach();
    bench.request(&list("a,b", "static", 30));
    assert_eq!(bench.wait(), 7 * SECOND);
}

#[test]
fn a_trigger_looks_for_the_preferred_server_now() {
    let mut bench = Bench::new("b");
    bench.attach();
    let command = SetupMSListCommand { trigger_host_lb: true, ..list("a,b", "static", 0) };
    let actions = bench.request(&command);
    assert!(sent(&actions).is::<SetupMSListAnswer>());
    assert!(probes(&actions, "a"));
}

fn migrate(avoid: &str) -> MigrateAgentConnectionCommand {
    MigrateAgentConnectionCommand { avoid_ms_list: texts(avoid), ..Default::default() }
}

#[test]
fn a_migration_is_answered_and_carried_out_three_seconds_later() {
    let mut bench = Bench::new("a,b,c");
    bench.attach();
    let actions = bench.request(&migrate("a"));
    assert!(sent(&actions).open::<MigrateAgentConnectionAnswer>().unwrap().base.result);
    assert!(!closes(&actions));
    // The avoid list of a ping answer in between does not change the plan.
    let ping = bench.ping();
    bench.answer_ping(ping, false);
    assert_eq!(bench.wait(), 3 * SECOND);
    assert!(probes(&bench.timer(), "b"));
    let actions = bench.step(Event::ProbeDone { endpoint: endpoint("b"), reachable: false });
    assert!(probes(&actions, "c"));
    let actions = bench.step(Event::ProbeDone { endpoint: endpoint("c"), reachable: true });
    assert!(closes(&actions));
    let facts = bench.connect();
    assert_eq!(bench.session.endpoint, Some(endpoint("c")));
    assert!(facts.connection_transferred);
    bench.answer_startup();
    bench.lose();
    assert!(!bench.connect().connection_transferred, "only once");
}

#[test]
fn a_migration_with_nowhere_to_go_stays_and_says_so() {
    let mut bench = Bench::new("a,b");
    bench.attach();
    let answer = sent(&bench.request(&migrate("a,b")));
    let answer = answer.open::<MigrateAgentConnectionAnswer>().unwrap();
    assert!(!answer.base.result);

    bench.request(&migrate("a"));
    bench.timer();
    let actions = bench.step(Event::ProbeDone { endpoint: endpoint("b"), reachable: false });
    assert_eq!(actions, [Action::Note(Notice::Stays)]);
    assert_eq!(bench.state(), LinkState::Attached);
}

#[test]
fn a_migration_brings_a_list_of_its_own() {
    let mut bench = Bench::new("a");
    bench.attach();
    bench.request(&MigrateAgentConnectionCommand {
        ms_list: texts("a,d"),
        lb_algorithm: Some("static".to_owned()),
        ..migrate("a")
    });
    assert!(probes(&bench.timer(), "d"));
}

#[test]
fn a_link_that_drops_by_itself_cancels_the_migration() {
    let mut bench = Bench::new("a,b");
    bench.attach();
    bench.request(&migrate("a"));
    bench.lose();
    assert!(!bench.connect().connection_transferred);
    assert_eq!(bench.session.endpoint, Some(endpoint("b")));
}

#[test]
fn a_late_probe_of_another_plan_is_ignored() {
    let mut bench = at_second("static", 30);
    bench.timer();
    bench.request(&migrate("b"));
    assert!(bench.step(Event::ProbeDone { endpoint: endpoint("a"), reachable: true }).is_empty());
    assert_eq!(bench.state(), LinkState::Attached);
}

fn reconfigure(bench: &mut Bench, servers: &str) -> Vec<Action> {
    let servers = servers.split(',').map(|server| server.parse().unwrap()).collect();
    bench.step(Event::Reconfigured { servers, port: 8250, limits: LinkLimits::default() })
}

#[test]
fn other_configured_servers_replace_the_list_that_a_server_sent() {
    let mut bench = Bench::new("a");
    bench.attach();
    bench.request(&SetupMSListCommand {
        ms_list: texts("x,y"),
        lb_algorithm: Some("static".to_owned()),
        ..SetupMSListCommand::default()
    });
    assert!(reconfigure(&mut bench, "a").is_empty(), "nothing has changed");
    let actions = reconfigure(&mut bench, "b,c");
    let Some(Action::Persist(identity)) = actions.first() else { panic!("{actions:?}") };
    assert_eq!((identity.server_list.as_deref(), identity.configured.as_str()), (None, "b,c"));
    // The server in use is not among them: to the first that can be reached.
    let b = Endpoint { host: "b".to_owned(), port: 8250 };
    assert!(has(&actions, |action| *action == Action::Probe { endpoint: b.clone() }));
    bench.step(Event::ProbeDone { endpoint: b.clone(), reachable: true });
    assert!(
        has(&bench.timer(), |action| *action == Action::Connect { link: 2, endpoint: b.clone() })
    );
}

#[test]
fn a_server_that_stays_configured_is_kept_and_a_wait_is_cut_short() {
    let mut bench = Bench::new("a");
    bench.attach();
    let actions = reconfigure(&mut bench, "a,b");
    assert!(matches!(actions.as_slice(), [Action::Persist(_)]), "{actions:?}");
    assert_eq!(bench.state(), LinkState::Attached);

    let mut bench = Bench::new("wrong");
    bench.connect();
    for _refusal in 0..6 {
        refuse(&mut bench);
        bench.connect();
    }
    refuse(&mut bench);
    assert!(bench.wait() > 30 * SECOND);
    reconfigure(&mut bench, "right");
    assert!(bench.wait() <= 5 * SECOND);
    let right = Endpoint { host: "right".to_owned(), port: 8250 };
    assert!(has(
        &bench.timer(),
        |a| matches!(a, Action::Connect { endpoint, .. } if *endpoint == right)
    ));
}
