//! The console relay beside haproxy and websockify, in one run: throughput, fairness, what idle
//! consoles cost.
//!
//! `cargo xtask bench console` builds the release binary and runs this. Everything shares the machine
//! and goes over loopback, so only ratios of one run say something; "direct" is what generator and sink
//! reach without a relay in between. The relays take turns, and the figures are medians of the rounds.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a measuring program: it prints, and ends when anything is not as expected"
)]

#[path = "shared/binary.rs"]
mod binary;
#[path = "console/relays.rs"]
mod relays;
#[path = "console/viewers.rs"]
mod viewers;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use binary::{median, percentile, processor, resident};
use relays::{Ours, Relay, World};
use viewers::{Target, Viewer, target};

const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(3);
const PACED: usize = 50;
const IDLE: usize = 1000;

fn main() {
    let Some(binary) = binary::given("console") else { return };
    let runtime = Runtime::new().unwrap();
    let world = runtime.block_on(World::start(&binary));
    let relays = world.relays();
    let mut rounds: Vec<Vec<Figures>> = relays.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (relay, rounds) in relays.iter().zip(&mut rounds) {
            rounds.push(Figures::of(&world, &runtime, *relay));
        }
    }
    let figures: Vec<(Relay, Figures)> =
        relays.into_iter().zip(rounds.iter().map(|rounds| Figures::median(rounds))).collect();
    for (relay, figures) in &figures {
        figures.print(relay.name());
    }
    drop(world);
    goals(&figures);
    for tls in [false, true] {
        idle(&binary, &runtime, tls);
    }
}

/// A number of floods, and a neighbour that types.
struct Flooded {
    /// MB/s of all.
    rate: f64,
    /// Processor seconds for a GB.
    cost: f64,
    p50: f64,
    p99: f64,
}

/// Of one relay, in one round or the median of all.
struct Figures {
    p50: f64,
    p99: f64,
    one: Flooded,
    ten: Flooded,
    /// Percent of a processor for the paced sessions.
    paced: f64,
}

fn spent(process: Option<u32>) -> f64 {
    process.map(processor).unwrap_or_default().as_secs_f64()
}

impl Figures {
    fn of(world: &World, runtime: &Runtime, relay: Relay) -> Self {
        let open = |kind, number| Viewer::open(&runtime.block_on(world.way(relay, kind, number)));
        let process = world.process(relay);
        let mut waits = open(Target::Quiet, 1).echoes(TIME / 2);
        Self {
            p50: percentile(&mut waits, 0.5),
            p99: percentile(&mut waits, 0.99),
            one: Flooded::of(1, process, &open),
            ten: Flooded::of(10, process, &open),
            paced: paced(process, &open),
        }
    }

    fn median(rounds: &[Self]) -> Self {
        let of = |get: &dyn Fn(&Self) -> f64| median(rounds.iter().map(get));
        let flooded = |get: fn(&Self) -> &Flooded| Flooded {
            rate: of(&|round| get(round).rate),
            cost: of(&|round| get(round).cost),
            p50: of(&|round| get(round).p50),
            p99: of(&|round| get(round).p99),
        };
        Self {
            p50: of(&|round| round.p50),
            p99: of(&|round| round.p99),
            one: flooded(|round| &round.one),
            ten: flooded(|round| &round.ten),
            paced: of(&|round| round.paced),
        }
    }

    fn print(&self, name: &str) {
        println!("{name:>11}  idle echo p50 {:.3} ms, p99 {:.3} ms", self.p50, self.p99);
        for (count, Flooded { rate, cost, p50, p99 }) in [(1, &self.one), (10, &self.ten)] {
            println!(
                "{name:>11}  {count:>2} flooding: {rate:.0} MB/s, {cost:.2} CPU s/GB, a neighbour's \
                 echo p50 {p50:.2} ms, p99 {p99:.2} ms"
            );
        }
        println!("{name:>11}  {PACED} paced sessions: {:.1} % of a processor", self.paced);
    }
}

