//! A recording's file, read a stretch at a time. Everything here blocks.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rfb::fbs::{Block, Decoder};
use rfb::{ClientHandshake, PixelFormat, ServerInit};

/// Read at a time.
const STRETCH: usize = 256 * 1024;

/// The pixel format that noVNC asks for and takes pictures to be in.
const PAGE_FORMAT: PixelFormat = PixelFormat { shift: [0, 8, 16], ..PixelFormat::RGB888 };

/// An open recording, behind its handshake.
#[derive(Debug)]
pub(super) struct Tape {
    file: File,
    decoder: Decoder,
    /// What came with the handshake's last block.
    ahead: Option<Block>,
    length_ms: u64,
}

impl Tape {
    /// Opens a recording and looks through it once.
    pub(super) fn open(path: &Path) -> Result<(Self, ServerInit), String> {
        let length_ms = length_of(path)?;
        let mut tape = Self {
            file: File::open(path).map_err(|error| error.to_string())?,
            decoder: Decoder::default(),
            ahead: None,
            length_ms,
        };
        let mut handshake = ClientHandshake::new("");
        while !handshake.is_done() {
            let block = tape.block()?.ok_or("it ends before it shows anything")?;
            handshake.receive(&block.bytes).map_err(|error| error.to_string())?;
        }
        let (init, rest) = handshake.finish().ok_or("it ends before it shows anything")?;
        if init.format != PAGE_FORMAT {
            let text =
                "its viewer had another pixel format than the page: another player may show it";
            return Err(text.to_owned());
        }
        tape.ahead = (!rest.is_empty()).then_some(Block { bytes: rest, at_ms: 0 });
        Ok((tape, init))
    }

    pub(super) fn length_ms(&self) -> u64 {
        self.length_ms
    }

    /// The next blocks, and the tape unless it is at its end.
    pub(super) fn read_on(mut self) -> Result<(Option<Self>, Vec<Block>), String> {
        let mut blocks: Vec<Block> = self.ahead.take().into_iter().collect();
        let Some(block) = self.block()? else { return Ok((None, blocks)) };
        blocks.push(block);
        while let Some(block) = self.decoder.block().map_err(|error| error.to_string())? {
            blocks.push(block);
        }
        Ok((Some(self), blocks))
    }

    /// The next block; `None` at the end.
    fn block(&mut self) -> Result<Option<Block>, String> {
        loop {
            if let Some(block) = self.decoder.block().map_err(|error| error.to_string())? {
                return Ok(Some(block));
            }
            let mut stretch = vec![0; STRETCH];
            let count = self.file.read(&mut stretch).map_err(|error| error.to_string())?;
            if count == 0 {
                return Ok(None);
            }
            self.decoder.push(stretch.get(..count).unwrap_or_default());
        }
    }
}

/// When the last whole block was sent.
fn length_of(path: &Path) -> Result<u64, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut tape = Tape { file, decoder: Decoder::default(), ahead: None, length_ms: 0 };
    let mut length_ms = 0;
    while let Some(block) = tape.block()? {
        length_ms = u64::from(block.at_ms);
    }
    Ok(length_ms)
}
