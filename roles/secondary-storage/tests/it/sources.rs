//! Sources that are no web servers: a file of a store, a file of an NFS server; and what is none.

use agent_protocol::storage::{DownloadStatus, ImageFormat};

use crate::bench::{Bench, error_of};
use crate::images::{raw, vector};
use crate::nfs_server::{NfsServer, procedure};

#[tokio::test]
async fn a_file_of_a_store_is_copied_and_nothing_else_of_this_machine() {
    let bench: Bench = Bench::new().await;
    let first = bench.finish(&bench.download("golden/tiny.qcow2", ImageFormat::Qcow2)).await;
    let path = first.install_path.unwrap();
    let name = secondary_storage::stores::url::name_uuid(b"127.0.0.1:/export/sec").to_string();
    let place = bench.store("").display().to_string();
    let place = place.trim_end_matches('/');
    for (id, url) in [
        (330, format!("file://{name}/{path}")),
        (331, format!("file://{place}/{path}")),
        (332, format!("FILE:///{name}/{path}")),
    ] {
        let mut command = bench.download("", ImageFormat::Qcow2);
        command.url = Some(url.as_str().into());
        command.install_path = Some(format!("template/tmpl/2/{id}"));
        command.name = Some(format!("{id}-copy"));
        let answer = bench.finish(&command).await;
        assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{url}: {answer:?}");
        assert!(bench.read(answer.install_path.as_deref().unwrap()) == vector("tiny.qcow2"));
    }
    for (url, expected) in [
        ("file:///etc/passwd".to_owned(), "names no store"),
        (format!("file://{name}/.quickcloud-store"), "no file of a template or volume"),
        (format!("file://{name}/template/tmpl/2/320"), "no file of a template or volume"),
        (format!("file://{name}/template/tmpl/2/../../../x"), "not usable"),
        (format!("file://{place}/template/tmpl/2/320/none"), "there is no file"),
        ("file:".to_owned(), "names no store"),
    ] {
        let mut command = bench.download("", ImageFormat::Qcow2);
        command.url = Some(url.as_str().into());
        command.install_path = Some("template/tmpl/2/340".to_owned());
        let answer = bench.finish(&command).await;
        assert!(error_of(&answer).contains(expected), "{url}: {answer:?}");
    }
}

/// A server with `a b.raw` below its export.
fn nfs_server(temp: &tempfile::TempDir) -> NfsServer {
    std::fs::create_dir_all(temp.path().join("x/y")).unwrap();
    std::fs::write(temp.path().join("x/y/a b.raw"), raw(3 << 20)).unwrap();
    let server = NfsServer::start(temp.path());
    server.faults(|faults| faults.exports = Some(vec!["/export/images".to_owned()]));
    server
}

async fn from_nfs(bench: &Bench, url: String) -> agent_protocol::storage::DownloadAnswer {
    let mut command = bench.download("", ImageFormat::Raw);
    command.url = Some(url.as_str().into());
    bench.finish(&command).await
}

fn nfs_url(server: &NfsServer, path: &str) -> String {
    let port = server.addr.port();
    format!("nfs://127.0.0.1/{path}?nfsport={port}&mountport={port}&uid=1000&gid=1001")
}

#[tokio::test]
async fn a_file_of_an_nfs_server_is_read_without_a_mount() {
    let bench: Bench = Bench::with("retry_delay = \"1ms\"").await;
    let temp = tempfile::tempdir().unwrap();
    let server = nfs_server(&temp);
    let url = nfs_url(&server, "export/images/x/y/a%20b.raw");
    // Connections that break on the way change nothing.
    server.faults(|faults| {
        faults.cut_after.insert(procedure::READ, 2);
        faults.short = Some(100_000);
    });
    let answer = from_nfs(&bench, url.clone()).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    assert!(bench.read(answer.install_path.as_deref().unwrap()) == raw(3 << 20));
    assert!(server.callers().contains(&(1000, 1001)));
    for (path, expected) in [
        ("export/images/x/y/none.raw", "there is no file nfs://127.0.0.1/export/images/x/y/none"),
        ("export/images/x/y", "not a regular file"),
        ("export/other/a.raw", "access denied"),
        ("a.raw", "access denied"),
        ("export/images/../../etc/x", "access denied"),
        ("export//x", "not that of a file"),
    ] {
        let answer = from_nfs(&bench, nfs_url(&server, path)).await;
        assert!(error_of(&answer).contains(expected), "{path}: {answer:?}");
    }
    let elsewhere = url.replace("127.0.0.1", "127.0.0.2");
    assert!(error_of(&from_nfs(&bench, elsewhere).await).contains("a loopback address"));
    server.faults(|faults| {
        faults.refuse.insert(procedure::READ, (13, usize::MAX));
    });
    let answer = from_nfs(&bench, url).await;
    assert!(error_of(&answer).contains("acts as user 1000"), "{answer:?}");
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_read_again() {
    let bench: Bench = Bench::with("retry_delay = \"1ms\"").await;
    let temp = tempfile::tempdir().unwrap();
    let server = nfs_server(&temp);
    let other: Vec<u8> = raw(3 << 20).iter().map(|byte| byte ^ 0x5a).collect();
    // Refused for a moment, and another file when it is asked for again.
    server.faults(|faults| {
        faults.refuse.insert(procedure::READ, (10_008, 1));
    });
    let path = temp.path().join("x/y/a b.raw");
    let url = nfs_url(&server, "export/images/x/y/a%20b.raw");
    let mut command = bench.download("", ImageFormat::Raw);
    command.url = Some(url.as_str().into());
    let answer = bench.ask(&command).await;
    std::fs::write(temp.path().join("new"), &other).unwrap();
    std::fs::rename(temp.path().join("new"), &path).unwrap();
    let answer = bench.until_over(&command, answer).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    let found = bench.read(answer.install_path.as_deref().unwrap());
    assert!(found == other || found == raw(3 << 20), "one version, whole");
}

#[tokio::test]
async fn what_is_no_source_is_named_with_what_is() {
    let bench: Bench = Bench::new().await;
    for (url, expected) in [
        ("ftp://h/a.raw", "\"ftp\""),
        ("FTPS://h/a.raw", "\"ftps\""),
        ("s3://bucket/a.raw", "\"s3\""),
        ("cifs://h/share/a.raw", "\"cifs\""),
        ("scp://user:geheim@h/a.raw", "\"scp\""),
        ("magnet:?xt=urn:btih:x", "it begins with none"),
        ("h/a.raw", "cannot be parsed"),
        ("nfs://h", "not that of a file"),
        ("nfs:/a/b", "has no host"),
        ("nfs://geheim:geheim@h/a/b", "knows no user names"),
        ("nfs://h/a/b?geheim=1", "may have uid, gid"),
        ("nfs://h/a/b?version=4", "only version 3"),
    ] {
        let mut command = bench.download("", ImageFormat::Raw);
        command.url = Some(url.into());
        let answer = bench.finish(&command).await;
        let text = error_of(&answer);
        assert!(text.contains(expected), "{url}: {text}");
        assert!(!text.contains("geheim"), "{url}: {text}");
        let names_all = text.contains("http") && text.contains("nfs") && text.contains("file");
        assert!(names_all || !text.contains("nothing is downloaded by"), "{text}");
    }
}
