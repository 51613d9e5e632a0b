//! Downloads that succeed, and what the server may ask about them.

use std::os::unix::fs::PermissionsExt;

use agent_protocol::storage::{
    DownloadAnswer, DownloadRequest, DownloadStatus, ImageFormat, ListVolumeCommand, PasswordAuth,
    ResourceType,
};
use bedrock::Secret;

use super::Bench;
use crate::bench::{NAME, STORE, error_of, store_to};
use crate::images::vector;

fn installed(answer: &DownloadAnswer) -> String {
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert_eq!(answer.download_pct, 100);
    answer.install_path.clone().unwrap()
}

/// Downloads `path` as `format`; the installed file must equal `expected`, the sizes too.
async fn check(path: &str, format: ImageFormat, expected: &str, virtual_size: i64) {
    let bench = Bench::new().await;
    let answer = bench.finish(&bench.download(path, format)).await;
    let file = installed(&answer);
    let bytes = vector(expected);
    assert!(bench.read(&file) == bytes, "{path}: content");
    let sizes = (answer.template_size, answer.template_physical_size);
    assert_eq!(sizes, (virtual_size, bytes.len() as i64), "{path}");
    assert_eq!(bench.listed().await, [NAME], "{path}");
    if bench.memory.is_none() {
        let file = bench.store(&file);
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o666, 0o777), "{path}");
    }
    assert_eq!(bench.files().len(), 2, "{path}: image and properties only: {:?}", bench.files());
}

#[tokio::test]
async fn every_format_and_wrapper_is_installed_byte_for_byte() {
    check("golden/tiny.qcow2", ImageFormat::Qcow2, "tiny.qcow2", 1_048_576).await;
    check("golden/tiny.qcow2.gz", ImageFormat::Qcow2, "tiny.qcow2", 1_048_576).await;
    check("golden/tiny.qcow2.bz2", ImageFormat::Qcow2, "tiny.qcow2", 1_048_576).await;
    check("chunked/tiny.qcow2", ImageFormat::Qcow2, "tiny.qcow2", 1_048_576).await;
    check("golden/tiny.raw", ImageFormat::Raw, "tiny.raw", 1_048_576).await;
    check("golden/tiny.vhd", ImageFormat::Vhd, "tiny.vhd", 1_079_296).await;
    check("golden/tiny.iso", ImageFormat::Iso, "tiny.iso", 358_400).await;
}

/// Row 37 of the weaknesses: as the command says.
#[tokio::test]
async fn redirects_are_followed_when_the_server_says_so_and_only_then() {
    for status in ["301", "302", "303", "307", "308"] {
        let bench = Bench::new().await;
        let path = format!("r{status}/tiny.iso");
        let mut command = bench.download(&path, ImageFormat::Iso);
        let answer = bench.finish(&command).await;
        // The original's words, then what to do.
        let expected = format!(
            "Failed to download {} due to redirection, response code: {status}; ",
            bench.images.url(&path)
        );
        assert!(error_of(&answer).starts_with(&expected), "{answer:?}");
        assert!(error_of(&answer).contains("store.download.follow.redirects"), "{answer:?}");
        assert_eq!(answer.download_pct, 0);
        command.follow_redirects = true;
        installed(&bench.finish(&command).await);
    }
}

#[tokio::test]
async fn properties_have_the_recorded_keys() {
    let bench = Bench::new().await;
    installed(&bench.finish(&bench.download("golden/tiny.qcow2", ImageFormat::Qcow2)).await);
    let text = bench.read("template/tmpl/2/320/template.properties");
    let text = String::from_utf8(text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "#");
    assert!(lines[1].starts_with('#') && lines[1].contains(" UTC 20"), "{}", lines[1]);
    let keys: Vec<&str> = lines[2..].iter().map(|line| line.split('=').next().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "uniquename",
            "qcow2.filename",
            "qcow2.virtualsize",
            "description",
            "qcow2.size",
            "filename",
            "size",
            "public",
            "id",
            "hvm",
            "virtualsize",
            "qcow2"
        ]
    );
    assert!(text.contains(&format!("uniquename={NAME}\n")) && text.contains("\nsize=524288\n"));
}

