//! What the descriptor inside an OVA says.

use bedrock::Secret;

java! {
    /// A pair of texts.
    TextPair {
        "t" t: Option<String>,
        "u" u: Option<String>,
    }
}

java! {
    /// Everything a descriptor says.
    OVFInformationTO {
        "properties" properties: Option<Vec<OVFPropertyTO>>,
        "networks" networks: Option<Vec<OVFNetworkTO>>,
        "disks" disks: Option<Vec<DatadiskTO>>,
        "hardwareSection" hardware_section: Option<OVFVirtualHardwareSectionTO>,
        "eulaSections" eula_sections: Option<Vec<OVFEulaSectionTO>>,
        /// Id and description of the guest's system.
        "guestOsInfo" guest_os_info: Option<TextPair>,
    }
}

java! {
    /// One disk.
    DatadiskTO {
        "path" path: Option<String>,
        /// Bytes.
        "virtualSize" virtual_size: i64,
        /// Bytes.
        "fileSize" file_size: i64,
        "bootable" bootable: bool,
        "diskId" disk_id: Option<String>,
        "isIso" is_iso: bool,
        "diskController" disk_controller: Option<String>,
        "diskControllerSubType" disk_controller_sub_type: Option<String>,
        "diskNumber" disk_number: i32,
        "configuration" configuration: Option<String>,
    }
}

java! {
    /// One property that a user may set.
    OVFPropertyTO {
        "key" key: Option<String>,
        "type" property_type: Option<String>,
        /// May be a default password.
        "value" value: Option<Secret<String>>,
        "qualifiers" qualifiers: Option<String>,
        "userConfigurable" user_configurable: Option<bool>,
        "label" label: Option<String>,
        "description" description: Option<String>,
        "password" password: Option<bool>,
        "index" index: i32,
        "category" category: Option<String>,
    }
}

java! {
    /// One network.
    OVFNetworkTO {
        "name" name: Option<String>,
        "networkDescription" network_description: Option<String>,
        "addressOnParent" address_on_parent: i32,
        "automaticAllocation" automatic_allocation: bool,
        "nicDescription" nic_description: Option<String>,
        "elementName" element_name: Option<String>,
        "InstanceID" instance_id: i32,
        "resourceSubType" resource_sub_type: Option<String>,
        "resourceType" resource_type: Option<String>,
    }
}

java! {
    /// The virtual hardware.
    OVFVirtualHardwareSectionTO {
        /// Spelled so on the wire.
        "minimiumHardwareVersion" minimum_hardware_version: Option<String>,
        "configurations" configurations: Option<Vec<OVFConfigurationTO>>,
        "commonHardwareItems" common_hardware_items: Option<Vec<OVFVirtualHardwareItemTO>>,
    }
}

java! {
    /// One deployment option.
    OVFConfigurationTO {
        "id" id: Option<String>,
        "label" label: Option<String>,
        "description" description: Option<String>,
        "hardwareItems" hardware_items: Option<Vec<OVFVirtualHardwareItemTO>>,
        "index" index: i32,
    }
}

java! {
    /// One item of virtual hardware.
    OVFVirtualHardwareItemTO {
        "address" address: Option<String>,
        "addressOnParent" address_on_parent: Option<String>,
        "allocationUnits" allocation_units: Option<String>,
        "automaticAllocation" automatic_allocation: bool,
        "automaticDeallocation" automatic_deallocation: bool,
        "caption" caption: Option<String>,
        "changeableType" changeable_type: Option<String>,
        "componentSetting" component_setting: Option<String>,
        "configurationName" configuration_name: Option<String>,
        "connection" connection: Option<String>,
        "customerVisibility" customer_visibility: Option<String>,
        "description" description: Option<String>,
        "elementName" element_name: Option<String>,
        "generation" generation: Option<i64>,
        "hostResource" host_resource: Option<String>,
        "instanceId" instance_id: Option<String>,
        "limit" limit: Option<i64>,
        "mappingBehavior" mapping_behavior: Option<String>,
        "otherResourceType" other_resource_type: Option<String>,
        "parent" parent: Option<String>,
        "poolId" pool_id: Option<String>,
        "reservation" reservation: Option<i64>,
        "resourceSubtype" resource_subtype: Option<String>,
        /// A constant such as `Processor`, `Memory`, `DiskDrive`.
        "resourceType" resource_type: Option<String>,
        "soId" so_id: Option<String>,
        "soOrgId" so_org_id: Option<String>,
        "virtualQuantity" virtual_quantity: Option<i64>,
        "virtualQuantityUnits" virtual_quantity_units: Option<String>,
        "weight" weight: i32,
        "configurationIds" configuration_ids: Option<String>,
    }
}

java! {
    /// One licence.
    OVFEulaSectionTO {
        "info" info: Option<String>,
        /// The text, gzip-compressed.
        "compressedLicense" compressed_license: Option<Secret<Vec<u8>>>,
        "index" index: i32,
    }
}
