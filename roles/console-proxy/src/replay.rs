//! Recordings in the page: a link of our own shows one as if it happened now.
//!
//! An operator asks the admin API for a link; who opens it is a viewer of a recording instead of a VM.
//! The link opens once, within two minutes; its page comes back with the ticket that it was given.
//! Going forward sends at once what lies between. Going back needs a new start, since pictures build
//! on what was before: the page is told to come back, and does.

mod tape;

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rfb::ServerInit;
use rfb::fbs::Block;
use subtle::ConstantTimeEq;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use websocket::{Event, Opcode};

use crate::browser::Socket;
use crate::context::ConsoleContext;
use crate::control::{FromPage, ToPage};
use crate::places::Place;
use crate::query::RawQuery;
use crate::refusal::{End, Refusal};
use crate::viewer::{NotGreeted, Shown, greet};
use tape::Tape;

/// Links that are good at the same time.
const LINKS: usize = 64;
/// How long a link may be opened, and how long its page may come back.
const OPENED_WITHIN: Duration = Duration::from_secs(120);
const RETURNS_WITHIN: Duration = Duration::from_secs(12 * 3600);
/// How often the page hears where it is.
const TICK: Duration = Duration::from_millis(500);
/// What a page that goes back is told with close code 4000, which brings it back at once.
const BACK: u16 = 4000;

/// The links that were given out.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    links: Mutex<HashMap<String, Link>>,
}

#[derive(Debug)]
struct Link {
    play: Arc<Play>,
    ticket: String,
    since: Instant,
    opened: bool,
}

/// A recording that is played.
#[derive(Debug)]
pub(crate) struct Play {
    pub(crate) name: String,
    path: PathBuf,
    /// Where the next connection begins.
    from_ms: AtomicU64,
}

/// A viewer of a recording, let in.
#[derive(Debug)]
pub(crate) struct Admitted {
    play: Arc<Play>,
    ticket: String,
}

