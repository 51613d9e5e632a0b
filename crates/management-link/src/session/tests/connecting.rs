//! From nothing to attached, and every way it fails.

use super::*;

#[test]
fn the_startup_carries_what_is_known_and_the_first_one_knows_nothing() {
    let mut bench = Bench::new("10.0.0.5,10.0.0.6:9000");
    let facts = bench.connect();
    assert_eq!(facts.host_id, None);
    assert_eq!(facts.ms_host_list, "10.0.0.5,10.0.0.6");
    assert_eq!((facts.zone.as_str(), facts.pod.as_str()), ("z", "p"));
    assert!(!facts.connection_transferred);
}

#[test]
fn a_remembered_identity_is_sent_with_its_list() {
    let identity = Identity {
        host_id: Some(12),
        server_list: Some("b,a@roundrobin".to_owned()),
        ..Identity::default()
    };
    let mut bench = Bench::with("a", identity);
    let actions = bench.timer();
    let endpoint = Endpoint { host: "b".to_owned(), port: 8250 };
    assert_eq!(actions, [Action::Connect { link: 1, endpoint }]);
    match bench.step(Event::Connected).as_slice() {
        [Action::Startup { sequence: 0, agent_id: 12, facts }] => {
            assert_eq!((facts.host_id, facts.ms_host_list.as_str()), (Some(12), "b,a@roundrobin"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_startup_answer_brings_the_interval_but_no_identity() {
    let mut bench = Bench::new("a");
    bench.connect();
    assert_eq!(bench.session.report().ping_interval, None);
    let actions = bench.answer_startup();
    assert_eq!(actions, [Action::RememberServer]);
    assert_eq!(bench.state(), LinkState::Registering);
    let report = bench.session.report();
    assert_eq!((report.host_id, report.ping_interval), (None, Some(MINUTE)));
}

#[test]
fn an_interval_that_makes_no_sense_is_replaced() {
    for seconds in [0, -5] {
        let mut bench = Bench::new("a");
        bench.connect();
        let sequence = bench.session.startup_sequence;
        bench.respond(
            sequence,
            &StartupAnswer { ping_interval: seconds, ..StartupAnswer::default() },
        );
        assert_eq!(bench.session.report().ping_interval, Some(MINUTE));
    }
}

#[test]
fn ready_comes_twice_and_both_are_answered_and_either_may_bring_lists() {
    for list_first in [true, false] {
        let mut bench = Bench::new("a");
        bench.connect();
        bench.answer_startup();
        let plain = ready(12);
        let with_list = ReadyCommand {
            ms_host_list: texts("x,y"),
            lb_algorithm: Some("static".to_owned()),
            avoid_ms_host_list: texts("y"),
            lb_check_interval: Some(30),
            ..ready(12)
        };
        let (first, second) = if list_first { (&with_list, &plain) } else { (&plain, &with_list) };

        let actions = bench.request(first);
        assert!(sent(&actions).open::<ReadyAnswer>().unwrap().base.result);
        assert!(has(&actions, |action| *action == Action::Attached { host_id: 12 }));
        let actions = bench.request(second);
        assert!(sent(&actions).is::<ReadyAnswer>());
        assert!(!has(&actions, |action| matches!(action, Action::Attached { .. })));

        assert_eq!(bench.session.identity.server_list.as_deref(), Some("x,y@static"));
        assert_eq!(bench.session.identity.host_uuid.as_deref(), Some("uuid"));
        assert_eq!(bench.wait(), 30 * SECOND);
        let avoided = Endpoint { host: "y".to_owned(), port: 8250 };
        // The later command replaces the list of servers to avoid, absent means none.
        assert_eq!(bench.session.endpoints.is_avoided(&avoided), !list_first);
    }
}

#[test]
fn the_answer_copies_the_header_and_goes_out_before_anything_else() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    let actions = bench.request(&ready(12));
    let Some(Action::Send(frame)) = actions.first() else { panic!("{actions:?}") };
    assert_eq!(frame.header.flags.bits(), 0x06);
    assert_eq!(frame.header.sequence, Sequence(7));
    assert_eq!((frame.header.management_id, frame.header.agent_id), (99, 12));
}

#[test]
fn a_new_identity_is_kept_and_an_old_one_is_not_written_again() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    let actions = bench.request(&ready(12));
    let kept = has(
        &actions,
        |action| matches!(action, Action::Persist(identity) if identity.host_id == Some(12)),
    );
    assert!(kept);
    let actions = bench.request(&ready(12));
    assert!(!has(&actions, |action| matches!(action, Action::Persist(_))));
}

#[test]
fn a_refusal_is_not_answered_and_the_wait_grows() {
    let mut bench = Bench::new("a");
    let mut waits = Vec::new();
    for _attempt in 0..6 {
        bench.connect();
        bench.answer_startup();
        let details = Some("sent incorrect data center".to_owned());
        let refusal = ReadyCommand { details, ..ReadyCommand::default() };
        let actions = bench.commands(0x07, vec![Envelope::of(&refusal)]);
        assert!(!has(&actions, |action| matches!(action, Action::Send(_) | Action::Dispatch(_))));
        assert!(closes(&actions));
        assert_eq!(bench.state(), LinkState::Refused);
        assert!(bench.last_error().ends_with("refused us: sent incorrect data center"));
        waits.push(bench.wait().as_secs());
    }
    for (wait, least) in waits.iter().zip([5, 10, 20, 40, 60, 60]) {
        assert!((least..=least * 6 / 5).contains(wait), "{waits:?}");
    }
    bench.attach();
    bench.lose();
    assert!(bench.wait() <= 6 * SECOND);
}

#[test]
fn a_startup_answer_that_says_no_is_a_refusal() {
    use agent_protocol::Answer;
    use agent_protocol::agent::PlainAnswer;
    for plain in [true, false] {
        let mut bench = Bench::new("a");
        bench.connect();
        let sequence = bench.session.startup_sequence;
        if plain {
            bench.respond(sequence, &PlainAnswer::failed("no room".to_owned()));
        } else {
            bench.respond(sequence, &StartupAnswer::failed("no room".to_owned()));
        }
        assert_eq!(bench.state(), LinkState::Refused);
        assert!(bench.last_error().ends_with("no room"), "{}", bench.last_error());
    }
}

#[test]
fn ready_with_neither_details_nor_host_id_is_a_failure() {
    for host_id in [None, Some(0), Some(-1)] {
        let mut bench = Bench::new("a");
        bench.connect();
        bench.answer_startup();
        let actions = bench.request(&ReadyCommand { host_id, ..ReadyCommand::default() });
        assert!(closes(&actions) && !has(&actions, |a| matches!(a, Action::Send(_))));
        assert_eq!(bench.state(), LinkState::Disconnected);
        assert!(bench.last_error().ends_with("without a host id"));
    }
}

#[test]
fn commands_before_ready_are_handed_out_and_keep_the_link_waiting() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    bench.pass(100 * SECOND);
    let command = Envelope { class: "x.SecStorageSetupCommand".to_owned(), body: raw() };
    let actions = bench.commands(0x27, vec![command.clone()]);
    match actions.as_slice() {
        [Action::Dispatch(Work { link: 1, steps, .. })] => {
            assert_eq!(steps.as_slice(), [Step::Agent(command)]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.wait(), MINUTE);
    // While one is being worked on, the deadlines move on.
    bench.timer();
    bench.timer();
    assert_eq!(bench.state(), LinkState::Registering);
    bench.step(Event::CommandDone { link: 1 });
    assert_eq!(bench.wait(), MINUTE);
    bench.timer();
    assert_eq!(bench.wait(), MINUTE);
    let actions = bench.timer();
    assert!(closes(&actions));
    assert_eq!(bench.state(), LinkState::Disconnected);
}

#[test]
fn a_command_of_an_old_link_does_not_keep_a_new_one_waiting() {
    let mut bench = Bench::new("a");
    bench.attach();
    bench.commands(0x27, vec![Envelope { class: "x.Long".to_owned(), body: raw() }]);
    bench.lose();
    bench.connect();
    bench.answer_startup();
    assert_eq!(bench.session.in_flight(), 1);
    bench.timer();
    bench.timer();
    assert_eq!(bench.state(), LinkState::Disconnected);
}

#[test]
fn long_silence_before_ready_keeps_the_link_two_minutes_and_pings_prove_nothing() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    for _minute in 0..5 {
        bench.pass(20 * SECOND);
        bench.ping();
    }
    assert_eq!(bench.state(), LinkState::Registering);
    bench.timer();
    assert_eq!(bench.wait(), 20 * SECOND);
    bench.timer();
    assert_eq!(bench.state(), LinkState::Disconnected);
    assert!(bench.last_error().contains("registering without progress"));
}

#[test]
fn registering_without_progress_is_said_with_its_cause_and_remedy_until_attached() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    bench.pass(50 * SECOND);
    bench.commands(0x27, vec![Envelope { class: "x.Setup".to_owned(), body: raw() }]);
    bench.step(Event::CommandDone { link: 1 });
    assert_eq!(bench.wait(), MINUTE);
    let actions = bench.timer();
    let [Action::Note(Notice::Stalled { error })] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert!(error.starts_with("registering without progress for 60s"), "{error}");
    assert!(error.contains("guid s-1-VM-X") && error.contains("restart the management server"));
    assert_eq!(bench.session.condition().as_ref(), Some(error));
    assert_eq!(bench.last_error(), error.as_str());
    // Said once, and kept while it is tried again.
    assert!(!has(&bench.timer(), |action| matches!(action, Action::Note(Notice::Stalled { .. }))));
    bench.connect();
    bench.answer_startup();
    assert!(bench.session.condition().unwrap().contains("restart the management server"));
    bench.request(&ready(12));
    assert_eq!(bench.session.report().last_error, None);
    assert_eq!(bench.session.condition(), None);
}

#[test]
fn a_server_that_closes_before_ready_is_retried_more_and_more_slowly() {
    let mut bench = Bench::new("a");
    for least in [5, 10, 20] {
        bench.connect();
        bench.answer_startup();
        bench.lose();
        assert!(bench.wait() >= least * SECOND);
        assert_eq!(
            bench.last_error(),
            "the management server closed the link before we were ready"
        );
    }
}

#[test]
fn a_failed_attempt_goes_to_the_next_server_after_a_step() {
    let mut bench = Bench::new("a,b");
    for host in ["a", "b", "a"] {
        let actions = bench.timer();
        let found = match actions.as_slice() {
            [Action::Connect { endpoint, .. }] => endpoint.host.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(found, host);
        bench.step(Event::ConnectFailed { error: "refused".to_owned() });
        assert!(bench.wait() >= 5 * SECOND && bench.wait() <= 6 * SECOND);
    }
}

#[test]
fn ready_may_overtake_the_startup_answer() {
    let mut bench = Bench::new("a");
    bench.connect();
    let actions = bench.request(&ready(12));
    assert!(has(&actions, |action| *action == Action::RememberServer));
    assert_eq!(bench.session.report().ping_interval, Some(MINUTE));
    bench.answer_startup();
    assert_eq!(bench.state(), LinkState::Attached);
}

pub(super) fn raw() -> Box<serde_json::value::RawValue> {
    serde_json::value::RawValue::from_string("{}".to_owned()).unwrap()
}
