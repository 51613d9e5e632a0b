//! The stop, at every moment of a link: what is owed is answered, and the goodbye comes last.

use agent_protocol::agent::{
    CheckHealthAnswer, CheckHealthCommand, SetupCertificateAnswer, SetupCertificateCommand,
    ShutdownCommand, UnsupportedAnswer,
};

use super::connecting::raw;
use super::*;

fn command(class: &str) -> Vec<Envelope> {
    vec![Envelope { class: class.to_owned(), body: raw() }]
}

fn says_goodbye(actions: &[Action]) -> bool {
    has(actions, |action| matches!(action, Action::Goodbye(_)))
}

#[test]
fn the_goodbye_waits_for_commands_and_for_the_server_to_close() {
    let mut bench = Bench::new("a");
    bench.attach();
    bench.commands(0x23, command("x.Y"));
    assert!(bench.step(Event::Shutdown).is_empty());
    let late = bench.commands(0x23, command("x.Z"));
    assert!(matches!(late.as_slice(), [Action::Dispatch(_)]), "{late:?}");
    assert!(bench.step(Event::CommandDone { link: 1 }).is_empty());
    let actions = bench.step(Event::CommandDone { link: 1 });
    let [Action::Goodbye(frame)] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(frame.header.flags.bits(), 0x07);
    assert_eq!((frame.header.sequence.0, frame.header.agent_id), (-1, 12));
    let shutdown: ShutdownCommand = frame.envelopes().unwrap()[0].open().unwrap();
    assert_eq!(shutdown.reason.as_deref(), Some("sig.kill"));
    assert_eq!(bench.wait(), SECOND);
    let actions = bench.lose();
    assert_eq!(actions, [Action::Close, Action::Detached, Action::Finished]);
}

#[test]
fn a_command_that_never_ends_is_given_up_before_the_goodbye() {
    let mut bench = Bench::new("a");
    bench.attach();
    bench.commands(0x23, command("x.Y"));
    bench.step(Event::Shutdown);
    assert_eq!(bench.wait(), 10 * SECOND);
    let actions = bench.timer();
    let told = Action::Note(Notice::GivesUp { commands: 1, ready: true });
    assert_eq!(actions, [told, Action::GiveUp]);
    // Its failure is on its way.
    let actions = bench.step(Event::CommandDone { link: 1 });
    assert!(matches!(actions.as_slice(), [Action::Goodbye(_)]), "{actions:?}");
    assert!(has(&bench.timer(), |action| *action == Action::Finished));
}

#[test]
fn a_command_that_cannot_even_be_given_up_does_not_hold_the_stop() {
    let mut bench = Bench::new("a");
    bench.attach();
    bench.commands(0x23, command("x.Y"));
    bench.step(Event::Shutdown);
    bench.timer();
    assert_eq!(bench.wait(), SECOND);
    assert!(says_goodbye(&bench.timer()));
    assert!(has(&bench.timer(), |action| *action == Action::Finished));
}

#[test]
fn a_stop_while_connecting_us_goes_on_until_both_readies_are_answered() {
    // After how many steps of: startup answered, command, command done, ready, ready.
    let steps: [fn(&mut Bench) -> Vec<Action>; 5] = [
        Bench::answer_startup,
        |bench| bench.commands(0x27, command("x.Setup")),
        |bench| bench.step(Event::CommandDone { link: 1 }),
        |bench| bench.request(&ready(12)),
        |bench| bench.request(&ready(12)),
    ];
    for stop_after in 0..steps.len() {
        let mut bench = Bench::new("a");
        bench.connect();
        for step in &steps[..stop_after] {
            step(&mut bench);
        }
        let actions = bench.step(Event::Shutdown);
        let at_most = 10 * SECOND;
        assert_eq!(actions, [Action::Note(Notice::StopsLater { at_most })], "{stop_after}");
        for step in &steps[stop_after..] {
            assert_eq!(bench.state(), LinkState::Draining);
            let actions = step(&mut bench);
            assert!(!has(&actions, |action| matches!(action, Action::Finished)), "{actions:?}");
        }
        // The last ready was answered, then the goodbye said.
        assert_eq!(bench.state(), LinkState::Draining);
        let actions = bench.lose();
        assert_eq!(actions, [Action::Close, Action::Detached, Action::Finished]);
    }
}

