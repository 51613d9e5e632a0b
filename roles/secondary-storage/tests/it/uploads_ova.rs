//! What the server is told of the machine that an uploaded OVA describes.

use agent_protocol::storage::UploadStatusState::{Completed, Error};
use agent_protocol::storage::{ImageFormat, PostUploadOrder, UploadStatusAnswer};

use crate::bench::Bench;
use crate::upload_client::{Signed, order, upload};
use crate::uploads::ID;
use crate::uploads_crash::as_if_killed_after_publishing;
use crate::wrapped::{ova, vmdk};

fn ova_order() -> PostUploadOrder {
    PostUploadOrder { image_format: Some(ImageFormat::Ova), ..order(ID, 270) }
}

/// A bench with an OVA on its store, and what the server is told of it.
async fn uploaded() -> (Bench, UploadStatusAnswer) {
    let bench = Bench::new().await;
    let addr = bench.upload_site().await;
    let file = ova(&vmdk(), &["app.ovf", "disk1.vmdk"]);
    let reply = upload(addr, &Signed::of(&ova_order()), "app.ova", &file).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let answer = bench.upload_status(ID).await;
    assert_eq!(answer.status, Some(Completed));
    (bench, answer)
}

#[tokio::test]
async fn the_machine_of_an_ova_is_told_with_its_end_and_after_a_restart() {
    let (bench, answer) = uploaded().await;
    let machine = answer.ovf_information.as_ref().unwrap();
    let disk = &machine.disks.as_ref().unwrap()[0];
    let place = bench.store("template/tmpl/2/270/disk1.vmdk").display().to_string();
    assert_eq!((disk.path.as_deref(), disk.virtual_size), (Some(place.as_str()), 16 << 30));
    assert_eq!(machine.guest_os_info.as_ref().unwrap().t.as_deref(), Some("debian10_64Guest"));
    assert!(machine.eula_sections.is_some() && machine.networks.is_some());
    assert_eq!(bench.upload_status(ID).await, answer, "again");
    let bench = bench.restarted().await;
    assert_eq!(bench.upload_status(ID).await, answer, "after a restart");
}

#[tokio::test]
async fn a_host_killed_right_after_publishing_reads_the_machine_from_the_store() {
    let (bench, answer) = uploaded().await;
    let bench = as_if_killed_after_publishing(bench, &answer).await;
    bench.parts.uploads.uploads.recover(bench.cx.shutdown.clone()).await;
    assert_eq!(bench.upload_status(ID).await, answer);
}

#[tokio::test]
async fn an_ova_that_its_manifest_does_not_know_is_the_clients_fault() {
    let bench: Bench = Bench::new().await;
    let addr = bench.upload_site().await;
    let mut file = ova(&vmdk(), &["app.ovf", "disk1.vmdk"]);
    let at = file.windows(4).rposition(|window| window == b"KDMV").unwrap();
    file[at + 100] ^= 1;
    let reply = upload(addr, &Signed::of(&ova_order()), "app.ova", &file).await;
    assert!(reply.status == 400 && reply.body.contains("\"manifest\""), "{reply:?}");
    assert!(reply.reason().starts_with("\"disk1.vmdk\" of the archive: checksum"), "{reply:?}");
    assert_eq!(bench.told(ID).await, (Error, reply.reason()));
    assert_eq!(bench.files(), Vec::<String>::new());
}
