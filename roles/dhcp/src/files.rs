//! The rendered files on disk: prepared, read back, replaced whole.
//!
//! They are disposable: whatever happens to them, the next pass writes them again from the desired
//! state, before dnsmasq is started. So a replacement is atomic but not synced. Temporary files lie
//! outside the directories dnsmasq watches.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::layout::Layout;
use crate::leases;
use crate::machine::RunAs;
use crate::plan::{Addition, OnDisk};
use crate::render::{HostLine, Rendered, Settings};

/// A file operation that failed, with its object.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub(crate) struct FileError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_owned();
    move |source| FileError { what, path, source }
}

/// Creates the directories.
pub(crate) fn prepare(layout: &Layout) -> Result<(), FileError> {
    let watched = [layout.hosts_directory(), layout.names_directory(), layout.leases_directory()];
    for directory in std::iter::once(layout.directory().to_owned()).chain(watched) {
        fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        set_mode(&directory, 0o755)?;
    }
    // The directory above holds the desired state: others may pass, not look.
    match layout.directory().parent() {
        Some(parent) => set_mode(parent, 0o711),
        None => Ok(()),
    }
}

/// Makes the directory ours until the file is closed, however we end. Two processes with the same
/// files would take each other's dnsmasq for an orphan.
pub(crate) fn lock(layout: &Layout) -> Result<File, FileError> {
    let path = layout.directory().join("lock");
    let file = File::create(&path).map_err(failed("create", &path))?;
    file.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            let text = "another quickcloud serves from this directory";
            failed("lock", &path)(io::Error::new(io::ErrorKind::WouldBlock, text))
        }
        TryLockError::Error(error) => failed("lock", &path)(error),
    })?;
    Ok(file)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), FileError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("set the mode of", path))
}

/// Gives the leases to the account dnsmasq runs as.
pub(crate) fn hand_over_leases(layout: &Layout, run_as: &RunAs) -> Result<(), FileError> {
    let (user, group) = match run_as {
        RunAs::Plain => return Ok(()),
        RunAs::Root => (0, 0),
        RunAs::Account { user, group, .. } => (*user, *group),
    };
    for path in [layout.leases_directory(), layout.leases()] {
        match std::os::unix::fs::chown(&path, Some(user), Some(group)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("hand over", &path)(error)),
        }
    }
    Ok(())
}

/// Takes leases without a reservation out of the file, while dnsmasq is down. Returns how many.
pub(crate) fn prune_leases(layout: &Layout, hosts: &[HostLine]) -> Result<usize, FileError> {
    let path = layout.leases();
    let stale = leases::read(&path)
        .map_err(failed("read", &path))?
        .into_iter()
        .filter(|lease| !is_reserved(hosts, lease))
        .count();
    if stale > 0 {
        let text = fs::read_to_string(&path).map_err(failed("read", &path))?;
        let text = leases::without(&text, |lease| !is_reserved(hosts, lease));
        // Whoever dnsmasq runs as gets the file next.
        replace(layout, &path, &text)?;
    }
    Ok(stale)
}

/// Whether exactly this address is reserved for exactly this MAC. `hosts` is ordered by address.
pub(crate) fn is_reserved(hosts: &[HostLine], lease: &leases::Lease) -> bool {
    let found = hosts.binary_search_by_key(&lease.ipv4, |host| host.ipv4);
    found.ok().and_then(|index| hosts.get(index)).is_some_and(|host| host.mac == lease.mac)
}

/// Reads every file as it is.
pub(crate) fn read(layout: &Layout) -> Result<OnDisk, FileError> {
    Ok(OnDisk {
        main: read_file(&layout.main())?,
        options: read_file(&layout.options())?,
        base: read_file(&layout.base_hosts())?,
        deltas: read_directory(&layout.hosts_directory())?,
        names: read_file(&layout.base_names())?,
        name_deltas: read_directory(&layout.names_directory())?,
    })
}

fn read_file(path: &Path) -> Result<Option<String>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// Files by name; whatever is not a regular file counts as an empty one, so that it is removed.
fn read_directory(path: &Path) -> Result<BTreeMap<String, String>, FileError> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        let is_file = entry.file_type().map_err(failed("look at", &entry.path()))?.is_file();
        let text =
            if is_file { read_file(&entry.path())?.unwrap_or_default() } else { String::new() };
        files.insert(entry.file_name().to_string_lossy().into_owned(), text);
    }
    Ok(files)
}

/// Replaces a file whole.
pub(crate) fn replace(layout: &Layout, path: &Path, text: &str) -> Result<(), FileError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    let temporary = layout.directory().join(name);
    fs::write(&temporary, text).map_err(failed("write", &temporary))?;
    set_mode(&temporary, 0o644)?;
    fs::rename(&temporary, path).map_err(failed("replace", path))
}

/// What a proven generation was rendered to, and for which settings.
#[derive(Serialize, Deserialize)]
struct Proven<'a> {
    generation: u64,
    /// Another interface or directory makes it useless.
    settings: Cow<'a, str>,
    main: Cow<'a, str>,
    hosts: Cow<'a, [HostLine]>,
    options: Cow<'a, str>,
    names: Cow<'a, str>,
}

/// Keeps a generation that dnsmasq survived, for [`read_proven`] of a later run.
pub(crate) fn write_proven(settings: &Settings, rendered: &Rendered) -> Result<(), FileError> {
    let path = settings.layout.proven();
    let proven = Proven {
        generation: rendered.generation,
        settings: format!("{settings:?}").into(),
        main: (&rendered.main).into(),
        hosts: (&rendered.hosts).into(),
        options: (&rendered.options).into(),
        names: (&rendered.names).into(),
    };
    let text =
        serde_json::to_string(&proven).map_err(io::Error::from).map_err(failed("write", &path))?;
    replace(&settings.layout, &path, &text)
}

