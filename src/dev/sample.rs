//! Images to try the storage role with when there is no network: made on the spot, valid, small.

/// Bytes of one cluster of the sample: the smallest the format allows.
const CLUSTER: usize = 512;
/// What a machine would see of the sample disk.
pub(crate) const QCOW2_VIRTUAL_SIZE: u64 = 1 << 20;
/// Bytes of the slowly served raw sample.
pub(crate) const SLOW_SIZE: usize = 12 << 20;

/// An empty QCOW2 image, version 3, of [`QCOW2_VIRTUAL_SIZE`] in four clusters: header, refcount
/// table, refcount block, L1 table. `qemu-img check` finds nothing wrong with it.
pub(crate) fn qcow2() -> Vec<u8> {
    let cluster = u64::try_from(CLUSTER).unwrap_or(u64::MAX);
    let entries_per_l2 = cluster / 8;
    let l1_entries = u32::try_from(QCOW2_VIRTUAL_SIZE / (entries_per_l2 * cluster)).unwrap_or(0);
    let mut header = Vec::with_capacity(CLUSTER * 4);
    header.extend_from_slice(b"QFI\xfb");
    header.extend_from_slice(&3_u32.to_be_bytes());
    header.extend_from_slice(&[0; 12]); // no backing file: offset, name length
    header.extend_from_slice(&9_u32.to_be_bytes()); // cluster bits
    header.extend_from_slice(&QCOW2_VIRTUAL_SIZE.to_be_bytes());
    header.extend_from_slice(&0_u32.to_be_bytes()); // no encryption
    header.extend_from_slice(&l1_entries.to_be_bytes());
    header.extend_from_slice(&(3 * cluster).to_be_bytes()); // L1 table
    header.extend_from_slice(&cluster.to_be_bytes()); // refcount table
    header.extend_from_slice(&1_u32.to_be_bytes()); // of one cluster
    header.extend_from_slice(&[0; 12]); // no snapshots
    header.extend_from_slice(&[0; 24]); // no feature bits
    header.extend_from_slice(&4_u32.to_be_bytes()); // refcounts of 16 bits
    header.extend_from_slice(&104_u32.to_be_bytes()); // header length
    let mut image = header;
    image.resize(CLUSTER, 0);
    image.extend_from_slice(&(2 * cluster).to_be_bytes()); // the refcount block
    image.resize(2 * CLUSTER, 0);
    for _used in 0..4 {
        image.extend_from_slice(&1_u16.to_be_bytes());
    }
    image.resize(4 * CLUSTER, 0);
    image
}

/// One piece of the raw sample, to be repeated up to [`SLOW_SIZE`]: a boot sector's mark and bytes
/// that look like no other format.
pub(crate) fn slow_piece() -> Vec<u8> {
    let noise = std::iter::successors(Some(0x2545_f491_u32), |state| {
        Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
    });
    let mut piece = vec![0; 510];
    piece.extend_from_slice(&[0x55, 0xaa]);
    piece.extend(noise.flat_map(u32::to_be_bytes).take(256 * 1024 - 512));
    piece
}

/// What a machine would see of the sample OVA's disk.
pub(crate) const OVA_VIRTUAL_SIZE: u64 = 1 << 20;
const SECTOR: usize = 512;

/// A machine with one empty disk: description and disk in an archive.
pub(crate) fn ova() -> Vec<u8> {
    let disk = vmdk();
    let ovf = format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData">
 <References><File ovf:id="file1" ovf:href="disk.vmdk" ovf:size="{length}"/></References>
 <DiskSection><Info>Disks</Info>
  <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="{OVA_VIRTUAL_SIZE}"/></DiskSection>
 <NetworkSection><Info>Networks</Info><Network ovf:name="demo"><Description>The demo network</Description></Network></NetworkSection>
 <VirtualSystem ovf:id="sample"><Info>A machine</Info><Name>sample</Name>
  <VirtualHardwareSection><Info>Hardware</Info>
   <Item><rasd:ElementName>1 virtual CPU</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>1</rasd:VirtualQuantity></Item>
   <Item><rasd:ElementName>Disk 1</rasd:ElementName><rasd:HostResource>ovf:/disk/disk1</rasd:HostResource><rasd:InstanceID>2</rasd:InstanceID><rasd:ResourceType>17</rasd:ResourceType></Item>
  </VirtualHardwareSection></VirtualSystem>
</Envelope>
"#,
        length = disk.len()
    );
    let mut archive = member("sample.ovf", ovf.as_bytes());
    archive.extend(member("disk.vmdk", &disk));
    archive.extend_from_slice(&[0; 2 * SECTOR]);
    archive
}

