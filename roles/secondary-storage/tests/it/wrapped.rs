//! Archives and compressed files, made byte by byte where no program makes them.

use std::io::Write;

use sha2::{Digest, Sha256};

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// A file of a ZIP.
pub struct Entry {
    name: String,
    method: u16,
    packed: Vec<u8>,
    crc: u32,
    size: usize,
    /// Sizes follow the content.
    descriptor: bool,
    /// Sizes are in the extra field for large files.
    zip64: bool,
}

impl Entry {
    fn new(name: &str, method: u16, packed: Vec<u8>, content: &[u8]) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(content);
        let (descriptor, zip64) = (false, false);
        let name = name.to_owned();
        Self { name, method, packed, crc: crc.sum(), size: content.len(), descriptor, zip64 }
    }

    pub fn stored(name: &str, content: &[u8]) -> Self {
        Self::new(name, 0, content.to_vec(), content)
    }

    pub fn deflated(name: &str, content: &[u8]) -> Self {
        let fast = flate2::Compression::fast();
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), fast);
        encoder.write_all(content).unwrap();
        Self::new(name, 8, encoder.finish().unwrap(), content)
    }

    pub fn with_descriptor(self) -> Self {
        Self { descriptor: true, ..self }
    }

    pub fn with_zip64(self) -> Self {
        Self { zip64: true, ..self }
    }

    /// What local header and directory have in common.
    fn fields(&self) -> Vec<u8> {
        let flags = if self.descriptor { 8_u16 } else { 0 };
        let known = |value: usize| match (self.descriptor, self.zip64) {
            (true, _) => 0_u32,
            (false, true) => u32::MAX,
            (false, false) => u32::try_from(value).unwrap(),
        };
        let mut fields = vec![45, 0];
        fields.extend(flags.to_le_bytes());
        fields.extend(self.method.to_le_bytes());
        fields.extend([0; 4]);
        fields.extend(if self.descriptor { 0_u32 } else { self.crc }.to_le_bytes());
        fields.extend(known(self.packed.len()).to_le_bytes());
        fields.extend(known(self.size).to_le_bytes());
        fields.extend(u16::try_from(self.name.len()).unwrap().to_le_bytes());
        fields.extend(u16::try_from(self.extra().len()).unwrap().to_le_bytes());
        fields
    }

    fn extra(&self) -> Vec<u8> {
        if !self.zip64 {
            return Vec::new();
        }
        let sizes = [self.size as u64, self.packed.len() as u64].map(u64::to_le_bytes).concat();
        [vec![1, 0, 16, 0], sizes].concat()
    }
}

pub fn zip(entries: &[Entry]) -> Vec<u8> {
    let mut zip = Vec::new();
    for entry in entries {
        zip.extend(b"PK\x03\x04");
        zip.extend(entry.fields());
        zip.extend(entry.name.as_bytes());
        zip.extend(entry.extra());
        zip.extend(&entry.packed);
        if entry.descriptor {
            zip.extend(b"PK\x07\x08");
            zip.extend(entry.crc.to_le_bytes());
            zip.extend(u32::try_from(entry.packed.len()).unwrap().to_le_bytes());
            zip.extend(u32::try_from(entry.size).unwrap().to_le_bytes());
        }
    }
    for entry in entries {
        zip.extend(b"PK\x01\x02\x2d\x03");
        zip.extend(entry.fields());
        zip.extend([0; 14]);
        zip.extend(entry.name.as_bytes());
        zip.extend(entry.extra());
    }
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend([count, count].concat());
    zip.extend([0; 10]);
    zip
}

fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(124, format!("{:011o}\0", content.len()).as_bytes());
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header.extend(content);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

