//! The disks of an OVA, told and made into templates.

use agent_protocol::Envelope;
use agent_protocol::storage::{
    CreateDatadiskTemplateCommand, DataTO, GetDatadisksCommand, ListTemplateCommand,
    TemplateObjectTO,
};

use super::Bench;
use crate::bench::store_to;

const DIRECTORY: &str = "template/tmpl/2/230";

fn item(instance: u32, resource: &str, kind: u32, more: &str) -> String {
    let host = match resource {
        "" => String::new(),
        disk => format!("<rasd:HostResource>ovf:/disk/{disk}</rasd:HostResource>"),
    };
    format!(
        "<Item{more}><rasd:InstanceID>{instance}</rasd:InstanceID>{host}\
         <rasd:ElementName>SCSI Controller 0</rasd:ElementName><rasd:Parent>3</rasd:Parent>\
         <rasd:ResourceSubType>lsilogic</rasd:ResourceSubType>\
         <rasd:ResourceType>{kind}</rasd:ResourceType></Item>"
    )
}

pub fn description(disks: usize) -> String {
    let of = |part: &dyn Fn(usize) -> String| (1..=disks).map(part).collect::<String>();
    let files = of(&|n| {
        format!("<File ovf:id=\"f{n}\" ovf:href=\"disk{n}.vmdk\" ovf:size=\"{}\"/>", n * 10)
    });
    let listed = of(&|n| {
        format!(
            "<Disk ovf:diskId=\"vmdisk{n}\" ovf:fileRef=\"f{n}\" ovf:capacity=\"{n}\" \
             ovf:capacityAllocationUnits=\"byte * 2^30\"/>"
        )
    });
    let controller = item(3, "", 6, "").replace("<rasd:Parent>3</rasd:Parent>", "");
    let items = of(&|n| item(10 + n as u32, &format!("vmdisk{n}"), 17, ""));
    format!(
        "<?xml version=\"1.0\"?><Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
         xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" xmlns:rasd=\"r\">\
         <References>{files}</References><DiskSection>{listed}</DiskSection>\
         <VirtualSystem ovf:id=\"v\"><VirtualHardwareSection>{controller}{items}\
         </VirtualHardwareSection></VirtualSystem></Envelope>"
    )
}

