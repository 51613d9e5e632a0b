//! The whole transition table, and the traps named at the head of the module.

mod connecting;
mod draining;
mod moving;
mod working;

use agent_protocol::agent::{
    PingAnswer, ReadyAnswer, ReadyCommand, SetupMSListCommand, StartupAnswer,
};
use agent_protocol::{Body, Flags, Sequence};
use bedrock::net::HostPort;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A session with a clock of its own.
struct Bench {
    session: Session,
    now: Instant,
}

impl Bench {
    fn new(servers: &str) -> Self {
        Self::with(servers, Identity { guid: "s-1-VM-X".to_owned(), ..Identity::default() })
    }

    fn with(servers: &str, identity: Identity) -> Self {
        let settings = Settings {
            guid: "s-1-VM-X".to_owned(),
            zone: "z".to_owned(),
            pod: "p".to_owned(),
            version: "4.22.0.0".to_owned(),
            limits: LinkLimits::default(),
        };
        let servers: Vec<HostPort> = servers.split(',').map(|s| s.parse().unwrap()).collect();
        let endpoints = Endpoints::new(&servers, 8250);
        let now = Instant::now();
        Self { session: Session::new(settings, endpoints, identity, 1, now), now }
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        self.session.step(event, self.now)
    }

    /// Lets time pass without anything happening.
    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Goes to the next deadline and fires the timer.
    fn timer(&mut self) -> Vec<Action> {
        self.now = self.now.max(self.session.deadline().expect("a deadline"));
        self.step(Event::Timer)
    }

    fn wait(&self) -> Duration {
        self.session.deadline().expect("a deadline") - self.now
    }

    fn state(&self) -> LinkState {
        self.session.link_state()
    }

    fn last_error(&self) -> String {
        self.session.report().last_error.unwrap_or_default()
    }

    /// To the point where the startup command is out; returns its facts.
    fn connect(&mut self) -> StartupFacts {
        let actions = self.timer();
        assert!(matches!(actions.as_slice(), [Action::Connect { .. }]), "{actions:?}");
        let actions = self.step(Event::Connected);
        match <[Action; 1]>::try_from(actions).unwrap() {
            [Action::Startup { facts, .. }] => *facts,
            other => panic!("{other:?}"),
        }
    }

    fn answer_startup(&mut self) -> Vec<Action> {
        let answer = StartupAnswer { ping_interval: 60, ..StartupAnswer::default() };
        let sequence = self.session.startup_sequence;
        self.respond(sequence, &answer)
    }

    fn attach(&mut self) {
        self.connect();
        self.answer_startup();
        self.request(&ready(12));
        self.request(&ready(12));
        assert_eq!(self.state(), LinkState::Attached);
    }

    fn respond<B: Body>(&mut self, sequence: i64, body: &B) -> Vec<Action> {
        let header = header(0x22, sequence);
        self.step(Event::Response { header, answers: vec![Envelope::of(body)] })
    }

    fn request<B: Body>(&mut self, body: &B) -> Vec<Action> {
        self.commands(0x27, vec![Envelope::of(body)])
    }

    fn commands(&mut self, flags: u16, commands: Vec<Envelope>) -> Vec<Action> {
        self.step(Event::Request { header: header(flags, 7), commands })
    }

    fn ping(&mut self) -> i64 {
        match self.step(Event::PingDue { paused: false }).as_slice() {
            [Action::Ping { sequence, .. }] => *sequence,
            other => panic!("{other:?}"),
        }
    }

    fn answer_ping(&mut self, sequence: i64, send_startup: bool) -> Vec<Action> {
        self.respond(sequence, &PingAnswer { send_startup, ..PingAnswer::default() })
    }

    fn lose(&mut self) -> Vec<Action> {
        let error = "the management server closed the link".to_owned();
        self.step(Event::Lost { error, by_peer: true })
    }
}

fn header(flags: u16, sequence: i64) -> FrameHeader {
    FrameHeader {
        flags: Flags::from_bits(flags),
        sequence: Sequence(sequence),
        length: 0,
        management_id: 99,
        agent_id: 12,
        via: 12,
    }
}

fn ready(host_id: i64) -> ReadyCommand {
    ReadyCommand {
        host_id: Some(host_id),
        host_uuid: Some("uuid".to_owned()),
        host_name: Some("s-1-VM".to_owned()),
        ..ReadyCommand::default()
    }
}

fn texts(list: &str) -> Option<Vec<String>> {
    Some(list.split(',').map(str::to_owned).collect())
}

/// The one answer that the session sent itself.
fn sent(actions: &[Action]) -> Envelope {
    match actions.first() {
        Some(Action::Send(frame)) => {
            assert!(!frame.header.flags.contains(Flags::REQUEST));
            frame.envelopes().unwrap().remove(0)
        }
        other => panic!("{other:?}"),
    }
}

