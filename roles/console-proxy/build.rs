//! Packs the console page: every file compressed at build time, script and style under names that
//! change with their content, so that browsers may keep them for ever. Needs neither npm nor a
//! network: `web/bundle/console.js` is made by `cargo xtask page` and kept in the tree.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

/// File below `web/`, its path below `/resource/noVNC/`, whether the page names it.
const FILES: &[(&str, &str, bool)] = &[
    ("bundle/console.js", "app/console.js", true),
    ("page/app/console.css", "app/console.css", true),
    ("page/app/icon.svg", "app/icon.svg", true),
    ("novnc/LICENSE.txt", "LICENSE.txt", false),
    ("novnc/docs/LICENSE.MPL-2.0", "docs/LICENSE.MPL-2.0", false),
    ("novnc/AUTHORS", "AUTHORS", false),
];
const PAGE: (&str, &str) = ("page/vnc.html", "vnc.html");

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=web/page");
    println!("cargo::rerun-if-changed=web/bundle");
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut page = std::fs::read_to_string(Path::new("web").join(PAGE.0))?;
    let mut table = String::from("static PACKED: &[Packed] = &[\n");
    for &(file, path, named) in FILES {
        let content = std::fs::read(Path::new("web").join(file))?;
        let tag = tag(&content);
        let path = if named {
            let (stem, extension) = path.rsplit_once('.').ok_or("a name without an extension")?;
            let renamed = format!("{stem}-{tag}.{extension}");
            let reference = format!("\"{path}\"");
            if !page.contains(&reference) {
                return Err(format!("{} does not name {path}", PAGE.0).into());
            }
            page = page.replace(&reference, &format!("\"{renamed}\""));
            renamed
        } else {
            path.to_owned()
        };
        pack(&out, &path, &content, &tag, named, &mut table)?;
    }
    let tag = tag(page.as_bytes());
    pack(&out, PAGE.1, page.as_bytes(), &tag, false, &mut table)?;
    table.push_str("];\n");
    std::fs::write(out.join("packed.rs"), table)?;
    Ok(())
}

fn tag(content: &[u8]) -> String {
    Sha256::digest(content).iter().take(8).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        write!(text, "{byte:02x}").unwrap_or_default();
        text
    })
}

/// Compresses a file both ways and adds its line to the table.
fn pack(
    out: &Path,
    path: &str,
    content: &[u8],
    tag: &str,
    named: bool,
    table: &mut String,
) -> Result<(), Box<dyn Error>> {
    let name = path.replace('/', "_");
    let (gz, br) = (out.join(format!("{name}.gz")), out.join(format!("{name}.br")));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    std::fs::write(&gz, encoder.finish()?)?;
    let mut packed = Vec::new();
    let parameters = brotli::enc::BrotliEncoderParams::default();
    brotli::BrotliCompress(&mut &*content, &mut packed, &parameters)?;
    std::fs::write(&br, packed)?;
    let length = content.len();
    writeln!(
        table,
        "    Packed {{ path: {path:?}, tag: {tag:?}, named: {named}, length: {length}, \
         gz: include_bytes!({gz:?}), br: include_bytes!({br:?}) }},"
    )?;
    Ok(())
}
