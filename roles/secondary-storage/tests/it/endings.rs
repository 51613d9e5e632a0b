//! How downloads end when their store does not play along: nothing of a job happens after its end.

use std::time::Duration;

use agent_protocol::storage::{
    DataTO, DeleteCommand, DownloadAnswer, DownloadRequest, DownloadStatus, ImageFormat,
    UploadStatusState,
};
use secondary_storage::stores::StoreUrl;

use crate::bench::{InMemory, NAME, SOON, STORE, error_of};
use crate::images::vector;
use crate::upload_client::{Signed, order, upload};
use crate::uploads::ID;

type Bench = crate::bench::Bench<InMemory>;

impl Bench {
    /// With downloads whose cancellation is waited for only a moment.
    async fn impatient() -> Self {
        let limit = Duration::from_millis(20);
        Self::configured("", |config| config.downloads.cancel_limit = limit).await
    }

    async fn stuck(&self) {
        let memory = self.memory.as_ref().unwrap();
        testkit::eventually("stuck", SOON, || (memory.stuck() > 0).then_some(())).await;
    }
}

fn request(
    command: &agent_protocol::storage::DownloadCommand,
    answer: &DownloadAnswer,
    what: DownloadRequest,
) -> agent_protocol::storage::DownloadProgressCommand {
    Bench::progress(command, answer, what)
}

/// Every operation of a download hangs once, and the job is aborted then: it is over, and the place
/// free for another one, only when the store has let go; then nothing is left.
#[tokio::test]
async fn a_cancelled_job_is_over_when_its_last_store_work_has_ended() {
    for operation in ["create", "write", "finish"] {
        let bench = Bench::impatient().await;
        let memory = bench.memory.clone().unwrap();
        memory.hang(operation);
        let command = bench.download("golden/tiny.qcow2", ImageFormat::Qcow2);
        let answer = bench.ask(&command).await;
        bench.stuck().await;
        let aborted = bench.ask(&request(&command, &answer, DownloadRequest::Abort)).await;
        assert_ne!(aborted.download_status, Some(DownloadStatus::DownloadError), "{operation}");
        let job = bench.parts.downloads.get(answer.job_id.as_deref().unwrap()).unwrap();
        assert!(!job.phase().is_over(), "{operation}: its work is under way");
        // Neither a restart nor a second download nor a deletion shares the place with it.
        let restarted = bench.ask(&request(&command, &answer, DownloadRequest::Restart)).await;
        assert!(error_of(&restarted).contains("still being stopped"), "{restarted:?}");
        let mut other = command.clone();
        other.url = Some(bench.images.url("golden/tiny.iso").into());
        other.format = Some(ImageFormat::Iso);
        let refused = bench.ask(&other).await;
        assert!(error_of(&refused).contains("still being stopped"), "{refused:?}");
        let delete = DeleteCommand {
            data: Some(DataTO::from(Bench::template("template/tmpl/2/320", 320))),
            ..DeleteCommand::default()
        };
        let deleted = bench.ask(&delete).await;
        assert!(!deleted.base.result, "{operation}: half a deletion is none");
        memory.release();
        assert!(job.wait(SOON).await);
        assert_eq!(bench.files(), Vec::<String>::new(), "{operation}");
        assert_eq!(memory.parts(), 0, "{operation}");
        assert!(bench.ask(&delete).await.base.result);
        let answer = bench.finish(&other).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{operation}");
    }
}

