//! Viewer to VM: data through the filter, texts that are typed on the page's behalf, answers to
//! pings.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use rfb::{Key, MessageFilter};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use websocket::Event;

use super::typing::Typist;
use super::{BridgeLimits, Outgoing, Signs};
use crate::browser::Incoming;
use crate::control::{FromPage, ToPage, Typing, TypingState};
use crate::recording::Recorder;
use crate::refusal::End;
use crate::sessions::Session;

/// What a direction knows of its relay.
pub(super) struct Around<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) signs: &'a Signs,
    pub(super) bytes: &'a Counter,
    pub(super) limits: BridgeLimits,
    pub(super) recorder: Option<&'a Recorder>,
}

pub(super) struct Up<'a, V, S> {
    read: V,
    write: &'a mut S,
    incoming: &'a mut Incoming,
    filter: MessageFilter,
    opaque: bool,
    typist: Option<Typist>,
    out: Vec<u8>,
    pub(super) outgoing: Option<mpsc::Sender<Outgoing>>,
    pub(super) has_control: bool,
}

/// What an iteration waits for.
enum Next {
    Event(Result<Event, End>),
    Key,
}

impl<'a, V, S> Up<'a, V, S>
where
    V: AsyncRead + Unpin,
    S: AsyncWrite + Unpin,
{
    pub(super) fn new(read: V, write: &'a mut S, incoming: &'a mut Incoming, opaque: bool) -> Self {
        Self {
            read,
            write,
            incoming,
            filter: MessageFilter::default(),
            opaque,
            typist: None,
            out: Vec::new(),
            outgoing: None,
            has_control: false,
        }
    }

    /// The keys that are down, by the viewer or by a text.
    pub(super) fn held(&self) -> Vec<Key> {
        // In the middle of a message another one would be taken for its rest.
        if self.opaque || !self.filter.is_between_messages() {
            return Vec::new();
        }
        let typed = self.typist.as_ref().map(Typist::held).unwrap_or_default();
        self.filter.held().iter().chain(typed).copied().collect()
    }

    pub(super) async fn run(&mut self, ahead: &[u8], around: &Around<'_>) -> End {
        if let Err(end) = self.forward(ahead, around).await {
            return end;
        }
        loop {
            if let Err(end) = self.turn(around).await {
                return end;
            }
        }
    }

    async fn turn(&mut self, around: &Around<'_>) -> Result<(), End> {
        let may_type = self.filter.is_between_messages();
        let due = self.typist.as_ref().filter(|_| may_type).map(Typist::next);
        let next = tokio::select! {
            event = self.incoming.next(&mut self.read) => Next::Event(event),
            () = at(due), if due.is_some() => Next::Key,
        };
        let event = match next {
            Next::Key => return self.type_on(around).await,
            Next::Event(event) => event?,
        };
        around.signs.mark(&around.signs.heard);
        match event {
            Event::Binary { bytes, .. } => self.forward(&bytes, around).await,
            Event::Ping(payload) => self.tell(Outgoing::Pong(payload)).await,
            Event::Text(text) if self.has_control => self.hear(&text, around).await,
            Event::Text(_) => Err(End::TextFrame),
            Event::Pong(_) | Event::Close(_) => Ok(()),
        }
    }

    async fn tell(&mut self, message: Outgoing) -> Result<(), End> {
        if let Some(outgoing) = &self.outgoing {
            // The other direction has ended when nobody takes it, and with it the relay.
            outgoing.send(message).await.map_err(|_closed| End::ViewerLost)?;
        }
        Ok(())
    }

    async fn forward(&mut self, bytes: &[u8], around: &Around<'_>) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.opaque {
            around.signs.mark(&around.signs.moved);
            return self.write(bytes, around).await;
        }
        let before = self.filter.counts().by_person();
        let view_only = around.session.view_only.load(Ordering::Relaxed);
        let mut out = std::mem::take(&mut self.out);
        self.filter.pass(bytes, view_only, &mut out);
        let touched = self.filter.counts().by_person() - before;
        if touched > 0 || self.filter.is_lost() {
            around.signs.mark(&around.signs.moved);
            around.session.inputs.fetch_add(touched, Ordering::Relaxed);
        }
        // Before the VM hears of it, and so before a picture in it can come.
        if let Some((recorder, format)) = around.recorder.zip(self.filter.take_format()) {
            recorder.format(format);
        }
        let written = self.write(&out, around).await;
        out.clear();
        // A pasted text is rare: its room is not kept.
        self.out = if out.capacity() > 4096 { Vec::new() } else { out };
        written
    }

    async fn write(&mut self, bytes: &[u8], around: &Around<'_>) -> Result<(), End> {
        if bytes.is_empty() {
            return Ok(());
        }
        let write = async {
            self.write.write_all(bytes).await?;
            // An encrypted stream may hold something back.
            self.write.flush().await
        };
        match timeout(around.limits.ping, write).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot write to the VNC server");
                return Err(End::ScreenLost);
            }
            Err(_elapsed) => {
                tracing::debug!("the VNC server takes no input");
                return Err(End::ScreenLost);
            }
        }
        let count = u64::try_from(bytes.len()).unwrap_or_default();
        around.session.to_vm.fetch_add(count, Ordering::Relaxed);
        around.bytes.inc_by(count);
        around.session.touch();
        Ok(())
    }

    /// A message of the page.
    async fn hear(&mut self, text: &str, around: &Around<'_>) -> Result<(), End> {
        match FromPage::parse(text) {
            Ok(FromPage::Type(request)) => self.begin(request.0, around).await,
            Ok(FromPage::Cancel) => self.stop(TypingState::Cancelled, around).await,
            Ok(FromPage::Seek { .. } | FromPage::Pause { .. } | FromPage::Unknown) => Ok(()),
            Err(error) => {
                tracing::debug!(%error, "the page says something odd");
                Err(End::TextFrame)
            }
        }
    }

    async fn begin(&mut self, typing: Typing, around: &Around<'_>) -> Result<(), End> {
        let view_only = around.session.view_only.load(Ordering::Relaxed);
        if self.typist.is_some() || self.opaque || self.filter.is_lost() || view_only {
            let (id, total) = (typing.id, typing.events.len());
            let state = TypingState::Refused;
            let message = ToPage::Typing { id, done: 0, total, state };
            return self.tell(Outgoing::Page(message)).await;
        }
        self.typist = Some(Typist::new(typing, Instant::now()));
        Ok(())
    }

    /// The next key of the text under way.
    async fn type_on(&mut self, around: &Around<'_>) -> Result<(), End> {
        if around.session.view_only.load(Ordering::Relaxed) {
            return self.stop(TypingState::Cancelled, around).await;
        }
        let now = Instant::now();
        let Some(typist) = &mut self.typist else { return Ok(()) };
        let keys = typist.step(now);
        let (over, progress) = (typist.is_over(), typist.progress(now));
        around.signs.mark(&around.signs.moved);
        around.session.inputs.fetch_add(1, Ordering::Relaxed);
        self.write(&keys, around).await?;
        if over {
            return self.stop(TypingState::Done, around).await;
        }
        match progress {
            Some(progress) => self.tell(Outgoing::Page(progress)).await,
            None => Ok(()),
        }
    }

    /// Ends the text under way, with every key up.
    async fn stop(&mut self, state: TypingState, around: &Around<'_>) -> Result<(), End> {
        let Some(mut typist) = self.typist.take() else { return Ok(()) };
        self.write(&typist.release(), around).await?;
        self.tell(Outgoing::Page(typist.told(state))).await
    }
}

/// Until then; without a moment, for ever.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
