//! Files of a store for the crate that reads images, on threads of their own.

use std::sync::Arc;

use disk_image::{Format, ImageError, Inspection, Sizes, Source, describe, inspect};
use role::TaskScope;
use tokio::runtime::Handle;

use super::MoveError;
use crate::stores::Opened;

/// An opened file that is read by blocking.
#[derive(Debug, Clone)]
pub struct Image {
    file: Arc<dyn Opened>,
    runtime: Handle,
}

impl Image {
    /// Within a runtime.
    pub fn new(file: Arc<dyn Opened>) -> Self {
        Self { file, runtime: Handle::current() }
    }
}

impl Source for Image {
    fn length(&self) -> u64 {
        self.file.length()
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> std::io::Result<()> {
        let range = offset..offset.saturating_add(target.len() as u64);
        let bytes = self.runtime.block_on(self.file.read(range)).map_err(std::io::Error::other)?;
        let exact = bytes.get(..target.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        target.copy_from_slice(exact);
        Ok(())
    }
}

/// Judges a complete file.
pub async fn judge(
    tasks: &TaskScope,
    file: Arc<dyn Opened>,
    format: Format,
) -> Result<Inspection, MoveError> {
    let image = Image::new(file);
    let judged = tasks.blocking("judge an image", move || inspect(format, &image)).await?;
    judged.map_err(MoveError::Image)
}

/// Sizes of a file that is somebody else's: as far as it tells them, else its length for both.
pub async fn sizes(
    tasks: &TaskScope,
    file: Arc<dyn Opened>,
    format: Option<Format>,
) -> Result<Sizes, MoveError> {
    let image = Image::new(file);
    let plain = Sizes { virtual_size: image.length(), physical_size: image.length() };
    let look = move || {
        let Some(format) = format else { return Ok(plain) };
        let found = match inspect(format, &image) {
            // One that needs another file still has a header.
            Err(ImageError::Qcow2(_) | ImageError::Vhd(_)) => describe(&image),
            found => found,
        };
        match found {
            Ok(found) => Ok(found.sizes),
            Err(ImageError::Read(error)) => Err(ImageError::Read(error)),
            Err(_odd) => Ok(plain),
        }
    };
    let looked = tasks.blocking("look at an image", look).await?;
    looked.map_err(MoveError::Image)
}

/// By the extension of a file's name, in any letter case; a name that begins with the dot has none.
pub fn format_of_name(name: &str) -> Option<Format> {
    let (stem, extension) = name.rsplit_once('.')?;
    let extension = extension.to_ascii_lowercase();
    if stem.is_empty() {
        return None;
    }
    match extension.as_str() {
        "img" => Some(Format::Raw),
        "iso" => None,
        other => Format::ALL.into_iter().find(|format| format.extension() == other),
    }
}
