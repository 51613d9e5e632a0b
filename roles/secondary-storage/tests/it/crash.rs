//! A host that is killed in the middle of a download leaves nothing that is listed, and removes
//! what it left when it starts again.

use std::io::{BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use agent_protocol::storage::ImageFormat;
use secondary_storage::service::{KIND, assemble};

use crate::bench::{Bench, NAME, OnDirectory, config};
use crate::images::ImageServer;

const DIRECTORY: &str = "SS_CRASH_DIRECTORY";
const URL: &str = "SS_CRASH_URL";

/// What a kill meets half way. In the process that gets killed, the variables say where, and it never
/// ends by itself.
#[tokio::test]
async fn half_a_download_is_a_temporary_and_not_listed() {
    let killed = std::env::var(DIRECTORY).ok();
    let bench = match &killed {
        Some(directory) => Bench::at(Path::new(directory)).await,
        None => Bench::<OnDirectory>::new().await,
    };
    let mut command = bench.download("gated/tiny.qcow2", ImageFormat::Qcow2);
    if let Ok(url) = std::env::var(URL) {
        command.url = Some(url.into());
    }
    bench.half_way(&command).await;
    let files = bench.files();
    assert!(files.len() == 1 && files[0].contains("/dnld"), "{files:?}");
    assert!(bench.listed().await.is_empty());
    if killed.is_some() {
        eprintln!("half way");
        std::future::pending::<()>().await;
    }
}

/// A process that is killed: no handler runs, nothing is flushed.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test]
async fn a_host_killed_half_way_lists_nothing_and_cleans_up_at_its_next_start() {
    let temp = tempfile::tempdir().unwrap();
    let images = ImageServer::start().await;
    let directory = temp.path().to_owned();
    let url = images.url("gated/tiny.qcow2");
    let files = tokio::task::spawn_blocking(move || {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "crash::half_a_download_is_a_temporary_and_not_listed",
                "--nocapture",
            ])
            .env(DIRECTORY, &directory)
            .env(URL, url)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let killed = Killed(child);
        let mut said = String::new();
        for line in BufReader::new(stderr.take(1 << 20)).lines() {
            let line = line.unwrap();
            if line == "half way" {
                break;
            }
            said.push_str(&line);
        }
        // SIGKILL: no handler runs, nothing is flushed.
        drop(killed);
        let dir = directory.join("sec/template/tmpl/2/320");
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{error}: {said}"));
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect::<Vec<_>>()
    })
    .await
    .unwrap();
    assert_eq!(files.len(), 1, "the temporary was there: {files:?}");
    assert!(files[0].starts_with("dnld") && files[0].ends_with("tmp_"), "{files:?}");

    let bench: Bench = Bench::at(temp.path()).await;
    // A sister host's temporary beside it is none of our business.
    std::fs::write(bench.store("template/tmpl/2/320/dnld99tmp_"), "x").unwrap();
    assert!(bench.listed().await.is_empty(), "a partial template is never listed");
    bench.parts.downloads.recover(bench.cx.shutdown.clone()).await;
    assert_eq!(bench.files(), ["template/tmpl/2/320/dnld99tmp_"]);
    let left = std::fs::read_dir(temp.path().join("state/ss/downloads")).unwrap().count();
    assert_eq!(left, 0, "the note is erased");
    let answer = bench.finish(&bench.download("golden/tiny.qcow2", ImageFormat::Qcow2)).await;
    assert!(answer.install_path.unwrap().ends_with(".qcow2"));
    assert_eq!(bench.listed().await, [NAME]);
}

impl Bench {
    /// On a directory that outlives the bench.
    pub async fn at(directory: &Path) -> Self {
        Self::at_with(directory, "").await
    }

    /// `more` are lines of configuration.
    pub async fn at_with(directory: &Path, more: &str) -> Self {
        let config = config(directory, more);
        let cx = testkit::context(KIND);
        let parts = assemble(&config, &cx).await.unwrap();
        let temp = tempfile::TempDir::new().unwrap();
        let images = ImageServer::start().await;
        let directory = directory.to_owned();
        Self {
            parts,
            cx,
            config,
            images,
            directory,
            memory: None,
            server: None,
            _temp: temp,
            _kind: PhantomData,
        }
    }
}