/// The generation that an earlier run kept, if it fits. It is only a help: what cannot be read is
/// not there.
pub(crate) fn read_proven(settings: &Settings) -> Option<Rendered> {
    let text = read_file(&settings.layout.proven()).ok()??;
    let proven: Proven<'_> = serde_json::from_str(&text).ok()?;
    (proven.settings == format!("{settings:?}")).then(|| Rendered {
        generation: proven.generation,
        main: proven.main.into_owned(),
        hosts: proven.hosts.into_owned(),
        options: proven.options.into_owned(),
        names: proven.names.into_owned(),
        ..Rendered::default()
    })
}

/// Writes everything; the watched hosts are folded into the base file.
pub(crate) fn write_all(layout: &Layout, rendered: &Rendered) -> Result<(), FileError> {
    replace(layout, &layout.main(), &rendered.main)?;
    replace(layout, &layout.base_hosts(), &rendered.hosts_text())?;
    replace(layout, &layout.options(), &rendered.options)?;
    replace(layout, &layout.base_names(), &rendered.names)?;
    clear(&layout.names_directory())?;
    clear(&layout.hosts_directory())
}

/// Writes the watched files of an addition. Names come last: that they were read means that
/// complaints about the hosts have been made. Gives what dnsmasq will read.
pub(crate) fn add(
    layout: &Layout,
    rendered: &Rendered,
    added: &Addition,
    name: &str,
) -> Result<Vec<PathBuf>, FileError> {
    let hosts = (layout.hosts_directory().join(name), added.hosts_text());
    let names = (layout.names_directory().join(name), added.names.clone());
    let mut written = Vec::new();
    for (path, text) in [hosts, names].into_iter().filter(|(_, text)| !text.is_empty()) {
        replace(layout, &path, &text)?;
        written.push(path);
    }
    write_main(layout, rendered)?;
    Ok(written)
}

/// Writes the base file with every host; the watched files are of no use then.
pub(crate) fn fold(layout: &Layout, rendered: &Rendered) -> Result<(), FileError> {
    replace(layout, &layout.base_hosts(), &rendered.hosts_text())?;
    clear(&layout.hosts_directory())
}

/// Writes the main file, which nobody re-reads.
pub(crate) fn write_main(layout: &Layout, rendered: &Rendered) -> Result<(), FileError> {
    replace(layout, &layout.main(), &rendered.main)
}

fn clear(directory: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(directory).map_err(failed("list", directory))? {
        let entry = entry.map_err(failed("list", directory))?;
        let path = entry.path();
        let is_directory = entry.file_type().map_err(failed("look at", &path))?.is_dir();
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(failed("remove", &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::plan::{Loaded, Plan, plan};

    fn rendered() -> Arc<Rendered> {
        let host = |last: u8| HostLine {
            ipv4: [10, 77, 0, last].into(),
            mac: format!("02:00:00:00:00:{last:02x}").parse().unwrap(),
            text: format!("02:00:00:00:00:{last:02x},10.77.0.{last}"),
        };
        Arc::new(Rendered {
            generation: 1,
            main: "main\n".to_owned(),
            hosts: vec![host(50), host(51)],
            options: "options\n".to_owned(),
            names: "names\n".to_owned(),
            ..Rendered::default()
        })
    }

    #[test]
    fn what_was_written_is_what_is_read_and_strays_go() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("dhcp").join("dnsmasq"));
        prepare(&layout).unwrap();
        fs::write(layout.hosts_directory().join("stray"), "x").unwrap();
        fs::create_dir(layout.names_directory().join("stray")).unwrap();
        let rendered = rendered();
        write_all(&layout, &rendered).unwrap();
        let disk = read(&layout).unwrap();
        assert_eq!(plan(&rendered, &Loaded::all(&rendered), &disk), Plan::Nothing, "{disk:?}");
        let left: Vec<_> =
            fs::read_dir(layout.directory()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
    }

    #[test]
    fn a_proven_generation_fits_only_its_settings() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("dhcp").join("dnsmasq"));
        prepare(&layout).unwrap();
        let settings = Settings {
            interface: "br0".parse().unwrap(),
            layout,
            dns: true,
            upstreams: Vec::new(),
            lease_time: dhcp_api::words::LeaseTime::Infinite,
        };
        assert_eq!(read_proven(&settings), None);
        write_proven(&settings, &rendered()).unwrap();
        assert_eq!(read_proven(&settings), Some(Rendered::clone(&rendered())));
        assert_eq!(read_proven(&Settings { dns: false, ..settings.clone() }), None);
        fs::write(settings.layout.proven(), "{").unwrap();
        assert_eq!(read_proven(&settings), None);
    }

    #[test]
    fn leases_of_nobody_are_pruned_by_address_and_mac() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("dhcp").join("dnsmasq"));
        prepare(&layout).unwrap();
        let kept = "0 02:00:00:00:00:32 10.77.0.50 * *\n";
        let stale = "0 02:00:00:00:00:99 10.77.0.51 * *\n0 02:00:00:00:00:32 10.77.0.60 * *\n";
        fs::write(layout.leases(), format!("{kept}{stale}")).unwrap();
        assert_eq!(prune_leases(&layout, &rendered().hosts).unwrap(), 2);
        assert_eq!(fs::read_to_string(layout.leases()).unwrap(), kept);
    }
}
