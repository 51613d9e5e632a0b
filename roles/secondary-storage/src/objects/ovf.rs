//! The machine that an OVA describes, in the server's words.
//!
//! The server takes networks, properties, licences and hardware from here when a template is
//! deployed as it is, so every member is found where the original finds it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use agent_protocol::storage::{
    DatadiskTO, OVFConfigurationTO, OVFEulaSectionTO, OVFInformationTO, OVFNetworkTO,
    OVFPropertyTO, OVFVirtualHardwareItemTO, OVFVirtualHardwareSectionTO, TextPair,
};
use bedrock::Secret;
use disk_image::ovf::{Ovf, OvfError, attribute, decode, document, elements};
use flate2::write::GzEncoder;
use roxmltree::Node;

const DISK: &str = "17";
const LONGEST_CHAIN: usize = 16;

/// Names of the resource types, from 1.
const RESOURCE_TYPES: [&str; 24] = [
    "Other",
    "ComputerSystem",
    "Processor",
    "Memory",
    "IDEController",
    "ParallelSCSIHBA",
    "FC_HBA",
    "iSCSI_HBA",
    "IB_HCA",
    "EthernetAdapter",
    "OtherNetworkAdapter",
    "IO_Slot",
    "IO_Device",
    "FloppyDrive",
    "CD_Drive",
    "DVD_Drive",
    "DiskDrive",
    "TapeDrive",
    "StorageExtent",
    "OtherStorageDevice",
    "SerialPort",
    "ParallelPort",
    "USBController",
    "GraphicsController",
];

/// Reads a description. `place` is the absolute directory of its files, `lengths` are those of the
/// files that are there.
pub fn information(
    bytes: &[u8],
    place: &str,
    lengths: &BTreeMap<String, u64>,
) -> Result<OVFInformationTO, OvfError> {
    let ovf = Ovf::parse(bytes)?;
    let text = decode(bytes)?;
    let document = document(&text)?;
    let root = document.root_element();
    let items: Vec<Node<'_, '_>> = elements(root, "VirtualHardwareSection")
        .flat_map(|section| section.children().filter(|node| is_item(*node)))
        .collect();
    Ok(OVFInformationTO {
        properties: some(properties(root)),
        networks: some(networks(root)),
        disks: some(disks(&ovf, &items, place, lengths)),
        hardware_section: Some(hardware(root, &items)),
        eula_sections: some(eulas(root)),
        guest_os_info: elements(root, "OperatingSystemSection").next().map(|section| TextPair {
            t: attribute(section, "osType").map(str::to_owned),
            u: child(section, "Description"),
        }),
    })
}

/// Empty lists are left out.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn is_item(node: Node<'_, '_>) -> bool {
    matches!(node.tag_name().name(), "Item" | "StorageItem" | "EthernetPortItem")
}

/// The text of a child.
fn child(node: Node<'_, '_>, name: &str) -> Option<String> {
    let found = node.children().find(|node| node.tag_name().name() == name)?;
    Some(found.text().unwrap_or_default().trim().to_owned())
}

fn number<T: std::str::FromStr>(node: Node<'_, '_>, name: &str) -> Option<T> {
    child(node, name)?.parse().ok()
}

fn flag(node: Node<'_, '_>, name: &str) -> bool {
    child(node, name).is_some_and(|text| text.eq_ignore_ascii_case("true"))
}