#[test]
fn the_second_ready_is_answered_before_the_goodbye() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    bench.step(Event::Shutdown);
    assert!(!says_goodbye(&bench.request(&ready(12))));
    let actions = bench.request(&ready(12));
    assert!(sent(&actions).is::<ReadyAnswer>());
    assert!(matches!(actions.last(), Some(Action::Goodbye(_))), "{actions:?}");
}

#[test]
fn a_ping_that_says_the_host_is_up_is_as_good_as_the_second_ready() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    bench.request(&ready(12));
    bench.step(Event::Shutdown);
    let ping = bench.ping();
    assert!(says_goodbye(&bench.answer_ping(ping, false)));
}

#[test]
fn a_server_that_never_makes_us_ready_is_left_without_a_goodbye_and_nothing_owed() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    bench.commands(0x27, command("x.Setup"));
    bench.step(Event::Shutdown);
    let told = Action::Note(Notice::GivesUp { commands: 1, ready: false });
    assert_eq!(bench.timer(), [told, Action::GiveUp]);
    assert!(bench.step(Event::CommandDone { link: 1 }).is_empty());
    // What comes in the last second is answered all the same.
    let actions = bench.commands(0x27, command("x.More"));
    assert!(sent(&actions).is::<UnsupportedAnswer>());
    let both = vec![
        Envelope::of(&SetupCertificateCommand { handle_by_agent: true, ..Default::default() }),
        Envelope::of(&CheckHealthCommand::default()),
    ];
    let actions = bench.commands(0x27, both);
    let Some(Action::Send(frame)) = actions.first() else { panic!("{actions:?}") };
    let answers = frame.envelopes().unwrap();
    assert!(!answers[0].open::<SetupCertificateAnswer>().unwrap().base.result);
    assert!(answers[1].is::<CheckHealthAnswer>());
    assert_eq!(bench.session.in_flight(), 0);
    assert_eq!(bench.timer(), [Action::Close, Action::Finished]);
}

#[test]
fn made_ready_in_the_last_second_the_goodbye_is_said_after_all() {
    let mut bench = Bench::new("a");
    bench.connect();
    bench.answer_startup();
    bench.step(Event::Shutdown);
    assert!(!says_goodbye(&bench.timer()));
    bench.request(&ready(12));
    assert!(says_goodbye(&bench.request(&ready(12))));
    assert!(bench.request(&ready(12)).iter().all(|action| !matches!(action, Action::Goodbye(_))));
}

#[test]
fn a_stop_without_a_link_ends_at_once_and_nothing_is_tried_again() {
    let mut bench = Bench::new("a");
    bench.timer();
    assert_eq!(bench.step(Event::Shutdown), [Action::Close, Action::Finished]);
    for how in [Bench::lose, refuse] {
        let mut bench = Bench::new("a");
        bench.connect();
        bench.answer_startup();
        bench.step(Event::Shutdown);
        assert_eq!(how(&mut bench), [Action::Close, Action::Finished]);
        assert_eq!(bench.session.deadline(), None);
    }
}

#[test]
fn nobody_moves_to_another_server_while_stopping() {
    let mut bench = Bench::new("a,b");
    bench.attach();
    bench.commands(0x23, command("x.Y"));
    bench.step(Event::Shutdown);
    let migrate = agent_protocol::agent::MigrateAgentConnectionCommand::default();
    let answer = sent(&bench.request(&migrate));
    assert!(!answer.answer_base().unwrap().result);
    let lists = SetupMSListCommand {
        ms_list: texts("b,a"),
        lb_algorithm: Some("static".to_owned()),
        lb_check_interval: Some(1),
        trigger_host_lb: true,
        ..SetupMSListCommand::default()
    };
    let actions = bench.request(&lists);
    assert!(!has(&actions, |action| matches!(action, Action::Probe { .. })), "{actions:?}");
    assert_eq!(bench.state(), LinkState::Draining);
}
