//! An object as it is, from one store to another: a template, a volume, a snapshot.

use std::sync::Arc;
use std::time::Duration;

use disk_image::{Format, Sizes};

use super::copy::{Original, copy};
use super::image::{format_of_name, sizes};
use super::staging::{MAX_FILES, Staging};
use super::{MoveError, Moves, Permit};
use crate::objects::{inventory, verify};
use crate::stores::{EntryKind, FileName, InstallPath, ObjectKind, Store, Work};

/// How deep an object's directory may be nested.
const DEPTH: usize = 8;
const LOOK: &str = "look at what is to be copied";

/// What is to be copied where.
#[derive(Debug)]
pub struct Migration {
    pub kind: ObjectKind,
    pub from: Arc<Store>,
    /// The object's file or directory.
    pub path: InstallPath,
    pub to: Arc<Store>,
    /// The directory that it gets.
    pub directory: InstallPath,
}

/// An object at its new place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    pub path: InstallPath,
    /// Of the object's file, if it has one.
    pub sizes: Option<Sizes>,
    /// By the file's name.
    pub format: Option<Format>,
}

/// Files to copy, with their places below another directory.
struct Plan {
    files: Vec<(InstallPath, InstallPath, FileName)>,
    /// The object's path at its new place.
    path: InstallPath,
    /// The object's one file, if it is there.
    image: Option<InstallPath>,
}

impl Moves {
    /// Copies an object with all that lies beside it; what lists it comes last. The original is not
    /// touched: the server deletes it.
    pub async fn migrate(
        &self,
        migration: &Migration,
        limit: Duration,
    ) -> Result<Migrated, MoveError> {
        let Migration { kind, path, directory, .. } = migration;
        for (text, place) in [("", path), ("the new place ", directory)] {
            if kind.directory(place).is_none() {
                let tree = kind.tree();
                let kind = kind.name();
                let text = format!("{text}{place} is not a place of a {kind} ({tree}/ACCOUNT/ID)");
                return Err(MoveError::Refused(text));
            }
        }
        // Snapshots of a volume share a directory, and several are copied at a time.
        let target = match path.parts().last() {
            Some(name) if *kind == ObjectKind::Snapshot => directory.join(name.clone()),
            _ => directory.clone(),
        };
        let permit = self.enter(&migration.to, &target, Some(limit)).await?;
        let _turn = permit.during(self.turn()).await?;
        let plan = permit.during(plan(migration)).await?;
        let migrated = permit.during(self.describe(migration, &plan)).await?;
        let is_same = migration.from.url().key() == migration.to.url().key();
        let stays = |(from, directory, name): &(InstallPath, InstallPath, FileName)| {
            is_same && *from == directory.join(name.clone())
        };
        if !plan.files.iter().all(stays) {
            self.copy_all(migration, &plan, &permit).await?;
        }
        Ok(migrated)
    }

    /// What the server is told of the object.
    async fn describe(&self, migration: &Migration, plan: &Plan) -> Result<Migrated, MoveError> {
        let format = plan.path.parts().last().and_then(|name| format_of_name(name.as_str()));
        let sizes = match &plan.image {
            Some(image) => {
                let original = Original::open(&migration.from, image).await?;
                Some(sizes(&self.tasks, Arc::clone(original.file()), format).await?)
            }
            None => listed_sizes(migration).await?,
        };
        Ok(Migrated { path: plan.path.clone(), sizes, format })
    }

    async fn copy_all(
        &self,
        migration: &Migration,
        plan: &Plan,
        permit: &Permit,
    ) -> Result<(), MoveError> {
        let object = match migration.kind {
            ObjectKind::Snapshot => None,
            kind => Some((kind, migration.directory.clone())),
        };
        let targets =
            plan.files.iter().map(|(_, directory, name)| (directory.clone(), name.clone()));
        let staging = Staging::begin(self, &migration.to, object, targets.collect()).await?;
        let progress = permit.progress();
        let copying = async {
            let mut originals = Vec::new();
            for (nth, (path, _, _)) in plan.files.iter().enumerate() {
                let original = Original::open(&migration.from, path).await?;
                progress.expect(original.length());
                drop(copy(&original, &staging, nth, progress).await?);
                originals.push(original);
            }
            // All of them together must be what they were when the first was begun.
            for original in &originals {
                original.verify().await?;
            }
            Ok::<_, MoveError>(())
        };
        let copied = permit.during(copying).await;
        staging.conclude(copied, permit).await
    }
}

