//! The lowest layer of the format: documents and terminators, plain or gzip.

use std::io::{self, BufReader, Chain, Cursor, Read};

use bson::raw::RawDocument;
use flate2::read::MultiGzDecoder;

use super::error::{ArchiveError, Damage};

/// What an archive starts with: 0x8199e26d, little-endian.
pub(super) const MAGIC: [u8; 4] = [0x6d, 0xe2, 0x99, 0x81];

/// What ends a block.
pub(super) const TERMINATOR: [u8; 4] = [0xff; 4];

/// What a gzip stream starts with, RFC 1952 section 2.3.1.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// The longest document, bytes: the server's 16 MiB, and room for what an oplog entry adds.
const DOCUMENT_BYTES_MAX: u32 = 16 * 1024 * 1024 + 16 * 1024;

/// The shortest document, bytes: its length and its closing zero.
const DOCUMENT_BYTES_MIN: u32 = 5;

const READ_BYTES: usize = 128 * 1024;

/// A stream of documents and terminators, read one at a time into one buffer.
pub(super) struct Blocks<R> {
    input: Input<R>,
    /// Bytes of the decompressed stream that were read.
    offset: u64,
    buffer: Vec<u8>,
}

pub(super) enum Piece {
    /// The document is in [`Blocks::document`].
    Document,
    Terminator,
}

enum Input<R> {
    Plain(BufReader<Whole<R>>),
    Gzip(Box<BufReader<MultiGzDecoder<Whole<R>>>>),
}

/// The source with the bytes put back that told gzip from plain.
type Whole<R> = Chain<Cursor<Vec<u8>>, R>;

impl<R: Read> Blocks<R> {
    /// Tells gzip from plain by the first two bytes, and reads the magic.
    pub(super) fn open(mut source: R) -> Result<Self, ArchiveError> {
        let mut head = Vec::new();
        let read = source.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut head);
        read.map_err(|source| ArchiveError::Read { offset: 0, namespace: None, source })?;
        let gzip = head == GZIP_MAGIC;
        let whole = Cursor::new(head).chain(source);
        let input = if gzip {
            let decoder = MultiGzDecoder::new(whole);
            Input::Gzip(Box::new(BufReader::with_capacity(READ_BYTES, decoder)))
        } else {
            Input::Plain(BufReader::with_capacity(READ_BYTES, whole))
        };
        let mut blocks = Self { input, offset: 0, buffer: Vec::new() };
        blocks.fill(MAGIC.len() as u64)?;
        match blocks.buffer.as_slice() {
            magic if magic == MAGIC => Ok(blocks),
            start if MAGIC.starts_with(start) => Err(blocks.cut("its first four bytes")),
            start => Err(damaged(0, Damage::NotAnArchive(start.to_vec()))),
        }
    }

    /// The next piece; none at the end of the stream, which is the end of the archive only where
    /// the caller expects one.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, ArchiveError> {
        let start = self.offset;
        self.buffer.clear();
        self.fill(TERMINATOR.len() as u64)?;
        let Ok(bytes) = <[u8; 4]>::try_from(self.buffer.as_slice()) else {
            return match self.buffer.len() {
                0 => Ok(None),
                _ => Err(self.cut("a length")),
            };
        };
        if bytes == TERMINATOR {
            return Ok(Some(Piece::Terminator));
        }
        let length = u32::from_le_bytes(bytes);
        if !(DOCUMENT_BYTES_MIN..=DOCUMENT_BYTES_MAX).contains(&length) {
            return Err(damaged(start, Damage::Length(length)));
        }
        self.fill(u64::from(length) - TERMINATOR.len() as u64)?;
        if self.buffer.len() != length as usize {
            return Err(self.cut("a document"));
        }
        match self.buffer.last() {
            Some(0) => Ok(Some(Piece::Document)),
            _ => Err(damaged(start, Damage::Unclosed)),
        }
    }

    /// The document that was read last.
    pub(super) fn document(&self) -> &RawDocument {
        RawDocument::from_bytes(&self.buffer)
            .expect("the length and the closing zero were checked when it was read")
    }

    /// Bytes of the decompressed stream that were read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The error that the stream ended inside of `what`.
    pub(super) fn cut(&self, what: &'static str) -> ArchiveError {
        damaged(self.offset, Damage::Cut(what))
    }

    /// Appends up to `bytes` bytes, fewer only at the end of the stream. The buffer grows with
    /// what is really there, so that a false length costs no memory.
    fn fill(&mut self, bytes: u64) -> Result<(), ArchiveError> {
        let before = self.buffer.len();
        let result = match &mut self.input {
            Input::Plain(input) => input.take(bytes).read_to_end(&mut self.buffer),
            Input::Gzip(input) => input.take(bytes).read_to_end(&mut self.buffer),
        };
        self.offset += (self.buffer.len() - before) as u64;
        let offset = self.offset;
        result.map(drop).map_err(|source| match (&self.input, source.kind()) {
            (Input::Gzip(_), io::ErrorKind::UnexpectedEof) => self.cut("its gzip compression"),
            (Input::Gzip(_), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput) => {
                damaged(offset, Damage::Gzip(source.to_string()))
            }
            _ => ArchiveError::Read { offset, namespace: None, source },
        })
    }
}

pub(super) fn damaged(offset: u64, damage: Damage) -> ArchiveError {
    ArchiveError::Damaged { offset, namespace: None, damage }
}
