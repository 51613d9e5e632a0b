//! Snapshots on a store: made into templates, named for other zones, removed with their volume.

use std::path::Path;
use std::process::Command;

use agent_protocol::Envelope;
use agent_protocol::storage::{
    CopyCmdAnswer, CopyCommand, DataTO, DeleteSnapshotsDirCommand, ImageFormat,
    QuerySnapshotZoneCopyCommand, SnapshotObjectTO, TemplateObjectTO, VolumeObjectTO,
};

use crate::bench::{Bench, InMemory, OnDirectory, OnNfs, store_to};
use crate::scripted;

fn fill<K>(bench: &Bench<K>, path: &str, content: impl AsRef<[u8]>) {
    let path = bench.directory.join("sec").join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn snapshot(path: &str, hypervisor: &str, format: Option<ImageFormat>) -> SnapshotObjectTO {
    SnapshotObjectTO {
        path: Some(path.to_owned()),
        hypervisor_type: Some(hypervisor.to_owned()),
        data_store: Some(store_to()),
        volume: Some(VolumeObjectTO { format, ..VolumeObjectTO::default() }),
        ..SnapshotObjectTO::default()
    }
}

fn to_template(snapshot: SnapshotObjectTO) -> CopyCommand {
    let template = TemplateObjectTO {
        path: Some("template/tmpl/2/230".to_owned()),
        id: 230,
        name: Some("230-2-name".to_owned()),
        image_data_store: Some(store_to()),
        ..TemplateObjectTO::default()
    };
    CopyCommand {
        src_to: Some(snapshot.into()),
        dest_to: Some(template.into()),
        ..CopyCommand::default()
    }
}

fn made(answer: CopyCmdAnswer) -> TemplateObjectTO {
    assert!(answer.base.result, "{:?}", answer.base.details);
    match answer.new_data {
        Some(DataTO::Template(template)) => *template,
        other => panic!("{other:?}"),
    }
}

fn qemu_img(directory: &Path, arguments: &str) {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let output = Command::new("qemu-img").args(&arguments).current_dir(directory).output();
    let output = output.expect("qemu-img runs; it is in Debian's package qemu-utils");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[tokio::test]
async fn a_whole_snapshot_becomes_a_listed_template_with_the_recorded_answer() {
    let bench: Bench = Bench::new().await;
    fill(&bench, "snapshots/2/45/955f8d8c", vec![7; 20_381_696]);
    let command = to_template(snapshot("snapshots/2/45/955f8d8c", "KVM", Some(ImageFormat::Raw)));
    let answer = bench.raw(Envelope::of(&command)).await;
    let recorded = "{\"newData\":{\"org.apache.cloudstack.storage.to.TemplateObjectTO\":{\"path\":\
        \"template/tmpl/2/230/955f8d8c.raw\",\"id\":0,\"format\":\"RAW\",\"accountId\":0,\"hvm\":false,\
        \"size\":20381696,\"physicalSize\":20381696,\"bootable\":false,\"directDownload\":false,\
        \"deployAsIs\":false,\"followRedirects\":false}},\"result\":true,\"contextMap\":{},\"wait\":0,\
        \"bypassHostMaintenance\":false}";
    assert_eq!(answer.body.get(), recorded);
    assert_eq!(bench.listed().await, ["230-2-name"]);
    let text = String::from_utf8(bench.read("template/tmpl/2/230/template.properties")).unwrap();
    for line in [
        "uniquename=230-2-name",
        "filename=955f8d8c.raw",
        "virtualsize=20381696",
        "size=20381696",
        "raw=true",
        "raw.filename=955f8d8c.raw",
        "raw.size=20381696",
        "raw.virtualsize=20381696",
        "public=true",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} in {text}");
    }
    assert!(bench.store("snapshots/2/45/955f8d8c").exists());
}

#[tokio::test]
async fn the_snapshot_of_a_vmware_disk_becomes_an_ova() {
    let bench: Bench = Bench::new().await;
    let directory = bench.store("snapshots/2/31/0e7f");
    std::fs::create_dir_all(&directory).unwrap();
    // As VMware exports it: the description tells the true lengths.
    let create = "create -q -f vmdk -o subformat=streamOptimized disk1.vmdk 1G";
    qemu_img(&directory, create);
    let length = directory.join("disk1.vmdk").metadata().unwrap().len();
    let description = crate::data_disks::description(1);
    let description = description.replace("ovf:size=\"10\"", &format!("ovf:size=\"{length}\""));
    std::fs::write(directory.join("0e7f.ovf"), description).unwrap();
    let command = to_template(snapshot("snapshots/2/31/0e7f/0e7f", "VMware", None));
    let template = made(bench.ask(&command).await);
    assert_eq!((template.size, template.format), (Some(1 << 30), Some(ImageFormat::Ova)));
    let path = bench.store(template.path.as_deref().unwrap());
    let listed = Command::new("tar").arg("-tf").arg(&path).output().unwrap().stdout;
    assert_eq!(String::from_utf8(listed).unwrap(), "0e7f.ovf\ndisk1.vmdk\n");
    let disk =
        Command::new("tar").arg("-xOf").arg(&path).arg("disk1.vmdk").output().unwrap().stdout;
    assert!(disk == std::fs::read(directory.join("disk1.vmdk")).unwrap());
    assert_eq!(bench.listed().await, ["230-2-name"]);
    // Packed by somebody already: it is copied.
    std::fs::rename(&path, directory.join("0e7f.ova")).unwrap();
    std::fs::remove_file(directory.join("0e7f.ovf")).unwrap();
    assert_eq!(made(bench.ask(&command).await).size, Some(1 << 30));
    // A description that names what is not there.
    std::fs::rename(directory.join("0e7f.ova"), directory.join("other")).unwrap();
    std::fs::remove_file(directory.join("disk1.vmdk")).unwrap();
    std::fs::write(directory.join("0e7f.ovf"), crate::data_disks::description(1)).unwrap();
    let answer = bench.ask(&command).await;
    let details = answer.base.details.unwrap();
    assert!(details.contains("no file snapshots/2/31/0e7f/disk1.vmdk"), "{details}");
}

async fn of_a_chain<K: crate::bench::Kind>() {
    let bench = Bench::<K>::new().await;
    let directory = bench.directory.join("sec/snapshots/2/31");
    std::fs::create_dir_all(&directory).unwrap();
    qemu_img(&directory, "create -q -f qcow2 -o cluster_size=2M one 30M");
    qemu_img(&directory, "create -q -f qcow2 -b one -F qcow2 two");
    for (name, at) in [("one", "1M"), ("two", "20M")] {
        let write = format!("write -P 7 {at} 1M");
        let output = Command::new("qemu-io")
            .args(["-f", "qcow2", "-c", &write, name])
            .current_dir(&directory)
            .output()
            .unwrap();
        assert!(output.status.success());
    }
    let template = made(bench.ask(&to_template(snapshot("snapshots/2/31/two", "KVM", None))).await);
    assert_eq!(template.path.as_deref(), Some("template/tmpl/2/230/two.qcow2"));
    assert_eq!((template.size, template.name), (Some(30 << 20), None));
    let made = bench.directory.join("sec/template/tmpl/2/230/two.qcow2");
    assert_eq!(template.physical_size, Some(made.metadata().unwrap().len() as i64));
    let made = made.display();
    qemu_img(&directory, &format!("compare -f qcow2 -F qcow2 {made} two"));
    qemu_img(&directory, &format!("check -q -f qcow2 {made}"));
    assert_eq!(bench.listed().await, ["230-2-name"]);
}

#[tokio::test]
async fn a_chain_of_snapshots_becomes_one_image_on_every_kind_of_store() {
    of_a_chain::<OnDirectory>().await;
    of_a_chain::<OnNfs>().await;
}

#[tokio::test]
async fn a_chain_that_is_not_whole_says_what_is_missing() {
    let bench: Bench = Bench::new().await;
    let directory = bench.store("snapshots/2/31");
    std::fs::create_dir_all(&directory).unwrap();
    qemu_img(&directory, "create -q -f qcow2 one 1M");
    qemu_img(&directory, "create -q -f qcow2 -b one -F qcow2 two");
    std::fs::remove_file(directory.join("one")).unwrap();
    let command = to_template(snapshot("snapshots/2/31/two", "KVM", None));
    let details = bench.ask(&command).await.base.details.unwrap();
    assert!(
        details.starts_with("snapshots/2/31/two needs its parent snapshots/2/31/one"),
        "{details}"
    );
    std::fs::write(directory.join("one"), "no image").unwrap();
    let details = bench.ask(&command).await.base.details.unwrap();
    assert!(details.starts_with("its parent snapshots/2/31/one is not a valid QCOW2"), "{details}");
    let mut files = bench.files();
    files.retain(|file| !file.starts_with("snapshots/"));
    assert!(files.is_empty(), "{files:?}");
    assert!(bench.listed().await.is_empty());
}

#[tokio::test]
async fn the_file_that_was_flattened_for_this_goes_afterwards() {
    let bench: Bench = Bench::new().await;
    fill(&bench, "snapshots/2/31/s_temp", scripted::image());
    fill(&bench, "snapshots/2/31/s", "another");
    fill(&bench, "snapshots/2/31/_temp_x", scripted::image());
    let answer = bench.ask(&to_template(snapshot("snapshots/2/31/s_temp", "KVM", None))).await;
    assert_eq!(made(answer).path.as_deref(), Some("template/tmpl/2/230/s_temp.qcow2"));
    assert!(!bench.store("snapshots/2/31/s_temp").exists());
    assert!(bench.store("snapshots/2/31/s").exists());
    made(bench.ask(&to_template(snapshot("snapshots/2/31/_temp_x", "KVM", None))).await);
    assert!(bench.store("snapshots/2/31/_temp_x").exists(), "only the end of the name counts");
    // Another image took the place of the first, and of the two only one is listed.
    assert_eq!(bench.listed_path().await, "template/tmpl/2/230/_temp_x.qcow2");
}

#[tokio::test]
async fn endings_are_found_and_what_cannot_become_a_template_says_why() {
    let bench: Bench = Bench::new().await;
    fill(&bench, "snapshots/2/31/s.qcow2", scripted::image());
    fill(&bench, "snapshots/2/31/text", "text");
    let answer = bench.ask(&to_template(snapshot("snapshots/2/31/s", "KVM", None))).await;
    assert_eq!(made(answer).path.as_deref(), Some("template/tmpl/2/230/s.qcow2.qcow2"));
    let vhd = Some(ImageFormat::Vhd);
    for (path, hypervisor, format, told) in [
        ("snapshots/2/31/none", "KVM", None, "there is no file snapshots/2/31/none in store"),
        ("snapshots/2/31/text", "KVM", None, "the file is not a valid QCOW2"),
        (
            "snapshots/2/31/s",
            "KVM",
            vhd,
            "javax.naming.ConfigurationException: Unknown image format VHD",
        ),
        ("snapshots/8ee77f77", "Simulator", None, "hypervisor \"Simulator\""),
        ("snapshots/2/31/none", "XenServer", None, "there is no file"),
        ("", "KVM", None, "is not a path below a store"),
    ] {
        let answer = bench.ask(&to_template(snapshot(path, hypervisor, format))).await;
        let details = answer.base.details.unwrap();
        assert!(!answer.base.result && details.contains(told), "{path}: {details}");
    }
}

#[tokio::test]
async fn a_snapshot_of_xenserver_becomes_a_template_of_a_new_name() {
    let bench: Bench = Bench::new().await;
    let directory = bench.store("snapshots/2/31");
    std::fs::create_dir_all(&directory).unwrap();
    qemu_img(&directory, "create -q -f vpc -o force_size=on one.vhd 8M");
    let command = to_template(snapshot("snapshots/2/31/one", "XenServer", Some(ImageFormat::Vhd)));
    let template = made(bench.ask(&command).await);
    let name = template.name.unwrap();
    assert_eq!(template.path, Some(format!("template/tmpl/2/230/{name}.vhd")));
    assert_eq!((template.size, template.format), (Some(8 << 20), Some(ImageFormat::Vhd)));
    assert_eq!(bench.listed().await, [name]);
}

#[tokio::test]
async fn a_host_that_dies_while_it_makes_a_template_lists_nothing() {
    for step in ["create", "write", "finish", "rename"] {
        let bench = Bench::<InMemory>::new().await;
        let memory = bench.memory.clone().unwrap();
        memory.write("snapshots/2/31/s", &scripted::image());
        memory.hang(step);
        let command = to_template(snapshot("snapshots/2/31/s", "KVM", None));
        let stuck = || (memory.stuck() > 0).then_some(());
        tokio::select! {
            answer = bench.ask(&command) => panic!("{step}: {answer:?}"),
            () = testkit::eventually("at the step", crate::bench::SOON, stuck) => {}
        }
        let bench = bench.restarted_after(|| memory.die()).await;
        assert!(bench.listed().await.is_empty(), "{step}");
        bench.parts.moves.recover(bench.cx.shutdown.clone()).await;
        assert_eq!(bench.files(), ["snapshots/2/31/s"], "{step}");
        made(bench.ask(&command).await);
        assert_eq!(bench.listed().await, ["230-2-name"]);
    }
}

#[tokio::test]
async fn the_files_of_a_snapshot_are_named_for_another_zone() {
    let bench: Bench = Bench::new().await;
    for file in ["45/one", "45/two.vhd", "45/VHD-three.vhd", "46/u/u.ovf", "46/u/u-disk0.vmdk"] {
        fill(&bench, &format!("snapshots/2/{file}"), "x");
    }
    fill(&bench, "snapshots/2/46/u/dnld1tmp_", "x");
    let ask = async |path: &str| {
        let snapshot = Some(snapshot(path, "KVM", None));
        let command =
            QuerySnapshotZoneCopyCommand { snapshot, ..QuerySnapshotZoneCopyCommand::default() };
        bench.ask(&command).await
    };
    for (path, files) in [
        ("snapshots/2/45/one", &["snapshots/2/45/one"][..]),
        ("snapshots/2/45/two", &["snapshots/2/45/two.vhd"]),
        ("snapshots/2/45/three", &["snapshots/2/45/VHD-three.vhd"]),
        ("snapshots/2/46/u/u", &["snapshots/2/46/u/u-disk0.vmdk", "snapshots/2/46/u/u.ovf"]),
    ] {
        let answer = ask(path).await;
        assert!(answer.base.result);
        assert_eq!(answer.files.unwrap(), files, "{path}");
    }
    for path in
        ["snapshots/2/45/four", "snapshots/2/45", "snapshots/2/9/x", "template/tmpl/1/3", ""]
    {
        let answer = ask(path).await;
        assert!(!answer.base.result && answer.files.unwrap().is_empty(), "{path}");
    }
}

#[tokio::test]
async fn all_snapshots_of_a_volume_go_and_no_others() {
    let bench: Bench = Bench::new().await;
    for file in ["31/a", "31/.hidden", "31/u/u.ovf", "310/b", "3/c"] {
        fill(&bench, &format!("snapshots/7/{file}"), "x");
    }
    let ask = async |directory: &str| {
        let command = DeleteSnapshotsDirCommand {
            store: Some(store_to()),
            directory: Some(directory.to_owned()),
            ..DeleteSnapshotsDirCommand::default()
        };
        let base = bench.raw(Envelope::of(&command)).await.answer_base().unwrap();
        (base.result, base.details)
    };
    assert_eq!(ask("snapshots/7/31").await, (true, None));
    let gone = Some("snapshot directory 31 doesn't exist".to_owned());
    assert_eq!(ask("snapshots/7/31").await, (true, gone));
    assert_eq!(bench.files(), ["snapshots/7/3/c", "snapshots/7/310/b"]);
    for bad in
        ["snapshots/7", "snapshots", "", "volumes/7/31", "snapshots/7/3/c", "snapshots/../7/3"]
    {
        assert!(!ask(bad).await.0, "{bad}");
    }
    assert_eq!(bench.files().len(), 2);
}