/// The sizes that the properties tell, of an object whose file is made when somebody needs it.
async fn listed_sizes(migration: &Migration) -> Result<Option<Sizes>, MoveError> {
    let Migration { kind, from, path, .. } = migration;
    let Some(directory) = kind.directory(path).filter(|_path| *kind != ObjectKind::Snapshot) else {
        return Ok(None);
    };
    let item = inventory::find(from, *kind, &directory).await?;
    Ok(item.map(|item| Sizes {
        virtual_size: u64::try_from(item.virtual_size).unwrap_or(0),
        physical_size: u64::try_from(item.physical_size).unwrap_or(0),
    }))
}

/// The server names a file, a directory, or a file whose ending it does not know.
async fn plan(migration: &Migration) -> Result<Plan, MoveError> {
    let Migration { kind, from, path, directory, .. } = migration;
    let work = Work::new();
    let not_there = || MoveError::NotThere { path: path.clone(), store: from.url().to_string() };
    let found = from.run(LOOK, from.engine().kind(&work, path.clone())).await?;
    let (above, name) = path.split().ok_or_else(not_there)?;
    let is_file = found == Some(EntryKind::File);
    if *kind == ObjectKind::Snapshot {
        if is_file {
            let files = vec![(path.clone(), directory.clone(), name.clone())];
            return Ok(Plan { files, path: directory.join(name.clone()), image: None });
        }
        // VMware's have a directory of their own; the path names files in it that have endings.
        let (volume, own) = above.split().ok_or_else(not_there)?;
        if kind.directory(&volume).is_none() {
            return Err(not_there());
        }
        let new = directory.join(own.clone());
        let files = files_below(from, &above, &new).await?;
        let path = new.join(name.clone());
        return if files.is_empty() {
            Err(not_there())
        } else {
            Ok(Plan { files, path, image: None })
        };
    }
    let is_directory = found == Some(EntryKind::Directory);
    let (source, target, path) = match found {
        Some(EntryKind::Directory) if *kind == ObjectKind::Volume => {
            // VMware's volumes have a directory of their own below that of the volume.
            let is_own = kind.directory(&above) == Some(above.clone());
            let new = if is_own { directory.join(name.clone()) } else { directory.clone() };
            (path.clone(), new, path.clone())
        }
        Some(EntryKind::Directory) => {
            (path.clone(), directory.clone(), directory.join(name.clone()))
        }
        Some(EntryKind::File) | None => {
            (above.clone(), directory.clone(), directory.join(name.clone()))
        }
        Some(EntryKind::Other) => return Err(not_there()),
    };
    if kind.directory(&source).is_none() {
        return Err(not_there());
    }
    let files = files_below(from, &source, &target).await?;
    // Without a file of that name, one whose ending is not told must be there, or what it is packed of.
    let begins = |(_, _, other): &(InstallPath, InstallPath, FileName)| {
        other.as_str().starts_with(name.as_str())
    };
    if files.is_empty() || !(is_file || is_directory || files.iter().any(begins)) {
        return Err(not_there());
    }
    let image = is_file.then(|| migration.path.clone());
    Ok(Plan { files, path, image })
}

/// Every finished file below a directory, with its place below another; properties last.
async fn files_below(
    store: &Store,
    source: &InstallPath,
    target: &InstallPath,
) -> Result<Vec<(InstallPath, InstallPath, FileName)>, MoveError> {
    let work = Work::new();
    let mut files = Vec::new();
    let mut waiting = vec![(source.clone(), target.clone())];
    while let Some((from, to)) = waiting.pop() {
        if from.parts().len() > source.parts().len() + DEPTH {
            return Err(MoveError::Refused(format!("{from} is nested too deeply to be copied")));
        }
        let entries = store.run(LOOK, store.engine().entries(&work, Some(from.clone()))).await?;
        for entry in entries.unwrap_or_default() {
            if verify::is_temporary(&entry.name) {
                continue;
            }
            let Ok(name) = entry.name.parse::<FileName>() else {
                let name = entry.name;
                return Err(MoveError::Refused(format!("{from} holds {name:?}, which is no name")));
            };
            match entry.kind {
                EntryKind::Directory => waiting.push((from.join(name.clone()), to.join(name))),
                EntryKind::File => files.push((from.join(name.clone()), to.clone(), name)),
                EntryKind::Other => {
                    tracing::warn!(path = %from.join(name), "neither a file nor a directory: not copied");
                }
            }
            if files.len() > MAX_FILES {
                let text = format!("{source} holds more than {MAX_FILES} files");
                return Err(MoveError::Refused(text));
            }
        }
    }
    let lists =
        |name: &FileName| ObjectKind::ALL.iter().any(|kind| kind.properties_file() == *name);
    files.sort_by(|a, b| (lists(&a.2), &a.0).cmp(&(lists(&b.2), &b.0)));
    Ok(files)
}
