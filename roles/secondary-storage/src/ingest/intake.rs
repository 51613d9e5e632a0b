//! One object on its way into a store, wherever its bytes come from: a download, an upload.
//!
//! ```text
//! begin (note on disk) ─▶ receive (once for each file) ─▶ check ─▶ publish ─▶ settle
//!                                  any failure, any crash ─────────────────▶ clean_up
//! ```
//!
//! The caller brings pieces of bytes and an owner of the work; everything that is on the store or
//! in the journal happens here. After an error, or when the future of one of these steps was
//! dropped, [`clean_up`] removes what is there, once the owner's work has ended.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::DownloadContext;
use super::describe;
use super::digest::{Computed, Expectation};
use super::error::IngestError;
use super::journal::{Note, properties_temporary, remove_leftovers};
use super::progress::Progress;
use super::publish::{Publication, image_name, publish};
use super::unpack::unpack;
use super::write::{Begun, Piece, Target, Written, write};
use crate::objects::inventory::Description;
use crate::sources::Coding;
use crate::stores::{FileName, InstallPath, ObjectKind, Opened, Part, Store, Work};
use agent_protocol::storage::OVFInformationTO;
use disk_image::ova::Package;
use disk_image::{Format, Sizes};

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// One image of this format, judged as such; compressed or not.
    Image(Format),
    /// Files of a store as they are: a snapshot copied from another zone.
    Files,
}

impl Content {
    /// The format of an image.
    pub const fn format(self) -> Option<Format> {
        match self {
            Self::Image(format) => Some(format),
            Self::Files => None,
        }
    }
}

/// What is to become of the bytes.
#[derive(Debug, Clone)]
pub struct Order {
    pub kind: ObjectKind,
    pub content: Content,
    /// The object's directory below the store's root.
    pub directory: InstallPath,
    /// The digest that is reported, and compared when it has a value.
    pub expectation: Expectation,
    /// Further digests that the bytes must have, from a metalink for one.
    pub hashes: Vec<Expectation>,
    /// Largest image after decompression.
    pub decompressed_limit: u64,
    /// How many times as long as what was received an image may be.
    pub decompression_ratio: u64,
    /// The file's name, for a store that writes files under their own names.
    pub own_name: Option<FileName>,
}

/// What is known of bytes before they come.
#[derive(Debug, Default)]
pub struct Incoming {
    /// What the transfer put around the content.
    pub coding: Coding,
    /// Digests that their source names, beside those of the order.
    pub hashes: Vec<Expectation>,
    /// What is there already; the bytes are the rest.
    pub begun: Option<(Box<dyn Part>, Begun)>,
    /// Told how far the file is.
    pub progress: Progress,
}

/// An object being received. Its note is in the journal until [`Intake::settle`] or [`clean_up`].
#[derive(Debug)]
pub struct Intake<'a> {
    cx: &'a DownloadContext,
    store: Arc<Store>,
    work: &'a Work,
    id: &'a str,
    order: Order,
    note: Note,
}

/// A complete and sound object that is not listed yet.
#[derive(Debug)]
pub struct Ready {
    /// Below the store's root: the file, or the directory of several.
    pub install_path: InstallPath,
    pub sizes: Sizes,
    /// What an operator may want to know about an image that is usable.
    pub warnings: Vec<String>,
    /// The machine that an OVA describes.
    pub ovf: Option<Arc<OVFInformationTO>>,
    image: FileName,
    /// Temporaries and the names that they get.
    renames: Vec<(FileName, FileName)>,
}

impl Ready {
    pub const fn image(&self) -> &FileName {
        &self.image
    }
}

