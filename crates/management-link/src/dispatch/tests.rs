//! Order, count, stopping and panics.

use std::sync::atomic::{AtomicUsize, Ordering};

use agent_protocol::agent::CheckHealthAnswer;
use agent_protocol::storage::{CopyCommand, DownloadCommand};
use agent_protocol::{Body as _, Sequence};
use role::BoxFuture;

use super::*;
use crate::agent::StartupFacts;

#[derive(Default)]
struct Scripted {
    ran: AtomicUsize,
}

/// The class says what the command does.
impl Agent for Scripted {
    fn startup(&self, _facts: &StartupFacts) -> Envelope {
        unreachable!("not asked")
    }

    fn ping(&self, _host_id: i64) -> Envelope {
        unreachable!("not asked")
    }

    fn handle(
        self: Arc<Self>,
        command: Envelope,
        cx: CommandContext,
    ) -> BoxFuture<'static, Envelope> {
        let number = self.ran.fetch_add(1, Ordering::SeqCst);
        if command.class == "test.PanicsAtOnce" {
            panic!("at once");
        }
        Box::pin(async move {
            match command.class.as_str() {
                "test.Fails" => Envelope::of(&PlainAnswer::failed("no".to_owned())),
                "test.Panics" => panic!("later"),
                _ => Envelope::of(&PlainAnswer::success_with(format!(
                    "{number} {:?} {:?}",
                    cx.log_id, cx.wait
                ))),
            }
        })
    }
}

async fn run(flags: u16, classes: &[&str]) -> (Vec<(bool, String)>, usize, Frame) {
    let agent = Arc::new(Scripted::default());
    let dispatcher = Dispatcher {
        agent: agent.clone(),
        tasks: TaskScope::new(),
        state_directory: PathBuf::new(),
    };
    let body = r#"{"contextMap":{"logid":"ab12"},"wait":30}"#;
    let steps = classes
        .iter()
        .map(|class| match *class {
            "session" => Step::Answered(Envelope::of(&CheckHealthAnswer::alive(true))),
            class => Step::Agent(Envelope {
                class: class.to_owned(),
                body: serde_json::value::RawValue::from_string(body.to_owned()).unwrap(),
            }),
        })
        .collect();
    let header = FrameHeader {
        flags: Flags::from_bits(flags),
        sequence: Sequence(77),
        length: 9,
        management_id: 5,
        agent_id: 12,
        via: 12,
    };
    let circumstances =
        Circumstances { host_id: Some(12), host_name: "h".to_owned(), ..Circumstances::default() };
    let frame = dispatcher.run(Work { link: 1, header, steps }, circumstances).await;
    let answers = frame
        .envelopes()
        .unwrap()
        .iter()
        .map(|answer| answer.answer_base().unwrap())
        .map(|base| (base.result, base.details.unwrap_or_default()))
        .collect();
    (answers, agent.ran.load(Ordering::SeqCst), frame)
}

fn results(answers: &[(bool, String)]) -> Vec<bool> {
    answers.iter().map(|(result, _)| *result).collect()
}

#[tokio::test]
async fn answers_come_in_order_with_the_header_of_the_request() {
    let (answers, ran, frame) = run(0x27, &["test.A", "session", "test.B"]).await;
    assert_eq!(ran, 2);
    assert_eq!(answers[0].1, "0 Some(\"ab12\") Some(30s)");
    assert_eq!(answers[1].1, "resource is alive");
    assert!(answers[2].1.starts_with("1 "));
    assert_eq!(frame.header.flags.bits(), 0x06);
    assert_eq!((frame.header.sequence.0, frame.header.management_id), (77, 5));
}

#[tokio::test]
async fn the_commands_after_a_failed_one_are_not_run_if_the_flag_says_so() {
    let (answers, ran, _) = run(0x23, &["test.A", "test.Fails", "test.B", "session"]).await;
    assert_eq!(results(&answers), [true, false, false, false]);
    assert_eq!(ran, 2);
    assert_eq!(answers[2].1, "Stopped by previous failure");

    let (answers, ran, _) = run(0x21, &["test.A", "test.Fails", "test.B"]).await;
    assert_eq!(results(&answers), [true, false, true]);
    assert_eq!(ran, 3);
}

