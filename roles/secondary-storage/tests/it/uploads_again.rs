//! Uploads over a restart of the process: resumable ones go on where they were, others end; at no point
//! is anything half published, lost or left behind.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use agent_protocol::storage::UploadStatusState::{Completed, Error, InProgress, Unknown};
use agent_protocol::storage::{ImageFormat, PostUploadOrder};
use serde_json::Value;

use crate::bench::{Bench, InMemory, Kind, OnDirectory, SOON};
use crate::crash::Killed;
use crate::images::{raw, vector};
use crate::upload_client::{Connection, Signed, form, order, post};
use crate::uploads::ID;
use crate::uploads_tus::{ask, begin, create, offset, patch};

const BIG: usize = 12 << 20;
const PART: usize = 9 << 20;

fn raw_order() -> Signed {
    Signed::of(&PostUploadOrder { image_format: Some(ImageFormat::Raw), ..order(ID, 270) })
}

impl<K: Kind> Bench<K> {
    /// How many bytes an upload would go on from, as the disk has it.
    fn kept_of_upload(&self) -> Option<usize> {
        kept(&self.directory)
    }

    /// The same host after its process ended, with what was under way taken up.
    async fn again(self, meanwhile: impl FnOnce()) -> (Self, SocketAddr) {
        let bench = Box::pin(self.restarted_after(meanwhile)).await;
        assert!(bench.listed().await.is_empty());
        bench.parts.uploads.go_on().await;
        bench.parts.uploads.uploads.recover(bench.cx.shutdown.clone()).await;
        let addr = bench.listen_for_uploads().await;
        (bench, addr)
    }

    async fn is_whole(&self, content: &[u8]) {
        let answer = self.upload_status(ID).await;
        assert_eq!(answer.status, Some(Completed), "{answer:?}");
        assert!(self.read(&answer.install_path.unwrap()) == content);
        assert_eq!(self.files().len(), 2, "{:?}", self.files());
        assert_eq!(self.listed().await.len(), 1);
    }
}

fn kept(directory: &Path) -> Option<usize> {
    let path = directory.join(format!("state/ss/uploads/{ID}.json"));
    let record: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    usize::try_from(record["resume"]["checkpoint"]["received"].as_u64()?).ok()
}

async fn goes_on<K: Kind>() {
    let bench = Bench::<K>::new().await;
    let addr = bench.upload_site().await;
    let location = create(addr, &raw_order(), BIG).await;
    assert_eq!(patch(addr, &location, 0, &raw(BIG)[..PART]).await.status, 204);
    let kept = testkit::eventually("on disk", SOON, || bench.kept_of_upload()).await;
    assert!((4 << 20..=PART).contains(&kept), "{kept}");
    let (bench, addr) = bench.again(|| {}).await;
    assert_eq!(bench.told(ID).await.0, InProgress);
    assert_eq!(bench.parts.uploads.uploads.status()[0].file.as_deref(), Some("a.qcow2"));
    let head = ask(addr, "HEAD", &location, "", b"").await;
    assert_eq!((head.status, offset(&head)), (200, kept));
    assert_eq!(patch(addr, &location, kept, &raw(BIG)[kept..]).await.status, 204);
    bench.is_whole(&raw(BIG)).await;
}

#[tokio::test]
async fn a_resumable_upload_goes_on_where_it_was() {
    Box::pin(goes_on::<OnDirectory>()).await;
    Box::pin(goes_on::<InMemory>()).await;
}

#[tokio::test]
async fn what_is_left_of_an_upload_is_looked_at_before_it_is_used() {
    for damage in ["changed", "shorter", "gone"] {
        let bench: Bench = Bench::new().await;
        let addr = bench.upload_site().await;
        let location = create(addr, &raw_order(), BIG).await;
        assert_eq!(patch(addr, &location, 0, &raw(BIG)[..PART]).await.status, 204);
        let kept = testkit::eventually("on disk", SOON, || bench.kept_of_upload()).await;
        let file = bench.store(&bench.files()[0]);
        let (bench, addr) = bench
            .again(|| {
                let mut bytes = std::fs::read(&file).unwrap();
                match damage {
                    "changed" => bytes[100] ^= 1,
                    "shorter" => bytes.truncate(kept - 1),
                    _ => return std::fs::remove_file(&file).unwrap(),
                }
                std::fs::write(&file, bytes).unwrap();
            })
            .await;
        let again = begin(addr, &raw_order(), BIG).await;
        assert_eq!((again.status, offset(&again)), (200, 0), "{damage}");
        assert_eq!(again.header("location"), Some(location.as_str()));
        assert_eq!(patch(addr, &location, 0, &raw(BIG)).await.status, 204, "{damage}");
        bench.is_whole(&raw(BIG)).await;
    }
}

/// What is packed cannot be told by what is written: it begins again.
#[tokio::test]
async fn a_packed_upload_begins_again() {
    let bench: Bench = Bench::new().await;
    let addr = bench.upload_site().await;
    let (packed, signed) = (vector("tiny.qcow2.gz"), Signed::of(&order(ID, 270)));
    let location = create(addr, &signed, packed.len()).await;
    assert_eq!(patch(addr, &location, 0, &packed[..packed.len() / 2]).await.status, 204);
    let (bench, addr) = bench.again(|| {}).await;
    assert_eq!(offset(&ask(addr, "HEAD", &location, "", b"").await), 0);
    assert_eq!(patch(addr, &location, 0, &packed).await.status, 204);
    bench.is_whole(&vector("tiny.qcow2")).await;
}

