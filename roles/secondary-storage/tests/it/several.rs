//! A snapshot of several files: all of them, or nothing.

use agent_protocol::storage::{DownloadCommand, DownloadStatus, ImageFormat, ResourceType};

use crate::bench::{InMemory, Kind, OnDirectory, OnNfs, SOON, error_of};

const DIRECTORY: &str = "snapshots/2/31/ce0e";
const FILES: [&str; 3] = ["ce0e.ovf", "ce0e-disk0.vmdk", "a b.mf"];

/// A description of a machine and its disks, of which the images are files named `<how>/…`.
fn command<K: Kind>(bench: &crate::bench::Bench<K>, how: [&str; 3]) -> DownloadCommand {
    let urls: Vec<String> = FILES
        .iter()
        .zip(how)
        .map(|(name, how)| {
            let path = format!("snapshots/2/28/ce0e/{name}").replace(' ', "%20");
            bench.images.put(&path, content(name));
            bench.images.url(&format!("{how}/{path}"))
        })
        .collect();
    DownloadCommand {
        resource_type: Some(ResourceType::Snapshot),
        format: None,
        install_path: Some("snapshots/2/31".to_owned()),
        url: Some(urls.join("\n").into()),
        ..bench.download("", ImageFormat::Raw)
    }
}

fn content(name: &str) -> Vec<u8> {
    // No text: that would be somebody's error page.
    name.bytes().cycle().take(300_000 + name.len()).map(|byte| byte & 0x0f).collect()
}

const WHOLE: [&str; 3] = ["golden"; 3];

async fn are_installed<K: Kind>() {
    let bench = crate::bench::Bench::<K>::new().await;
    let command = command(&bench, ["golden", "cut-once", "golden"]);
    let answer = bench.finish(&command).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    // The server keeps the description's place, without its ending.
    assert_eq!(answer.install_path.as_deref(), Some("snapshots/2/31/ce0e/ce0e"));
    let total: usize = FILES.iter().map(|name| content(name).len()).sum();
    assert_eq!((answer.template_size, answer.template_physical_size), (0, total as i64));
    assert_eq!(answer.download_pct, 100);
    let mut expected: Vec<String> =
        FILES.iter().map(|name| format!("{DIRECTORY}/{name}")).collect();
    expected.sort();
    assert_eq!(bench.files(), expected);
    for name in FILES {
        assert!(bench.read(&format!("{DIRECTORY}/{name}")) == content(name), "{name}");
    }
    // Copied once more, as after an answer that the server did not get.
    let mut again = command.clone();
    again.id = 321;
    let answer = bench.finish(&again).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert_eq!(bench.files(), expected);
}

#[tokio::test]
async fn all_files_are_there_and_one_place_is_told() {
    are_installed::<OnDirectory>().await;
    are_installed::<OnNfs>().await;
    are_installed::<InMemory>().await;
}

#[tokio::test]
async fn one_file_that_fails_leaves_nothing_of_the_others() {
    let bench: crate::Bench = crate::Bench::new().await;
    for (how, name) in
        [(["golden", "golden", "missing"], FILES[2]), (["golden", "cut", "golden"], FILES[1])]
    {
        let answer = bench.finish(&command(&bench, how)).await;
        assert!(error_of(&answer).starts_with(&format!("{name:?}: ")), "{answer:?}");
        assert_eq!(bench.files(), Vec::<String>::new(), "{how:?}");
    }
    // What is missing is known before anything is stored.
    assert_eq!(bench.images.requests("golden/snapshots/2/28/ce0e/ce0e.ovf"), 3);
    let mut large = command(&bench, WHOLE);
    large.max_download_size_in_bytes = Some(800_000);
    assert!(error_of(&bench.finish(&large).await).contains("too large"));
    let mut summed = command(&bench, WHOLE);
    summed.checksum = Some("{MD5}900150983cd24fb0d6963f7d28e17f72".to_owned());
    assert!(error_of(&bench.finish(&summed).await).contains("several"));
    let mut odd = command(&bench, WHOLE);
    odd.url = Some(format!("{}\nftp://h/x", bench.images.url("golden/x/y")).into());
    assert!(error_of(&bench.finish(&odd).await).contains("ftp"));
}

#[tokio::test]
async fn what_is_not_of_the_snapshot_is_never_replaced() {
    let bench: crate::Bench = crate::Bench::new().await;
    std::fs::create_dir_all(bench.store(DIRECTORY)).unwrap();
    std::fs::write(bench.store(&format!("{DIRECTORY}/other.vmdk")), "mine").unwrap();
    let answer = bench.finish(&command(&bench, WHOLE)).await;
    let text = error_of(&answer);
    assert!(text.contains(DIRECTORY) && text.contains("other.vmdk"), "{text}");
    assert_eq!(bench.files(), [format!("{DIRECTORY}/other.vmdk")]);
}

/// The process ends while the second file comes: the next one begins again, and nothing is left
/// beside.
#[tokio::test]
async fn a_restart_begins_again() {
    let bench: crate::Bench = crate::Bench::new().await;
    let command = command(&bench, ["golden", "gated", "golden"]);
    let answer = bench.ask(&command).await;
    let job = bench.parts.downloads.get(answer.job_id.as_deref().unwrap()).unwrap();
    let more = content(FILES[0]).len() as u64;
    testkit::eventually("the second", SOON, || (job.received() > more).then_some(())).await;
    assert!(bench.files().iter().all(|file| !file.starts_with(DIRECTORY)), "{:?}", bench.files());
    let bench = bench.restarted().await;
    (0..10).for_each(|_request| bench.images.open_gate());
    let answer = bench.until_over(&command, answer).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert_eq!(bench.files().len(), 3, "{:?}", bench.files());
}
