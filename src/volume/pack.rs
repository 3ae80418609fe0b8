//! Packs: immutable objects of many frames, with a table at the end so that each can be read alone.

use bytes::Bytes;

use super::format::{Fields, FormatError, exactly, within};
use super::reference::{Encoded, Frame, Reference};
use crate::base::ids::PackId;

/// Size of the header; the first frame begins here.
pub const HEADER_BYTES: usize = 32;
/// Size of the trailer, the last bytes of the object.
pub const TRAILER_BYTES: usize = 48;
/// Largest object, bytes.
pub const PACK_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// A pack with this many bytes of frames and table is finished.
pub const PACK_BYTES_TARGET: usize = 8 * 1024 * 1024;

/// How far the frame that makes a pack full, with the rest of the table, can go beyond that.
const PACK_BYTES_BEYOND: usize = 128 * 1024;

const HEAD_MAGIC: [u8; 8] = *b"ARGNPACK";
const TAIL_MAGIC: [u8; 8] = *b"ARGNTAIL";
const FORMAT_VERSION: u16 = 1;

/// What the frames of a pack are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackKind {
    /// Blocks of files: `packs/`.
    Blocks,
    /// Index pages: `pages/`.
    Pages,
}

impl PackKind {
    fn code(self) -> u8 {
        match self {
            Self::Blocks => 1,
            Self::Pages => 2,
        }
    }
}

/// A pack that is being filled.
pub struct PackWriter {
    id: PackId,
    bytes: Vec<u8>,
    table: Vec<Frame>,
}

impl PackWriter {
    /// An empty pack.
    pub fn new(kind: PackKind, id: PackId) -> Self {
        // All that it will ever need, at once: untouched memory costs nothing, growing copies.
        let mut bytes = Vec::with_capacity(PACK_BYTES_TARGET + PACK_BYTES_BEYOND);
        bytes.extend(header(kind, id));
        Self { id, bytes, table: Vec::new() }
    }

    /// Its id.
    pub fn id(&self) -> PackId {
        self.id
    }

    /// Adds content; gives what it is found by.
    pub fn push(&mut self, content: &Encoded) -> Reference {
        let frame = Frame {
            offset: self.bytes.len() as u32,
            stored: content.bytes.len() as u32,
            raw: content.raw,
            encoding: content.encoding,
            hash: content.hash,
        };
        self.bytes.extend_from_slice(&content.bytes);
        self.table.push(frame);
        Reference { pack: self.id, frame }
    }

    /// Whether nothing more should be added.
    pub fn is_full(&self) -> bool {
        self.bytes.len() + self.table.len() * Frame::BYTES >= PACK_BYTES_TARGET
    }

    /// Whether nothing was added. Such a pack is not written.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The object.
    pub fn finish(mut self) -> Bytes {
        let table_at = self.bytes.len();
        self.table.iter().for_each(|frame| frame.write(&mut self.bytes));
        self.bytes.extend((table_at as u32).to_le_bytes());
        self.bytes.extend((self.table.len() as u32).to_le_bytes());
        let hash = table_hash(&self.bytes[..HEADER_BYTES], &self.bytes[table_at..]);
        self.bytes.extend(hash.as_bytes());
        self.bytes.extend(TAIL_MAGIC);
        self.bytes.into()
    }
}

/// What the last bytes of a pack say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    table_at: u32,
    count: u32,
    hash: blake3::Hash,
}

impl Trailer {
    /// Reads the last [`TRAILER_BYTES`] of an object of `object_bytes`.
    pub fn read(bytes: &[u8], object_bytes: u64) -> Result<Self, FormatError> {
        exactly(TRAILER_BYTES, bytes)?;
        let mut fields = Fields(bytes);
        let trailer = Self { table_at: fields.u32()?, count: fields.u32()?, hash: fields.hash()? };
        if fields.array()? != TAIL_MAGIC {
            return Err(FormatError::Magic);
        }
        let size = u32::try_from(object_bytes).unwrap_or(u32::MAX);
        within("a pack's size", size, 1, PACK_BYTES_MAX)?;
        within("a pack's count of frames", trailer.count, 1, size / Frame::BYTES as u32)?;
        let table = trailer.count as usize * Frame::BYTES;
        let found = trailer.table_at as u64 + (table + TRAILER_BYTES) as u64;
        if found != object_bytes {
            return Err(FormatError::Length { expected: object_bytes, found });
        }
        Ok(trailer)
    }

    /// Where the table is in the object.
    pub fn table(&self) -> std::ops::Range<u64> {
        let start = u64::from(self.table_at);
        start..start + self.count as u64 * Frame::BYTES as u64
    }

