//! A picture as PNG: eight bits of red, green and blue, one row after the other.

use std::io::Write;

use flate2::write::ZlibEncoder;
use flate2::{Compression, Crc};

const SIGNATURE: [u8; 8] = [0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a];

/// `rgb` has `width * height` pixels of three bytes. Takes milliseconds, blocks.
pub(super) fn encode(width: u16, height: u16, rgb: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = SIGNATURE.to_vec();
    let size = |number: u16| u32::from(number).to_be_bytes();
    // Depth 8, true colour, deflate, adaptive filters, not interlaced.
    let head = [&size(width)[..], &size(height), &[8, 2, 0, 0, 0]].concat();
    chunk(&mut out, b"IHDR", &head);
    let mut rows = ZlibEncoder::new(Vec::new(), Compression::fast());
    for row in rgb.chunks(usize::from(width).max(1) * 3) {
        // No filter.
        rows.write_all(&[0])?;
        rows.write_all(row)?;
    }
    chunk(&mut out, b"IDAT", &rows.finish()?);
    chunk(&mut out, b"IEND", &[]);
    Ok(out)
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    out.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(kind);
    out.extend_from_slice(data);
    out.extend_from_slice(&crc.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_picture_is_written_as_the_format_has_it() {
        let rgb: Vec<u8> = (0..2 * 3 * 3).collect();
        let bytes = encode(2, 3, &rgb).unwrap();
        assert_eq!(bytes[..8], SIGNATURE);
        assert_eq!(bytes[8..16], *b"\0\0\0\x0dIHDR");
        assert_eq!(bytes[16..29], [0, 0, 0, 2, 0, 0, 0, 3, 8, 2, 0, 0, 0]);
        // Of an image of this size and kind, as other writers have it.
        assert_eq!(bytes[bytes.len() - 12..], *b"\0\0\0\0IEND\xae\x42\x60\x82");
        let length = u32::from_be_bytes(bytes[33..37].try_into().unwrap()) as usize;
        let mut rows = Vec::new();
        flate2::read::ZlibDecoder::new(&bytes[41..41 + length]).read_to_end(&mut rows).unwrap();
        let expected: Vec<u8> =
            rgb.chunks(6).flat_map(|row| std::iter::once(0).chain(row.iter().copied())).collect();
        assert_eq!(rows, expected);
    }
}