/// A text that nobody guesses.
fn secret() -> Option<String> {
    let mut bytes = [0; 24];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

impl Replays {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Link>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token for this recording; `None` without chance to draw from, or when too many are out.
    pub(crate) fn issue(&self, name: &str, path: PathBuf) -> Option<String> {
        let (token, ticket) = (secret()?, secret()?);
        let play = Arc::new(Play { name: name.to_owned(), path, from_ms: AtomicU64::new(0) });
        let mut links = self.lock();
        links.retain(|_, link| link.is_good());
        if links.len() >= LINKS {
            return None;
        }
        let link = Link { play, ticket, since: Instant::now(), opened: false };
        links.insert(token.clone(), link);
        Some(token)
    }

    /// Whether a query is that of a link of ours.
    pub(crate) fn knows(&self, query: &str) -> bool {
        RawQuery(query).token().is_some_and(|token| self.lock().contains_key(&token))
    }

    /// Whether a query is that of a link of ours, and may be opened now.
    pub(crate) fn admit(&self, query: &str) -> Option<Result<Admitted, Refusal>> {
        let query = RawQuery(query);
        let token = query.token()?;
        let mut links = self.lock();
        let link = links.get_mut(&token)?;
        let returns = query
            .raw("resume")
            .is_some_and(|ticket| ticket.as_bytes().ct_eq(link.ticket.as_bytes()).into());
        if !link.is_good() || link.opened != returns {
            return Some(Err(Refusal::Replay));
        }
        link.opened = true;
        Some(Ok(Admitted { play: Arc::clone(&link.play), ticket: link.ticket.clone() }))
    }
}

impl Link {
    fn is_good(&self) -> bool {
        self.since.elapsed() < if self.opened { RETURNS_WITHIN } else { OPENED_WITHIN }
    }
}

struct Opened {
    tape: Tape,
    init: ServerInit,
}

impl Shown for Opened {
    fn server_init(&self) -> ServerInit {
        self.init.clone()
    }
}

/// Shows a recording to its end, or until the viewer leaves.
pub(crate) async fn run(
    context: &Arc<ConsoleContext>,
    mut socket: Socket,
    admitted: Result<Admitted, Refusal>,
    _place: Place,
) {
    let limit = context.now().handshake_timeout;
    let opening = Box::pin(async {
        let admitted = admitted?;
        let path = admitted.play.path.clone();
        let opened = context.tasks.blocking("recording", move || Tape::open(&path)).await;
        let opened = opened.map_err(|error| error.to_string()).and_then(|opened| opened);
        let (tape, mut init) = opened.map_err(Refusal::Recording)?;
        init.name = admitted.play.name.as_bytes().to_vec();
        Ok((admitted, Opened { tape, init }))
    });
    let shown = async { opening.await.map(|(admitted, opened)| Pair(admitted, opened)) };
    let greeted = tokio::select! {
        greeted = greet(&mut socket, shown, limit) => greeted,
        () = context.stop.cancelled() => Err(NotGreeted::Ended(End::Shutdown)),
    };
    let (code, reason) = match greeted {
        Ok(greeted) => {
            let Pair(admitted, Opened { tape, .. }) = greeted.shown;
            tracing::info!(recording = admitted.play.name, "a recording is shown");
            let idle = context.now().bridge.idle;
            let mut player = Player::new(context, &mut socket, tape, admitted, idle);
            tokio::select! {
                ended = player.run() => ended,
                () = context.stop.cancelled() => (1001, "the console proxy is being stopped".to_owned()),
            }
        }
        Err(NotGreeted::Refused(refusal)) => {
            tracing::warn!(reason = refusal.label(), "a recording is not shown");
            (End::Refused.close().0, refusal.to_string())
        }
        Err(NotGreeted::Ended(end)) => (end.close().0, end.close().1.to_owned()),
    };
    socket.close(code, &reason).await;
}

struct Pair(Admitted, Opened);

impl Shown for Pair {
    fn server_init(&self) -> ServerInit {
        self.1.server_init()
    }
}

/// Sends the blocks of a recording when their time has come.
struct Player<'a> {
    context: &'a ConsoleContext,
    socket: &'a mut Socket,
    tape: Option<Tape>,
    admitted: Admitted,
    blocks: VecDeque<Block>,
    length_ms: u64,
    /// The place on the tape at the moment `since`, from which it runs on unless it is paused.
    place_ms: u64,
    since: Instant,
    paused: bool,
    heard: Instant,
    idle: Duration,
}

type Ended = (u16, String);

impl<'a> Player<'a> {
    fn new(
        context: &'a ConsoleContext,
        socket: &'a mut Socket,
        tape: Tape,
        admitted: Admitted,
        idle: Duration,
    ) -> Self {
        let now = Instant::now();
        let length_ms = tape.length_ms();
        let place_ms = admitted.play.from_ms.load(Ordering::Relaxed).min(length_ms);
        let tape = Some(tape);
        let (blocks, paused) = (VecDeque::new(), false);
        Self {
            context,
            socket,
            tape,
            admitted,
            blocks,
            length_ms,
            place_ms,
            since: now,
            paused,
            heard: now,
            idle,
        }
    }

    async fn run(&mut self) -> Ended {
        match self.play().await {
            Ok(never) => match never {},
            Err(ended) => ended,
        }
    }

