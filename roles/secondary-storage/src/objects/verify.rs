//! A look at everything on a store: what is listed and not whole, what is there and not listed.
//!
//! A listing only tells the server what it can use. What else takes room, or would fail when it is
//! used, is found here: now and then for the status, and when an operator asks. A repair removes
//! what an unfinished download or upload left, and nothing else: several hosts write to a store, so
//! whatever was touched lately, or belongs to work under way, is left alone.

use std::fmt;
use std::time::{Duration, SystemTime};

use status_api::{Finding, FindingKind, VerifyReport};

use super::inventory::{self, Expected};
use crate::stores::engine::SMALL;
use crate::stores::{Entry, EntryKind, FileName, InstallPath, ObjectKind, Store, StoreError, Work};

/// Findings that are told one by one.
const MAX_FINDINGS: usize = 1_000;
/// Untouched for so long, a temporary file belongs to no work of any host.
pub const STALE: Duration = Duration::from_secs(24 * 3600);

/// How to look.
pub struct Look<'a> {
    pub repair: bool,
    pub now: SystemTime,
    /// Whether work under way writes into a directory.
    pub busy: &'a (dyn Fn(&InstallPath) -> bool + Send + Sync),
}

impl fmt::Debug for Look<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Look").field("repair", &self.repair).finish_non_exhaustive()
    }
}

/// Looks at every template, ISO and volume of a store.
pub async fn verify(store: &Store, look: &Look<'_>) -> VerifyReport {
    let mut survey = Survey {
        store,
        look,
        work: Work::new(),
        report: VerifyReport { store: store.url().to_string(), ..VerifyReport::default() },
    };
    if let Err(error) = survey.all().await {
        survey.report.error = Some(bedrock::chain(&error));
    }
    survey.report
}

struct Survey<'a> {
    store: &'a Store,
    look: &'a Look<'a>,
    work: Work,
    report: VerifyReport,
}

/// What a directory of an object holds.
struct Found {
    directory: InstallPath,
    kind: ObjectKind,
    entries: Vec<Entry>,
}

impl Found {
    fn bytes(&self) -> u64 {
        self.entries.iter().map(|entry| if is_file(entry) { entry.size } else { 0 }).sum()
    }

    /// The last time anything in it was touched.
    fn touched(&self) -> Option<SystemTime> {
        self.entries.iter().map(|entry| entry.modified).max()
    }

    /// Files that are neither temporary nor properties.
    fn has_content(&self) -> bool {
        let properties = self.kind.properties_file();
        self.entries.iter().any(|e| !is_temporary(&e.name) && e.name != properties.as_str())
    }
}

fn is_file(entry: &Entry) -> bool {
    entry.kind == EntryKind::File
}

/// Names of files that are not finished: downloads, the original's uploads, properties, and ours.
pub fn is_temporary(name: &str) -> bool {
    (name.starts_with("dnld") && name.contains("tmp_"))
        || name.starts_with("FUp_")
        || name.starts_with(".properties.")
        || name.starts_with(".quickcloud")
}

