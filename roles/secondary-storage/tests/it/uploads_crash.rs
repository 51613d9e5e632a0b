//! A host that is killed in the middle of an upload leaves nothing that is listed, removes what it
//! left when it starts again, and tells the server at its first question.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use agent_protocol::storage::UploadStatusAnswer;
use agent_protocol::storage::UploadStatusState::{Completed, Error};
use secondary_storage::ingest::journal::{self, Note};
use secondary_storage::stores::ObjectKind;
use secondary_storage::uploads::record::{Record, Records, State};

use crate::bench::{Bench, OnDirectory, SOON, STORE};
use crate::images::vector;
use crate::upload_client::{Connection, Signed, form, order, post, upload};
use crate::uploads::ID;

const DIRECTORY: &str = "SS_UPLOAD_CRASH_DIRECTORY";

/// What a kill meets half way. In the process that gets killed the variable says where, and it never
/// ends by itself.
#[tokio::test]
async fn half_an_upload_is_a_temporary_and_not_listed() {
    let killed = std::env::var(DIRECTORY).ok();
    let bench = match &killed {
        Some(directory) => Bench::at(Path::new(directory)).await,
        None => Bench::<OnDirectory>::new().await,
    };
    let addr = bench.upload_site().await;
    let body = form("a.qcow2", &vector("tiny.qcow2"));
    let mut connection = Connection::open(addr).await;
    let signed = Signed::of(&order(ID, 270));
    connection.send(post(ID, &signed.headers(), body.len()).as_bytes()).await;
    connection.send(&body[..body.len() / 2]).await;
    let half = || !bench.files().is_empty();
    testkit::eventually("the temporary", SOON, || half().then_some(())).await;
    let files = bench.files();
    assert!(files.len() == 1 && files[0].contains("tmp_"), "{files:?}");
    assert!(bench.listed().await.is_empty());
    if killed.is_some() {
        eprintln!("half way");
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn a_host_killed_half_way_cleans_up_and_tells_the_server_at_its_next_start() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().to_owned();
    tokio::task::spawn_blocking(move || {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "uploads_crash::half_an_upload_is_a_temporary_and_not_listed",
                "--nocapture",
            ])
            .env(DIRECTORY, &directory)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let mut said = String::new();
        for line in BufReader::new(stderr.take(1 << 20)).lines() {
            let line = line.unwrap();
            if line == "half way" {
                break;
            }
            said.push_str(&line);
        }
        // SIGKILL: no handler runs, nothing is flushed.
        child.kill().unwrap();
        child.wait().unwrap();
        let left = directory.join("sec/template/tmpl/2/270");
        let left = std::fs::read_dir(&left).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert_eq!(left.count(), 1);
    })
    .await
    .unwrap();
    let bench: Bench = Bench::at(temp.path()).await;
    // Before anything is cleaned up.
    let (state, text) = bench.told(ID).await;
    assert!(state == Error && text.contains("stopped in the middle"), "{text}");
    assert!(bench.listed().await.is_empty());
    bench.parts.uploads.uploads.recover(bench.cx.shutdown.clone()).await;
    assert_eq!(bench.files(), Vec::<String>::new());
    assert!(!bench.store("template/tmpl/2/270").exists());
    let notes = std::fs::read_dir(temp.path().join("state/ss/uploads/notes")).unwrap();
    assert_eq!(notes.count(), 0);
}

/// The narrow place between the listed object and the record of it.
#[tokio::test]
async fn a_host_killed_right_after_publishing_finds_its_object() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let signed = Signed::of(&order(ID, 270));
    assert_eq!(upload(addr, &signed, "a.qcow2", &vector("tiny.qcow2")).await.status, 200);
    let done = bench.upload_status(ID).await;
    let path = done.install_path.clone();
    let bench = as_if_killed_after_publishing(bench, &done).await;
    assert_ne!(bench.told(ID).await.0, Error, "it is looked at first");
    bench.parts.uploads.uploads.recover(bench.cx.shutdown.clone()).await;
    let answer = bench.upload_status(ID).await;
    assert_eq!((&answer.status, &answer.install_path), (&Some(Completed), &path));
    assert_eq!(answer, done);
    assert_eq!(bench.listed().await.len(), 1);
}

/// Puts the state directory back to what it was then, and starts anew.
pub async fn as_if_killed_after_publishing(bench: Bench, done: &UploadStatusAnswer) -> Bench {
    let path = done.install_path.clone().unwrap();
    let state = bench.directory.join("state/ss");
    let attempt = uuid::Uuid::new_v4().to_string();
    let note = Note {
        store: STORE.parse().unwrap(),
        directory: "template/tmpl/2/270".parse().unwrap(),
        kind: ObjectKind::Template,
        temporary: "dnld7tmp_".parse().unwrap(),
        image: Some(path.rsplit('/').next().unwrap().parse().unwrap()),
        files: Vec::new(),
    };
    journal::of_uploads(&state).write(&attempt, &note).unwrap();
    let records = Records::new(&state);
    let (_, record) = records.all().unwrap().remove(0);
    records
        .save(ID, &Record { state: State::Receiving { attempt, resume: None }, ..record })
        .unwrap();
    Box::pin(bench.restarted()).await
}

/// An orderly stop is no better than a kill for the server, which counts the upload as lost.
#[tokio::test]
async fn a_role_that_stops_ends_its_uploads() {
    let bench = Bench::<OnDirectory>::new().await;
    let addr = bench.upload_site().await;
    let body = form("a.qcow2", &vector("tiny.qcow2"));
    let mut connection = Connection::open(addr).await;
    let signed = Signed::of(&order(ID, 270));
    connection.send(post(ID, &signed.headers(), body.len()).as_bytes()).await;
    connection.send(&body[..body.len() / 2]).await;
    testkit::eventually("the temporary", SOON, || (!bench.files().is_empty()).then_some(())).await;
    bench.parts.uploads.uploads.stop().await;
    assert_eq!(bench.files(), Vec::<String>::new());
    assert_eq!(connection.reply().await.status, 503);
    let bench = bench.restarted().await;
    assert_eq!(bench.told(ID).await.0, Error);
}