impl<'a> Intake<'a> {
    /// Notes what is going to be created. `id` is a UUID nobody else uses; `files` is how many
    /// there are, one unless the content is [`Content::Files`].
    pub async fn begin(
        cx: &'a DownloadContext,
        store: &Arc<Store>,
        work: &'a Work,
        id: &'a str,
        order: Order,
        files: usize,
    ) -> Result<Self, IngestError> {
        let temporary = temporary_name(id, 0)?;
        let more = (1..files).map(|nth| temporary_name(id, nth)).collect::<Result<_, _>>()?;
        let note = Note {
            store: store.url().clone(),
            directory: order.directory.clone(),
            kind: order.kind,
            temporary,
            image: None,
            files: more,
        };
        let intake = Self { cx, store: Arc::clone(store), work, id, order, note };
        intake.write_note().await?;
        Ok(intake)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The file that the `nth` file is received into.
    pub fn temporary(&self, nth: usize) -> Result<FileName, IngestError> {
        temporary_name(self.id, nth)
    }

    /// The name that it has while it is received.
    pub fn name_while(&self, nth: usize) -> Result<FileName, IngestError> {
        match &self.order.own_name {
            _ if !self.store.engine().is_flat() => self.temporary(nth),
            Some(name) if nth == 0 => Ok(name.clone()),
            _ => Err(IngestError::OneFile(self.store.place())),
        }
    }

    async fn write_note(&self) -> Result<(), IngestError> {
        let (journal, id, note) = (self.cx.journal.clone(), self.id.to_owned(), self.note.clone());
        let work = move || journal.write(&id, &note);
        self.cx.tasks.blocking("note a file", work).await?.map_err(IngestError::Journal)?;
        Ok(self.cx.sharing.note(&self.store, self.id, &self.note).await?)
    }

    /// Receives the `nth` file from its first byte; what an earlier pass left of it is replaced.
    /// `coding` is what the transfer put around the content.
    pub async fn receive(
        &self,
        nth: usize,
        coding: Coding,
        pieces: mpsc::Receiver<Piece>,
    ) -> Result<Written, IngestError> {
        let incoming = Incoming { coding, ..Incoming::default() };
        self.receive_announced(nth, incoming, pieces).await
    }

    /// As [`Intake::receive`], with what is known beforehand. The further digests are compared.
    pub async fn receive_announced(
        &self,
        nth: usize,
        incoming: Incoming,
        pieces: mpsc::Receiver<Piece>,
    ) -> Result<Written, IngestError> {
        let Incoming { coding, hashes, begun, progress } = incoming;
        let (part, begun) = match begun {
            Some((part, begun)) => (part, Some(begun)),
            None => {
                let (directory, name) = (self.order.directory.clone(), self.name_while(nth)?);
                let creating = self.store.engine().create(self.work, directory, name);
                (self.store.run("create a file", creating).await?, None)
            }
        };
        let target = Target {
            store: Arc::clone(&self.store),
            part,
            content: self.order.content,
            expectation: self.order.expectation.clone(),
            hashes: self.order.hashes.iter().chain(&hashes).cloned().collect(),
            coding,
            limit: self.order.decompressed_limit,
            begun,
            progress,
            ratio: self.order.decompression_ratio,
        };
        let written = write(target, pieces).await?;
        for (hash, found) in hashes.iter().zip(written.hashes.iter().skip(self.order.hashes.len()))
        {
            hash.verify(found).map_err(IngestError::Checksum)?;
        }
        Ok(written)
    }

    /// What an earlier run of this process left of the `nth` file, to go on with; `None` when it
    /// has fewer than `length` bytes.
    pub async fn left(
        &self,
        nth: usize,
        length: u64,
    ) -> Result<Option<(Box<dyn Part>, Box<dyn Opened>)>, IngestError> {
        let (directory, name) = (self.order.directory.clone(), self.temporary(nth)?);
        let engine = self.store.engine();
        let opening = engine.append(self.work, directory.clone(), name.clone(), length);
        let Some(part) = self.store.run("go on with a file", opening).await? else {
            return Ok(None);
        };
        let opening = engine.open(self.work, directory.join(name));
        let opened = self.store.run("go on with a file", opening).await?;
        Ok(opened.map(|opened| (part, opened)))
    }

    /// The digests of nothing yet, `more` included.
    pub fn digests(&self, more: &[Expectation]) -> Computed {
        let hashes: Vec<Expectation> = self.order.hashes.iter().chain(more).cloned().collect();
        Computed::new(&self.order.expectation, &hashes)
    }

    /// Compares the digests with those that were asked for.
    pub fn verify(&self, written: &Written) -> Result<(), IngestError> {
        if let Some(found) = &written.checksum {
            self.order.expectation.verify(found).map_err(IngestError::Checksum)?;
        }
        for (hash, found) in self.order.hashes.iter().zip(&written.hashes) {
            hash.verify(found).map_err(IngestError::Checksum)?;
        }
        Ok(())
    }

    /// The name that an image will have.
    pub fn image_name(&self, about: &Description) -> Result<FileName, IngestError> {
        let bad = || IngestError::Name(about.unique_name.clone());
        let format = self.order.content.format().ok_or_else(bad)?;
        image_name(&about.unique_name, format, self.cx.host.clock.unix_ms()).map_err(|_bad| bad())
    }

    /// Judges a received file that is to be called `image`, and unpacks what lies beside it.
    pub async fn check(&mut self, written: Written, image: FileName) -> Result<Ready, IngestError> {
        let is_flat = self.store.engine().is_flat();
        if is_flat && written.inspection.is_err() {
            // It has its name already.
            let removing = self
                .store
                .engine()
                .remove_file(self.work, self.order.directory.join(image.clone()));
            self.store.run("remove a file", removing).await?;
        }
        let inspection = written.inspection.map_err(IngestError::Image)?;
        let notices = inspection.notices.iter().map(ToString::to_string);
        let beside = written.beside.map(|beside| beside.to_string());
        let warnings: Vec<String> = notices.chain(beside).collect();
        for warning in &warnings {
            tracing::warn!(id = self.id, warning, "the received file is odd, it is installed");
        }
        let mut renames = Vec::new();
        if !is_flat {
            renames.push((self.note.temporary.clone(), image.clone()));
        }
        let mut ovf = None;
        if let Some(package) = inspection.package {
            if !is_flat {
                renames.extend(self.unpack(&package, &written.file).await?);
            }
            let (tasks, directory) = (&self.cx.tasks, &self.order.directory);
            let described =
                describe::of_archive(tasks, &self.store, directory, package, &written.file);
            ovf = Some(Arc::new(described.await?));
        }
        Ok(Ready {
            install_path: self.order.directory.join(image.clone()),
            sizes: inspection.sizes,
            warnings,
            ovf,
            renames,
            image,
        })
    }

    /// Judges several received files that are to have these names.
    pub async fn gather(
        &mut self,
        written: Vec<Written>,
        names: &[FileName],
    ) -> Result<Ready, IngestError> {
        let mut physical_size = 0_u64;
        let mut renames = Vec::new();
        for (nth, (written, name)) in written.into_iter().zip(names).enumerate() {
            let inspection = written.inspection.map_err(|error| IngestError::File {
                name: name.to_string(),
                error: Box::new(error),
            })?;
            physical_size = physical_size.saturating_add(inspection.sizes.physical_size);
            renames.push((self.temporary(nth)?, name.clone()));
        }
        // Noted before they are there.
        self.note.files = renames.iter().flat_map(|(from, to)| [from, to]).cloned().collect();
        self.write_note().await?;
        Ok(Ready {
            install_path: self.order.directory.clone(),
            sizes: Sizes { virtual_size: physical_size, physical_size },
            warnings: Vec::new(),
            ovf: None,
            renames,
            image: names.first().cloned().ok_or(IngestError::Internal)?,
        })
    }

    /// Unpacks an archive's members; gives their temporaries and names.
    async fn unpack(
        &mut self,
        package: &Package,
        archive: &Arc<dyn Opened>,
    ) -> Result<Vec<(FileName, FileName)>, IngestError> {
        let mut renames = Vec::new();
        for (at, file) in package.files.iter().enumerate() {
            let name = file.name.parse().map_err(|_bad| IngestError::Name(file.name.clone()))?;
            renames.push((self.temporary(at + 1)?, name));
        }
        // Noted before they are there.
        self.note.files = renames.iter().flat_map(|(from, to)| [from, to]).cloned().collect();
        self.write_note().await?;
        for (file, (temporary, _)) in package.files.iter().zip(&renames) {
            let creating = self.store.engine().create(
                self.work,
                self.order.directory.clone(),
                temporary.clone(),
            );
            let part = self.store.run("create a file", creating).await?;
            unpack(&self.store, archive, file, part).await?;
        }
        Ok(renames)
    }

    /// Makes the files an object of the store. When this fails late, the object may be there all
    /// the same: see [`super::publish::is_published`].
    pub async fn publish(&mut self, ready: &Ready, about: Description) -> Result<(), IngestError> {
        self.note.image = Some(ready.image.clone());
        self.write_note().await?;
        let aside = properties_temporary(self.id);
        let publication = Publication {
            kind: self.order.kind,
            directory: self.order.directory.clone(),
            renames: ready.renames.clone(),
            image: ready.image.clone(),
            aside: aside.map_err(|_bad| IngestError::Name(self.id.to_owned()))?,
            about,
            content: self.order.content,
            sizes: ready.sizes,
            now: self.cx.host.clock.now(),
        };
        if !self.cx.sharing.is_ours(&self.store, self.id).await {
            // Whoever took it over makes it visible.
            return Err(IngestError::Aborted);
        }
        // Remembered first: from now on an empty place is not this store.
        self.cx.stores.remember_held(&self.store).await?;
        publish(&self.store, self.work, publication).await?;
        Ok(())
    }
}

/// Forgets the note of an object that is there.
pub async fn settle(cx: &DownloadContext, id: &str) {
    let (journal, owned) = (cx.journal.clone(), id.to_owned());
    let erased = cx.tasks.blocking("erase a note", move || journal.erase(&owned)).await;
    if let Ok(Err(error)) = erased {
        tracing::warn!(id, error = bedrock::chain(&error), "cannot erase the note of an object");
    }
}

/// Removes what an unfinished object left on its store, then its note. The owner's work must have
/// ended. When this fails the note stays, and the next start of the process tries again.
pub async fn clean_up(cx: &DownloadContext, id: &str) -> Result<(), IngestError> {
    let (journal, owned) = (cx.journal.clone(), id.to_owned());
    let read = cx.tasks.blocking("read a note", move || journal.read(&owned)).await?;
    let Some(mut note) = read.map_err(IngestError::Journal)? else { return Ok(()) };
    let store = cx.stores.open(&note.store, None).await?;
    if !cx.sharing.is_ours(&store, id).await {
        // Whoever took it over may have made files of the final names.
        note = note.without_final_names();
    }
    remove_leftovers(&store, id, &note).await?;
    settle(cx, id).await;
    Ok(())
}

/// The name that the original's temporaries have, so that an operator knows what it is.
pub(super) fn temporary_name(id: &str, nth: usize) -> Result<FileName, IngestError> {
    let digits = id.parse::<uuid::Uuid>().map_or(0, |id| id.as_u64_pair().0);
    let number = if nth == 0 { String::new() } else { nth.to_string() };
    let name = format!("dnld{digits}tmp_{number}");
    name.parse().map_err(|_bad| IngestError::Name(name))
}