#[tokio::test]
async fn a_volume_is_installed_and_listed_by_its_id() {
    let bench = Bench::new().await;
    let mut command = bench.download("golden/tiny.qcow2", ImageFormat::Qcow2);
    command.resource_type = Some(ResourceType::Volume);
    command.install_path = Some("volumes/2/45".to_owned());
    command.id = 45;
    command.name = Some("data-1".to_owned());
    command.sec_url = None;
    installed(&bench.finish(&command).await);
    let list = ListVolumeCommand {
        store: Some(store_to()),
        sec_url: Some(STORE.into()),
        ..ListVolumeCommand::default()
    };
    let answer = bench.ask(&list).await;
    let infos = answer.template_infos.unwrap();
    let volume = infos.get("45").unwrap();
    assert_eq!((volume.template_name.as_deref(), volume.size), (Some("data-1"), 1_048_576));
    assert!(bench.listed().await.is_empty());
}

#[tokio::test]
async fn files_of_snapshots_keep_their_names_side_by_side() {
    // No text: that would be somebody's error page.
    let content = |name: &str| format!("\0{name}").repeat(1000).into_bytes();
    let bench = Bench::new().await;
    let mut commands = Vec::new();
    for (name, expected) in [
        ("8d4cd8d8.vhd", "8d4cd8d8.vhd"),
        ("a84ee92d_temp", "a84ee92d"),
        ("ce0e1e42/ce0e1e42.vmdk", "ce0e1e42/ce0e1e42.vmdk"),
        ("31/31.qcow2", "31.qcow2"),
    ] {
        bench.images.put(name, content(expected));
        let mut command = bench.download(&format!("golden/{name}"), ImageFormat::Raw);
        command.resource_type = Some(ResourceType::Snapshot);
        command.format = None;
        command.install_path = Some("snapshots/2/31".to_owned());
        commands.push((command, expected));
    }
    // All at once: they share a directory.
    let answers = futures_util::future::join_all(commands.iter().map(|(c, _)| bench.finish(c)));
    for (answer, (_, expected)) in answers.await.iter().zip(&commands) {
        assert_eq!(installed(answer), format!("snapshots/2/31/{expected}"));
        let bytes = bench.read(answer.install_path.as_deref().unwrap());
        assert!(bytes == content(expected));
        assert_eq!((answer.template_size, answer.template_physical_size), (0, bytes.len() as i64));
    }
    assert_eq!(bench.files().len(), 4, "{:?}", bench.files());
}

/// Row 19 of the weaknesses: one directory, one download.
#[tokio::test]
async fn a_second_command_attaches_to_the_running_download() {
    let bench = Bench::new().await;
    let command = bench.download("gated/tiny.raw", ImageFormat::Raw);
    let (first, second) = tokio::join!(bench.ask(&command), bench.ask(&command));
    assert_eq!(first.job_id, second.job_id);
    let answer = bench.half_way(&command).await;
    assert_eq!(answer.job_id, first.job_id);
    assert_eq!(answer.download_status, Some(DownloadStatus::DownloadInProgress));
    assert_eq!((answer.download_pct, answer.error_string.as_deref()), (50, Some(" ")));
    assert_eq!(answer.install_path.as_deref(), Some("template/tmpl/2/320"));
    assert!(bench.listed().await.is_empty(), "nothing partial is listed");
    // A third one brings a new unique name, as after a reconnect.
    let mut third = command.clone();
    third.name = Some("320-2-other".to_owned());
    bench.images.open_gate();
    installed(&bench.finish(&third).await);
    assert_eq!(bench.images.requests("gated/tiny.raw"), 1);
    assert_eq!(bench.listed().await, ["320-2-other"]);
}

#[tokio::test]
async fn another_image_for_the_same_place_replaces_the_running_download() {
    let bench = Bench::new().await;
    let first = bench.half_way(&bench.download("gated/tiny.raw", ImageFormat::Raw)).await;
    let command = bench.download("golden/tiny.iso", ImageFormat::Iso);
    let answer = bench.finish(&command).await;
    assert_ne!(answer.job_id, first.job_id);
    // The server may go on polling for the first one: it must not hear of a failure.
    let poll = bench.ask(&Bench::progress(&command, &first, DownloadRequest::GetStatus)).await;
    assert_eq!((&poll.job_id, &poll.install_path), (&first.job_id, &answer.install_path));
    assert_eq!(poll.download_status, Some(DownloadStatus::Downloaded));
    assert!(installed(&answer).ends_with(".iso"));
    assert_eq!(bench.files().len(), 2, "{:?}", bench.files());
}

