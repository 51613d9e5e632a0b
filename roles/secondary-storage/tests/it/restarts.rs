//! Downloads over a restart of the process: those that were running go on where they were, ended
//! ones are still there to be asked for.

use std::path::PathBuf;

use agent_protocol::storage::{
    DownloadAnswer, DownloadCommand, DownloadRequest, DownloadStatus, ImageFormat,
};
use serde_json::Value;
use sha2::Digest;

use crate::bench::{Bench, InMemory, Kind, OnDirectory, SOON, error_of};
use crate::images::raw;
use crate::scripted::first;

const BIG: usize = 12 << 20;

impl<K: Kind> Bench<K> {
    fn record(&self, answer: &DownloadAnswer) -> PathBuf {
        let id = answer.job_id.as_deref().unwrap();
        self.directory.join("state/ss/jobs").join(format!("{id}.json"))
    }

    /// How many bytes a download would go on from, as the disk has it.
    fn kept(&self, answer: &DownloadAnswer) -> Option<usize> {
        let text = std::fs::read(self.record(answer)).ok()?;
        let record: Value = serde_json::from_slice(&text).unwrap();
        usize::try_from(record["checkpoint"]["received"].as_u64()?).ok()
    }

    /// Begins a download of a big image that stops half way, and waits until that is on disk.
    async fn begun(&self, how: &str) -> (DownloadCommand, DownloadAnswer, usize) {
        self.images.put("big.raw", raw(BIG));
        let command = self.download(&format!("{how}/big.raw"), ImageFormat::Raw);
        let answer = self.half_way(&command).await;
        let kept = testkit::eventually("on disk", SOON, || self.kept(&answer)).await;
        assert!((4 << 20..=BIG / 2).contains(&kept), "{kept}");
        // Row 18 of the weaknesses: the digest is computed while the image comes.
        let record: Value =
            serde_json::from_slice(&std::fs::read(self.record(&answer)).unwrap()).unwrap();
        let so_far = sha2::Sha512::digest(&raw(BIG)[..kept]);
        let hex: String = so_far.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(record["checkpoint"]["digest"], format!("{{SHA-512}}{hex}"));
        (command, answer, kept)
    }

    /// The download of before is whole; gives its requests.
    async fn ends_well(
        &self,
        how: &str,
        command: &DownloadCommand,
        before: &DownloadAnswer,
    ) -> Vec<String> {
        let poll = Self::progress(command, before, DownloadRequest::GetStatus);
        let answer = self.ask(&poll).await;
        assert_eq!(answer.job_id, before.job_id);
        let answer = self.until_over(command, answer).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
        assert!(self.read(answer.install_path.as_deref().unwrap()) == raw(BIG), "content");
        assert_eq!(self.files().len(), 2, "{:?}", self.files());
        self.images.heads(&format!("{how}/big.raw"))
    }
}

async fn goes_on<K: Kind>() {
    let bench = Bench::<K>::new().await;
    let (command, answer, kept) = bench.begun("paused").await;
    let bench = bench.restarted().await;
    assert!(bench.listed().await.is_empty());
    let heads = bench.ends_well("paused", &command, &answer).await;
    assert_eq!(heads.len(), 2);
    assert_eq!(first(&heads[1]), Some(kept), "{}", heads[1]);
    assert!(heads[1].to_ascii_lowercase().contains("if-range: \"v1\""), "{}", heads[1]);
    bench.ask(&Bench::<K>::progress(&command, &answer, DownloadRequest::Purge)).await;
    testkit::eventually("forgotten", SOON, || (!bench.record(&answer).exists()).then_some(()))
        .await;
}

#[tokio::test]
async fn a_download_goes_on_where_it_was() {
    Box::pin(goes_on::<OnDirectory>()).await;
    Box::pin(goes_on::<InMemory>()).await;
}

#[tokio::test]
async fn a_new_command_after_the_restart_is_the_same_download() {
    let bench: Bench = Bench::new().await;
    let (command, answer, _) = bench.begun("paused").await;
    let bench = bench.restarted().await;
    let mut again = command.clone();
    again.name = Some("320-2-again".to_owned());
    let second = bench.ask(&again).await;
    assert_eq!(second.job_id, answer.job_id);
    bench.ends_well("paused", &command, &answer).await;
    assert_eq!(bench.listed().await, ["320-2-again"]);
}

#[tokio::test]
async fn an_image_that_changed_meanwhile_begins_again() {
    let bench: Bench = Bench::new().await;
    let (command, answer, kept) = bench.begun("paused-changed").await;
    let bench = bench.restarted().await;
    let heads = bench.ends_well("paused-changed", &command, &answer).await;
    assert_eq!(first(&heads[1]), Some(kept));
    assert_eq!(first(heads.last().unwrap()), None, "the whole, of one version");
}