/// An orderly stop keeps what is there, and its client is told to come back.
#[tokio::test]
async fn a_role_that_stops_suspends_resumable_uploads() {
    let bench: Bench = Bench::new().await;
    let addr = bench.upload_site().await;
    let location = create(addr, &raw_order(), BIG).await;
    assert_eq!(patch(addr, &location, 0, &raw(BIG)[..PART]).await.status, 204);
    bench.parts.uploads.uploads.stop().await;
    assert_eq!(bench.told(ID).await.0, InProgress, "nobody is told of a failure");
    let refused = patch(addr, &location, PART, &raw(BIG)[PART..]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("2")), "{refused:?}");
    let kept = bench.kept_of_upload().unwrap();
    // Whoever can read the store must not go on with it.
    let shown = bench.read(&format!(".quickcloud/uploads/{ID}/upload.json"));
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("receiving") && !shown.contains("token"), "{shown}");
    let (bench, addr) = bench.again(|| {}).await;
    assert_eq!(offset(&ask(addr, "HEAD", &location, "", b"").await), kept);
    // Nobody comes back: its pause is over.
    bench.parts.uploads.end_old_pauses(Duration::ZERO);
    let over = || bench.parts.uploads.uploads.running(ID).is_none().then_some(());
    testkit::eventually("the end of the pause", SOON, over).await;
    let (state, text) = bench.told(ID).await;
    assert!(state == Error && text.contains("upload_pause"), "{text}");
    assert_eq!(bench.files(), Vec::<String>::new());
}

const STEPS: [&str; 5] = ["create", "write", "finish", "rename", "put"];

/// The process ends at each step of the way into the store.
#[tokio::test]
async fn a_resumable_upload_survives_the_end_of_the_process_at_every_step() {
    for step in STEPS {
        let bench = Bench::<InMemory>::new().await;
        let memory = bench.memory.clone().unwrap();
        let addr = bench.upload_site().await;
        memory.hang(step);
        let sending = tokio::spawn(async move {
            let location = create(addr, &raw_order(), BIG).await;
            patch(addr, &location, 0, &raw(BIG)).await;
        });
        testkit::eventually(step, SOON, || (memory.stuck() > 0).then_some(())).await;
        memory.die();
        sending.abort();
        let (bench, addr) = bench.again(|| {}).await;
        let again = begin(addr, &raw_order(), BIG).await;
        assert_eq!(again.status, 200, "{step}: {again:?}");
        let (location, at) = (again.header("location").unwrap(), offset(&again));
        assert_eq!(patch(addr, location, at, &raw(BIG)[at..]).await.status, 204, "{step}");
        bench.is_whole(&raw(BIG)).await;
    }
}

/// A form's client is gone with its connection: the server is told so, and nothing is left.
#[tokio::test]
async fn a_form_leaves_nothing_wherever_the_process_ends() {
    for step in ["list"].into_iter().chain(STEPS) {
        let bench = Bench::<InMemory>::new().await;
        let memory = bench.memory.clone().unwrap();
        let addr = bench.upload_site().await;
        memory.hang(step);
        let mut connection = Connection::open(addr).await;
        let body = form("a.qcow2", &vector("tiny.qcow2"));
        let signed = Signed::of(&order(ID, 270));
        connection.send(post(ID, &signed.headers(), body.len()).as_bytes()).await;
        connection.send(&body).await;
        testkit::eventually(step, SOON, || (memory.stuck() > 0).then_some(())).await;
        memory.die();
        let (bench, _) = bench.again(|| {}).await;
        let (state, text) = bench.told(ID).await;
        let expected = if step == "list" { Unknown } else { Error };
        assert_eq!(state, expected, "{step}: {text}");
        assert_eq!(bench.files(), Vec::<String>::new(), "{step}");
    }
}

const DIRECTORY: &str = "SS_UPLOAD_AGAIN_DIRECTORY";

/// The host that is killed. It says where it listens, and never ends by itself.
#[tokio::test]
async fn a_host_that_takes_uploads() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let bench: Bench = Bench::at(Path::new(&directory)).await;
    eprintln!("listens at {}", bench.upload_site().await);
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_resumable_upload_goes_on_after_its_host_was_killed() {
    let temp = tempfile::tempdir().unwrap();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "uploads_again::a_host_that_takes_uploads", "--nocapture"])
        .env(DIRECTORY, temp.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let stderr = child.0.stderr.take().unwrap();
    let find = move || {
        let mut lines = BufReader::new(stderr).lines().map_while(Result::ok);
        lines.find_map(|line| Some(line.strip_prefix("listens at ")?.parse().unwrap()))
    };
    let addr: SocketAddr = tokio::task::spawn_blocking(find).await.unwrap().unwrap();
    let location = create(addr, &raw_order(), BIG).await;
    assert_eq!(patch(addr, &location, 0, &raw(BIG)[..PART]).await.status, 204);
    let on_disk = testkit::eventually("on disk", SOON, || kept(temp.path())).await;
    drop(child);
    let bench: Bench = Bench::at(temp.path()).await;
    bench.parts.uploads.go_on().await;
    bench.parts.uploads.uploads.recover(bench.cx.shutdown.clone()).await;
    let addr = bench.listen_for_uploads().await;
    let at = offset(&ask(addr, "HEAD", &location, "", b"").await);
    assert!(at >= on_disk && at <= PART, "{at}, {on_disk} were on disk");
    assert_eq!(patch(addr, &location, at, &raw(BIG)[at..]).await.status, 204);
    bench.is_whole(&raw(BIG)).await;
}
