//! The text that describes a VMDK: settings, and one line for each extent.

use super::VmdkError;

/// Files that are named in an error.
const NAMED: usize = 3;
/// Characters of a name or type that are shown.
const SHOWN: usize = 80;
const NO_PARENT: u32 = u32::MAX;
const ACCESS: [&str; 3] = ["RW", "RDONLY", "NOACCESS"];

/// What a description says.
#[derive(Debug, Default)]
pub(super) struct Descriptor {
    create_type: Option<String>,
    parent: Option<u32>,
    parent_hint: Option<String>,
    is_encrypted: bool,
    extents: Vec<Extent>,
}

#[derive(Debug)]
struct Extent {
    sectors: u64,
    kind: String,
    file: Option<String>,
}

/// Whether a file begins as a description does; comments may come first.
pub(super) fn is_descriptor(head: &[u8]) -> bool {
    let lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.into_iter().find(|line| !line.is_empty()).unwrap_or_default();
    let marker = b"# disk descriptorfile";
    first.get(..marker.len()).is_some_and(|start| start.eq_ignore_ascii_case(marker))
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

impl Descriptor {
    /// Reads what is known and passes over the rest, as the readers of this text do.
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let mut found = Self::default();
        for line in text.lines().map(str::trim) {
            if let Some(extent) = extent(line) {
                found.extents.push(extent);
                continue;
            }
            let Some((key, value)) = line.split_once('=') else { continue };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
            match key.as_str() {
                "createtype" => found.create_type = Some(shown(value)),
                "parentcid" => found.parent = u32::from_str_radix(value, 16).ok(),
                "parentfilenamehint" => found.parent_hint = Some(shown(value)),
                key => found.is_encrypted |= key.starts_with("encryption"),
            }
        }
        found
    }

    pub(super) fn is_empty(&self) -> bool {
        self.create_type.is_none() && self.extents.is_empty()
    }

    /// Sectors of all extents.
    pub(super) fn sectors(&self) -> u64 {
        self.extents.iter().fold(0, |sum, extent| sum.saturating_add(extent.sectors))
    }

    fn check_alone(&self) -> Result<(), VmdkError> {
        if self.is_encrypted {
            return Err(VmdkError::Encrypted);
        }
        if self.parent_hint.is_some() || self.parent.is_some_and(|parent| parent != NO_PARENT) {
            return Err(VmdkError::Parent(self.parent_hint.clone()));
        }
        Ok(())
    }

    /// A description inside a sparse extent is one of that extent.
    pub(super) fn check_embedded(&self) -> Result<(), VmdkError> {
        self.check_alone()?;
        let is_single = self.extents.len() == 1
            && self.extents.iter().all(|extent| extent.kind.eq_ignore_ascii_case("SPARSE"));
        let kind = self.create_type.as_deref().unwrap_or("monolithicSparse");
        let is_one_file = ["monolithicSparse", "streamOptimized"]
            .iter()
            .any(|known| kind.eq_ignore_ascii_case(known));
        if is_single && is_one_file { Ok(()) } else { Err(self.other_files()) }
    }

    /// Why a description alone is no disk.
    pub(super) fn needs_other_files(&self) -> VmdkError {
        self.check_alone().err().unwrap_or_else(|| self.other_files())
    }

    fn other_files(&self) -> VmdkError {
        let names = self.extents.iter().filter_map(|extent| extent.file.as_deref());
        let mut files = names.clone().take(NAMED).collect::<Vec<_>>().join(", ");
        if names.count() > NAMED {
            files.push_str(", …");
        }
        if files.is_empty() {
            "none is named".clone_into(&mut files);
        }
        let kind = self.create_type.clone().unwrap_or_else(|| "a description only".to_owned());
        VmdkError::OtherFiles { kind, files }
    }
}

/// `RW 4192256 SPARSE "disk-s001.vmdk" 0`.
fn extent(line: &str) -> Option<Extent> {
    let mut words = line.split_ascii_whitespace();
    let access = words.next()?;
    ACCESS.iter().find(|known| access.eq_ignore_ascii_case(known))?;
    let sectors = words.next()?.parse().ok()?;
    let kind = words.next()?.to_owned();
    let file = line.split('"').nth(1).map(shown);
    Some(Extent { sectors, kind, file })
}
