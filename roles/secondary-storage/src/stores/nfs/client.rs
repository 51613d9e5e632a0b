//! Calls of one store that outlive connections.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use nfs3::Status;
use nfs3::procedures::PROGRAM;
use nfs3::rpc::{self, Credential, Procedure};
use nfs3::xdr::Decoder;
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};

use super::Target;
use super::connection::{Connection, Failure, Lane, Message};
use super::dial::{Dial, read_reply};
use super::error::NfsError;
use super::root::{Pinned, Root};

/// What calls say of this host; servers only log it.
const CALLER: &str = "quickcloud";
/// Between two attempts to reach a server that went away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Before a call is repeated that the server wants to execute later.
const LATER_PAUSE: Duration = Duration::from_millis(500);
/// Written bytes that may wait to be durable, of all files of a store together, in KiB. Each file
/// may have a little of its own besides.
const WRITE_BEHIND_KIB: usize = 6 << 10;

/// One export of one server.
#[derive(Debug)]
pub struct Client {
    pub(super) target: Target,
    credential: Credential,
    quick: Mutex<Option<Arc<Connection>>>,
    bulk: Mutex<Option<Arc<Connection>>>,
    next: AtomicU32,
    pub(super) root: Mutex<Option<Arc<Root>>>,
    pub(super) pinned: Mutex<Option<Pinned>>,
    pub(super) write_behind: Arc<Semaphore>,
}

impl Client {
    pub fn new(target: Target) -> Arc<Self> {
        let settings = &target.settings;
        let credential = Credential::System {
            host: CALLER.to_owned(),
            uid: settings.uid,
            gid: settings.gid,
            groups: settings.groups.clone(),
        };
        // Not the numbers of an earlier run: a server remembers replies by them.
        let first = uuid::Uuid::new_v4().as_fields().0;
        Arc::new(Self {
            target,
            credential,
            quick: Mutex::default(),
            bulk: Mutex::default(),
            next: AtomicU32::new(first),
            root: Mutex::default(),
            pinned: Mutex::default(),
            write_behind: Arc::new(Semaphore::new(WRITE_BEHIND_KIB)),
        })
    }

    /// Where it is, for people.
    pub fn place(&self) -> String {
        let Target { host, export, .. } = &self.target;
        if host.contains(':') { format!("[{host}]:{export}") } else { format!("{host}:{export}") }
    }

    pub(super) fn credential(&self) -> &Credential {
        &self.credential
    }

    pub(super) fn dial(&self, port: Option<u16>) -> Dial {
        let privileged = self.target.settings.privileged_port;
        Dial { host: self.target.host.clone(), port, privileged }
    }

    /// What one operation does, from now until its deadline. A patient one waits for a server that is
    /// away to come back.
    pub fn session(self: &Arc<Self>, patient: bool) -> Session {
        let limit = self.target.deadline;
        Session { client: Arc::clone(self), until: Instant::now() + limit, limit, patient }
    }

    /// The connection of a lane; another one when it has ended.
    fn connection(&self, lane: Lane) -> Arc<Connection> {
        let slot = match lane {
            Lane::Quick => &self.quick,
            Lane::Bulk => &self.bulk,
        };
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.as_ref() {
            Some(connection) if !connection.has_ended() => Arc::clone(connection),
            _ => {
                let dial = self.dial(self.target.settings.port);
                let connection = Connection::start(&self.target.tasks, dial);
                *slot = Some(Arc::clone(&connection));
                connection
            }
        }
    }

    /// As an error of a store's engine.
    pub(super) fn refused(
        &self,
        procedure: &'static str,
        subject: impl Into<String>,
        status: Status,
    ) -> NfsError {
        let settings = &self.target.settings;
        let caller = (settings.uid, settings.gid);
        NfsError::Refused { procedure, subject: subject.into(), status, caller }
    }
}

/// One operation's calls. Cloneable; clones share the deadline.
#[derive(Debug, Clone)]
pub struct Session {
    pub(super) client: Arc<Client>,
    until: Instant,
    limit: Duration,
    patient: bool,
}

/// A reply.
pub(super) struct Answer<T> {
    pub(super) reply: T,
    /// The call was sent more than once: it may have been executed before, and this be the second
    /// time.
    pub(super) repeated: bool,
}

impl Session {
    /// The same with another deadline: for what goes on while the operation waits for others.
    pub(super) fn again(&self) -> Self {
        Self { until: Instant::now() + self.limit, ..self.clone() }
    }

    /// Whether there is time to pause and go on.
    pub(super) fn waits(&self, pause: Duration) -> bool {
        self.patient && Instant::now() + pause < self.until
    }

    /// A call on one connection after the other until it is answered.
    pub(super) async fn exchange<P: Procedure>(
        &self,
        lane: Lane,
        procedure: &P,
    ) -> Result<Answer<P::Reply>, NfsError> {
        let mut pause = FIRST_PAUSE;
        let mut repeated = false;
        let mut xid = self.client.next.fetch_add(1, Ordering::Relaxed);
        loop {
            let message = Message {
                call: rpc::call(xid, &self.client.credential, procedure),
                payload: procedure.payload().cloned(),
            };
            let connection = self.client.connection(lane);
            let reply = connection.exchange(xid, message, self.until).await;
            let wait = match reply {
                Ok(reply) if asks_to_wait::<P>(&reply) => {
                    // Under its old number the server would repeat its answer.
                    xid = self.client.next.fetch_add(1, Ordering::Relaxed);
                    LATER_PAUSE
                }
                Ok(reply) => return Ok(Answer { reply: read_reply::<P>(reply)?, repeated }),
                Err(Failure::Late) => return Err(NfsError::Stalled(self.limit)),
                Err(Failure::Broken(error)) => {
                    let is_lasting = matches!(*error, NfsError::SourcePort(_));
                    if is_lasting || !self.waits(pause) {
                        return Err(NfsError::Shared(error));
                    }
                    tracing::debug!(error = bedrock::chain(&error), "connecting again to NFS");
                    repeated = true;
                    let now = pause;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    now
                }
            };
            if self.until <= Instant::now() + wait {
                return Err(NfsError::Stalled(self.limit));
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// A call whose refusal is an error. `subject` is what it is about.
    pub(super) async fn call<P, T>(
        &self,
        lane: Lane,
        procedure: &P,
        subject: &str,
    ) -> Result<T, NfsError>
    where
        P: Procedure<Reply = Result<T, Status>>,
    {
        let answer = self.exchange(lane, procedure).await?;
        answer.reply.map_err(|status| self.client.refused(P::NAME, subject, status))
    }
}

/// Whether an NFS server says that it will execute the call later.
fn asks_to_wait<P: Procedure>(reply: &bytes::Bytes) -> bool {
    P::PROGRAM == PROGRAM
        && rpc::results(reply.clone(), PROGRAM)
            .ok()
            .and_then(Result::ok)
            .and_then(|mut results: Decoder| results.u32().ok())
            .is_some_and(|status| Status(status) == Status::LATER)
}
