//! Stores in a bucket against moto, another implementation of everything: an object in parts there and
//! back, listed over pages, registered by URL, deleted.
//!
//! `S3_SERVERS` adds servers that run already, each as `ADDRESS,ACCESS KEY,SECRET KEY,BUCKET`, separated
//! by blanks; the buckets must be there.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use agent_protocol::Envelope;
use agent_protocol::storage::{
    CopyCmdAnswer, CopyCommand, DataStoreTO, DataTO, DeleteCommand, DeleteSnapshotsDirCommand,
    DownloadCommand, DownloadStatus, ImageFormat, ListVolumeCommand, S3TO, TemplateObjectTO,
    VolumeObjectTO,
};

use crate::bench::{Bench, NAME, SOON, error_of, store_to};
use crate::images::{raw, vector};

/// Installed by `cargo xtask setup`.
fn modules() -> PathBuf {
    let modules = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/moto"));
    assert!(modules.exists(), "moto is not there: run cargo xtask setup");
    modules
}

struct Moto {
    server: Child,
    port: u16,
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

impl Moto {
    async fn start() -> Self {
        // Free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Command::new("python3")
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .env("PYTHONPATH", modules())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3");
        let moto = Self { server, port };
        testkit::eventually("moto starts", SOON, || make_bucket(port).ok()).await;
        moto
    }
}

fn make_bucket(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.write_all(b"PUT /secondary HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    assert!(answer.contains(" 200 "), "{answer}");
    Ok(())
}

fn bucket(end_point: &str, access_key: &str, secret_key: &str, name: &str) -> S3TO {
    S3TO {
        id: Some(1),
        access_key: Some(access_key.into()),
        secret_key: Some(secret_key.into()),
        end_point: Some(end_point.into()),
        bucket_name: Some(name.to_owned()),
        https_flag: Some(false),
        max_error_retry: Some(1),
        ..S3TO::default()
    }
}

fn volume(path: &str, store: DataStoreTO) -> VolumeObjectTO {
    VolumeObjectTO {
        path: Some(path.to_owned()),
        data_store: Some(store),
        ..VolumeObjectTO::default()
    }
}

async fn copy(bench: &Bench, from: VolumeObjectTO, to: VolumeObjectTO) -> CopyCmdAnswer {
    let (src_to, dest_to) = (Some(from.into()), Some(to.into()));
    bench.ask(&CopyCommand { src_to, dest_to, ..CopyCommand::default() }).await
}

/// The install paths that a list of volumes names.
async fn volumes(bench: &Bench, s3: &S3TO) -> Vec<String> {
    let list = ListVolumeCommand { store: Some(s3.clone().into()), ..ListVolumeCommand::default() };
    let answer = bench.ask(&list).await;
    let infos = answer.template_infos.unwrap_or_else(|| panic!("{:?}", answer.base));
    infos.into_iter().filter_map(|(_, info)| info.install_path).collect()
}

async fn carry_and_forget(s3: &S3TO) {
    let bench: Bench = Bench::new().await;
    let at = || DataStoreTO::from(s3.clone());
    // More than two parts, and names that have to be encoded.
    let image = raw(20 << 20);
    std::fs::create_dir_all(bench.store("volumes/2/31")).unwrap();
    for (name, content) in [("v ü+&.raw", image.as_slice()), ("small.raw", &image[..1000])] {
        std::fs::write(bench.store(&format!("volumes/2/31/{name}")), content).unwrap();
        let from = volume(&format!("volumes/2/31/{name}"), store_to());
        let answer = copy(&bench, from, volume("volumes/2/31", at())).await;
        assert!(answer.base.result, "{:?}", answer.base);
        let from = volume(&format!("volumes/2/31/{name}"), at());
        let answer = copy(&bench, from, volume("volumes/2/32", store_to())).await;
        let Some(DataTO::Volume(made)) = answer.new_data else { panic!("{:?}", answer.base) };
        assert!(bench.read(made.path.as_deref().unwrap()) == content, "{name}");
    }
    let from = || volume("volumes/2/31/small.raw", store_to());
    for id in [1, 10, 100] {
        let answer = copy(&bench, from(), volume(&format!("volumes/3/{id}"), at())).await;
        assert!(answer.base.result, "{:?}", answer.base);
    }
    let all = volumes(&bench, s3).await;
    assert_eq!(all.len(), 4, "{all:?}");
    let download = |format| DownloadCommand {
        install_path: Some(format!("template/tmpl/2/320/{NAME}")),
        store: Some(at()),
        sec_url: None,
        ..bench.download("golden/tiny.qcow2", format)
    };
    let answer = bench.finish(&download(ImageFormat::Qcow2)).await;
    assert_eq!(answer.download_status, Some(DownloadStatus::Downloaded), "{answer:?}");
    let key = answer.install_path.unwrap();
    let answer = bench.finish(&download(ImageFormat::Vhd)).await;
    assert!(error_of(&answer).contains("mismatch"), "{answer:?}");
    let template = |path: &str, store| TemplateObjectTO {
        path: Some(path.to_owned()),
        name: Some(NAME.to_owned()),
        format: Some(ImageFormat::Qcow2),
        image_data_store: Some(store),
        ..TemplateObjectTO::default()
    };
    let (src_to, dest_to) =
        (template(&key, at()).into(), template("template/tmpl/2/320", store_to()).into());
    let fetch =
        CopyCommand { src_to: Some(src_to), dest_to: Some(dest_to), ..CopyCommand::default() };
    let answer = bench.ask(&fetch).await;
    let Some(DataTO::Template(made)) = answer.new_data else { panic!("{:?}", answer.base) };
    assert!(bench.read(made.path.as_deref().unwrap()) == vector("tiny.qcow2"));
    let forget = async |data: DataTO| {
        let delete = DeleteCommand { data: Some(data), ..DeleteCommand::default() };
        let base = bench.raw(Envelope::of(&delete)).await.answer_base().unwrap();
        assert!(base.result, "{base:?}");
    };
    forget(template(&key, at()).into()).await;
    forget(volume("volumes/3/1/small.raw", at()).into()).await;
    forget(volume("volumes/2/31/small.raw", at()).into()).await;
    let left = volumes(&bench, s3).await;
    assert_eq!(left, ["volumes/3/10/small.raw", "volumes/3/100/small.raw"]);
    for id in [10, 100] {
        forget(volume(&format!("volumes/3/{id}/small.raw"), at()).into()).await;
    }
    let all = DeleteSnapshotsDirCommand {
        store: Some(at()),
        directory: Some("snapshots/2/1".to_owned()),
        ..DeleteSnapshotsDirCommand::default()
    };
    assert!(bench.raw(Envelope::of(&all)).await.answer_base().unwrap().result);
    let none = volume("volumes/2/31/none.raw", at());
    let answer = copy(&bench, none, volume("volumes/2/33", store_to())).await;
    let details = answer.base.details.unwrap();
    assert!(details.contains("there is no file volumes/2/31/none.raw"), "{details}");
}

async fn refuse(s3: S3TO) {
    let bench: Bench = Bench::new().await;
    std::fs::create_dir_all(bench.store("volumes/2/31")).unwrap();
    std::fs::write(bench.store("volumes/2/31/v.raw"), raw(1000)).unwrap();
    let other = S3TO { bucket_name: Some("no-such-bucket".to_owned()), ..s3 };
    let from = volume("volumes/2/31/v.raw", store_to());
    let answer = copy(&bench, from, volume("volumes/3/1", other.into())).await;
    let details = answer.base.details.unwrap();
    assert!(details.contains("404 NoSuchBucket"), "{details}");
}

#[tokio::test]
async fn a_real_server_takes_gives_lists_and_forgets() {
    let moto = Moto::start().await;
    let address = format!("127.0.0.1:{}", moto.port);
    let own = bucket(&address, "AKIATESTTESTTEST", "secret", "secondary");
    carry_and_forget(&own).await;
    refuse(own).await;
    for server in std::env::var("S3_SERVERS").unwrap_or_default().split_whitespace() {
        let parts: Vec<&str> = server.split(',').collect();
        carry_and_forget(&bucket(parts[0], parts[1], parts[2], parts[3])).await;
    }
}
