//! A file of a store as the source of another object.

use agent_protocol::storage::{DownloadStatus, ImageFormat};

use crate::bench::{Bench, error_of};
use crate::images::vector;

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