impl Flooded {
    fn of(count: usize, process: Option<u32>, open: &dyn Fn(Target, usize) -> Viewer) -> Self {
        let (bytes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let floods: Vec<Viewer> = (0..count).map(|n| open(Target::Flood, n + 1)).collect();
        let mut neighbour = open(Target::Quiet, 2);
        let (before, start) = (spent(process), Instant::now());
        let sinks: Vec<_> = floods
            .into_iter()
            .map(|flood| flood.sink(Arc::clone(&bytes), Arc::clone(&stop)))
            .collect();
        let mut waits = neighbour.echoes(TIME);
        let moved = bytes.load(Ordering::Relaxed) as f64;
        let (spent, elapsed) = (spent(process) - before, start.elapsed());
        stop.store(true, Ordering::Relaxed);
        sinks.into_iter().for_each(|sink| sink.join().unwrap());
        Self {
            rate: moved / 1e6 / elapsed.as_secs_f64(),
            cost: spent / (moved / 1e9),
            p50: percentile(&mut waits, 0.5),
            p99: percentile(&mut waits, 0.99),
        }
    }
}

/// Percent of a processor.
fn paced(process: Option<u32>, open: &dyn Fn(Target, usize) -> Viewer) -> f64 {
    let (bytes, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let sinks: Vec<_> = (0..PACED)
        .map(|n| open(Target::Paced, n + 1).sink(Arc::clone(&bytes), Arc::clone(&stop)))
        .collect();
    let before = spent(process);
    std::thread::sleep(TIME);
    let spent = spent(process) - before;
    stop.store(true, Ordering::Relaxed);
    sinks.into_iter().for_each(|sink| sink.join().unwrap());
    spent / TIME.as_secs_f64() * 100.0
}

/// What the figures come to.
fn goals(figures: &[(Relay, Figures)]) {
    let of = |wanted| figures.iter().find(|(relay, _)| *relay == wanted).map(|(_, of)| of);
    let (Some(ours), Some(direct)) = (of(Relay::Ours), of(Relay::Direct)) else { return };
    println!("one flood: {:.2} CPU s/GB (goal <= 0.5)", ours.one.cost);
    println!("idle latency added: p50 {:.3} ms (goal < 0.1 ms)", ours.p50 - direct.p50);
    if let Some(peer) = of(Relay::Websockify) {
        println!("one flood: {:.2} x websockify", ours.one.rate / peer.one.rate);
    }
    let Some(peer) = of(Relay::Haproxy) else {
        println!("haproxy is not installed: nothing to compare with");
        return;
    };
    println!(
        "one flood: {:.2} x haproxy (goal >= 1.1); ten: {:.2} x (goal >= 1.1), a neighbour's echo p50 \
         {:.2} x, p99 {:.2} x (goals <= 0.5); {PACED} paced sessions: {:.2} x its CPU (goal <= 1)",
        ours.one.rate / peer.one.rate,
        ours.ten.rate / peer.ten.rate,
        ours.ten.p50 / peer.ten.p50,
        ours.ten.p99 / peer.ten.p99,
        ours.paced / peer.paced
    );
    if let (Some(ours), Some(peer)) = (of(Relay::OursTls), of(Relay::HaproxyTls)) {
        println!(
            "one flood over TLS: {:.2} x haproxy (goal >= 0.95)",
            ours.one.rate / peer.one.rate
        );
    }
}

/// What consoles at rest cost, in a process of their own: what floods leave to the allocator would
/// hide them.
fn idle(binary: &Path, runtime: &Runtime, tls: bool) {
    let ours = runtime.block_on(Ours::start(binary));
    let trust = tls.then(|| ours.trust());
    let screen = target(Target::Quiet);
    let open = |number| Viewer::open(&runtime.block_on(ours.way(screen, number, trust.clone())));
    let before = resident(ours.id());
    let mut viewers: Vec<Viewer> = (0..IDLE).map(open).collect();
    std::thread::sleep(Duration::from_secs(2));
    let (opened, used) = (resident(ours.id()), spent(Some(ours.id())));
    std::thread::sleep(TIME * 2);
    let share = (spent(Some(ours.id())) - used) / (TIME * 2).as_secs_f64() * 100.0;
    viewers.iter_mut().for_each(Viewer::echo);
    let each = |after: f64| (after - before) * 1024.0 / IDLE as f64;
    let (what, goal) = if tls { (" TLS", 56) } else { ("", 24) };
    println!(
        "{} idle{what} sessions: {:.1} KiB each (goal < {goal}), {:.1} KiB after a picture each, \
         {share:.1} % of a processor (goal < 1)",
        viewers.len(),
        each(opened),
        each(resident(ours.id()))
    );
}