/// The server is told within the store's deadline, other downloads have the turn; but as long as the
/// store may still do something for the old one, nobody else gets its place.
#[tokio::test]
async fn a_download_whose_store_dies_ends_within_the_stores_deadline() {
    for operation in ["create", "write", "finish", "rename", "put"] {
        let limit = Duration::from_millis(20);
        let change = |config: &mut secondary_storage::config::SecondaryStorageConfig| {
            config.downloads.cancel_limit = limit;
        };
        let bench = Bench::configured("max_downloads = 1", change).await;
        let memory = bench.memory.clone().unwrap();
        assert!(bench.listed().await.is_empty(), "opened");
        memory.hang(operation);
        memory.deadline(Duration::from_millis(50));
        let command = bench.download("golden/tiny.qcow2", ImageFormat::Qcow2);
        let answer = bench.finish(&command).await;
        let text = error_of(&answer);
        assert!(text.starts_with("cannot store template 320: cannot "), "{operation}: {text}");
        let why = format!(" in store {STORE}: the store does not answer (nothing within 50ms)");
        assert!(text.ends_with(&why), "{operation}: {text}");
        memory.hang_no_more();
        let mut other = command.clone();
        (other.id, other.install_path) = (321, Some("template/tmpl/2/321".to_owned()));
        other.name = Some("321-2-other".to_owned());
        let installed = bench.finish(&other).await;
        let expected = Some(DownloadStatus::Downloaded);
        assert_eq!(installed.download_status, expected, "{operation}: {installed:?}");
        let refused = bench.ask(&command).await;
        assert!(error_of(&refused).contains("still being stopped"), "{operation}: {refused:?}");
        memory.release();
        let job = bench.parts.downloads.get(answer.job_id.as_deref().unwrap()).unwrap();
        assert!(job.wait_for_place(SOON).await, "{operation}");
        // What took effect late counts; of everything else nothing is left.
        let count = if operation == "put" { 2 } else { 1 };
        assert_eq!(bench.listed().await.len(), count, "{operation}");
        assert_eq!(bench.files().len(), 2 * count, "{operation}: {:?}", bench.files());
        let state = bench.ask(&request(&command, &answer, DownloadRequest::GetStatus)).await;
        assert_eq!(state.download_status == expected, operation == "put", "{state:?}");
        let again = bench.finish(&command).await;
        assert_eq!(again.download_status, expected, "{operation}: {again:?}");
    }
}

/// The same for an upload: client and server are told in time.
#[tokio::test]
async fn an_upload_whose_store_dies_is_told_in_time_and_keeps_its_place() {
    for operation in ["create", "write", "finish", "rename", "put"] {
        let bench = Bench::impatient().await;
        let addr = bench.upload_site().await;
        let memory = bench.memory.clone().unwrap();
        assert!(bench.listed().await.is_empty(), "opened");
        memory.hang(operation);
        memory.deadline(Duration::from_millis(50));
        let signed = Signed::of(&order(ID, 270));
        let image = vector("tiny.qcow2");
        let reply = upload(addr, &signed, "a.qcow2", &image).await;
        let why = "the store does not answer (nothing within 50ms)";
        assert!(reply.status == 503 && reply.reason().ends_with(why), "{operation}: {reply:?}");
        let state = UploadStatusState::Error;
        assert_eq!(bench.told(ID).await, (state, reply.reason()), "{operation}");
        let again = upload(addr, &signed, "a.qcow2", &image).await;
        assert!(again.reason().contains("does not let go of it"), "{operation}: {again:?}");
        memory.release();
        let uploads = bench.parts.uploads.uploads.clone();
        let gone = || uploads.running(ID).is_none().then_some(());
        testkit::eventually("let go", SOON, gone).await;
        // What took effect late counts; of everything else nothing is left.
        let took_effect = operation == "put";
        assert_eq!(bench.listed().await.len(), usize::from(took_effect), "{operation}");
        assert_eq!(bench.files().len(), 2 * usize::from(took_effect), "{operation}");
        // The server has given it up: nobody may begin it again.
        let late = upload(addr, &signed, "a.qcow2", &image).await;
        assert!(late.reason().contains("already used"), "{operation}: {late:?}");
    }
}

#[tokio::test]
async fn a_purged_job_is_forgotten_only_after_its_end() {
    let bench = Bench::impatient().await;
    let memory = bench.memory.clone().unwrap();
    memory.hang("write");
    let command = bench.download("golden/tiny.qcow2", ImageFormat::Qcow2);
    let answer = bench.ask(&command).await;
    bench.stuck().await;
    bench.ask(&request(&command, &answer, DownloadRequest::Purge)).await;
    let url: StoreUrl = STORE.parse().unwrap();
    let place = "template/tmpl/2/320".parse().unwrap();
    let job = bench.parts.downloads.running_at(&url, &place).unwrap();
    memory.release();
    assert!(job.wait(SOON).await);
    // The next command finds the place free and the old job gone.
    let done = bench.finish(&command).await;
    assert_eq!(done.download_status, Some(DownloadStatus::Downloaded));
    assert_ne!(done.job_id, answer.job_id);
    assert_eq!(bench.parts.downloads.status().len(), 1);
}

