//! Opening stores on real directories.

use role::Host;
use role::host::{CommandError, CommandOutput, CommandRunner};

use std::path::Path;

use super::*;
use crate::stores::Modes;
use crate::stores::config::{MountMode, StoreEntry};
use crate::stores::directory::mount::MountOptions;
use crate::stores::directory::open::Directories;

pub(crate) const URL: &str = "nfs://127.0.0.1/export/sec";
const NAME: &str = "b523f0c4-0847-33cd-bb44-f46c4da95327";

pub(crate) struct Setup {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) stores: Stores,
}

/// A mount program that always refuses.
struct NoMount;

impl CommandRunner for NoMount {
    fn run(
        &self,
        _: role::CommandSpec,
    ) -> role::BoxFuture<'static, Result<CommandOutput, CommandError>> {
        let stderr = "no nfs here".to_owned();
        let output = CommandOutput { code: Some(32), stdout: String::new(), stderr };
        Box::pin(async move { Ok(output) })
    }

    fn start(&self, spec: role::CommandSpec) -> Result<tokio::process::Child, CommandError> {
        Err(CommandError::Timeout { program: spec.program, timeout: spec.timeout })
    }
}

fn stores(temp: &tempfile::TempDir, configured: &[&str]) -> Stores {
    let second = Duration::from_secs(20);
    let entry = |url: &&str| StoreEntry {
        url: url.parse().unwrap(),
        directory: Some(temp.path().join("sec")),
        mount: MountMode::No,
        mount_options: None,
        nfs_version: None,
        source: None,
        nfs: None,
    };
    let settings = StoreSettings {
        mount_root: temp.path().join("mnt"),
        configured: configured.iter().map(entry).collect(),
        mount: MountOptions { options: "soft".to_owned(), timeout: second },
        deadline: second,
        modes: Modes { directory: 0o777, file: 0o666 },
        min_free: 0,
        nfs_others: false,
    };
    let host = Host { runner: Arc::new(NoMount), ..Host::system() };
    let memory = Memory::load(&temp.path().join("state")).unwrap();
    let tasks = TaskScope::new();
    let engines = Directories::new(settings, host);
    Stores::new(Arc::new(engines), tasks, memory)
}

pub(crate) fn setup(configured: &[&str]) -> Setup {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("sec")).unwrap();
    Setup { stores: stores(&temp, configured), temp }
}

#[tokio::test]
async fn a_configured_directory_is_used_and_named_as_the_server_expects() {
    let Setup { temp, stores } = setup(&[URL]);
    let store = stores.open(&URL.parse().unwrap(), Some("null")).await.unwrap();
    assert_eq!(store.name(), NAME);
    assert_eq!(Path::new(&store.place()), temp.path().join("sec"));
    assert!(temp.path().join("sec/template/tmpl").is_dir());
    let other_form = format!("{URL}/").parse().unwrap();
    let again = stores.open(&other_form, None).await.unwrap();
    assert!(Arc::ptr_eq(&store, &again), "a trailing slash is the same store");
    assert_eq!(stores.status()[0].state, StoreState::Ready);
    assert_eq!(stores.url_of_directory(NAME), Some(URL.parse().unwrap()));
    assert_eq!(stores.only_configured(), Some(URL.parse().unwrap()));
}

#[tokio::test]
async fn a_directory_below_the_mount_root_that_is_a_store_needs_no_mount() {
    let Setup { temp, stores } = setup(&[]);
    let root = temp.path().join("mnt").join(NAME);
    std::fs::create_dir_all(root.join("template")).unwrap();
    let store = stores.open(&URL.parse().unwrap(), None).await.unwrap();
    assert_eq!(Path::new(&store.place()), root);
}

#[tokio::test]
async fn a_failed_mount_says_why_and_is_tried_again_at_the_next_command() {
    let Setup { temp, stores } = setup(&[]);
    let url = URL.parse().unwrap();
    let error = stores.open(&url, None).await.unwrap_err();
    assert!(error.to_string().ends_with("no nfs here"), "{error}");
    assert_eq!(stores.status()[0].state, StoreState::Failed);
    let root = temp.path().join("mnt").join(NAME);
    assert!(!root.exists(), "the mount point is removed again");
    std::fs::create_dir_all(root.join("template")).unwrap();
    assert!(stores.open(&url, None).await.is_ok());
}