#[tokio::test]
async fn the_server_can_abort_restart_and_forget() {
    let bench = Bench::new().await;
    let command = bench.download("gated/tiny.raw", ImageFormat::Raw);
    let answer = bench.half_way(&command).await;
    let aborted = bench.ask(&Bench::progress(&command, &answer, DownloadRequest::Abort)).await;
    assert_eq!(aborted.download_status, Some(DownloadStatus::NotDownloaded));
    assert_eq!(bench.files(), Vec::<String>::new(), "the temporary is gone");
    let held = bench.held_open();
    assert_eq!(held, Vec::<String>::new(), "on NFS its name would stay while it is open");
    let restarted = bench.ask(&Bench::progress(&command, &answer, DownloadRequest::Restart)).await;
    assert_eq!(restarted.job_id, answer.job_id, "the server knows no other");
    bench.images.open_gate();
    bench.images.open_gate();
    let done = bench.until_over(&command, restarted.clone()).await;
    installed(&done);
    let purged = bench.ask(&Bench::progress(&command, &restarted, DownloadRequest::Purge)).await;
    assert_eq!(purged, done, "the last answer once more");
    // Forgotten now, but the store has it: a late question still gets the truth.
    let late = bench.ask(&Bench::progress(&command, &restarted, DownloadRequest::GetStatus)).await;
    assert_eq!(late.job_id, restarted.job_id);
    assert_eq!(late.install_path, done.install_path);
    assert_eq!(late.download_status, Some(DownloadStatus::Downloaded));
}

/// Row 6 of the weaknesses: the server drops an answer without the job's id.
#[tokio::test]
async fn an_unknown_job_is_an_error_under_its_own_id_or_begins_again() {
    let bench = Bench::new().await;
    let command = bench.download("golden/tiny.iso", ImageFormat::Iso);
    let unknown =
        DownloadAnswer { job_id: Some("no-such-job".to_owned()), ..DownloadAnswer::default() };
    let answer = bench.ask(&Bench::progress(&command, &unknown, DownloadRequest::GetStatus)).await;
    assert!(error_of(&answer).contains("restarted"), "{answer:?}");
    assert_eq!(answer.job_id.as_deref(), Some("no-such-job"));
    let poll = Bench::progress(&command, &unknown, DownloadRequest::GetOrRestart);
    let again = bench.ask(&poll).await;
    installed(&bench.until_over(&command, again).await);
}

#[tokio::test]
async fn an_old_job_whose_image_is_being_downloaded_again_speaks_for_the_new_one() {
    let bench = Bench::new().await;
    let command = bench.download("gated/tiny.raw", ImageFormat::Raw);
    bench.half_way(&command).await;
    // As after a restart: the server still polls for the job of the former run.
    let old = DownloadAnswer { job_id: Some("former".to_owned()), ..DownloadAnswer::default() };
    let answer = bench.ask(&Bench::progress(&command, &old, DownloadRequest::GetStatus)).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::DownloadInProgress));
    assert_eq!((answer.job_id.as_deref(), answer.download_pct), (Some("former"), 50));
    bench.images.open_gate();
    installed(&bench.until_over(&command, answer).await);
}

#[tokio::test]
async fn credentials_go_to_their_own_host_only() {
    let bench = Bench::new().await;
    let mut command = bench.download("auth/tiny.iso", ImageFormat::Iso);
    let refused = bench.finish(&command).await;
    assert_eq!(error_of(&refused), " HTTP Server returned 401 (expected 200 OK) ");
    command.auth = Some(PasswordAuth {
        user_name: Some("user".to_owned()),
        password: Some(Secret::from("pw")),
    });
    installed(&bench.finish(&command).await);
    // The same in the URL.
    let mut command = bench.download("auth/tiny.iso", ImageFormat::Iso);
    command.url =
        Some(bench.images.url("auth/tiny.iso").replace("http://", "http://user:pw@").into());
    installed(&bench.finish(&command).await);
}

/// Row 3 of the weaknesses: whoever waits for a turn is told so.
#[tokio::test]
async fn one_busy_store_does_not_hold_up_lists_and_deletions() {
    let bench = Bench::with("max_downloads = 1").await;
    let command = bench.download("gated/tiny.raw", ImageFormat::Raw);
    bench.half_way(&command).await;
    let mut waiting = bench.download("golden/tiny.iso", ImageFormat::Iso);
    waiting.install_path = Some("template/tmpl/2/321".to_owned());
    let answer = bench.ask(&waiting).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::NotDownloaded));
    assert_eq!(answer.error_string.as_deref(), Some("waiting for another download to finish"));
    assert!(bench.listed().await.is_empty());
    bench.images.open_gate();
    installed(&bench.finish(&waiting).await);
}
