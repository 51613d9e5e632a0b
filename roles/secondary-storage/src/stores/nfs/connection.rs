//! One connection to NFS: many calls under way at a time, replies in whatever order.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use nfs3::procedures::PROGRAM;
use nfs3::record::{self, Records};
use nfs3::rpc;
use role::TaskScope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Duration, Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::dial::{Dial, filling};
use super::error::NfsError;

/// What a call is, by how much it moves: a listing never waits behind megabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Names and attributes.
    Quick,
    /// Content.
    Bulk,
}

/// Most bytes of content in one message, whatever the server allows.
pub(super) const MAX_CONTENT: u32 = 1 << 20;
/// Longest reply: content and what is around it.
const MAX_REPLY: usize = (1 << 20) + (64 << 10);
/// Calls under way on one connection.
const WINDOW: usize = 32;
/// A connection that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_secs(120);

/// A call as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) call: Bytes,
    pub(super) payload: Option<Bytes>,
}

/// Why an exchange gave no reply.
pub(super) enum Failure {
    Late,
    /// The connection ended; the call may have been executed.
    Broken(Arc<NfsError>),
}

/// A connection, made while the first calls wait for it. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<Shared>,
    out: mpsc::Sender<Message>,
}

#[derive(Debug)]
struct Shared {
    window: Semaphore,
    state: Mutex<State>,
    closing: CancellationToken,
}

#[derive(Debug)]
struct State {
    waiting: HashMap<u32, oneshot::Sender<Bytes>>,
    /// When the server sent something last.
    heard: Instant,
    ended: Option<Arc<NfsError>>,
}

impl Connection {
    pub(super) fn start(tasks: &TaskScope, dial: Dial) -> Arc<Self> {
        let (out, queue) = mpsc::channel(WINDOW);
        let state = State { waiting: HashMap::new(), heard: Instant::now(), ended: None };
        let shared = Arc::new(Shared {
            window: Semaphore::new(WINDOW),
            state: Mutex::new(state),
            closing: CancellationToken::new(),
        });
        let served = Arc::clone(&shared);
        // Whoever shows the store's figures keeps it after the end of the role's work.
        tasks.spawn_supporting("nfs connection", async move {
            let error = tokio::select! {
                error = serve(&served, &dial, queue) => error,
                () = served.closing.cancelled() => NfsError::Broken(ErrorKind::TimedOut.into()),
            };
            served.end(error);
        });
        Arc::new(Self { shared, out })
    }

    pub(super) fn has_ended(&self) -> bool {
        self.shared.state().ended.is_some()
    }

    /// Sends a call and waits for its reply.
    pub(super) async fn exchange(
        &self,
        xid: u32,
        message: Message,
        until: Instant,
    ) -> Result<Bytes, Failure> {
        let late = |_elapsed| Failure::Late;
        // Never closed.
        let _place = timeout_at(until, self.shared.window.acquire()).await.map_err(late)?;
        let begun = Instant::now();
        let (sender, reply) = oneshot::channel();
        let _waiting = self.shared.wait(xid, sender).map_err(Failure::Broken)?;
        let sent = timeout_at(until, self.out.send(message)).await;
        // A closed queue has ended the waiting, too: the reason is there.
        let sent = sent.is_ok();
        if sent && let Ok(outcome) = timeout_at(until, reply).await {
            return outcome.map_err(|_ended| Failure::Broken(self.shared.reason()));
        }
        // A server that sent nothing all that time may have lost the connection without a word.
        if self.shared.state().heard <= begun {
            self.shared.closing.cancel();
        }
        Err(Failure::Late)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

/// Forgets a call whose reply nobody waits for.
struct Waiting<'a> {
    shared: &'a Shared,
    xid: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.state().waiting.remove(&self.xid);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, xid: u32, sender: oneshot::Sender<Bytes>) -> Result<Waiting<'_>, Arc<NfsError>> {
        let mut state = self.state();
        if let Some(reason) = &state.ended {
            return Err(Arc::clone(reason));
        }
        state.waiting.insert(xid, sender);
        Ok(Waiting { shared: self, xid })
    }

    fn reason(&self) -> Arc<NfsError> {
        let ended = self.state().ended.clone();
        ended.unwrap_or_else(|| Arc::new(NfsError::Broken(ErrorKind::ConnectionReset.into())))
    }

    fn end(&self, error: NfsError) {
        let mut state = self.state();
        state.ended = Some(Arc::new(error));
        state.waiting.clear();
    }

    /// Gives a reply to whoever waits for it. One that nobody waits for came too late.
    fn heard(&self, reply: Bytes) -> Result<(), NfsError> {
        let xid = rpc::reply_xid(&reply)
            .map_err(|source| NfsError::Malformed { procedure: "a call", source })?;
        let mut state = self.state();
        state.heard = Instant::now();
        match state.waiting.remove(&xid) {
            Some(sender) => drop(sender.send(reply)),
            None => tracing::debug!(xid, "a reply that nobody waits for"),
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.state().waiting.is_empty()
    }
}

/// Connects and passes calls and replies until something ends it.
async fn serve(shared: &Shared, dial: &Dial, queue: mpsc::Receiver<Message>) -> NfsError {
    let stream = match dial.connect(PROGRAM).await {
        Ok(stream) => stream,
        Err(error) => return error,
    };
    shared.state().heard = Instant::now();
    let (read, write) = TcpStream::into_split(stream);
    tokio::select! {
        error = send(queue, write) => error,
        error = receive(shared, read) => error,
        error = idle(shared) => error,
    }
}

async fn idle(shared: &Shared) -> NfsError {
    loop {
        tokio::time::sleep(IDLE).await;
        if shared.is_idle() && shared.state().heard.elapsed() >= IDLE {
            return NfsError::Broken(ErrorKind::ConnectionAborted.into());
        }
    }
}

async fn send(mut queue: mpsc::Receiver<Message>, mut write: OwnedWriteHalf) -> NfsError {
    while let Some(Message { call, payload }) = queue.recv().await {
        let payload = payload.unwrap_or_default();
        let filling = filling(payload.len());
        let length = call.len() + payload.len() + filling.len();
        let mut head = BytesMut::with_capacity(4 + call.len());
        head.extend_from_slice(&record::header(length));
        head.extend_from_slice(&call);
        for part in [head.freeze(), payload, Bytes::from_static(filling)] {
            if let Err(error) = write.write_all(&part).await {
                return NfsError::Broken(error);
            }
        }
    }
    NfsError::Broken(ErrorKind::ConnectionAborted.into())
}

async fn receive(shared: &Shared, mut read: OwnedReadHalf) -> NfsError {
    let (mut records, mut input) = (Records::new(MAX_REPLY), BytesMut::with_capacity(64 << 10));
    loop {
        match records.next(&mut input) {
            Ok(Some(reply)) => {
                if let Err(error) = shared.heard(reply) {
                    return error;
                }
                continue;
            }
            Ok(None) => {}
            Err(error) => return error.into(),
        }
        match read.read_buf(&mut input).await {
            Ok(0) => return NfsError::Broken(ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) => return NfsError::Broken(error),
        }
    }
}
