//! Attached: pings, commands, losses, the end.

use agent_protocol::agent::{
    AgentControlAnswer, AgentControlCommand, CheckHealthAnswer, CheckHealthCommand, MaintainAnswer,
    MaintainCommand, PlainAnswer, RollingMaintenanceCommand, SetHostParamsCommand,
    SetupCertificateCommand, SetupKeyStoreCommand, ShutdownCommand, UnsupportedAnswer,
};

use super::connecting::raw;
use super::*;

#[test]
fn three_pings_without_an_answer_end_the_link() {
    let mut bench = Bench::new("a");
    bench.attach();
    for _ping in 0..3 {
        bench.ping();
        bench.pass(MINUTE);
    }
    let actions = bench.step(Event::PingDue { paused: false });
    assert!(closes(&actions) && has(&actions, |a| *a == Action::Detached));
    assert_eq!(bench.last_error(), "the management server left 3 pings unanswered");
    assert!(bench.wait() >= 5 * SECOND);
}

#[test]
fn one_answer_counts_for_all_pings_before_it() {
    let mut bench = Bench::new("a");
    bench.attach();
    for _round in 0..4 {
        bench.ping();
        bench.ping();
        let last = bench.ping();
        bench.pass(2 * SECOND);
        bench.answer_ping(last, false);
    }
    let report = bench.session.report();
    assert_eq!(report.state, LinkState::Attached);
    assert_eq!(report.round_trip, Some(2 * SECOND));
    assert_eq!(report.last_answer, Some(bench.now));
}

#[test]
fn pings_before_ready_are_never_held_against_the_server() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    for _ping in 0..3 {
        bench.ping();
    }
    bench.request(&ready(12));
    bench.ping();
    assert_eq!(bench.state(), LinkState::Attached);
}

#[test]
fn pings_while_reading_is_paused_prove_nothing() {
    let mut bench = Bench::new("a");
    bench.attach();
    for _ping in 0..10 {
        let actions = bench.step(Event::PingDue { paused: true });
        assert!(matches!(actions.as_slice(), [Action::Ping { .. }]), "{actions:?}");
    }
}

#[test]
fn a_ping_that_failed_on_the_server_is_a_sign_of_life() {
    let mut bench = Bench::new("a");
    bench.attach();
    for _ping in 0..5 {
        let sequence = bench.ping();
        use agent_protocol::Answer;
        let actions = bench.respond(sequence, &PlainAnswer::failed("database".to_owned()));
        assert!(matches!(actions.as_slice(), [Action::Note(Notice::OddPingAnswer { .. })]));
    }
}

#[test]
fn send_startup_means_nothing_until_the_server_has_settled() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    let before = bench.ping();
    let actions = bench.answer_ping(before, true);
    assert_eq!(actions, [Action::Note(Notice::StartupWanted { honoured: false })]);

    // Sent between the two ready commands: the server may still be at the first.
    bench.request(&ready(12));
    let between = bench.ping();
    bench.pass(SECOND);
    bench.request(&ready(12));
    let actions = bench.answer_ping(between, true);
    assert_eq!(actions, [Action::Note(Notice::StartupWanted { honoured: false })]);
    assert_eq!(bench.state(), LinkState::Attached);

    let after = bench.ping();
    let actions = bench.answer_ping(after, true);
    assert!(closes(&actions));
    assert_eq!(bench.last_error(), "the management server asked for a new startup");
    assert!(bench.wait() >= 5 * SECOND);
}

#[test]
fn without_a_second_ready_send_startup_counts_after_one_interval() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    bench.request(&ready(12));
    bench.pass(MINUTE);
    let ping = bench.ping();
    assert!(closes(&bench.answer_ping(ping, true)));
}

#[test]
fn ping_answers_replace_the_avoid_list() {
    let mut bench = Bench::new("a,b");
    bench.attach();
    let ping = bench.ping();
    bench.respond(ping, &PingAnswer { avoid_ms_list: texts("b"), ..PingAnswer::default() });
    let b = Endpoint { host: "b".to_owned(), port: 8250 };
    assert!(bench.session.endpoints.is_avoided(&b));
    let ping = bench.ping();
    bench.answer_ping(ping, false);
    assert!(!bench.session.endpoints.is_avoided(&b));
}

#[test]
fn a_third_takeover_within_a_minute_is_said_plainly() {
    let mut bench = Bench::new("a");
    for takeover in 1..=4 {
        bench.attach();
        bench.pass(SECOND);
        let actions = bench.lose();
        let told = has(&actions, |action| *action == Action::Note(Notice::TakenOver));
        assert_eq!(told, takeover >= 3, "{takeover}");
        assert_eq!(bench.last_error().contains("another agent uses our guid s-1-VM-X"), told);
    }
}

