//! Order, count, stopping and panics.

use std::sync::atomic::{AtomicUsize, Ordering};

use agent_protocol::Sequence;
use agent_protocol::agent::CheckHealthAnswer;
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
        Circumstances { host_id: Some(12), host_name: "h".to_owned(), seen_at: None };
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
