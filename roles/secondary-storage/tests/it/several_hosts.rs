//! Several storage hosts of a zone on one store: nothing is made twice, what a dead host was doing one
//! other goes on with, and each of them answers for all. 10.3 of the secondary storage notes, rows 19
//! and 41.

use std::time::Duration;

use agent_protocol::agent::PlainAnswer;
use agent_protocol::storage::{
    DataTO, DeleteCommand, DownloadAnswer, DownloadCommand, DownloadRequest, DownloadStatus,
    ImageFormat, UploadStatusCommand, UploadStatusState,
};
use serde_json::Value;

use crate::bench::{Bench, NAME, OnDirectory, SOON};
use crate::images::{raw, vector};
use crate::scripted::first;
use crate::upload_client::{Signed, order, upload};
use crate::uploads::{ID, half};

const BIG: usize = 12 << 20;
/// A host of these tests is dead sooner than a real one.
const LIFE: Duration = Duration::from_millis(1_500);
/// Nobody dies in a test with such hosts.
const LONG_LIFE: Duration = Duration::from_secs(30);

type Host = Bench<OnDirectory>;

/// The first host of a zone, which looks after the others.
async fn zone(life: Duration) -> Host {
    let host = Host::configured("", |config| config.takeover_after = life).await;
    host.parts.stores.open_configured().await;
    look_after(&host);
    host
}

/// Another one on the same store.
async fn beside(first: &Host, name: &str) -> Host {
    let host = first.beside(name).await;
    look_after(&host);
    host
}

fn look_after(host: &Host) {
    let takeover = host.parts.takeover.clone();
    host.cx.tasks.spawn("look after others", takeover.run(host.cx.shutdown.clone()));
}

/// As SIGKILL does: nothing of it runs any more, and nothing was said to anybody.
async fn kill(host: &Host) {
    host.cx.tasks.close();
    host.cx.tasks.kill();
    host.cx.tasks.wait().await;
}

/// What lies on the store of the work on template 320.
fn shown(host: &Host) -> Option<Value> {
    let file = host.store(".quickcloud/jobs/template+tmpl+2+320/job.json");
    Some(serde_json::from_slice(&std::fs::read(file).ok()?).unwrap())
}

fn checkpoint(host: &Host) -> Option<usize> {
    shown(host)?["record"]["checkpoint"]["received"].as_u64()?.try_into().ok()
}

/// Nothing of the work is left between the hosts.
async fn given_back(host: &Host) {
    for tree in [".quickcloud/jobs", ".quickcloud/leases"] {
        let tree = host.store(tree);
        let empty = || {
            let left = std::fs::read_dir(&tree).map_or(0, Iterator::count);
            (left == 0).then_some(())
        };
        testkit::eventually("given back", SOON, empty).await;
    }
}

async fn poll(host: &Host, command: &DownloadCommand, of: &DownloadAnswer) -> DownloadAnswer {
    host.ask(&Host::progress(command, of, DownloadRequest::GetStatus)).await
}