fn bytes(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn disks(
    ovf: &Ovf,
    items: &[Node<'_, '_>],
    place: &str,
    lengths: &BTreeMap<String, u64>,
) -> Vec<DatadiskTO> {
    let mut found = Vec::new();
    let path = |name: &str| Some(format!("{place}/{name}"));
    for item in items.iter().filter(|item| child(**item, "ResourceType").as_deref() == Some(DISK)) {
        let resource = child(*item, "HostResource").unwrap_or_default();
        let id = resource.rsplit('/').next().unwrap_or_default();
        let Some(disk) = ovf.disks.iter().find(|disk| disk.id == id) else { continue };
        let Some(file) = ovf.file_of(disk) else { continue };
        let length = lengths.get(&file.href).copied();
        let controller = top_parent(*item, items);
        let text = |name| controller.and_then(|item| child(item, name)).or(Some(String::new()));
        found.push(DatadiskTO {
            path: path(&file.href),
            virtual_size: bytes(disk.capacity.unwrap_or(0)),
            file_size: bytes(file.size.filter(|size| *size > 0).or(length).unwrap_or(0)),
            bootable: found.is_empty(),
            disk_id: Some(disk.id.clone()),
            is_iso: false,
            disk_controller: text("ElementName"),
            disk_controller_sub_type: text("ResourceSubType"),
            disk_number: i32::try_from(found.len()).unwrap_or(i32::MAX),
            configuration: attribute(*item, "configuration").or(Some("")).map(str::to_owned),
        });
    }
    let is_iso = |name: &str| name.to_ascii_lowercase().ends_with(".iso");
    for file in ovf.files.iter().filter(|file| is_iso(&file.href)) {
        let size = bytes(file.size.or(lengths.get(&file.href).copied()).unwrap_or(0));
        found.push(DatadiskTO {
            path: path(&file.href),
            virtual_size: size,
            file_size: size,
            disk_id: Some(file.id.clone()),
            is_iso: true,
            disk_controller: Some(String::new()),
            disk_controller_sub_type: Some(String::new()),
            disk_number: i32::try_from(found.len()).unwrap_or(i32::MAX),
            configuration: Some(String::new()),
            ..DatadiskTO::default()
        });
    }
    found
}

/// The controller at the end of the chain of parents; a chain that does not end has none.
fn top_parent<'a, 'i>(item: Node<'a, 'i>, items: &[Node<'a, 'i>]) -> Option<Node<'a, 'i>> {
    let mut top = None;
    let mut at = item;
    for _step in 0..LONGEST_CHAIN {
        let Some(parent) = child(at, "Parent") else { return top };
        let found = items.iter().find(|item| child(**item, "InstanceID").as_ref() == Some(&parent));
        let Some(found) = found else { return top };
        at = *found;
        top = Some(at);
    }
    None
}

fn networks(root: Node<'_, '_>) -> Vec<OVFNetworkTO> {
    let mut networks: Vec<OVFNetworkTO> = Vec::new();
    for node in elements(root, "Network") {
        let Some(name) = attribute(node, "name") else { continue };
        networks.push(OVFNetworkTO {
            name: Some(name.to_owned()),
            network_description: child(node, "Description"),
            ..OVFNetworkTO::default()
        });
    }
    for connection in elements(root, "Connection") {
        let name = connection.text().unwrap_or_default().trim();
        let known = networks.iter_mut().find(|network| network.name.as_deref() == Some(name));
        let (Some(network), Some(item)) = (known, connection.parent_element()) else { continue };
        network.address_on_parent = number(item, "AddressOnParent").unwrap_or(0);
        network.automatic_allocation = flag(item, "AutomaticAllocation");
        network.nic_description = child(item, "Description");
        network.element_name = child(item, "ElementName");
        network.instance_id = number(item, "InstanceID").unwrap_or(0);
        network.resource_sub_type = child(item, "ResourceSubType");
        network.resource_type = child(item, "ResourceType");
    }
    networks
}

/// Those that a user may set, counted over all sections; a category holds until the next one.
fn properties(root: Node<'_, '_>) -> Vec<OVFPropertyTO> {
    let mut found = Vec::new();
    let mut category = None;
    for node in elements(root, "ProductSection").flat_map(|section| section.children()) {
        match node.tag_name().name() {
            "Category" => category = node.text().map(|text| text.trim().to_owned()),
            "Property" if attribute(node, "userConfigurable") == Some("true") => {
                let text = |name| attribute(node, name).map(str::to_owned);
                found.push(OVFPropertyTO {
                    key: text("key"),
                    property_type: text("type"),
                    value: text("value").map(Secret::new),
                    qualifiers: text("qualifiers"),
                    user_configurable: Some(true),
                    label: child(node, "Label"),
                    description: child(node, "Description"),
                    password: Some(attribute(node, "password") == Some("true")),
                    index: i32::try_from(found.len()).unwrap_or(i32::MAX),
                    category: category.clone(),
                });
            }
            _ => {}
        }
    }
    found
}

fn hardware(root: Node<'_, '_>, items: &[Node<'_, '_>]) -> OVFVirtualHardwareSectionTO {
    let of = |configuration: Option<&str>| -> Vec<OVFVirtualHardwareItemTO> {
        let wanted =
            |item: &&Node<'_, '_>| match (attribute(**item, "configuration"), configuration) {
                (Some(names), Some(name)) => {
                    names.split_ascii_whitespace().any(|other| other == name)
                }
                (names, None) => names.is_none(),
                (None, Some(_)) => false,
            };
        items.iter().filter(wanted).map(|item| hardware_item(*item)).collect()
    };
    let configurations = elements(root, "DeploymentOptionSection")
        .flat_map(|section| section.children())
        .filter(|node| node.tag_name().name() == "Configuration");
    let configurations = configurations.enumerate().map(|(at, node)| {
        let id = attribute(node, "id").unwrap_or_default();
        OVFConfigurationTO {
            id: Some(id.to_owned()),
            label: child(node, "Label"),
            description: child(node, "Description"),
            hardware_items: Some(of(Some(id))),
            index: i32::try_from(at).unwrap_or(i32::MAX),
        }
    });
    OVFVirtualHardwareSectionTO {
        minimum_hardware_version: elements(root, "VirtualSystemType")
            .next()
            .and_then(|node| node.text())
            .and_then(|text| text.split(',').map(str::trim).min_by_key(|name| version(name)))
            .map(str::to_owned),
        configurations: Some(configurations.collect()),
        common_hardware_items: Some(of(None)),
    }
}

/// `vmx-9` is smaller than `vmx-10`.
fn version(name: &str) -> (u64, &str) {
    let digits = name.rsplit('-').next().and_then(|digits| digits.parse().ok());
    (digits.unwrap_or(u64::MAX), name)
}

fn hardware_item(item: Node<'_, '_>) -> OVFVirtualHardwareItemTO {
    let text = |name| child(item, name);
    let kind = number::<usize>(item, "ResourceType").and_then(|number| number.checked_sub(1));
    OVFVirtualHardwareItemTO {
        address: text("Address"),
        address_on_parent: text("AddressOnParent"),
        allocation_units: text("AllocationUnits"),
        automatic_allocation: flag(item, "AutomaticAllocation"),
        automatic_deallocation: flag(item, "AutomaticDeallocation"),
        caption: text("Caption"),
        changeable_type: text("ChangeableType"),
        component_setting: text("ComponentSetting"),
        configuration_name: text("ConfigurationName"),
        connection: text("Connection"),
        customer_visibility: None,
        description: text("Description"),
        element_name: text("ElementName"),
        generation: number(item, "Generation"),
        host_resource: text("HostResource"),
        instance_id: text("InstanceID"),
        limit: number(item, "Limit"),
        mapping_behavior: None,
        other_resource_type: text("OtherResourceType"),
        parent: text("Parent"),
        pool_id: text("PoolID"),
        reservation: number(item, "Reservation"),
        resource_subtype: text("ResourceSubType"),
        resource_type: kind.and_then(|at| RESOURCE_TYPES.get(at)).map(|name| (*name).to_owned()),
        so_id: None,
        so_org_id: None,
        virtual_quantity: number(item, "VirtualQuantity"),
        virtual_quantity_units: text("VirtualQuantityUnits"),
        weight: number(item, "Weight").unwrap_or(0),
        configuration_ids: attribute(item, "configuration").or(Some("")).map(str::to_owned),
    }
}

fn eulas(root: Node<'_, '_>) -> Vec<OVFEulaSectionTO> {
    let sections = elements(root, "EulaSection").enumerate();
    let mut seen = BTreeSet::new();
    let eula = |(at, section): (usize, Node<'_, '_>)| {
        let license = child(section, "License").unwrap_or_default();
        // The same licence for every language of a description is one.
        seen.insert(license.clone()).then_some(())?;
        let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::default());
        packed.write_all(license.as_bytes()).ok()?;
        Some(OVFEulaSectionTO {
            info: child(section, "Info"),
            compressed_license: packed.finish().ok().map(Secret::new),
            index: i32::try_from(at).unwrap_or(i32::MAX),
        })
    };
    sections.filter_map(eula).collect()
}
