//! An object being written: in parts, a few under way at a time, each of bounded length.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use role::TaskScope;
use tokio::sync::{mpsc, oneshot};

use super::answer::Begun;
use super::client::{Client, Head, S3Error};
use super::engine::S3Object;
use super::tag::{self, Md5Sum};
use crate::stores::engine::{EngineError, Opened, Operation, Part};
use crate::stores::work::Owned;

/// Parts of one object that are under way at a time, beside the one that is gathered.
const AT_A_TIME: usize = 3;
const MIB: usize = 1 << 20;
/// Objects have no more parts.
const MAX_PARTS: usize = 10_000;

/// Length of a part: short at first, longer in objects that would have too many.
const fn length_of(number: usize) -> usize {
    match number {
        0..=1_000 => 8 * MIB,
        1_001..=4_000 => 16 * MIB,
        _ => 64 * MIB,
    }
}

enum Command {
    Write { bytes: Bytes, taken: oneshot::Sender<Result<(), EngineError>> },
    Finish { done: oneshot::Sender<Result<Head, EngineError>> },
}

/// What the role holds of it; when it is dropped unfinished, the upload is given up.
#[derive(Debug)]
pub struct S3Part {
    commands: mpsc::Sender<Command>,
    key: String,
    client: Arc<Client>,
    owner: Owned,
    length: u64,
}

impl S3Part {
    pub fn start(client: Arc<Client>, key: String, owner: Owned, tasks: &TaskScope) -> Self {
        let (commands, queue) = mpsc::channel(1);
        let upload = Upload {
            client: Arc::clone(&client),
            key: key.clone(),
            owner: owner.clone(),
            tasks: tasks.clone(),
            gathered: BytesMut::new(),
            upload: None,
            tags: Vec::new(),
            sums: Vec::new(),
            completing: None,
            under_way: VecDeque::new(),
        };
        tasks.spawn("write to S3", upload.run(queue));
        Self { commands, key, client, owner, length: 0 }
    }
}

impl Part for S3Part {
    fn write(&mut self, offset: u64, bytes: Bytes) -> Operation<()> {
        let commands = self.commands.clone();
        let is_next = offset == self.length;
        self.length = offset.saturating_add(bytes.len() as u64);
        Box::pin(async move {
            if !is_next {
                return Err(std::io::Error::other("an object is written with a gap").into());
            }
            let (taken, outcome) = oneshot::channel();
            let sent = commands.send(Command::Write { bytes, taken }).await;
            sent.map_err(|_ended| EngineError::Panicked)?;
            outcome.await.map_err(|_ended| EngineError::Panicked)?
        })
    }

    /// Nothing of an object is there before all of it is.
    fn sync(&mut self) -> Operation<()> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn finish(self: Box<Self>) -> Operation<Box<dyn Opened>> {
        Box::pin(async move {
            let Self { commands, key, client, owner, .. } = *self;
            let (done, outcome) = oneshot::channel();
            let sent = commands.send(Command::Finish { done }).await;
            sent.map_err(|_ended| EngineError::Panicked)?;
            let head = outcome.await.map_err(|_ended| EngineError::Panicked)??;
            Ok(Box::new(S3Object { client, key, head, owner }) as _)
        })
    }
}

struct Upload {
    client: Arc<Client>,
    key: String,
    owner: Owned,
    tasks: TaskScope,
    gathered: BytesMut,
    /// Its name at the server, once there is more than one part.
    upload: Option<String>,
    tags: Vec<String>,
    /// MD5 sums of the same parts.
    sums: Vec<Md5Sum>,
    /// The length of the object, once a request is under way that makes it.
    completing: Option<u64>,
    under_way: VecDeque<oneshot::Receiver<Result<(String, Md5Sum), S3Error>>>,
}