#[tokio::test]
async fn what_is_left_is_looked_at_before_it_is_used() {
    for damage in ["changed", "shorter", "gone"] {
        let bench: Bench = Bench::new().await;
        let (command, answer, kept) = bench.begun("paused").await;
        let file = bench.store(&bench.files()[0]);
        let bench = bench.restarted_after(|| {
            let mut bytes = std::fs::read(&file).unwrap();
            match damage {
                "changed" => bytes[100] ^= 1,
                "shorter" => bytes.truncate(kept - 1),
                _ => {
                    std::fs::remove_file(&file).unwrap();
                    return;
                }
            }
            std::fs::write(&file, bytes).unwrap();
        });
        let bench = bench.await;
        let heads = bench.ends_well("paused", &command, &answer).await;
        assert_eq!(first(heads.last().unwrap()), None, "{damage}: the whole");
    }
}

#[tokio::test]
async fn a_packed_image_begins_again() {
    use std::io::Write;
    let bench: Bench = Bench::new().await;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    packed.write_all(&raw(BIG)).unwrap();
    bench.images.put("big.raw.gz", packed.finish().unwrap());
    let command = bench.download("paused/big.raw.gz", ImageFormat::Raw);
    let answer = bench.half_way(&command).await;
    let bench = bench.restarted().await;
    assert_eq!(bench.kept(&answer), None);
    let poll = Bench::<OnDirectory>::progress(&command, &answer, DownloadRequest::GetStatus);
    let answer = bench.until_over(&command, bench.ask(&poll).await).await;
    assert!(bench.read(answer.install_path.as_deref().unwrap()) == raw(BIG), "{answer:?}");
}

/// The process ends when everything is here and nothing is listed yet: nothing is asked for again.
#[tokio::test]
async fn a_complete_download_is_only_installed() {
    let bench = Bench::<InMemory>::new().await;
    let memory = bench.memory.clone().unwrap();
    bench.images.put("big.raw", raw(BIG));
    memory.hang("rename");
    let command = bench.download("golden/big.raw", ImageFormat::Raw);
    let answer = bench.ask(&command).await;
    testkit::eventually("installing", SOON, || (memory.stuck() > 0).then_some(())).await;
    memory.die();
    let bench = bench.restarted().await;
    let heads = bench.ends_well("golden", &command, &answer).await;
    assert_eq!(heads.len(), 1);
}

/// Row 6 of the weaknesses: jobs outlive the process.
#[tokio::test]
async fn answers_are_the_same_after_a_restart() {
    let bench: Bench = Bench::new().await;
    let mut before = Vec::new();
    for (id, path, format) in [
        (320, "golden/tiny.qcow2", ImageFormat::Qcow2),
        (321, "none/tiny.qcow2", ImageFormat::Qcow2),
        (322, "golden/text.qcow2", ImageFormat::Qcow2),
    ] {
        let mut command = bench.download(path, format);
        command.install_path = Some(format!("template/tmpl/2/{id}"));
        let answer = bench.finish(&command).await;
        before.push((command, answer));
    }
    let bench = bench.restarted().await;
    for (command, answer) in &before {
        let poll = Bench::<OnDirectory>::progress(command, answer, DownloadRequest::GetStatus);
        assert_eq!(&bench.ask(&poll).await, answer);
    }
    assert!(error_of(&before[1].1).contains("404"));
    let jobs = bench.parts.downloads.status();
    assert_eq!(jobs.len(), 3);
    for (command, answer) in &before {
        let purged = bench
            .ask(&Bench::<OnDirectory>::progress(command, answer, DownloadRequest::Purge))
            .await;
        assert_eq!(&purged, answer);
        testkit::eventually("gone", SOON, || (!bench.record(answer).exists()).then_some(())).await;
    }
}

/// The server takes the machine that an OVA describes from the last answer of all.
#[tokio::test]
async fn an_ova_is_described_after_a_restart_too() {
    use crate::wrapped::{ova, vmdk};
    for is_forgotten in [false, true] {
        let bench: Bench = Bench::new().await;
        bench.images.put("app.ova", ova(&vmdk(), &["app.ovf", "disk1.vmdk"]));
        let command = bench.download("golden/app.ova", ImageFormat::Ova);
        let answer = bench.finish(&command).await;
        let record = bench.record(&answer);
        let bench = bench.restarted_after(|| {
            if is_forgotten {
                std::fs::remove_file(&record).unwrap();
            }
        });
        let bench = bench.await;
        let ask = |request| Bench::<OnDirectory>::progress(&command, &answer, request);
        let polled = bench.ask(&ask(DownloadRequest::GetStatus)).await;
        assert_eq!(
            (&polled.download_status, &polled.ovf_information),
            (&answer.download_status, &None)
        );
        let machine = bench.ask(&ask(DownloadRequest::Purge)).await.ovf_information.unwrap();
        assert_eq!(machine.disks.unwrap()[0].virtual_size, 16 << 30);
        assert_eq!(machine.guest_os_info.unwrap().t.as_deref(), Some("debian10_64Guest"));
    }
}

#[tokio::test]
async fn a_cancelled_download_does_not_come_back() {
    let bench: Bench = Bench::new().await;
    let (command, answer, _) = bench.begun("paused").await;
    bench.ask(&Bench::<OnDirectory>::progress(&command, &answer, DownloadRequest::Abort)).await;
    let bench = bench.restarted().await;
    let poll = Bench::<OnDirectory>::progress(&command, &answer, DownloadRequest::GetStatus);
    let answer = bench.ask(&poll).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::NotDownloaded));
    assert_eq!(bench.files(), Vec::<String>::new());
}
