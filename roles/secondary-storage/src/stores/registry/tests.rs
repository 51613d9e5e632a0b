//! Opening stores on real directories.

use role::host::CommandRunner;
use role::host::{CommandError, CommandOutput};

use super::*;

const URL: &str = "nfs://127.0.0.1/export/sec";
const NAME: &str = "b523f0c4-0847-33cd-bb44-f46c4da95327";

struct Setup {
    temp: tempfile::TempDir,
    stores: Stores,
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
    let settings = StoreSettings {
        mount_root: temp.path().join("mnt"),
        configured: configured
            .iter()
            .map(|url| (url.parse().unwrap(), temp.path().join("sec")))
            .collect(),
        mount: MountOptions { options: "soft".to_owned(), timeout: second },
        deadline: second,
        modes: Modes { directory: 0o777, file: 0o666 },
    };
    let host = Host { runner: Arc::new(NoMount), ..Host::system() };
    let memory = Memory::load(&temp.path().join("state")).unwrap();
    Stores::new(settings, host, TaskScope::new(), memory)
}

fn setup(configured: &[&str]) -> Setup {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("sec")).unwrap();
    Setup { stores: stores(&temp, configured), temp }
}

#[tokio::test]
async fn a_configured_directory_is_used_and_named_as_the_server_expects() {
    let Setup { temp, stores } = setup(&[URL]);
    let store = stores.open(&URL.parse().unwrap(), Some("null")).await.unwrap();
    assert_eq!((store.name(), store.root()), (NAME, temp.path().join("sec").as_path()));
    assert!(temp.path().join("sec/template/tmpl").is_dir());
    let other_form = format!("{URL}/").parse().unwrap();
    let again = stores.open(&other_form, None).await.unwrap();
    assert!(Arc::ptr_eq(&store, &again), "a trailing slash is the same store");
    assert_eq!(stores.status()[0].state, "ready");
    assert_eq!(stores.url_of_directory(NAME), Some(URL.parse().unwrap()));
    assert_eq!(stores.only_configured(), Some(URL.parse().unwrap()));
}

#[tokio::test]
async fn a_directory_below_the_mount_root_that_is_a_store_needs_no_mount() {
    let Setup { temp, stores } = setup(&[]);
    let root = temp.path().join("mnt").join(NAME);
    std::fs::create_dir_all(root.join("template")).unwrap();
    let store = stores.open(&URL.parse().unwrap(), None).await.unwrap();
    assert_eq!(store.root(), root);
}

#[tokio::test]
async fn a_failed_mount_says_why_and_is_tried_again_at_the_next_command() {
    let Setup { temp, stores } = setup(&[]);
    let url = URL.parse().unwrap();
    let error = stores.open(&url, None).await.unwrap_err();
    assert!(error.to_string().ends_with("no nfs here"), "{error}");
    assert_eq!(stores.status()[0].state, "failed");
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
    store.remember_held().unwrap();
    std::fs::remove_dir_all(temp.path().join("sec")).unwrap();
    std::fs::create_dir(temp.path().join("sec")).unwrap();
    let error = store.run("list", Lane::Quick, Dir::entries).await.unwrap_err();
    assert!(bedrock::chain(&error).contains("is it mounted?"), "{}", bedrock::chain(&error));
    for stores in [stores, super::tests::stores(&temp, &[URL])] {
        let error = stores.open(&url, None).await.unwrap_err();
        assert!(error.to_string().contains("is not the store"), "{error}");
    }
}

#[tokio::test]
async fn an_unmarked_store_is_lost_with_its_directory() {
    let Setup { temp, stores } = setup(&[URL]);
    let marked = stores.open(&URL.parse().unwrap(), None).await.unwrap();
    let unmarked = Arc::new(Store {
        url: marked.url.clone(),
        name: marked.name.clone(),
        root: marked.root.clone(),
        marker: None,
        identity: marked.identity,
        modes: marked.modes,
        deadline: marked.deadline,
        pool: Arc::clone(&marked.pool),
        memory: Arc::clone(&marked.memory),
        lost: AtomicBool::new(false),
        held: AtomicBool::new(true),
        capacity: AtomicU64::default(),
        used: AtomicU64::default(),
    });
    assert!(unmarked.run("list", Lane::Quick, Dir::entries).await.is_ok());
    std::fs::rename(temp.path().join("sec"), temp.path().join("elsewhere")).unwrap();
    std::fs::create_dir(temp.path().join("sec")).unwrap();
    assert!(unmarked.run("list", Lane::Quick, Dir::entries).await.is_err());
    assert!(unmarked.is_lost());
}

#[tokio::test]
async fn a_store_that_is_opened_again_and_again_keeps_its_threads() {
    let Setup { temp, stores } = setup(&[URL]);
    let url: StoreUrl = URL.parse().unwrap();
    std::fs::remove_dir(temp.path().join("sec")).unwrap();
    assert!(stores.open(&url, None).await.is_err());
    let before = stores.pool(&url).unwrap();
    assert!(stores.open(&url, None).await.is_err());
    std::fs::create_dir(temp.path().join("sec")).unwrap();
    let store = stores.open(&url, None).await.unwrap();
    assert!(Arc::ptr_eq(&store.pool, &before));
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