/// Asks until it is over.
async fn over(host: &Host, command: &DownloadCommand, of: &DownloadAnswer) -> DownloadAnswer {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        let answer = poll(host, command, of).await;
        match answer.download_status {
            Some(DownloadStatus::DownloadInProgress | DownloadStatus::NotDownloaded) => {}
            _ => return answer,
        }
        assert!(tokio::time::Instant::now() < deadline, "never over: {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One image and its properties, and nothing else.
async fn installed_once(host: &Host, bytes: &[u8]) {
    assert_eq!(host.listed().await, [NAME]);
    assert_eq!(host.files().len(), 2, "{:?}", host.files());
    assert!(host.read(&host.listed_path().await) == bytes, "content");
    given_back(host).await;
}

#[tokio::test]
async fn what_a_dead_host_was_downloading_one_other_goes_on_with_where_it_was() {
    let one = zone(LIFE).await;
    let (two, three) = (one.beside("two").await, one.beside("three").await);
    one.images.put("big.raw", raw(BIG));
    let command = one.download("paused/big.raw", ImageFormat::Raw);
    let answer = one.half_way(&command).await;
    testkit::eventually("shown", SOON, || checkpoint(&one)).await;
    kill(&one).await;
    let kept = checkpoint(&one).unwrap();
    // From now on: a busy machine must not make a host look dead that is not.
    look_after(&two);
    look_after(&three);
    let count = || two.parts.downloads.status().len() + three.parts.downloads.status().len();
    testkit::eventually("taken over", SOON, || (count() == 1).then_some(())).await;
    let (taker, other) =
        if two.parts.downloads.status().is_empty() { (&three, &two) } else { (&two, &three) };
    // The server asks under the id that it knows, and whomever it likes.
    let answer = over(taker, &command, &answer).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    let heads = one.images.heads("paused/big.raw");
    assert_eq!((heads.len(), first(&heads[1])), (2, Some(kept)), "{heads:?}");
    installed_once(other, &raw(BIG)).await;
    let again = poll(other, &command, &answer).await;
    assert_eq!(again.download_status, Some(DownloadStatus::Downloaded), "{again:?}");
    assert_eq!(again.install_path, answer.install_path);
    assert_eq!(count(), 1, "done once");
}

#[tokio::test]
async fn two_hosts_that_are_asked_for_the_same_make_it_once() {
    let one = zone(LONG_LIFE).await;
    let two = beside(&one, "two").await;
    let command = one.download("gated/tiny.qcow2", ImageFormat::Qcow2);
    let first = one.half_way(&command).await;
    // Somebody who was not asked says how it goes, too.
    let told = poll(&two, &command, &first).await;
    assert_eq!(told.download_status, Some(DownloadStatus::DownloadInProgress), "{told:?}");
    let second = two.ask(&command).await;
    let followed = || {
        let job = two.parts.downloads.get(second.job_id.as_deref()?)?;
        (job.report().percent == 50).then_some(())
    };
    testkit::eventually("how far the other one is", SOON, followed).await;
    let told = poll(&two, &command, &second).await;
    assert_eq!(told.download_status, Some(DownloadStatus::DownloadInProgress), "{told:?}");
    assert!(told.error_string.unwrap().contains("another storage host"));
    one.images.open_gate();
    for (host, answer) in [(&one, first), (&two, second)] {
        let answer = over(host, &command, &answer).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
        assert_eq!((answer.template_size, answer.template_physical_size), (1_048_576, 524_288));
    }
    assert_eq!(one.images.requests("gated/tiny.qcow2"), 1);
    installed_once(&two, &vector("tiny.qcow2")).await;
}

/// It hung, and is back: what it does then is not seen, and its server learns how the other one ended.
#[tokio::test]
async fn a_host_that_was_taken_for_dead_gives_way() {
    // Nobody renews its signs of life.
    let one = Host::configured("", |config| config.takeover_after = LIFE).await;
    let command = one.download("gated/tiny.qcow2", ImageFormat::Qcow2);
    let answer = one.half_way(&command).await;
    let two = beside(&one, "two").await;
    let count = || two.parts.downloads.status().len();
    testkit::eventually("taken over", SOON, || (count() == 1).then_some(())).await;
    let asked = || (one.images.requests("gated/tiny.qcow2") == 2).then_some(());
    testkit::eventually("downloaded again", SOON, asked).await;
    // The one comes to its end, and sees that it is not its own any more.
    one.images.open_gate();
    let waits = || {
        let job = one.parts.downloads.get(answer.job_id.as_deref()?)?;
        job.report().text.contains("another storage host").then_some(())
    };
    testkit::eventually("given way", SOON, waits).await;
    assert_eq!(one.listed().await, Vec::<String>::new(), "not the one's to publish");
    one.images.open_gate();
    let answer = over(&one, &command, &answer).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    installed_once(&two, &vector("tiny.qcow2")).await;
}

#[tokio::test]
async fn a_deletion_at_one_host_ends_the_download_at_another() {
    let one = zone(LIFE).await;
    let two = one.beside("two").await;
    let command = one.download("gated/tiny.qcow2", ImageFormat::Qcow2);
    let answer = one.half_way(&command).await;
    let template = Host::template("template/tmpl/2/320", 320);
    let deletion = DeleteCommand { data: Some(DataTO::from(template)), ..DeleteCommand::default() };
    let deleted: PlainAnswer = two.ask(&deletion).await;
    assert!(deleted.base.result, "{deleted:?}");
    let answer = over(&one, &command, &answer).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::DownloadError), "{answer:?}");
    one.images.open_gate();
    assert_eq!(one.files(), Vec::<String>::new());
    assert_eq!(one.images.requests("gated/tiny.qcow2"), 1);
    given_back(&one).await;
}

/// What hypervisor hosts must not read cannot go on elsewhere; nothing is left of it all the same, and
/// whoever is asked again begins it.
#[tokio::test]
async fn a_download_with_secrets_begins_again() {
    let one = zone(LIFE).await;
    let two = one.beside("two").await;
    let command = one.download("gated/tiny.qcow2?signature=geheim", ImageFormat::Qcow2);
    one.half_way(&command).await;
    assert!(!shown(&one).unwrap().to_string().contains("geheim"));
    kill(&one).await;
    look_after(&two);
    testkit::eventually("cleaned up", SOON, || two.files().is_empty().then_some(())).await;
    given_back(&two).await;
    assert!(two.parts.downloads.status().is_empty());
    let again = two.half_way(&command).await;
    one.images.open_gate();
    one.images.open_gate();
    let answer = over(&two, &command, &again).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    installed_once(&two, &vector("tiny.qcow2")).await;
}

