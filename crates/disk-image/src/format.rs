//! The formats that templates and volumes are registered with.

use crate::Kind;

/// The formats that are installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// QEMU's copy-on-write image, version 2 or 3.
    Qcow2,
    /// The disk's bytes as they are.
    Raw,
    /// Microsoft's virtual hard disk, fixed or dynamic.
    Vhd,
    /// A CD or DVD image.
    Iso,
    /// A machine of VMware's with its disks.
    Ova,
    /// Microsoft's second virtual hard disk.
    Vhdx,
    /// VMware's disk in one file.
    Vmdk,
    /// A root file system, for containers.
    Tar,
}

/// A format that is not installed. Completes "images …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownFormat {
    /// No hypervisor of CloudStack opens it.
    #[error(
        "of format VDI cannot be used by any hypervisor of CloudStack: convert the image with qemu-img convert -O qcow2 (or vmdk, vpc, vhdx) and register that"
    )]
    Vdi,
    /// Not the name of an image's format.
    #[error("of format {0} cannot be installed: give QCOW2, RAW, VHD, VHDX, VMDK, OVA, ISO or TAR")]
    Other(String),
}

impl Format {
    /// In the order Java looks for them.
    pub const ALL: [Self; 8] = [
        Self::Qcow2,
        Self::Raw,
        Self::Vhd,
        Self::Iso,
        Self::Ova,
        Self::Vhdx,
        Self::Vmdk,
        Self::Tar,
    ];

    /// By the name on the wire.
    pub fn from_name(name: &str) -> Result<Self, UnknownFormat> {
        match Self::ALL.into_iter().find(|format| format.name() == name) {
            Some(format) => Ok(format),
            None if name == "VDI" => Err(UnknownFormat::Vdi),
            None => Err(UnknownFormat::Other(name.to_owned())),
        }
    }

    /// By the name on the wire.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::from_name(name).ok()
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "QCOW2",
            Self::Raw => "RAW",
            Self::Vhd => "VHD",
            Self::Iso => "ISO",
            Self::Ova => "OVA",
            Self::Vhdx => "VHDX",
            Self::Vmdk => "VMDK",
            Self::Tar => "TAR",
        }
    }

    /// The key in `template.properties`, which is also the file name's extension.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vhd => "vhd",
            Self::Iso => "iso",
            Self::Ova => "ova",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Tar => "tar",
        }
    }

    /// Whether an image with this beginning can be of this format. A fixed VHD begins with the
    /// disk itself, so it passes here and is judged by its footer.
    pub const fn admits(self, kind: Kind) -> bool {
        match self {
            Self::Qcow2 => matches!(kind, Kind::Qcow2),
            Self::Iso => matches!(kind, Kind::Iso | Kind::BootSector),
            Self::Vhd => matches!(kind, Kind::Vhd) || kind.can_be_a_disk(),
            Self::Raw => kind.can_be_a_disk(),
            Self::Vhdx => matches!(kind, Kind::Vhdx),
            Self::Vmdk => matches!(kind, Kind::Vmdk(_)),
            Self::Ova | Self::Tar => matches!(kind, Kind::Tar),
        }
    }
}
