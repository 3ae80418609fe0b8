//! Frames and references to them: where bytes are, and what they must be.

use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use super::format::{Fields, FormatError, exactly, within};
use super::pack::{HEADER_BYTES, PACK_BYTES_MAX};
use crate::base::ids::PackId;
use crate::base::limits::BLOCK_BYTES;

/// Largest content of a frame, bytes.
pub const RAW_BYTES_MAX: u32 = BLOCK_BYTES as u32;

/// How hard blocks and pages are compressed. Of a 150 MB database of orders, level 1 makes 114 MB, 2
/// 111, 3 110; collections are compressed by WiredTiger already, but indexes shrink 1.6, 2.3 and 2.7
/// times. Level 2 takes hardly longer than 1, level 3 half as long again.
pub const ZSTD_LEVEL: i32 = 2;

/// How a frame's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// As one zstd frame.
    Zstd,
}

/// A frame: one block or index page within a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Where it begins in its object.
    pub offset: u32,
    /// Its bytes there.
    pub stored: u32,
    /// Its bytes after decoding.
    pub raw: u32,
    /// How it is stored.
    pub encoding: Encoding,
    /// BLAKE3 of the raw bytes.
    pub hash: blake3::Hash,
}

/// A frame and the object that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The pack, or pages object.
    pub pack: PackId,
    /// The frame.
    pub frame: Frame,
}

impl Encoding {
    pub fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
        }
    }

    pub fn from_code(code: u8) -> Result<Self, FormatError> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            other => Err(FormatError::Invalid(format!("encoding {other} is not known"))),
        }
    }
}

impl Frame {
    /// Size of a frame's description.
    pub const BYTES: usize = 48;

    /// Appends the description.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.offset.to_le_bytes());
        out.extend(self.stored.to_le_bytes());
        out.extend(self.raw.to_le_bytes());
        out.extend([self.encoding.code(), 0, 0, 0]);
        out.extend(self.hash.as_bytes());
    }

    /// Reads a description.
    pub fn read(fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        let (offset, stored, raw) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let encoding = Encoding::from_code(fields.u8()?)?;
        fields.reserved::<3>()?;
        Self { offset, stored, raw, encoding, hash: fields.hash()? }.checked()
    }

    /// The frame, if it is one that a pack can have.
    pub fn checked(self) -> Result<Self, FormatError> {
        within("a frame's content", self.raw, 1, RAW_BYTES_MAX)?;
        within("a frame's stored length", self.stored, 1, self.raw)?;
        within("a frame's end", self.offset.saturating_add(self.stored), 1, PACK_BYTES_MAX)?;
        if (self.offset as usize) < HEADER_BYTES {
            return Err(FormatError::invalid("a frame lies in the header"));
        }
        if self.encoding == Encoding::Raw && self.stored != self.raw {
            return Err(FormatError::invalid("a raw frame has two lengths"));
        }
        Ok(self)
    }

    /// Where it ends in its object.
    pub fn end(&self) -> u32 {
        self.offset + self.stored
    }

    /// The content, from the stored bytes; verified.
    pub fn decode(
        &self,
        stored: Bytes,
        decompressor: &mut Decompressor<'_>,
    ) -> Result<Bytes, FormatError> {
        exactly(self.stored as usize, &stored)?;
        let raw = match self.encoding {
            Encoding::Raw => stored,
            Encoding::Zstd => {
                let raw = decompressor.decompress(&stored, self.raw as usize);
                raw.map_err(FormatError::invalid)?.into()
            }
        };
        exactly(self.raw as usize, &raw)?;
        if blake3::hash(&raw) != self.hash {
            return Err(FormatError::Checksum);
        }
        Ok(raw)
    }
}

impl Reference {
    /// Size of a reference.
    pub const BYTES: usize = 16 + Frame::BYTES;

    /// Appends an optional reference; 64 zero bytes are none.
    pub fn write(reference: Option<&Self>, out: &mut Vec<u8>) {
        match reference {
            None => out.extend([0; Self::BYTES]),
            Some(reference) => {
                out.extend(reference.pack.to_bytes());
                reference.frame.write(out);
            }
        }
    }

    /// Reads an optional reference.
    pub fn read(fields: &mut Fields<'_>) -> Result<Option<Self>, FormatError> {
        let bytes: [u8; Self::BYTES] = fields.array()?;
        if bytes == [0; Self::BYTES] {
            return Ok(None);
        }
        let mut fields = Fields(&bytes);
        let pack = PackId::from_bytes(fields.array()?);
        Ok(Some(Self { pack, frame: Frame::read(&mut fields)? }))
    }
}