/// A host that starts again before others take it for dead has lost nothing to them.
#[tokio::test]
async fn a_host_that_starts_again_in_time_goes_on_itself() {
    let one = zone(LONG_LIFE).await;
    let two = beside(&one, "two").await;
    one.images.put("big.raw", raw(BIG));
    let command = one.download("paused/big.raw", ImageFormat::Raw);
    let answer = one.half_way(&command).await;
    one.parts.downloads.stop().await;
    let one = one.restarted().await;
    let answer = over(&one, &command, &answer).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert!(two.parts.downloads.status().is_empty());
    installed_once(&one, &raw(BIG)).await;
}

/// Row 41: the server asks whichever host it takes for the right one, and a browser's name may lead to
/// another.
#[tokio::test]
async fn every_host_answers_for_an_upload_and_its_url_is_used_up_at_all() {
    let one = zone(LONG_LIFE).await;
    let two = beside(&one, "two").await;
    let (first, second) = (one.upload_site().await, two.upload_site().await);
    let signed = Signed::of(&order(ID, 270));
    let (mut connection, rest) = half(&one, first, &signed).await;
    // How far it is, as of the last sign of life.
    let mut percent = 0;
    while percent < 40 {
        let answer = two.upload_status(ID).await;
        assert_eq!(answer.status, Some(UploadStatusState::InProgress), "{answer:?}");
        percent = answer.download_percent;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = upload(second, &signed, "a.qcow2", &vector("tiny.qcow2")).await;
    assert!(
        refused.reason().contains("another storage host of the zone receives it"),
        "{refused:?}"
    );
    connection.send(&rest).await;
    assert_eq!(connection.reply().await.status, 200);
    let answer = one.upload_status(ID).await;
    assert_eq!(answer.status, Some(UploadStatusState::Completed));
    for _again in 0..2 {
        assert_eq!(two.upload_status(ID).await, answer);
    }
    let refused = upload(second, &signed, "a.qcow2", b"x").await;
    assert!(refused.reason().contains("its upload is complete"), "{refused:?}");
}

#[tokio::test]
async fn an_upload_that_failed_at_one_host_may_be_tried_at_another_until_the_server_knows() {
    let one = zone(LONG_LIFE).await;
    let two = beside(&one, "two").await;
    let (first, second) = (one.upload_site().await, two.upload_site().await);
    let signed = Signed::of(&order(ID, 270));
    assert_eq!(upload(first, &signed, "a.qcow2", b"no image").await.status, 400);
    assert_eq!(upload(second, &signed, "a.qcow2", &vector("tiny.qcow2")).await.status, 200);
    assert_eq!(one.told(ID).await.0, UploadStatusState::Completed, "the truth, not its own");
    // Told by the one, a failure is over at the other.
    let other = "6b4d3c52-6b1e-4c2a-9c0e-0d8f1a7b2c33";
    let signed = Signed::of(&order(other, 271));
    assert_eq!(upload(first, &signed, "a.qcow2", b"no image").await.status, 400);
    assert_eq!(two.told(other).await.0, UploadStatusState::Error);
    let refused = upload(first, &signed, "a.qcow2", &vector("tiny.qcow2")).await;
    assert!(refused.reason().contains("the server knows that"), "{refused:?}");
}

#[tokio::test]
async fn an_upload_ends_with_its_host_and_at_an_abort_elsewhere() {
    let one = zone(LIFE).await;
    let two = one.beside("two").await;
    let first = one.upload_site().await;
    two.upload_site().await;
    let signed = Signed::of(&order(ID, 270));
    let (_connection, _rest) = half(&one, first, &signed).await;
    let abort = UploadStatusCommand {
        entity_uuid: Some(ID.to_owned()),
        abort: Some(true),
        ..UploadStatusCommand::default()
    };
    let answer = two.ask(&abort).await;
    assert_eq!(answer.status, Some(UploadStatusState::Error), "{answer:?}");
    let uploads = one.parts.uploads.uploads.clone();
    testkit::eventually("ended", SOON, || uploads.running(ID).is_none().then_some(())).await;
    assert_eq!(one.files(), Vec::<String>::new());
    let (_connection, _rest) = half(&one, first, &signed).await;
    kill(&one).await;
    look_after(&two);
    testkit::eventually("cleaned up", SOON, || two.files().is_empty().then_some(())).await;
    given_back(&two).await;
    let (state, text) = two.told(ID).await;
    assert_eq!(state, UploadStatusState::Error);
    assert!(text.contains("upload it again"), "{text}");
}