#[test]
fn losses_far_apart_or_of_old_links_are_not_takeovers() {
    let mut bench = Bench::new("a");
    for _loss in 0..5 {
        bench.attach();
        bench.pass(31 * SECOND);
        bench.lose();
        assert!(!bench.last_error().contains("guid"));
    }
    for _loss in 0..5 {
        bench.attach();
        bench.pass(SECOND);
        bench.lose();
        bench.pass(MINUTE);
        assert!(!bench.last_error().contains("guid"));
    }
}

#[test]
fn the_commands_of_the_session_have_their_answers() {
    let mut bench = Bench::new("a");
    bench.attach();
    let answer = sent(&bench.request(&CheckHealthCommand::default()));
    let answer = answer.open::<CheckHealthAnswer>().unwrap();
    assert_eq!(answer.base.details.as_deref(), Some("resource is alive"));
    let answer = sent(&bench.request(&MaintainCommand::default()));
    assert!(answer.open::<MaintainAnswer>().unwrap().will_migrate);
    let answer = sent(&bench.request(&AgentControlCommand::default()));
    assert!(answer.open::<AgentControlAnswer>().unwrap().base.result);
    for unsupported in [
        sent(&bench.request(&RollingMaintenanceCommand::default())),
        sent(&bench.request(&SetHostParamsCommand::default())),
        sent(&bench.request(&SetupKeyStoreCommand::default())),
        sent(&bench.request(&SetupCertificateCommand::default())),
    ] {
        assert!(unsupported.is::<UnsupportedAnswer>());
    }
    assert_eq!(bench.session.in_flight(), 0);
}

#[test]
fn certificate_commands_for_us_are_work() {
    let mut bench = Bench::new("a");
    bench.attach();
    let key_store = SetupKeyStoreCommand { handle_by_agent: true, ..Default::default() };
    match bench.request(&key_store).as_slice() {
        [Action::Dispatch(work)] => assert_eq!(work.steps, [Step::MakeCertificateRequest]),
        other => panic!("{other:?}"),
    }
    let certificate = SetupCertificateCommand { handle_by_agent: true, ..Default::default() };
    match bench.request(&certificate).as_slice() {
        [Action::Dispatch(work)] => {
            assert_eq!(work.steps, [Step::InstallCertificate(Box::new(certificate))]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.session.in_flight(), 2);
}

#[test]
fn a_body_that_cannot_be_read_is_answered_by_the_class_the_server_casts_to() {
    let mut bench = Bench::new("a");
    bench.attach();
    let body = serde_json::value::RawValue::from_string("{\"hostId\":\"x\"}".to_owned()).unwrap();
    let command = Envelope { class: ReadyCommand::CLASS.to_owned(), body };
    let actions = bench.commands(0x27, vec![command]);
    let answer = sent(&actions).open::<ReadyAnswer>().unwrap();
    assert!(!answer.base.result);
    assert!(answer.base.details.unwrap().contains("hostId"));
}

#[test]
fn several_commands_are_one_piece_of_work_in_order() {
    let mut bench = Bench::new("a");
    bench.attach();
    let unknown = Envelope { class: "x.Y".to_owned(), body: raw() };
    let health = Envelope::of(&CheckHealthCommand::default());
    match bench.commands(0x27, vec![unknown.clone(), health]).as_slice() {
        [Action::Dispatch(work)] => {
            let expected = Envelope::of(&CheckHealthAnswer::alive(true));
            assert_eq!(work.steps, [Step::Agent(unknown), Step::Answered(expected)]);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.session.in_flight(), 1);
}

#[test]
fn answers_to_others_are_delivered() {
    let mut bench = Bench::new("a");
    bench.attach();
    let actions = bench.respond(77, &PlainAnswer::success());
    assert!(matches!(actions.as_slice(), [Action::Deliver { sequence: 77, .. }]));
}

#[test]
fn our_sequence_goes_on_across_links() {
    let mut bench = Bench::new("a");
    bench.attach();
    let first = bench.ping();
    bench.lose();
    bench.connect();
    assert_eq!(bench.session.startup_sequence, first + 1);
}

#[test]
fn a_host_deleted_on_the_server_comes_back_slowly_and_as_a_new_one() {
    for peer_closes in [true, false] {
        let mut bench = Bench::new("a");
        bench.attach();
        let shutdown = ShutdownCommand {
            reason: Some(ShutdownCommand::DELETE_HOST.to_owned()),
            ..ShutdownCommand::default()
        };
        let actions = bench.request(&shutdown);
        assert!(sent(&actions).open::<PlainAnswer>().unwrap().base.result);
        assert!(bench.step(Event::PingDue { paused: false }).is_empty());
        assert_eq!(bench.session.report().ping_interval, None);
        let actions = if peer_closes { bench.lose() } else { bench.timer() };
        assert!(closes(&actions));
        assert_eq!(bench.state(), LinkState::Refused);
        assert!(bench.wait() >= MINUTE);
        assert_eq!(bench.connect().host_id, None);
    }
}