/// Content on its way into a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes of content.
    pub raw: u32,
    /// How it is stored.
    pub encoding: Encoding,
    /// BLAKE3 of the content.
    pub hash: blake3::Hash,
    /// What is stored.
    pub bytes: Bytes,
}

impl Encoded {
    /// Encodes 1 to [`RAW_BYTES_MAX`] bytes whose hash is known.
    pub fn new(
        content: &[u8],
        hash: blake3::Hash,
        compressor: &mut Compressor<'_>,
    ) -> Result<Self, FormatError> {
        // Compressed aside and copied: zstd wants room for the worst case, and these wait in memory.
        let mut room = Vec::with_capacity(zstd::zstd_safe::compress_bound(content.len()));
        compressor.compress_to_buffer(content, &mut room).map_err(FormatError::invalid)?;
        let (encoding, stored) = if room.len() < content.len() {
            (Encoding::Zstd, &room[..])
        } else {
            (Encoding::Raw, content)
        };
        let bytes = Bytes::copy_from_slice(stored);
        Ok(Self { raw: content.len() as u32, encoding, hash, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::hostile;

    fn frame(offset: u32, stored: u32, raw: u32, encoding: Encoding) -> Frame {
        Frame { offset, stored, raw, encoding, hash: blake3::hash(b"x") }
    }

    #[test]
    fn only_frames_that_a_pack_can_have_are_read() {
        use Encoding::{Raw, Zstd};
        for (frame, legal) in [
            (frame(32, 100, 65_536, Zstd), true),
            (frame(32, 65_536, 65_536, Raw), true),
            (frame(PACK_BYTES_MAX - 1, 1, 1, Raw), true),
            (frame(PACK_BYTES_MAX, 1, 1, Raw), false),
            (frame(u32::MAX, u32::MAX, 1, Zstd), false),
            (frame(31, 1, 1, Raw), false),
            (frame(32, 0, 1, Zstd), false),
            (frame(32, 1, 0, Zstd), false),
            (frame(32, 2, 1, Zstd), false),
            (frame(32, 1, 65_537, Zstd), false),
            (frame(32, 1, 2, Raw), false),
        ] {
            let mut bytes = Vec::new();
            frame.write(&mut bytes);
            assert_eq!(bytes.len(), Frame::BYTES);
            assert_eq!(Frame::read(&mut Fields(&bytes)).is_ok(), legal, "{frame:?}");
        }
    }

    #[test]
    fn references_come_back() {
        let some = Reference {
            pack: PackId::from_bytes([7; 16]),
            frame: frame(32, 100, 65_536, Encoding::Zstd),
        };
        for reference in [None, Some(some)] {
            let mut bytes = Vec::new();
            Reference::write(reference.as_ref(), &mut bytes);
            assert_eq!(bytes.len(), Reference::BYTES);
            assert_eq!(Reference::read(&mut Fields(&bytes)), Ok(reference));
            for length in 0..bytes.len() {
                assert!(Reference::read(&mut Fields(&bytes[..length])).is_err());
            }
        }
    }

    #[test]
    fn content_comes_back_or_not_at_all() {
        let mut compressor = Compressor::new(1).unwrap();
        let mixed: Vec<u8> = (0..700_u32).flat_map(|n| (n / 3).to_le_bytes()).collect();
        for (content, encoding) in [(&mixed[..], Encoding::Zstd), (b"x", Encoding::Raw)] {
            let encoded = Encoded::new(content, blake3::hash(content), &mut compressor).unwrap();
            assert_eq!(encoded.encoding, encoding);
            let stored = encoded.bytes.len() as u32;
            let frame = Frame {
                offset: 32,
                stored,
                raw: content.len() as u32,
                encoding,
                hash: encoded.hash,
            };
            let decode = |bytes: &[u8], frame: &Frame| {
                frame.decode(Bytes::copy_from_slice(bytes), &mut Decompressor::new().unwrap())
            };
            assert_eq!(decode(&encoded.bytes, &frame).unwrap(), content);
            // zstd's own header has bits that change nothing: then the content is right.
            hostile::cuts_and_flips(&encoded.bytes, |bytes| match decode(bytes, &frame) {
                Ok(found) => found == content && bytes != encoded.bytes,
                Err(_) => true,
            });
            let shorter = Frame { raw: frame.raw - u32::from(frame.raw > 1), ..frame };
            assert_eq!(decode(&encoded.bytes, &shorter).is_err(), frame.raw > 1);
        }
    }
}