impl Survey<'_> {
    async fn entries(&self, directory: &InstallPath) -> Result<Vec<Entry>, StoreError> {
        const NAME: &str = "look at all objects";
        let entries = self.store.engine().entries(&self.work, Some(directory.clone()));
        Ok(self.store.run(NAME, entries).await?.unwrap_or_default())
    }

    /// Directories with a number for a name, in the order of their names.
    async fn numbered(
        &self,
        directory: &InstallPath,
    ) -> Result<Vec<(InstallPath, Entry)>, StoreError> {
        let mut entries = self.entries(directory).await?;
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let numbered = entries.into_iter().filter(|entry| {
            entry.kind == EntryKind::Directory && entry.name.bytes().all(|b| b.is_ascii_digit())
        });
        let joined = numbered.filter_map(|entry| {
            let name: FileName = entry.name.parse().ok()?;
            Some((directory.join(name), entry))
        });
        Ok(joined.collect())
    }

    async fn all(&mut self) -> Result<(), StoreError> {
        for kind in ObjectKind::ALL {
            for (account, _) in self.numbered(&kind.tree()).await? {
                for (directory, own) in self.numbered(&account).await? {
                    let entries = self.entries(&directory).await?;
                    self.object(Found { directory, kind, entries }, own.modified).await?;
                }
            }
        }
        Ok(())
    }

    async fn object(&mut self, found: Found, made: SystemTime) -> Result<(), StoreError> {
        let expected = self.expected(&found).await?;
        match &expected {
            Some(expected) => self.listed(&found, expected),
            None if found.has_content() => self.unlisted(&found),
            None => {
                // Nothing, or only what work that ended left; empty of content in any case.
                let touched = found.touched().unwrap_or(made);
                return self.abandoned(&found, touched).await;
            }
        }
        self.temporaries(&found).await
    }

    /// What the properties say; `None` when there are none, or none that the server would be told.
    async fn expected(&self, found: &Found) -> Result<Option<Expected>, StoreError> {
        let name = found.kind.properties_file();
        let is_there = |entry: &Entry| is_file(entry) && entry.name == name.as_str();
        if !found.entries.iter().any(|entry| is_there(entry) && entry.size <= SMALL) {
            return Ok(None);
        }
        let path = found.directory.join(name);
        let read = self.store.engine().get(&self.work, path);
        let bytes = self.store.run("read properties", read).await?;
        Ok(bytes.and_then(|bytes| inventory::expected(&bytes, &found.directory)))
    }

    fn listed(&mut self, found: &Found, expected: &Expected) {
        self.report.objects += 1;
        self.report.object_bytes += found.bytes();
        let named = |name: &str| found.entries.iter().find(|entry| entry.name == name);
        let path = &found.directory;
        let Some(file) = named(&expected.file) else {
            // Packed when somebody needs it.
            if named(&format!("{}.meta", expected.file)).is_none() {
                let text = "listed, but its file is not there: the server fetches it again if it \
                            can, else delete it"
                    .to_owned();
                self.tell(FindingKind::Missing, &format!("{path}/{}", expected.file), 0, text);
            }
            return;
        };
        let told = expected.physical_size;
        // Other parties note other sizes for archives.
        if !expected.file.ends_with(".ova") && file.size < told {
            let text =
                format!("{} of {told} bytes are there: delete it and register it again", file.size);
            self.tell(FindingKind::Short, &format!("{path}/{}", expected.file), file.size, text);
        }
    }

    fn unlisted(&mut self, found: &Found) {
        let text = match found.kind {
            ObjectKind::Volume => {
                "no properties: a host may have copied it out for a download link, which takes it \
                 along; else nobody knows of it"
            }
            ObjectKind::Template | ObjectKind::Snapshot => {
                "no complete properties: the server does not know of it; a host may still write it"
            }
        };
        self.tell(
            FindingKind::Unlisted,
            &found.directory.to_string(),
            found.bytes(),
            text.to_owned(),
        );
    }

    fn is_left(&self, found: &Found, touched: SystemTime) -> bool {
        let age = self.look.now.duration_since(touched).unwrap_or_default();
        age >= STALE && !(self.look.busy)(&found.directory)
    }

    /// A directory without content.
    async fn abandoned(&mut self, found: &Found, touched: SystemTime) -> Result<(), StoreError> {
        if !self.is_left(found, touched) {
            return Ok(());
        }
        let repaired = self.look.repair;
        if repaired {
            super::delete::remove_object(self.store, found.kind, &found.directory).await?;
        }
        let text = "left by an unfinished download or upload".to_owned();
        self.tell_left(&found.directory.to_string(), found.bytes(), text, repaired);
        Ok(())
    }

    /// Files beside an object that belong to no work any more.
    async fn temporaries(&mut self, found: &Found) -> Result<(), StoreError> {
        for entry in &found.entries {
            let is_left = is_file(entry) && self.is_left(found, entry.modified);
            if !is_left || !is_temporary(&entry.name) {
                continue;
            }
            let Ok(name) = entry.name.parse::<FileName>() else { continue };
            let path = found.directory.join(name);
            let repaired = self.look.repair;
            if repaired {
                let removal = self.store.engine().remove_file(&self.work, path.clone());
                self.store.run("remove a leftover", removal).await?;
            }
            let text = "left by an unfinished download or upload".to_owned();
            self.tell_left(&path.to_string(), entry.size, text, repaired);
        }
        Ok(())
    }

    fn tell_left(&mut self, path: &str, bytes: u64, text: String, repaired: bool) {
        self.report.reclaimable_bytes += bytes;
        self.report.repaired += u64::from(repaired);
        if repaired {
            tracing::info!(store = %self.store.url(), path, bytes, "leftover removed");
        }
        self.push(Finding {
            kind: FindingKind::Leftover,
            path: path.to_owned(),
            bytes,
            text,
            repaired,
        });
    }

    fn tell(&mut self, kind: FindingKind, path: &str, bytes: u64, text: String) {
        self.push(Finding { kind, path: path.to_owned(), bytes, text, repaired: false });
    }

    fn push(&mut self, finding: Finding) {
        self.report.found += 1;
        if self.report.findings.len() < MAX_FINDINGS {
            self.report.findings.push(finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::registry::tests::{URL, setup};

    const PROPERTIES: &str = "filename=a.qcow2\nsize=5\nqcow2=true\nid=3\nqcow2.filename=a.qcow2\n\
        uniquename=routing-3\nqcow2.virtualsize=9\nvirtualsize=9\nqcow2.size=5\n";

    /// Row 14 of the weaknesses: what is rejected or broken off stays for ever and is never told.
    #[tokio::test]
    async fn row_14_leftovers_are_told_and_removed_and_nothing_else_is() {
        let made = setup(&[URL]);
        let root = made.temp.path().join("sec");
        let write = |path: &str, content: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write("template/tmpl/1/3/template.properties", PROPERTIES);
        write("template/tmpl/1/3/a.qcow2", "12345");
        write("template/tmpl/1/3/dnld7tmp_", "123");
        write("template/tmpl/1/4/template.properties", PROPERTIES);
        write("template/tmpl/1/4/a.qcow2", "1234");
        write("template/tmpl/1/5/template.properties", PROPERTIES);
        write("template/tmpl/1/6/template.properties", "");
        write("template/tmpl/1/7/dnld8tmp_", "12");
        write("template/tmpl/1/8/b.raw", "1");
        write("volumes/2/9/FUp_1_2", "1");
        write("volumes/2/10/v.qcow2", "1");
        std::fs::create_dir_all(root.join("volumes/2/11")).unwrap();
        write("volumes/notes/1/x", "not ours");
        let store = made.stores.open(&URL.parse().unwrap(), None).await.unwrap();
        let now = store_time(&root.join("volumes/2/9/FUp_1_2"));
        let busy = |directory: &InstallPath| directory.to_string() == "template/tmpl/1/7";
        let mut look = Look { repair: true, now, busy: &busy };
        let kinds = |report: &VerifyReport| {
            let told = report.findings.iter().map(|f| (f.kind, f.path.clone(), f.repaired));
            told.collect::<Vec<_>>()
        };
        let lasting = [
            (FindingKind::Short, "template/tmpl/1/4/a.qcow2".to_owned(), false),
            (FindingKind::Missing, "template/tmpl/1/5/a.qcow2".to_owned(), false),
            (FindingKind::Unlisted, "template/tmpl/1/8".to_owned(), false),
            (FindingKind::Unlisted, "volumes/2/10".to_owned(), false),
        ];
        let fresh = verify(&store, &look).await;
        assert_eq!(kinds(&fresh), lasting, "what was touched lately is left alone");
        assert_eq!((fresh.objects, fresh.error, fresh.repaired), (3, None, 0));
        look.now = now + STALE + Duration::from_secs(3600);
        look.repair = false;
        let told = verify(&store, &look).await;
        let left: Vec<_> =
            told.findings.iter().filter(|f| f.kind == FindingKind::Leftover).collect();
        let paths: Vec<_> = left.iter().map(|finding| finding.path.as_str()).collect();
        let leftovers =
            ["template/tmpl/1/3/dnld7tmp_", "template/tmpl/1/6", "volumes/2/11", "volumes/2/9"];
        assert_eq!(paths, leftovers, "7 is busy");
        assert_eq!((told.reclaimable_bytes, told.repaired, told.found), (4, 0, 8));
        look.repair = true;
        assert_eq!(verify(&store, &look).await.repaired, 4);
        let after = verify(&store, &look).await;
        assert_eq!(kinds(&after), lasting);
        for kept in
            ["template/tmpl/1/3/a.qcow2", "template/tmpl/1/7/dnld8tmp_", "volumes/notes/1/x"]
        {
            assert!(root.join(kept).exists(), "{kept}");
        }
        assert!(!root.join("volumes/2/9").exists());
    }

    fn store_time(path: &std::path::Path) -> SystemTime {
        std::fs::metadata(path).unwrap().modified().unwrap()
    }

    #[tokio::test]
    async fn a_look_that_breaks_off_says_why() {
        let made = setup(&[URL]);
        let store = made.stores.open(&URL.parse().unwrap(), None).await.unwrap();
        let root = made.temp.path().join("sec");
        std::fs::rename(&root, made.temp.path().join("away")).unwrap();
        let look = Look { repair: false, now: SystemTime::UNIX_EPOCH, busy: &|_| false };
        let report = verify(&store, &look).await;
        assert!(report.error.unwrap().contains("is it mounted?"));
    }
}