    async fn play(&mut self) -> Result<std::convert::Infallible, Ended> {
        let greeting = ToPage::Opened {
            session: 0,
            ticket: self.admitted.ticket.clone(),
            window_ms: 60_000,
            encrypted: false,
            view_only: true,
            recorded: false,
        };
        self.tell(&greeting).await?;
        self.tell_place().await?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            self.read_on().await?;
            let due = self.blocks.front().filter(|_| !self.paused).map(|block| {
                let ahead = u64::from(block.at_ms).saturating_sub(self.place_ms);
                self.since + Duration::from_millis(ahead)
            });
            tokio::select! {
                event = self.socket.next() => {
                    let event = event.map_err(of_end)?;
                    self.hear(event).await?;
                }
                () = until(due), if due.is_some() => {
                    if let Some(block) = self.blocks.pop_front() {
                        self.send(Opcode::Binary, &block.bytes).await?;
                    }
                }
                _ = tick.tick() => {
                    if self.heard.elapsed() > self.idle {
                        return Err(of_end(End::Idle));
                    }
                    self.send(Opcode::Ping, b"").await?;
                    self.tell_place().await?;
                }
            }
        }
    }

    /// Where the tape is now.
    fn place(&self) -> u64 {
        let run = match self.paused {
            true => 0,
            false => u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        self.place_ms.saturating_add(run).min(self.length_ms)
    }

    fn go_on_from(&mut self, place_ms: u64) {
        (self.place_ms, self.since) = (place_ms, Instant::now());
    }

    async fn hear(&mut self, event: Event) -> Result<(), Ended> {
        self.heard = Instant::now();
        match event {
            Event::Ping(payload) => self.send(Opcode::Pong, &payload).await,
            Event::Text(text) => match FromPage::parse(&text) {
                Ok(FromPage::Seek { to_ms }) => self.seek(to_ms.min(self.length_ms)).await,
                Ok(FromPage::Pause { on }) => {
                    let place = self.place();
                    self.go_on_from(place);
                    self.paused = on;
                    self.tell_place().await
                }
                Ok(_) => Ok(()),
                Err(_odd) => Err(of_end(End::TextFrame)),
            },
            // A recording takes no input.
            Event::Binary { .. } | Event::Pong(_) | Event::Close(_) => Ok(()),
        }
    }

    async fn seek(&mut self, to_ms: u64) -> Result<(), Ended> {
        if to_ms < self.place() {
            self.admitted.play.from_ms.store(to_ms, Ordering::Relaxed);
            return Err((BACK, "the recording goes back".to_owned()));
        }
        self.go_on_from(to_ms);
        self.paused = false;
        self.tell_place().await
    }

    /// Fetches blocks when there are none at hand.
    async fn read_on(&mut self) -> Result<(), Ended> {
        if !self.blocks.is_empty() {
            return Ok(());
        }
        let Some(tape) = self.tape.take() else { return Ok(()) };
        match self.context.tasks.blocking("recording", move || tape.read_on()).await {
            Ok(Ok((tape, blocks))) => {
                self.tape = tape;
                self.blocks = blocks.into();
                Ok(())
            }
            Ok(Err(error)) => Err((1011, error)),
            Err(error) => Err((1011, error.to_string())),
        }
    }

    async fn tell_place(&mut self) -> Result<(), Ended> {
        let (at_ms, length_ms, paused) = (self.place(), self.length_ms, self.paused);
        self.tell(&ToPage::Replay { at_ms, length_ms, paused }).await
    }

    async fn tell(&mut self, message: &ToPage) -> Result<(), Ended> {
        if !self.socket.has_control {
            return Ok(());
        }
        self.send(Opcode::Text, message.text().as_bytes()).await
    }

    async fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Ended> {
        self.socket.send(opcode, payload).await.map_err(of_end)
    }
}

fn of_end(end: End) -> Ended {
    (end.close().0, end.close().1.to_owned())
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_link_opens_once_and_its_page_comes_back_with_its_ticket_alone() {
        let replays = Replays::default();
        let token = replays.issue("a.fbs", "/a.fbs".into()).unwrap();
        let admit = |query: String| replays.admit(&query).map(|admitted| admitted.ok());
        assert!(admit("token=other".to_owned()).is_none());
        let first = admit(format!("token={token}")).unwrap().unwrap();
        assert!(admit(format!("token={token}")).unwrap().is_none());
        assert!(admit(format!("token={token}&resume=x")).unwrap().is_none());
        let returned = admit(format!("token={token}&resume={}", first.ticket));
        assert_eq!(returned.unwrap().unwrap().play.name, "a.fbs");
        let late = replays.issue("b.fbs", "/b.fbs".into()).unwrap();
        tokio::time::advance(OPENED_WITHIN).await;
        assert!(admit(format!("token={late}")).unwrap().is_none());
        for _ in 0..LINKS {
            replays.issue("c.fbs", "/c.fbs".into());
        }
        assert!(replays.issue("d.fbs", "/d.fbs".into()).is_none());
    }
}