    /// The frames, from the table's bytes and the object's first [`HEADER_BYTES`].
    pub fn frames(
        &self,
        kind: PackKind,
        id: PackId,
        head: &[u8],
        table: &[u8],
    ) -> Result<Vec<Frame>, FormatError> {
        exactly(HEADER_BYTES, head)?;
        exactly(self.count as usize * Frame::BYTES, table)?;
        if head[..8] != HEAD_MAGIC {
            return Err(FormatError::Magic);
        }
        let numbers = [self.table_at.to_le_bytes(), self.count.to_le_bytes()].concat();
        if table_hash(head, &[table, &numbers].concat()) != self.hash {
            return Err(FormatError::Checksum);
        }
        let found = u16::from_le_bytes([head[8], head[9]]);
        if found > FORMAT_VERSION {
            return Err(FormatError::Newer { found: found.into(), known: FORMAT_VERSION.into() });
        }
        if head != header(kind, id) {
            let found = format!("the pack with the header {}", head.escape_ascii());
            return Err(FormatError::Other { expected: format!("pack {id} of {kind:?}"), found });
        }
        let (mut fields, mut at) = (Fields(table), HEADER_BYTES as u32);
        let mut frames = Vec::with_capacity(self.count as usize);
        for _ in 0..self.count {
            let frame = Frame::read(&mut fields)?;
            if frame.offset != at {
                return Err(FormatError::invalid("the frames of a pack leave a gap or overlap"));
            }
            at = frame.end();
            frames.push(frame);
        }
        if at != self.table_at {
            return Err(FormatError::invalid("the frames of a pack do not end at its table"));
        }
        Ok(frames)
    }
}

fn header(kind: PackKind, id: PackId) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&HEAD_MAGIC);
    header[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    header[10] = kind.code();
    header[16..].copy_from_slice(&id.to_bytes());
    header
}

fn table_hash(head: &[u8], table_and_numbers: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(table_and_numbers);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use zstd::bulk::{Compressor, Decompressor};

    use super::*;
    use crate::volume::hostile;

    fn id() -> PackId {
        PackId::from_bytes([3; 16])
    }

    fn pack(contents: &[&[u8]]) -> (Bytes, Vec<Reference>) {
        let mut compressor = Compressor::new(1).unwrap();
        let mut writer = PackWriter::new(PackKind::Blocks, id());
        let references = contents.iter().map(|content| {
            let hash = blake3::hash(content);
            writer.push(&Encoded::new(content, hash, &mut compressor).unwrap())
        });
        let references = references.collect();
        (writer.finish(), references)
    }

    /// Reads a pack with nothing but its bytes, as scrub does.
    fn read(pack: &[u8]) -> Result<Vec<Bytes>, FormatError> {
        let tail = pack.len().saturating_sub(TRAILER_BYTES);
        let trailer = Trailer::read(&pack[tail..], pack.len() as u64)?;
        let table = trailer.table();
        let table = pack.get(table.start as usize..table.end as usize).unwrap_or_default();
        let head = pack.get(..HEADER_BYTES).unwrap_or_default();
        let frames = trailer.frames(PackKind::Blocks, id(), head, table)?;
        let mut decompressor = Decompressor::new().unwrap();
        let decode = |frame: Frame| {
            let stored = &pack[frame.offset as usize..frame.end() as usize];
            frame.decode(Bytes::copy_from_slice(stored), &mut decompressor)
        };
        frames.into_iter().map(decode).collect()
    }

    #[test]
    fn a_pack_reads_back_alone_and_by_reference() {
        let contents = [&b"x"[..], &[7; 65_536], b"some text, some text, some text"];
        let (bytes, references) = pack(&contents);
        assert_eq!(read(&bytes).unwrap(), contents);
        for (Reference { pack, frame }, content) in references.into_iter().zip(contents) {
            let stored = bytes.slice(frame.offset as usize..frame.end() as usize);
            let found = frame.decode(stored, &mut Decompressor::new().unwrap()).unwrap();
            assert_eq!((pack, &found[..]), (id(), content));
        }
    }

    #[test]
    fn no_damage_passes() {
        let contents = [&b"x"[..], b"some text, some text, some text"];
        let (bytes, _) = pack(&contents);
        hostile::cuts_and_flips(&bytes, |damaged| match read(damaged) {
            // zstd's own header has bits that change nothing: then the content is right.
            Ok(found) => found == contents && *damaged != bytes,
            Err(_) => true,
        });
    }

    #[test]
    fn another_pack_and_absurd_numbers_are_refused() {
        let (bytes, _) = pack(&[b"x"]);
        let trailer = Trailer::read(&bytes[bytes.len() - 48..], bytes.len() as u64).unwrap();
        let table = trailer.table();
        let table = &bytes[table.start as usize..table.end as usize];
        let other = PackId::from_bytes([4; 16]);
        for (kind, id) in [(PackKind::Pages, id()), (PackKind::Blocks, other)] {
            let frames = trailer.frames(kind, id, &bytes[..32], table);
            assert!(matches!(frames, Err(FormatError::Other { .. })), "{frames:?}");
        }
        for (table_at, count, size) in [
            (32, 0, 80),
            (32, u32::MAX, 80),
            (u32::MAX, 1, 1 << 32),
            (32, 1, u64::MAX),
            (33, 1, 32 + 48 + 48),
        ] {
            let mut tail = [u32::to_le_bytes(table_at), u32::to_le_bytes(count)].concat();
            tail.extend([0; 32]);
            tail.extend(TAIL_MAGIC);
            assert!(Trailer::read(&tail, size).is_err(), "{table_at} {count} {size}");
        }
    }
}