async fn unpacked(disks: usize) -> Bench {
    let bench: Bench = Bench::new().await;
    let put = |name: &str, content: &[u8]| {
        let path = bench.store(&format!("{DIRECTORY}/{name}"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    put("app.ovf", description(disks).as_bytes());
    put("31522b92.ova", b"the whole archive");
    for disk in 1..=disks {
        put(&format!("disk{disk}.vmdk"), &vec![disk as u8; disk * 10]);
    }
    bench
}

fn template(path: &str, id: i64) -> TemplateObjectTO {
    TemplateObjectTO {
        path: Some(path.to_owned()),
        id,
        account_id: 2,
        size: Some(1 << 30),
        unique_name: Some(format!("{id}-2-name")),
        name: Some(format!("{id}-2-name")),
        image_data_store: Some(store_to()),
        ..TemplateObjectTO::default()
    }
}

fn question(path: &str) -> GetDatadisksCommand {
    GetDatadisksCommand {
        data: Some(DataTO::from(template(path, 230))),
        ..GetDatadisksCommand::default()
    }
}

fn split(id: i64, path: &str, bootable: bool) -> CreateDatadiskTemplateCommand {
    CreateDatadiskTemplateCommand {
        data_disk_template: Some(DataTO::from(template(&format!("template/tmpl/2/{id}"), id))),
        path: Some(path.to_owned()),
        bootable,
        ..CreateDatadiskTemplateCommand::default()
    }
}

async fn listed(bench: &Bench) -> Vec<(String, bool)> {
    let list = ListTemplateCommand { store: Some(store_to()), ..ListTemplateCommand::default() };
    let infos = bench.ask(&list).await.template_infos.unwrap();
    infos.into_iter().map(|(name, template)| (name, template.is_corrupted)).collect()
}

#[tokio::test]
async fn the_one_disk_of_an_ova_is_told_and_split_off_as_recorded() {
    let bench = unpacked(1).await;
    for path in ["31522b92.ova", ""] {
        let path = format!("{DIRECTORY}/{path}");
        let answer = bench.raw(Envelope::of(&question(path.trim_end_matches('/')))).await;
        let place = bench.place(DIRECTORY);
        let expected = format!(
            "{{\"dataDiskDetails\":[{{\"path\":\"{place}/disk1.vmdk\",\"virtualSize\":1073741824,\
             \"fileSize\":10,\"bootable\":true,\"diskId\":\"vmdisk1\",\"isIso\":false,\
             \"diskController\":\"SCSI Controller 0\",\"diskControllerSubType\":\"lsilogic\",\
             \"diskNumber\":0,\"configuration\":\"\"}}],\"result\":true,\"contextMap\":{{}},\"wait\":0,\
             \"bypassHostMaintenance\":false}}"
        );
        assert_eq!(answer.body.get(), expected);
    }
    assert_eq!(bench.read(&format!("{DIRECTORY}/app.ovf.orig")), description(1).as_bytes());
    let disk = format!("{}/disk1.vmdk", bench.place(DIRECTORY));
    let answer = bench.raw(Envelope::of(&split(230, &disk, true))).await;
    let expected = "{\"dataDiskTemplate\":{\"path\":\"template/tmpl/2/230/230-2-name.ova\",\"id\":230,\
        \"accountId\":0,\"hvm\":false,\"size\":1073741824,\"physicalSize\":10,\"bootable\":false,\
        \"directDownload\":false,\"deployAsIs\":false,\"followRedirects\":false},\"result\":true,\
        \"contextMap\":{},\"wait\":0,\"bypassHostMaintenance\":false}";
    assert_eq!(answer.body.get(), expected);
    // The name that the server keeps leads to the archive, which stays under its own name, too.
    assert_eq!(bench.read(&format!("{DIRECTORY}/230-2-name.ova")), b"the whole archive");
    assert!(bench.store(&format!("{DIRECTORY}/31522b92.ova")).exists());
    assert_eq!(listed(&bench).await, [("230-2-name".to_owned(), false)]);
}

#[tokio::test]
async fn a_second_disk_moves_to_a_template_of_its_own() {
    let bench = unpacked(2).await;
    let disks = bench.ask(&question(&format!("{DIRECTORY}/31522b92.ova"))).await;
    let disks = disks.data_disk_details.unwrap();
    assert_eq!(disks.len(), 2);
    let path = |nth: usize| disks[nth].path.clone().unwrap();
    assert!(bench.ask(&split(230, &path(0), true)).await.base.result);
    let answer = bench.ask(&split(241, &path(1), false)).await;
    let made = answer.data_disk_template.unwrap();
    assert_eq!(made.path.as_deref(), Some("template/tmpl/2/241/241-2-name.ova"));
    assert_eq!((made.size, made.physical_size), (Some(1 << 30), Some(20)));
    assert_eq!(bench.read("template/tmpl/2/241/disk2.vmdk"), vec![2; 20]);
    assert!(!bench.store(&format!("{DIRECTORY}/disk2.vmdk")).exists(), "it moved");
    let text = |path: &str| String::from_utf8(bench.read(path)).unwrap();
    let ovf = text("template/tmpl/2/241/app.ovf");
    assert!(ovf.contains("disk2.vmdk") && !ovf.contains("disk1.vmdk"), "{ovf}");
    let ovf = text(&format!("{DIRECTORY}/app.ovf"));
    assert!(ovf.contains("disk1.vmdk") && !ovf.contains("disk2.vmdk"), "{ovf}");
    let meta = text("template/tmpl/2/241/241-2-name.ova.meta");
    for line in
        ["ova.filename=241-2-name.ova", "numDisks=1", "disk1.name=disk2.vmdk", "disk1.size=20"]
    {
        assert!(meta.lines().any(|other| other == line), "{line} in {meta}");
    }
    let both = [("230-2-name".to_owned(), false), ("241-2-name".to_owned(), false)];
    assert_eq!(listed(&bench).await, both);
}

#[tokio::test]
async fn what_is_no_ova_or_no_disk_of_it_is_refused() {
    let bench = unpacked(1).await;
    std::fs::remove_file(bench.store(&format!("{DIRECTORY}/disk1.vmdk"))).unwrap();
    let before = "Failed to get disks from template [template/tmpl/2/230/31522b92.ova] due to [";
    let details = bench.ask(&question(&format!("{DIRECTORY}/31522b92.ova"))).await.base.details;
    let details = details.unwrap();
    assert!(details.starts_with(before) && details.contains("\"disk1.vmdk\""), "{details}");
    for path in ["template/tmpl/2/231/x.ova", "volumes/2/230", "template/tmpl/2", ""] {
        assert!(!bench.ask(&question(path)).await.base.result, "{path}");
    }
    let bench = unpacked(1).await;
    for (id, path, bootable) in [
        (230, "/mnt/x/template/tmpl/2/230/none.vmdk", true),
        (230, "/mnt/x/template/tmpl/2/230", true),
        (230, "/etc/passwd", true),
        (230, "", true),
        (231, "/mnt/x/template/tmpl/2/230/disk1.vmdk", true),
        (230, "/mnt/x/template/tmpl/2/230/disk1.vmdk", false),
        (231, "/mnt/x/template/tmpl/2/230/../230/disk1.vmdk", false),
    ] {
        let answer = bench.ask(&split(id, path, bootable)).await;
        let details = answer.base.details.unwrap();
        assert!(!answer.base.result, "{path}");
        assert!(details.starts_with("Create Datadisk template failed due to "), "{details}");
    }
    assert_eq!(bench.files().len(), 3);
}