/// An empty VMDK in one file: header, description, grain directory, one grain table.
fn vmdk() -> Vec<u8> {
    let sectors = OVA_VIRTUAL_SIZE / 512;
    let description = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
         createType=\"monolithicSparse\"\n\nRW {sectors} SPARSE \"disk.vmdk\"\n"
    );
    let mut image = b"KDMV".to_vec();
    image.extend_from_slice(&1_u32.to_le_bytes());
    image.extend_from_slice(&1_u32.to_le_bytes()); // with the test of line ends
    image.extend_from_slice(&sectors.to_le_bytes());
    image.extend_from_slice(&128_u64.to_le_bytes()); // sectors of a grain
    image.extend_from_slice(&1_u64.to_le_bytes()); // the description
    image.extend_from_slice(&1_u64.to_le_bytes()); // of one sector
    image.extend_from_slice(&512_u32.to_le_bytes()); // entries of a table
    image.extend_from_slice(&0_u64.to_le_bytes()); // no second directory
    image.extend_from_slice(&2_u64.to_le_bytes()); // the directory
    image.extend_from_slice(&128_u64.to_le_bytes()); // the first grain
    image.push(0);
    image.extend_from_slice(b"\n \r\n");
    image.resize(SECTOR, 0);
    image.extend_from_slice(description.as_bytes());
    image.resize(2 * SECTOR, 0);
    image.extend_from_slice(&3_u32.to_le_bytes()); // the table
    image.resize(128 * SECTOR, 0);
    image
}

/// A file of an archive.
fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = name.as_bytes().to_vec();
    header.resize(100, 0);
    header.extend_from_slice(b"0000644\0");
    header.resize(124, 0);
    header.extend_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header.resize(148, 0);
    let tail = [b"0".as_slice(), &[0; 100], b"ustar\x0000"].concat();
    let sum = header.iter().chain(&tail).map(|byte| u32::from(*byte)).sum::<u32>();
    // Itself it counts as blanks.
    header.extend_from_slice(format!("{:06o}\0 ", sum + 8 * u32::from(b' ')).as_bytes());
    header.extend_from_slice(&tail);
    header.resize(SECTOR, 0);
    header.extend_from_slice(content);
    header.resize(header.len().next_multiple_of(SECTOR), 0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn check(program: &str, arguments: &[&str], name: &str, bytes: &[u8]) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let spec = role::CommandSpec::new(program, Duration::from_secs(20));
        let spec = arguments.iter().fold(spec, |spec, argument| spec.arg(argument));
        let output = role::Host::system().runner.run(spec.arg(&path)).await.unwrap();
        assert_eq!(output.code, Some(0), "{} {}", output.stdout, output.stderr);
        output.stdout
    }

    #[tokio::test]
    async fn qemu_finds_nothing_wrong_with_the_samples() {
        let said = check("qemu-img", &["check", "-f", "qcow2"], "sample.qcow2", &qcow2()).await;
        assert!(said.contains("No errors"), "{said}");
        let said = check("qemu-img", &["check", "-f", "vmdk"], "disk.vmdk", &vmdk()).await;
        assert!(said.contains("No errors"), "{said}");
        let said = check("tar", &["-tf"], "sample.ova", &ova()).await;
        assert_eq!(said, "sample.ovf\ndisk.vmdk\n");
    }
}