impl Upload {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let Some(_running) = self.owner.begin() else { return };
        while let Some(command) = commands.recv().await {
            match command {
                Command::Write { bytes, taken } => drop(taken.send(self.write(bytes).await)),
                Command::Finish { mut done } => {
                    let finished = tokio::select! {
                        finished = self.finish() => Some(finished),
                        // Whoever wanted it has gone, and was told that it is not there.
                        () = done.closed() => None,
                    };
                    if !matches!(finished, Some(Ok(_))) {
                        self.abort().await;
                    }
                    if let Some(finished) = finished {
                        drop(done.send(finished));
                    }
                    return;
                }
            }
        }
        // Nobody wants it any more.
        self.abort().await;
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), EngineError> {
        let mut rest = bytes;
        loop {
            let number = self.tags.len() + self.under_way.len() + 1;
            let length = length_of(number);
            if number > 1 && self.gathered.is_empty() {
                // Of one piece from the beginning: growing would copy it again and again.
                self.gathered.reserve(length);
            }
            let missing = length - self.gathered.len();
            self.gathered.extend_from_slice(&rest.split_to(rest.len().min(missing)));
            if self.gathered.len() < length {
                return Ok(());
            }
            let body = std::mem::take(&mut self.gathered).freeze();
            self.send(number, body).await?;
        }
    }

    async fn send(&mut self, number: usize, body: Bytes) -> Result<(), EngineError> {
        if number > MAX_PARTS {
            return Err(std::io::Error::other("the object is too long for S3").into());
        }
        let upload = match &self.upload {
            Some(upload) => upload.clone(),
            None => {
                self.give_up_former().await;
                let upload = self.client.begin(&self.key).await.map_err(std::io::Error::from)?;
                self.upload.insert(upload).clone()
            }
        };
        while self.under_way.len() >= AT_A_TIME {
            self.take().await?;
        }
        let (tx, rx) = oneshot::channel();
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        self.tasks.spawn("send a part to S3", async move {
            drop(tx.send(client.part(&key, &upload, number, body).await));
        });
        self.under_way.push_back(rx);
        Ok(())
    }

    /// What a process that died has begun under this key is of nobody: two never write there at a time.
    async fn give_up_former(&self) {
        let begun = self.client.begun(&self.key).await.unwrap_or_default();
        let is_former = |other: &Begun| other.key == self.key && !self.client.is_own(&other.upload);
        for former in begun.into_iter().filter(is_former) {
            tracing::info!(key = self.key, "an upload that nobody ended is given up");
            drop(self.client.abort(&former.key, &former.upload).await);
        }
    }

    /// Waits for the oldest part under way.
    async fn take(&mut self) -> Result<(), EngineError> {
        let Some(oldest) = self.under_way.pop_front() else { return Ok(()) };
        let sent = oldest.await.map_err(|_died| EngineError::Panicked)?;
        let (tag, sum) = sent.map_err(std::io::Error::from)?;
        self.tags.push(tag);
        self.sums.push(sum);
        Ok(())
    }

    async fn finish(&mut self) -> Result<Head, EngineError> {
        let io = std::io::Error::from;
        let rest = self.gathered.split().freeze();
        let all = rest.len() as u64;
        let Some(upload) = self.upload.clone() else {
            self.completing = Some(all);
            self.client.put(&self.key, rest).await.map_err(io)?;
            return self.verify(all).await;
        };
        if !rest.is_empty() {
            let number = self.tags.len() + self.under_way.len() + 1;
            self.send(number, rest).await?;
        }
        while !self.under_way.is_empty() {
            self.take().await?;
        }
        let before: u64 = (1..self.tags.len()).map(|number| length_of(number) as u64).sum();
        let last = if all > 0 { all } else { length_of(self.tags.len()) as u64 };
        self.completing = Some(before + last);
        match self.client.complete(&self.key, &upload, &self.tags).await {
            // An answer that was lost: the upload ended with the first request, the object tells.
            Ok(()) | Err(S3Error::Refused { status: 404, .. }) => self.upload = None,
            Err(error) => return Err(io(error).into()),
        }
        self.verify(before + last).await
    }

    /// The object as the server has it now.
    async fn verify(&self, length: u64) -> Result<Head, EngineError> {
        let head = self.client.head(&self.key).await.map_err(std::io::Error::from)?;
        match head {
            Some(head) if head.length == length => self.verify_tag(head).await,
            Some(head) => {
                let text = format!("{} has {} bytes, {length} were written", self.key, head.length);
                Err(std::io::Error::other(text).into())
            }
            None => Err(std::io::Error::other(format!("{} is not there", self.key)).into()),
        }
    }

    /// An object that was made of other parts than were sent is none.
    async fn verify_tag(&self, head: Head) -> Result<Head, EngineError> {
        let other = tag::of_other_parts(&head.tag, &self.sums).filter(|_other| head.is_plain);
        let Some(sent) = other else { return Ok(head) };
        if let Err(error) = self.client.delete(&self.key).await {
            let error = bedrock::chain(&error);
            tracing::warn!(key = self.key, error, "an object of other bytes is left in the bucket");
        }
        Err(std::io::Error::from(S3Error::Differs { sent, tag: head.tag }).into())
    }

    async fn abort(&mut self) {
        for part in self.under_way.drain(..) {
            // A part that ends later would be kept, and paid for.
            drop(part.await);
        }
        if let Some(upload) = self.upload.take()
            && let Err(error) = self.client.abort(&self.key, &upload).await
        {
            let error = bedrock::chain(&error);
            tracing::warn!(key = self.key, error, "parts of an upload are left in the bucket");
        }
        // The last request may have come to its end all the same.
        let Some(length) = self.completing else { return };
        let taken_back = match self.client.head(&self.key).await {
            Ok(Some(head)) if head.length == length => self.client.delete(&self.key).await,
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = taken_back {
            let error = bedrock::chain(&error);
            tracing::warn!(
                key = self.key,
                error,
                "an object that was given up may be in the bucket"
            );
        }
    }
}
