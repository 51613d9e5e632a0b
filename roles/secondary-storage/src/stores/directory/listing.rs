//! Every object below a tree that has an index.
//!
//! A zone may have a hundred thousand, and each costs some questions to the file system, round trips on
//! a network: what lies two levels below the tree is looked at by several threads.

use std::io::ErrorKind;
use std::thread;

use super::{Dir, Outcome, absent, read_small};
use crate::stores::engine::{EngineError, EntryKind, Listed};
use crate::stores::path::{FileName, InstallPath};

/// The tree, then account, then object; other parties nest no deeper.
const DEPTH: u8 = 5;
/// A bound on the answer; far more than a zone has.
const MAX_LISTED: usize = 200_000;
/// Threads of one listing.
const THREADS: usize = 8;
/// Directories for which a thread is worth starting.
const WORTH: usize = 256;

/// What one directory is.
struct Looked {
    object: Option<Listed>,
    directories: Vec<FileName>,
}

/// Lists what is below `start`, the directory at `tree`. Blocks.
pub(super) fn list(start: &Dir, tree: &InstallPath, index: &FileName) -> Outcome<Vec<Listed>> {
    let top = look(start, tree, index)?;
    let mut found: Vec<Listed> = top.object.into_iter().collect();
    let mut inner = Vec::new();
    for (at, name) in top.directories.iter().enumerate() {
        let Some(dir) = absent(start.open_dir(name.as_str()))? else { continue };
        let looked = look(&dir, &tree.join(name.clone()), index)?;
        add(&mut found, looked.object)?;
        inner.extend(looked.directories.into_iter().map(|name| (at, name)));
    }
    let threads = THREADS.min(inner.len() / WORTH).max(1);
    let each = inner.len().div_ceil(threads).max(1);
    let part = |part: &[(usize, FileName)]| below(start, tree, &top.directories, part, index);
    let parts: Vec<Outcome<Vec<Listed>>> = if threads == 1 {
        inner.chunks(each).map(part).collect()
    } else {
        thread::scope(|scope| {
            let start = |chunk| {
                let name = "ss-list".to_owned();
                thread::Builder::new().name(name).spawn_scoped(scope, move || part(chunk))
            };
            let running: Vec<_> = inner.chunks(each).map(start).collect();
            let end = |handle: std::io::Result<thread::ScopedJoinHandle<'_, _>>| {
                handle?.join().map_err(|_panic| EngineError::Panicked)?
            };
            running.into_iter().map(end).collect()
        })
    };
    for part in parts {
        for listed in part? {
            add(&mut found, Some(listed))?;
        }
    }
    Ok(found)
}

/// Lists some of the directories of accounts, which are given by their places in `accounts`.
fn below(
    start: &Dir,
    tree: &InstallPath,
    accounts: &[FileName],
    part: &[(usize, FileName)],
    index: &FileName,
) -> Outcome<Vec<Listed>> {
    let mut found = Vec::new();
    for of_one in part.chunk_by(|(one, _), (other, _)| one == other) {
        let account = of_one.first().and_then(|(at, _)| accounts.get(*at));
        let Some(account) = account else { continue };
        let Some(dir) = absent(start.open_dir(account.as_str()))? else { continue };
        let path = tree.join(account.clone());
        for (_, name) in of_one {
            if let Some(inner) = absent(dir.open_dir(name.as_str()))? {
                descend(&inner, &path.join(name.clone()), index, DEPTH - 3, &mut found)?;
            }
        }
    }
    Ok(found)
}

fn descend(
    dir: &Dir,
    path: &InstallPath,
    index: &FileName,
    deeper: u8,
    found: &mut Vec<Listed>,
) -> Outcome<()> {
    let Looked { object, directories } = look(dir, path, index)?;
    if let Some(deeper) = deeper.checked_sub(1) {
        for name in directories {
            if let Some(inner) = absent(dir.open_dir(name.as_str()))? {
                descend(&inner, &path.join(name), index, deeper, found)?;
            }
        }
    }
    add(found, object)
}

fn add(found: &mut Vec<Listed>, object: Option<Listed>) -> Outcome<()> {
    if object.is_some() && found.len() >= MAX_LISTED {
        return Err(std::io::Error::other("the store holds too many objects").into());
    }
    found.extend(object);
    Ok(())
}

fn look(dir: &Dir, path: &InstallPath, index: &FileName) -> Outcome<Looked> {
    let mut looked = Looked { object: None, directories: Vec::new() };
    let entries = match dir.entries() {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(looked),
        Err(error) => return Err(error.into()),
    };
    let mut names = Vec::new();
    let mut is_object = false;
    for (name, kind) in entries {
        // A name that cannot come from the management server cannot be listed to it either.
        let Some(name) = name.to_str().and_then(|name| name.parse::<FileName>().ok()) else {
            continue;
        };
        if kind == EntryKind::Directory {
            looked.directories.push(name);
        } else {
            is_object |= kind == EntryKind::File && name == *index;
            names.push(name.as_str().to_owned());
        }
    }
    if is_object && let Some(content) = read_small(dir, index.as_str())? {
        looked.object = Some(Listed { directory: path.clone(), index: content, names });
    }
    Ok(looked)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn many_objects_of_many_accounts_are_listed_once_each_whatever_thread_looks() {
        let temp = tempfile::tempdir().unwrap();
        let mut expected = BTreeSet::new();
        for number in 0..3 * WORTH {
            // One account has half of them, and some are nested deeper or not at all.
            let account = if number % 2 == 0 { 2 } else { number };
            let place = match number {
                5 => "5".to_owned(),
                7 => "7/7/a/b".to_owned(),
                _ => format!("{account}/{number}"),
            };
            fs::create_dir_all(temp.path().join(&place)).unwrap();
            fs::write(temp.path().join(&place).join("index"), &place).unwrap();
            expected.insert(format!("template/tmpl/{place}"));
        }
        fs::create_dir_all(temp.path().join("9/9/a/b/c")).unwrap();
        fs::write(temp.path().join("9/9/a/b/c/index"), "too deep").unwrap();
        let start = Dir::open_root(temp.path()).unwrap();
        let (tree, index) = ("template/tmpl".parse().unwrap(), "index".parse().unwrap());
        let found = list(&start, &tree, &index).unwrap();
        assert_eq!(found.len(), expected.len());
        let places = found.iter().map(|listed| listed.directory.to_string());
        assert_eq!(places.collect::<BTreeSet<_>>(), expected);
        for listed in &found {
            let place = format!("template/tmpl/{}", String::from_utf8_lossy(&listed.index));
            assert_eq!(
                (place, &*listed.names),
                (listed.directory.to_string(), &["index".into()][..])
            );
        }
    }
}
