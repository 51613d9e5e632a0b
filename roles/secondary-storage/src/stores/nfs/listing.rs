//! Reading directories: all of it or an error, whatever the server sends.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use nfs3::procedures::{Entry, Listing, ReadDirectory, ReadDirectoryPlus, Verifier};
use nfs3::{Attributes, FileType, Handle, Status};
use role::BoxFuture;

use super::client::Session;
use super::connection::Lane;
use super::error::NfsError;
use crate::stores::engine::Listed;
use crate::stores::path::{FileName, InstallPath};

/// Far more than an account has templates; a bound against an endless directory.
const MAX_ENTRIES: usize = 100_000;
/// A bound on the answer; far more than a zone has.
const MAX_LISTED: usize = 200_000;
/// How often a directory is read again because its positions lost their meaning.
const RESTARTS: u8 = 8;
/// Directories that are read at the same time.
const AT_A_TIME: usize = 12;
/// How often a directory that went stale is looked for again.
const STALE_ROUNDS: u8 = 2;

/// A name in a directory, and what it is.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: Bytes,
    pub(super) handle: Handle,
    pub(super) attributes: Attributes,
}

enum Part {
    Next(Listing),
    Restart,
}

impl Session {
    /// All entries but `.` and `..`; one that vanishes meanwhile is left out.
    pub(super) async fn entries(
        &self,
        directory: &Handle,
        count: u32,
        subject: &str,
    ) -> Result<Vec<Named>, NfsError> {
        let content = |problem| NfsError::Content { subject: subject.to_owned(), problem };
        let mut is_plus = true;
        'again: for _round in 0..RESTARTS {
            let mut found = Vec::new();
            let (mut cookie, mut verifier) = (0, Verifier([0; 8]));
            loop {
                let place = ReadDirectory { directory: directory.clone(), cookie, verifier, count };
                let listing = match self.part(place, &mut is_plus, subject).await? {
                    Part::Next(listing) => listing,
                    Part::Restart => continue 'again,
                };
                if cookie != 0 && listing.verifier != verifier {
                    continue 'again;
                }
                verifier = listing.verifier;
                match listing.entries.last() {
                    Some(last) if last.cookie == cookie && !listing.is_end => {
                        return Err(content("is listed in circles by the server"));
                    }
                    Some(last) => cookie = last.cookie,
                    None if !listing.is_end => {
                        return Err(content("is listed without end by the server"));
                    }
                    None => {}
                }
                let names = listing.entries.into_iter();
                found.extend(names.filter(|entry| !matches!(&*entry.name, b"." | b".." | b"")));
                if found.len() > MAX_ENTRIES {
                    return Err(content("has too many entries"));
                }
                if listing.is_end {
                    return self.complete(directory, found).await;
                }
            }
        }
        Err(content("changes all the time while it is read"))
    }

    async fn part(
        &self,
        place: ReadDirectory,
        is_plus: &mut bool,
        subject: &str,
    ) -> Result<Part, NfsError> {
        let (name, reply) = if *is_plus {
            let plus = ReadDirectoryPlus(place.clone());
            ("READDIRPLUS", self.exchange(Lane::Quick, &plus).await?.reply)
        } else {
            ("READDIR", self.exchange(Lane::Quick, &place).await?.reply)
        };
        match reply {
            Ok(listing) => Ok(Part::Next(listing)),
            Err(Status::BAD_COOKIE) if place.cookie != 0 => Ok(Part::Restart),
            Err(Status::NOT_SUPPORTED) if *is_plus => {
                *is_plus = false;
                Ok(Part::Restart)
            }
            Err(status) => Err(self.client.refused(name, subject, status)),
        }
    }

    /// Asks for what the server left out.
    async fn complete(
        &self,
        directory: &Handle,
        found: Vec<Entry>,
    ) -> Result<Vec<Named>, NfsError> {
        let mut named = Vec::with_capacity(found.len());
        for Entry { name, attributes, handle, .. } in found {
            let (handle, attributes) = match (handle, attributes) {
                (Some(handle), Some(attributes)) => (handle, attributes),
                _ => match self.lookup(directory, &name).await? {
                    Some(node) => (node.handle, node.attributes),
                    None => continue,
                },
            };
            named.push(Named { name, handle, attributes });
        }
        Ok(named)
    }

    /// Every directory at or below `start` with a file called `index` in it.
    pub(super) async fn objects(
        &self,
        start: Handle,
        path: InstallPath,
        index: &FileName,
        depth: u8,
        count: u32,
    ) -> Result<Vec<Listed>, NfsError> {
        let first = Place { parent: None, handle: start, path, depth };
        let mut waiting = VecDeque::from([first]);
        let mut under_way = FuturesUnordered::new();
        let mut objects = Vec::new();
        loop {
            while under_way.len() < AT_A_TIME
                && let Some(place) = waiting.pop_front()
            {
                under_way.push(self.visit(place, index.clone(), count));
            }
            let Some(visited) = under_way.next().await else { break };
            let Visited { deeper, object } = visited?;
            // Deeper ones first: what waits stays small.
            for place in deeper {
                waiting.push_front(place);
            }
            objects.extend(object);
            if objects.len() > MAX_LISTED {
                let subject = "the store".to_owned();
                return Err(NfsError::Content { subject, problem: "holds too many objects" });
            }
        }
        objects.sort_by(|a, b| a.directory.cmp(&b.directory));
        Ok(objects)
    }

    fn visit(
        &self,
        mut place: Place,
        index: FileName,
        count: u32,
    ) -> BoxFuture<'static, Result<Visited, NfsError>> {
        let this = self.clone();
        Box::pin(async move {
            let mut round = 0;
            loop {
                let outcome = this.look_into(&place, &index, count).await;
                let stale = match outcome {
                    Err(error) if error.is_stale() && round < STALE_ROUNDS => error,
                    outcome => return outcome,
                };
                round += 1;
                // Removed by somebody, or known by another handle now.
                let Some((parent, name)) = &place.parent else { return Err(stale) };
                match this.lookup(parent, name.as_str().as_bytes()).await? {
                    Some(node) if node.attributes.file_type == FileType::Directory => {
                        place.handle = node.handle;
                    }
                    _ => return Ok(Visited::default()),
                }
            }
        })
    }

    async fn look_into(
        &self,
        place: &Place,
        index: &FileName,
        count: u32,
    ) -> Result<Visited, NfsError> {
        let mut visited = Visited::default();
        let Some(depth) = place.depth.checked_sub(1) else { return Ok(visited) };
        let subject = place.path.to_string();
        let mut names = Vec::new();
        let mut content = None;
        for entry in self.entries(&place.handle, count, &subject).await? {
            // A name that cannot come from the management server cannot be listed to it either.
            let Some(name) = std::str::from_utf8(&entry.name)
                .ok()
                .and_then(|name| name.parse::<FileName>().ok())
            else {
                continue;
            };
            if entry.attributes.file_type == FileType::Directory {
                visited.deeper.push(Place {
                    path: place.path.join(name.clone()),
                    parent: Some((place.handle.clone(), name)),
                    handle: entry.handle,
                    depth,
                });
                continue;
            }
            if entry.attributes.file_type == FileType::Regular && name == *index {
                content = self.read_small(&place.handle, name.as_str().as_bytes()).await?;
            }
            names.push(name.as_str().to_owned());
        }
        if let Some(index) = content {
            visited.object = Some(Listed { directory: place.path.clone(), index, names });
        }
        Ok(visited)
    }
}

/// A directory to be read.
#[derive(Debug)]
struct Place {
    /// Where it is found again when its handle goes stale.
    parent: Option<(Handle, FileName)>,
    handle: Handle,
    path: InstallPath,
    depth: u8,
}

#[derive(Debug, Default)]
struct Visited {
    deeper: Vec<Place>,
    object: Option<Listed>,
}