/// A disk of 1 MiB as OVAs have it, made by QEMU.
pub fn vmdk() -> Vec<u8> {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("disk"), vec![7; 1 << 20]).unwrap();
    let arguments = "convert -f raw disk -O vmdk -o subformat=streamOptimized image";
    let made = std::process::Command::new("qemu-img")
        .args(arguments.split(' '))
        .current_dir(temp.path())
        .status();
    assert!(made.expect("qemu-img runs; it is in Debian's package qemu-utils").success());
    std::fs::read(temp.path().join("image")).unwrap()
}

pub const OVF: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
 xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
 xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"
 xmlns:vmw="http://www.vmware.com/schema/ovf">
 <References><File ovf:id="file1" ovf:href="disk1.vmdk"/></References>
 <DiskSection><Info/><Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="16" ovf:capacityAllocationUnits="byte * 2^30"/></DiskSection>
 <NetworkSection><Info/><Network ovf:name="VM Network"><Description>The VM Network network</Description></Network></NetworkSection>
 <DeploymentOptionSection><Info/><Configuration ovf:id="big"><Label>Big</Label><Description>more</Description></Configuration></DeploymentOptionSection>
 <VirtualSystem ovf:id="vm"><Info/>
  <OperatingSystemSection ovf:id="96" vmw:osType="debian10_64Guest"><Info/><Description>Debian GNU/Linux 10 (64-bit)</Description></OperatingSystemSection>
  <ProductSection><Info/><Category>Network</Category>
   <Property ovf:key="hostname" ovf:type="string" ovf:userConfigurable="true"><Label>Host name</Label></Property>
   <Property ovf:key="fixed" ovf:type="string" ovf:value="x"/></ProductSection>
  <EulaSection><Info>License</Info><License>Use it well.</License></EulaSection>
  <VirtualHardwareSection><Info/>
   <System><vssd:VirtualSystemType>vmx-10,vmx-9</vssd:VirtualSystemType></System>
   <Item><rasd:AllocationUnits>hertz * 10^6</rasd:AllocationUnits><rasd:ElementName>2 virtual CPU(s)</rasd:ElementName><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>2</rasd:VirtualQuantity></Item>
   <Item ovf:configuration="big"><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>3</rasd:ResourceType><rasd:VirtualQuantity>8</rasd:VirtualQuantity></Item>
   <Item><rasd:ElementName>SCSI Controller 0</rasd:ElementName><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceSubType>lsilogic</rasd:ResourceSubType><rasd:ResourceType>6</rasd:ResourceType></Item>
   <Item><rasd:ElementName>Hard Disk 1</rasd:ElementName><rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource><rasd:InstanceID>9</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
   <Item><rasd:AddressOnParent>7</rasd:AddressOnParent><rasd:AutomaticAllocation>true</rasd:AutomaticAllocation><rasd:Connection>VM Network</rasd:Connection><rasd:ElementName>Ethernet 1</rasd:ElementName><rasd:InstanceID>11</rasd:InstanceID><rasd:ResourceSubType>VmxNet3</rasd:ResourceSubType><rasd:ResourceType>10</rasd:ResourceType></Item>
  </VirtualHardwareSection></VirtualSystem>
</Envelope>"#;

/// A machine with one disk, and with a manifest of the named members.
pub fn ova(disk: &[u8], manifest_of: &[&str]) -> Vec<u8> {
    let line = |name: &&str| {
        let content = if *name == "app.ovf" { OVF.as_bytes() } else { disk };
        let hex: String =
            Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("SHA256({name})= {hex}\n")
    };
    let manifest: String = manifest_of.iter().map(line).collect();
    let mut ova = member("app.ovf", OVF.as_bytes());
    if !manifest.is_empty() {
        ova.extend(member("app.mf", manifest.as_bytes()));
    }
    ova.extend(member("disk1.vmdk", disk));
    ova.extend([0; 1024]);
    ova
}

/// The same with one more member.
pub fn ova_with(name: &str, content: &[u8]) -> Vec<u8> {
    let mut ova = ova(&vmdk(), &[]);
    ova.truncate(ova.len() - 1024);
    ova.extend(member(name, content));
    ova.extend([0; 1024]);
    ova
}