#[tokio::test]
async fn an_emptied_directory_is_refused_even_after_a_restart() {
    let Setup { temp, stores } = setup(&[URL]);
    let url: StoreUrl = URL.parse().unwrap();
    let store = stores.open(&url, None).await.unwrap();
    stores.remember_held(&store).await.unwrap();
    std::fs::remove_dir_all(temp.path().join("sec")).unwrap();
    std::fs::create_dir(temp.path().join("sec")).unwrap();
    let error = store.probe().await.unwrap_err();
    assert!(bedrock::chain(&error).contains("is it mounted?"), "{}", bedrock::chain(&error));
    for stores in [stores, super::tests::stores(&temp, &[URL])] {
        let error = stores.open(&url, None).await.unwrap_err();
        assert!(error.to_string().contains("is not the store"), "{error}");
    }
}

#[tokio::test]
async fn an_unmarked_store_is_lost_with_its_directory() {
    let Setup { temp, stores } = setup(&[URL]);
    let unmarked = stores.open(&URL.parse().unwrap(), None).await.unwrap();
    let work = Work::new();
    // As if it had taken no marker: its identity is all there is to know it by.
    unmarked.run("pin", unmarked.engine().pin(&work, None)).await.unwrap();
    unmarked.probe().await.unwrap();
    std::fs::rename(temp.path().join("sec"), temp.path().join("elsewhere")).unwrap();
    std::fs::create_dir(temp.path().join("sec")).unwrap();
    assert!(unmarked.probe().await.is_err());
    assert!(unmarked.is_lost());
}

#[tokio::test]
async fn callers_share_one_attempt_and_ever_new_stores_are_bounded() {
    let Setup { stores, temp: _temp } = setup(&[URL]);
    let url: StoreUrl = URL.parse().unwrap();
    let all = futures_util::future::join_all((0..20).map(|_each| stores.open(&url, None))).await;
    let first = all[0].as_ref().unwrap();
    assert!(all.iter().all(|store| Arc::ptr_eq(store.as_ref().unwrap(), first)));
    for number in 0..MAX_STORES - 1 {
        let other = format!("cifs://127.0.0.1/{number}").parse().unwrap();
        assert!(stores.open(&other, None).await.is_err());
    }
    let one_more = "nfs://127.0.0.1/more".parse().unwrap();
    assert!(matches!(stores.open(&one_more, None).await, Err(StoreError::TooMany(_))));
}

#[tokio::test]
async fn a_store_that_goes_away_is_lost_at_the_first_look_and_told_at_once() {
    let Setup { temp, stores } = setup(&[URL]);
    let store = stores.open(&URL.parse().unwrap(), None).await.unwrap();
    let mut changes = stores.changes();
    std::fs::rename(temp.path().join("sec"), temp.path().join("elsewhere")).unwrap();
    let error = store.probe().await.unwrap_err();
    assert!(bedrock::chain(&error).contains("is it mounted?"), "{}", bedrock::chain(&error));
    assert!(store.is_lost() && changes.has_changed().unwrap());
    assert_eq!(stores.status()[0].state, StoreState::Lost);
    changes.mark_unchanged();
    assert!(store.probe().await.is_err());
    assert!(!changes.has_changed().unwrap(), "told once");
}

#[test]
fn versions_that_mean_nothing_are_none() {
    assert_eq!(wire_version(Some(" null ")), None);
    assert_eq!(wire_version(Some("4.1")), Some("4.1"));
}

#[tokio::test]
async fn a_store_that_comes_back_is_opened_without_a_command() {
    let Setup { temp, stores } = setup(&[URL]);
    let url: StoreUrl = URL.parse().unwrap();
    let store = stores.open(&url, None).await.unwrap();
    stores.remember_held(&store).await.unwrap();
    let (sec, aside) = (temp.path().join("sec"), temp.path().join("aside"));
    std::fs::rename(&sec, &aside).unwrap();
    std::fs::create_dir(&sec).unwrap();
    assert!(store.probe().await.is_err());
    assert_eq!(stores.failures().len(), 1, "from the first moment on");
    let mut changes = stores.changes();
    stores.reopen(Duration::ZERO);
    assert_eq!(stores.failures().len(), 1, "while it is opened, too");
    changes.changed().await.unwrap();
    assert!(stores.failures()[0].contains("is not the store"), "{:?}", stores.failures());
    std::fs::remove_dir(&sec).unwrap();
    std::fs::rename(&aside, &sec).unwrap();
    stores.reopen(Duration::from_secs(60));
    assert_eq!(stores.status()[0].state, StoreState::Failed, "not yet again");
    stores.reopen(Duration::ZERO);
    changes.changed().await.unwrap();
    assert_eq!(stores.status()[0].state, StoreState::Ready);
    assert_eq!(stores.failures(), Vec::<String>::new());
}
