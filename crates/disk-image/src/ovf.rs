//! The description of an OVA's machine: which files it refers to, and how large its disks are.
//!
//! Names decide, not name spaces: writers of several versions of the standard are around.

mod single;

use roxmltree::{Document, Node, ParsingOptions};

pub use single::with_one_file;

/// Longest description that is read; licences make them long.
pub const MAX_LENGTH: u64 = 4 << 20;
const MAX_NODES: u32 = 200_000;

/// Why a text is not a description of a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OvfError {
    /// More than [`MAX_LENGTH`].
    #[error("has {0} bytes, allowed are {MAX_LENGTH}")]
    Length(u64),
    /// Neither UTF-8 nor UTF-16.
    #[error("is neither UTF-8 nor UTF-16")]
    Encoding,
    /// Not well-formed, or with a document type.
    #[error("is not valid XML: {0}")]
    Xml(String),
    /// Another document.
    #[error("is not an OVF: its root is {0:?}, not Envelope")]
    Root(String),
    /// It needs more than one machine.
    #[error("has {0} virtual systems, exactly one can be a template")]
    Systems(usize),
    /// Two elements with one id.
    #[error("has two files or disks with the id {0:?}")]
    Twice(String),
    /// A disk of a file that is not listed.
    #[error("has a disk {disk:?} of the file {file:?}, which is not among its references")]
    NoFile {
        /// The disk.
        disk: String,
        /// The reference that leads nowhere.
        file: String,
    },
    /// A file that it does not refer to.
    #[error("does not refer to the file {0:?}")]
    NoSuchFile(String),
    /// It needs another disk.
    #[error("has a disk {0:?} that needs a parent disk: export the machine without snapshots")]
    Parent(String),
    /// In pieces.
    #[error(
        "has the file {0:?} in pieces (chunkSize), which is not supported: export it again in one piece"
    )]
    Chunks(String),
}

/// A file that the description refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its id.
    pub id: String,
    /// Its name.
    pub href: String,
    /// Its length, when it is told.
    pub size: Option<u64>,
    /// Whether it is compressed by gzip.
    pub is_compressed: bool,
}

/// A disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its id.
    pub id: String,
    /// The file with its content; an empty disk has none.
    pub file: Option<String>,
    /// Bytes; `None` when the capacity is chosen at deployment.
    pub capacity: Option<u64>,
}

/// What is used of a description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ovf {
    /// In document order.
    pub files: Vec<File>,
    /// In document order.
    pub disks: Vec<Disk>,
}

/// The text of a description, whatever its encoding. A byte order mark tells it.
pub fn decode(bytes: &[u8]) -> Result<String, OvfError> {
    let wide = |unit: fn([u8; 2]) -> u16, rest: &[u8]| {
        let (units, _odd) = rest.as_chunks::<2>();
        let units: Vec<u16> = units.iter().map(|pair| unit(*pair)).collect();
        String::from_utf16(&units).map_err(|_bad| OvfError::Encoding)
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(u16::from_le_bytes, rest),
        [0xfe, 0xff, rest @ ..] => wide(u16::from_be_bytes, rest),
        _ => {
            let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            String::from_utf8(text.to_vec()).map_err(|_bad| OvfError::Encoding)
        }
    }
}

/// The document of a description: no document type, bounded.
pub fn document(text: &str) -> Result<Document<'_>, OvfError> {
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options);
    let document = document.map_err(|error| OvfError::Xml(error.to_string()))?;
    let root = document.root_element().tag_name().name();
    if root == "Envelope" { Ok(document) } else { Err(OvfError::Root(root.to_owned())) }
}

/// An attribute by its local name, whatever its name space.
pub fn attribute<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    node.attributes().find(|attribute| attribute.name() == name).map(|found| found.value())
}

/// Elements of a name, in document order.
pub fn elements<'a, 'i>(
    node: Node<'a, 'i>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    node.descendants().filter(move |node| node.is_element() && node.tag_name().name() == name)
}

/// Bytes of one unit as the standard writes them (`byte * 2^30`), and as programs do.
pub fn unit(text: &str) -> u64 {
    let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    let text = text.to_ascii_lowercase();
    match text.as_str() {
        "kb" | "kilobytes" | "kilobyte" => 1 << 10,
        "mb" | "megabytes" | "megabyte" => 1 << 20,
        "gb" | "gigabytes" | "gigabyte" => 1 << 30,
        "tb" | "terabytes" | "terabyte" => 1 << 40,
        text => {
            let power = text.strip_prefix("byte*").and_then(|power| power.split_once('^'));
            let value = power.and_then(|(base, exponent)| {
                base.parse::<u64>().ok()?.checked_pow(exponent.parse().ok()?)
            });
            value.unwrap_or(1)
        }
    }
}

impl Ovf {
    /// Reads a description.
    pub fn parse(bytes: &[u8]) -> Result<Self, OvfError> {
        let text = decode(bytes)?;
        let document = document(&text)?;
        let root = document.root_element();
        let systems = elements(root, "VirtualSystem").count();
        if systems != 1 {
            return Err(OvfError::Systems(systems));
        }
        let files = files(root)?;
        let disks = disks(root, &files)?;
        Ok(Self { files, disks })
    }

    /// The file of a disk.
    pub fn file_of(&self, disk: &Disk) -> Option<&File> {
        let id = disk.file.as_deref()?;
        self.files.iter().find(|file| file.id == id)
    }
}

fn files(root: Node<'_, '_>) -> Result<Vec<File>, OvfError> {
    let mut files: Vec<File> = Vec::new();
    for node in elements(root, "File") {
        let Some(href) = attribute(node, "href") else { continue };
        let id = attribute(node, "id").unwrap_or_default().to_owned();
        if files.iter().any(|file| file.id == id) {
            return Err(OvfError::Twice(id));
        }
        if attribute(node, "chunkSize").is_some_and(|size| size != "0") {
            return Err(OvfError::Chunks(href.to_owned()));
        }
        files.push(File {
            id,
            href: href.to_owned(),
            size: attribute(node, "size").and_then(|size| size.parse().ok()),
            is_compressed: attribute(node, "compression")
                .is_some_and(|how| how.eq_ignore_ascii_case("gzip")),
        });
    }
    Ok(files)
}

fn disks(root: Node<'_, '_>, files: &[File]) -> Result<Vec<Disk>, OvfError> {
    let mut disks: Vec<Disk> = Vec::new();
    for node in elements(root, "Disk") {
        let Some(id) = attribute(node, "diskId").map(str::to_owned) else { continue };
        if disks.iter().any(|disk| disk.id == id) {
            return Err(OvfError::Twice(id));
        }
        if attribute(node, "parentRef").is_some_and(|parent| !parent.is_empty()) {
            return Err(OvfError::Parent(id));
        }
        let file = attribute(node, "fileRef").filter(|file| !file.is_empty());
        if let Some(file) = file.filter(|file| files.iter().all(|other| other.id != **file)) {
            return Err(OvfError::NoFile { disk: id, file: file.to_owned() });
        }
        let unit = attribute(node, "capacityAllocationUnits").map_or(1, unit);
        let capacity = attribute(node, "capacity").and_then(|text| text.trim().parse::<u64>().ok());
        let capacity = capacity.and_then(|count| count.checked_mul(unit));
        disks.push(Disk { id, file: file.map(str::to_owned), capacity });
    }
    Ok(disks)
}