fn has(actions: &[Action], check: impl Fn(&Action) -> bool) -> bool {
    actions.iter().any(check)
}

fn closes(actions: &[Action]) -> bool {
    has(actions, |action| matches!(action, Action::Close))
}

/// One session in each state, in the order of the table's letters.
fn one_of_each() -> [fn() -> Bench; 8] {
    [
        || Bench::new("a"),
        || {
            let mut bench = Bench::new("a");
            bench.timer();
            bench
        },
        || {
            let mut bench = Bench::new("a");
            bench.connect();
            bench
        },
        || {
            let mut bench = Bench::new("a");
            bench.connect();
            bench.answer_startup();
            bench
        },
        || {
            let mut bench = Bench::new("a");
            bench.attach();
            bench
        },
        || {
            let mut bench = Bench::new("a");
            bench.connect();
            refuse(&mut bench);
            bench
        },
        || {
            let mut bench = Bench::new("a");
            bench.attach();
            bench.step(Event::Shutdown);
            bench
        },
        || {
            let mut bench = Bench::new("a");
            bench.step(Event::Shutdown);
            bench
        },
    ]
}

fn refuse(bench: &mut Bench) -> Vec<Action> {
    let details = Some("no".to_owned());
    bench.request(&ReadyCommand { details, ..ReadyCommand::default() })
}

/// What happens in which state: the table itself. One letter per state after the event:
/// D disconnected, C connecting, S awaiting the startup answer or the ready command, A attached,
/// R refused, G draining, X closed.
#[test]
fn every_event_in_every_state_leads_where_the_table_says() {
    type Happen = fn(&mut Bench) -> Vec<Action>;
    let events: [(&str, Happen, &str); 13] = [
        (
            "timer at its deadline",
            |b| if b.session.deadline().is_some() { b.timer() } else { b.step(Event::Timer) },
            "CCDSACXX",
        ),
        ("timer too early", |b| b.session.step(Event::Timer, b.now - SECOND), "DCSSARGX"),
        ("connected", |b| b.step(Event::Connected), "DSSSARGX"),
        ("connect failed", |b| b.step(Event::ConnectFailed { error: "e".to_owned() }), "DDSSARGX"),
        ("startup answered", Bench::answer_startup, "DCSSARGX"),
        ("ready with a host id", |b| b.request(&ready(12)), "DCAAARGX"),
        ("ready with details", refuse, "DCRRRRXX"),
        ("ready with neither", |b| b.request(&ReadyCommand::default()), "DCDDARGX"),
        ("ping due", |b| b.step(Event::PingDue { paused: false }), "DCSSARGX"),
        ("closed by the peer", Bench::lose, "DCDDDRXX"),
        ("command done", |b| b.step(Event::CommandDone { link: 1 }), "DCSSARGX"),
        (
            "probe done",
            |b| {
                b.step(Event::ProbeDone {
                    endpoint: Endpoint { host: "a".to_owned(), port: 8250 },
                    reachable: true,
                })
            },
            "DCSSARGX",
        ),
        ("shutdown", |b| b.step(Event::Shutdown), "XXGGGXGX"),
    ];
    for (event, happen, expected) in events {
        let found: String = one_of_each()
            .iter()
            .map(|make| {
                let mut bench = make();
                let actions = happen(&mut bench);
                check_actions(&bench, &actions);
                letter(bench.state())
            })
            .collect();
        assert_eq!(found, expected, "{event}");
    }
}

fn letter(state: LinkState) -> char {
    match state {
        LinkState::Disconnected => 'D',
        LinkState::Connecting => 'C',
        LinkState::Registering => 'S',
        LinkState::Attached => 'A',
        LinkState::Refused => 'R',
        LinkState::Draining => 'G',
        LinkState::Closed => 'X',
        LinkState::Unknown => '?',
    }
}

/// What holds after any step: a state without a timer waits for something else that must come.
fn check_actions(bench: &Bench, actions: &[Action]) {
    let waits =
        matches!(bench.state(), LinkState::Connecting | LinkState::Closed | LinkState::Attached);
    assert_eq!(bench.session.deadline().is_none(), waits, "{:?}", bench.session);
    let attached = has(actions, |action| matches!(action, Action::Attached { .. }));
    let detached = has(actions, |action| matches!(action, Action::Detached));
    assert!(!(attached && detached), "{actions:?}");
    assert_eq!(
        bench.session.condition().is_some(),
        !matches!(bench.state(), LinkState::Attached | LinkState::Draining | LinkState::Closed)
    );
}