#[tokio::test]
async fn a_panic_is_answered_with_a_reference_and_nothing_more() {
    for class in ["test.Panics", "test.PanicsAtOnce"] {
        let (answers, _, _) = run(0x23, &[class]).await;
        assert_eq!(results(&answers), [false]);
        let details = &answers[0].1;
        assert!(
            details.starts_with("internal error, see log ") && details.len() == 32,
            "{details}"
        );
    }
}

#[test]
fn a_panic_is_answered_by_the_class_the_server_casts_to() {
    let copy = CopyCommand::CLASS;
    let kept = Envelope {
        class: copy.to_owned(),
        body: serde_json::value::RawValue::from_string("{}".to_owned()).unwrap(),
    };
    let answer = answer_to_panic(&"later", &kept);
    assert_eq!(answer.simple_name(), "CopyCmdAnswer");
    let base = answer.answer_base().unwrap();
    assert!(!base.result && base.details.unwrap().starts_with("internal error, see log "));
}

/// A handler that never answers, in the middle of others.
#[tokio::test]
async fn what_has_no_answer_when_the_role_gives_up_fails_by_its_class() {
    struct Stuck;
    impl Agent for Stuck {
        fn startup(&self, _facts: &StartupFacts) -> Envelope {
            unreachable!("not asked")
        }
        fn ping(&self, _host_id: i64) -> Envelope {
            unreachable!("not asked")
        }
        fn handle(
            self: Arc<Self>,
            command: Envelope,
            _: CommandContext,
        ) -> BoxFuture<'static, Envelope> {
            Box::pin(async move {
                if command.class.ends_with("DownloadCommand") {
                    std::future::pending::<()>().await;
                }
                Envelope::of(&PlainAnswer::success())
            })
        }
    }
    let dispatcher = Dispatcher {
        agent: Arc::new(Stuck),
        tasks: TaskScope::new(),
        state_directory: PathBuf::new(),
    };
    let steps = ["test.A", DownloadCommand::CLASS, "test.B"]
        .into_iter()
        .map(|class| {
            let body = serde_json::value::RawValue::from_string("{}".to_owned()).unwrap();
            Step::Agent(Envelope { class: class.to_owned(), body })
        })
        .collect();
    let header = FrameHeader {
        flags: Flags::from_bits(0x21),
        sequence: Sequence(77),
        length: 9,
        management_id: 5,
        agent_id: 12,
        via: 12,
    };
    let circumstances = Circumstances::default();
    let give_up = circumstances.give_up.clone();
    let running = tokio::spawn(async move {
        dispatcher.run(Work { link: 1, header, steps }, circumstances).await
    });
    tokio::task::yield_now().await;
    assert!(!running.is_finished());
    give_up.cancel();
    let answers = running.await.unwrap().envelopes().unwrap();
    let names: Vec<&str> = answers.iter().map(Envelope::simple_name).collect();
    assert_eq!(names, ["Answer", "DownloadAnswer", "Answer"]);
    assert!(!answers[1].answer_base().unwrap().result);
}

#[test]
fn who_waits_by_choice_never_takes_more_than_half_of_the_room() {
    let mut waiting = Waiting::new(8);
    let started: Vec<_> = (0..12).map(|_| waiting.start()).collect();
    let asked = |started: &[(u64, AnswerNow)]| -> Vec<bool> {
        started.iter().map(|(_, waits)| waits.is_asked()).collect()
    };
    let expected: Vec<bool> = (0..12).map(|number| number < 8).collect();
    assert_eq!(asked(&started), expected);
    for (number, _) in &started[..8] {
        waiting.done(*number);
    }
    assert!(!waiting.start().1.is_asked());
    waiting.hurry();
    assert!(asked(&started).into_iter().all(|asked| asked));
    assert!(waiting.start().1.is_asked());
}
