//! The description of a machine, cut down to one of its disks.

use std::ops::Range;

use roxmltree::Node;

use super::{Ovf, OvfError, attribute, decode, document, elements};

/// The resource type of a disk.
const DISK: &str = "17";

/// The text without every other file, disk and piece of hardware that is a disk. What is left stays as
/// it is written.
///
/// # Errors
/// When the text is no description, or does not name the file.
pub fn with_one_file(bytes: &[u8], href: &str) -> Result<String, OvfError> {
    let ovf = Ovf::parse(bytes)?;
    let text = decode(bytes)?;
    let document = document(&text)?;
    let root = document.root_element();
    let file = ovf.files.iter().find(|file| file.href == href);
    let file = file.ok_or_else(|| OvfError::NoSuchFile(href.to_owned()))?;
    let kept = ovf.disks.iter().find(|disk| disk.file.as_ref() == Some(&file.id));
    let kept = kept.map(|disk| disk.id.as_str());
    let mut gone: Vec<Range<usize>> = Vec::new();
    let mut drop_all = |name, is_kept: &dyn Fn(Node<'_, '_>) -> bool| {
        let others = elements(root, name).filter(|node| !is_kept(*node));
        gone.extend(others.map(|node| node.range()));
    };
    drop_all("File", &|node| attribute(node, "href") == Some(href));
    drop_all("Disk", &|node| kept.is_some() && attribute(node, "diskId") == kept);
    for item in ["Item", "StorageItem"] {
        drop_all(item, &|node| {
            if child(node, "ResourceType").as_deref() != Some(DISK) {
                return true;
            }
            let resource = child(node, "HostResource").unwrap_or_default();
            kept.is_some() && resource.rsplit('/').next() == kept
        });
    }
    gone.sort_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for range in gone {
        // One inside another that is gone already.
        if range.start >= at {
            out.push_str(text.get(at..range.start).unwrap_or_default());
            at = range.end;
        }
    }
    out.push_str(text.get(at..).unwrap_or_default());
    Ok(out)
}

fn child(node: Node<'_, '_>, name: &str) -> Option<String> {
    let found = node.children().find(|node| node.tag_name().name() == name)?;
    Some(found.text().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "<?xml version=\"1.0\"?>\n<Envelope xmlns=\"http://schemas.dmtf.org/ovf/envelope/1\" \
        xmlns:ovf=\"http://schemas.dmtf.org/ovf/envelope/1\" xmlns:rasd=\"r\">\
        <References><File ovf:id=\"f1\" ovf:href=\"a.vmdk\"/><File ovf:id=\"f2\" ovf:href=\"b.vmdk\"/>\
        <File ovf:id=\"f3\" ovf:href=\"c.iso\"/></References>\
        <DiskSection><Info>x</Info><Disk ovf:diskId=\"d1\" ovf:fileRef=\"f1\" ovf:capacity=\"1\"/>\
        <Disk ovf:diskId=\"d2\" ovf:fileRef=\"f2\" ovf:capacity=\"2\"/></DiskSection>\
        <VirtualSystem ovf:id=\"v\"><VirtualHardwareSection>\
        <Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>\
        <Item><rasd:HostResource>ovf:/disk/d1</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>\
        <Item><rasd:HostResource>ovf:/disk/d2</rasd:HostResource><rasd:ResourceType>17</rasd:ResourceType></Item>\
        </VirtualHardwareSection></VirtualSystem></Envelope>";

    #[test]
    fn one_disk_is_left_with_what_belongs_to_it() {
        let text = with_one_file(TWO.as_bytes(), "b.vmdk").unwrap();
        let ovf = Ovf::parse(text.as_bytes()).unwrap();
        assert_eq!((ovf.files.len(), ovf.disks.len()), (1, 1));
        assert_eq!((ovf.files[0].href.as_str(), ovf.disks[0].id.as_str()), ("b.vmdk", "d2"));
        assert_eq!(text.matches("<Item>").count(), 2, "its own and the controller: {text}");
        assert!(!text.contains("d1") && text.starts_with("<?xml"));
        let iso = with_one_file(TWO.as_bytes(), "c.iso").unwrap();
        let ovf = Ovf::parse(iso.as_bytes()).unwrap();
        assert_eq!((ovf.files.len(), ovf.disks.len()), (1, 0));
        assert!(with_one_file(TWO.as_bytes(), "d.vmdk").is_err());
        assert!(with_one_file(b"<x/>", "a.vmdk").is_err());
    }
}