/// Row 14 of the weaknesses: failed downloads fill the store.
#[tokio::test]
async fn a_store_that_fails_at_any_step_leaves_nothing_behind() {
    for operation in ["create", "write", "finish", "rename", "put", "get"] {
        let bench = Bench::new().await;
        let memory = bench.memory.clone().unwrap();
        assert!(bench.listed().await.is_empty(), "opened");
        memory.fail(operation, 1);
        let command = bench.download("golden/tiny.qcow2", ImageFormat::Qcow2);
        let answer = bench.finish(&command).await;
        let expected = format!("{operation} fails");
        assert!(error_of(&answer).ends_with(&expected), "{operation}: {answer:?}");
        assert_eq!(bench.files(), Vec::<String>::new(), "{operation}");
        let answer = bench.finish(&command).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{operation}");
        assert_eq!(bench.listed().await, [NAME]);
    }
}

#[tokio::test]
async fn what_cannot_be_removed_is_removed_at_the_next_start() {
    let bench = Bench::new().await;
    let memory = bench.memory.clone().unwrap();
    assert!(bench.listed().await.is_empty(), "opened");
    memory.fail("finish", 1);
    memory.fail("remove_file", 1);
    let answer = bench.finish(&bench.download("golden/tiny.qcow2", ImageFormat::Qcow2)).await;
    error_of(&answer);
    assert_eq!(bench.files().len(), 1, "the temporary");
    let bench = bench.restarted().await;
    bench.parts.downloads.recover(bench.cx.shutdown.clone()).await;
    assert_eq!(bench.files(), Vec::<String>::new());
}

/// Rows 8 and 40 of the weaknesses: nothing sleeps for three seconds before it answers, and the first
/// answer has the right sizes.
#[tokio::test]
async fn ten_downloads_at_once_are_ready_in_their_first_answer() {
    let bench = Bench::with("answer_wait = \"20s\"").await;
    let commands: Vec<_> = (0..10)
        .map(|n| {
            let mut command = bench.download("golden/tiny.qcow2", ImageFormat::Qcow2);
            command.install_path = Some(format!("template/tmpl/2/{}", 400 + n));
            command.name = Some(format!("{}-2-x", 400 + n));
            command
        })
        .collect();
    let answers = futures_util::future::join_all(commands.iter().map(|c| bench.ask(c))).await;
    for answer in answers {
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
        let sizes = (answer.template_size, answer.template_physical_size);
        assert_eq!(sizes, (1_048_576, 524_288), "{answer:?}");
    }
    assert_eq!(bench.listed().await.len(), 10);
}

#[tokio::test]
async fn downloads_that_wait_leave_places_for_other_commands() {
    // Half of the link's places may wait; more downloads are answered at once.
    let bench = Bench::with("answer_wait = \"20s\"\nmax_downloads = 1").await;
    let places = bench.config.link.management.limits.max_commands / 2;
    let command = |n: usize| {
        let mut command = bench.download("gated/tiny.raw", ImageFormat::Raw);
        command.install_path = Some(format!("template/tmpl/2/{n}"));
        command
    };
    let waiting: Vec<_> = (0..places).map(command).collect();
    let waiting = futures_util::future::join_all(waiting.iter().map(|c| bench.ask(c)));
    let one_more = command(places);
    let others = async {
        let downloads = &bench.parts.downloads;
        let all = || (downloads.status().len() == places).then_some(());
        testkit::eventually("all wait", SOON, all).await;
        let answer = bench.ask(&one_more).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::NotDownloaded));
        assert!(bench.listed().await.is_empty(), "a list is answered meanwhile");
    };
    tokio::select! {
        _ = waiting => panic!("they wait longer than this test takes"),
        () = others => {}
    }
}
