//! ServerInit and the pixel format.

/// Length of ServerInit up to and including the length of the name.
pub(crate) const FIXED_LENGTH: usize = 24;
/// Length of a pixel format.
pub(crate) const FORMAT_LENGTH: usize = 16;

/// How a pixel is written. Only true colour formats carry the maxima and shifts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PixelFormat {
    pub bits_per_pixel: u8,
    pub depth: u8,
    pub big_endian: bool,
    pub true_colour: bool,
    /// Largest value of red, green, blue.
    pub max: [u16; 3],
    /// How far red, green, blue are shifted left.
    pub shift: [u8; 3],
}

impl PixelFormat {
    /// 32 bits, little endian, red at bit 16: what most servers announce.
    pub const RGB888: Self = Self {
        bits_per_pixel: 32,
        depth: 24,
        big_endian: false,
        true_colour: true,
        max: [255; 3],
        shift: [16, 8, 0],
    };

    pub fn decode(bytes: &[u8; FORMAT_LENGTH]) -> Self {
        let &[bits_per_pixel, depth, big, true_colour, r1, r0, g1, g0, b1, b0, r, g, b, ..] = bytes;
        Self {
            bits_per_pixel,
            depth,
            big_endian: big != 0,
            true_colour: true_colour != 0,
            max: [[r1, r0], [g1, g0], [b1, b0]].map(u16::from_be_bytes),
            shift: [r, g, b],
        }
    }

    pub fn encode(&self) -> [u8; FORMAT_LENGTH] {
        let [[r1, r0], [g1, g0], [b1, b0]] = self.max.map(u16::to_be_bytes);
        let [r, g, b] = self.shift;
        let (big, colour) = (u8::from(self.big_endian), u8::from(self.true_colour));
        [self.bits_per_pixel, self.depth, big, colour, r1, r0, g1, g0, b1, b0, r, g, b, 0, 0, 0]
    }

    /// The pixel's value for a colour of 8 bits per component.
    pub fn pixel(&self, rgb: [u8; 3]) -> u32 {
        rgb.into_iter().zip(self.max).zip(self.shift).fold(0, |pixel, ((value, max), shift)| {
            let scaled = u32::from(value) * u32::from(max) / 255;
            pixel | scaled.checked_shl(u32::from(shift)).unwrap_or(0)
        })
    }
}

/// What a server says of its screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInit {
    pub width: u16,
    pub height: u16,
    pub format: PixelFormat,
    /// Desktop name. Bytes, since nobody promises UTF-8.
    pub name: Vec<u8>,
}

impl ServerInit {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_LENGTH + self.name.len());
        out.extend_from_slice(&self.width.to_be_bytes());
        out.extend_from_slice(&self.height.to_be_bytes());
        out.extend_from_slice(&self.format.encode());
        out.extend_from_slice(&u32::try_from(self.name.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&self.name);
        out
    }

    /// Reads everything but the name; the second value is the name's length.
    pub(crate) fn decode_fixed(bytes: &[u8; FIXED_LENGTH]) -> (Self, u32) {
        let [w1, w0, h1, h0, format @ .., n3, n2, n1, n0] = bytes;
        let init = Self {
            width: u16::from_be_bytes([*w1, *w0]),
            height: u16::from_be_bytes([*h1, *h0]),
            format: PixelFormat::decode(format),
            name: Vec::new(),
        };
        (init, u32::from_be_bytes([*n3, *n2, *n1, *n0]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_scaled_to_the_maxima() {
        assert_eq!(PixelFormat::RGB888.pixel([0x12, 0x34, 0x56]), 0x0012_3456);
        let rgb565 = PixelFormat {
            bits_per_pixel: 16,
            depth: 16,
            max: [31, 63, 31],
            shift: [11, 5, 0],
            ..PixelFormat::RGB888
        };
        assert_eq!(rgb565.pixel([255, 255, 255]), 0xffff);
        assert_eq!(PixelFormat::decode(&rgb565.encode()), rgb565);
        let absurd = PixelFormat { shift: [255; 3], ..rgb565 };
        assert_eq!(absurd.pixel([255, 255, 255]), 0);
    }
}
