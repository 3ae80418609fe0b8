//! The envelope of small objects: one BSON document with its kind, format version and checksum.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::format::{Fields, FormatError, exactly, within};

const MAGIC: [u8; 4] = *b"ARGN";
const HEADER_BYTES: usize = 20;
const HASH_BYTES: usize = 32;
/// Largest document, bytes.
pub const DOCUMENT_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// Deepest nesting of a document. Argon's own are three deep; the reader of BSON recurses.
const DEPTH_MAX: usize = 16;
/// These documents are small and seldom: size counts more than speed.
const ZSTD_LEVEL: i32 = 3;

/// What an object is. Each kind has a format version of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The store's marker.
    Format,
    /// A project.
    Project,
    /// A branch head.
    Head,
    /// A version's root document.
    Version,
    /// A server's lease.
    Server,
    /// What garbage collection found dead.
    Condemned,
    /// A version that is kept for good.
    Pin,
}

impl Kind {
    fn tag(self) -> [u8; 4] {
        match self {
            Self::Format => *b"FRMT",
            Self::Project => *b"PROJ",
            Self::Head => *b"HEAD",
            Self::Version => *b"VERS",
            Self::Server => *b"SRVR",
            Self::Condemned => *b"COND",
            Self::Pin => *b"PINS",
        }
    }

    fn format_version(self) -> u16 {
        match self {
            Self::Format
            | Self::Project
            | Self::Head
            | Self::Version
            | Self::Server
            | Self::Condemned
            | Self::Pin => 1,
        }
    }
}

/// A document in its envelope.
pub fn seal<T: Serialize>(kind: Kind, document: &T) -> Result<Bytes, FormatError> {
    let document = bson::serialize_to_vec(document).map_err(FormatError::invalid)?;
    let raw = u32::try_from(document.len()).unwrap_or(u32::MAX);
    within("the document's length", raw, 1, DOCUMENT_BYTES_MAX)?;
    let zstd = zstd::bulk::compress(&document, ZSTD_LEVEL).map_err(FormatError::invalid)?;
    let (encoding, payload) = if zstd.len() < document.len() { (1, zstd) } else { (0, document) };

    let mut out = Vec::with_capacity(HEADER_BYTES + payload.len() + HASH_BYTES);
    out.extend(MAGIC);
    out.extend(kind.tag());
    out.extend(kind.format_version().to_le_bytes());
    out.extend([encoding, 0]);
    out.extend((payload.len() as u32).to_le_bytes());
    out.extend(raw.to_le_bytes());
    out.extend(payload);
    out.extend(blake3::hash(&out).as_bytes());
    Ok(out.into())
}

/// The document in an envelope of this kind.
pub fn open<T: DeserializeOwned>(kind: Kind, object: &[u8]) -> Result<T, FormatError> {
    let document = unwrap(kind, object)?;
    check_depth(&document)?;
    bson::deserialize_from_slice(&document).map_err(FormatError::invalid)
}

fn unwrap(kind: Kind, object: &[u8]) -> Result<Vec<u8>, FormatError> {
    let mut fields = Fields(object);
    if fields.array()? != MAGIC {
        return Err(FormatError::Magic);
    }
    let whole = object.len().saturating_sub(HASH_BYTES);
    if object.len() < HEADER_BYTES + HASH_BYTES {
        exactly(HEADER_BYTES + HASH_BYTES, object)?;
    }
    if blake3::hash(&object[..whole]) != Fields(&object[whole..]).hash()? {
        return Err(FormatError::Checksum);
    }
    let tag: [u8; 4] = fields.array()?;
    if tag != kind.tag() {
        let name = |tag: [u8; 4]| format!("`{}`", tag.escape_ascii());
        return Err(FormatError::Other { expected: name(kind.tag()), found: name(tag) });
    }
    let (found, known) = (fields.u16()?.into(), kind.format_version().into());
    if found > known {
        return Err(FormatError::Newer { found, known });
    }
    let encoding = fields.u8()?;
    fields.reserved::<1>()?;
    let stored = fields.u32()?;
    let raw = within("the document's length", fields.u32()?, 1, DOCUMENT_BYTES_MAX)? as usize;
    let payload = &object[HEADER_BYTES..whole];
    exactly(stored as usize, payload)?;
    let document = match encoding {
        0 => payload.to_vec(),
        1 => zstd::bulk::decompress(payload, raw).map_err(FormatError::invalid)?,
        other => return Err(FormatError::Invalid(format!("encoding {other} is not known"))),
    };
    exactly(raw, &document)?;
    Ok(document)
}

/// Walks the document without recursion, so that one of a million brackets is refused here rather
/// than overflow the stack of the reader.
fn check_depth(document: &[u8]) -> Result<(), FormatError> {
    let root = bson::RawDocument::from_bytes(document).map_err(FormatError::invalid)?;
    let mut open = vec![root.iter()];
    while let Some(level) = open.last_mut() {
        let inner = match level.next() {
            None => {
                open.pop();
                continue;
            }
            Some(element) => match element.map_err(FormatError::invalid)?.1 {
                bson::RawBsonRef::Document(inner) => inner,
                bson::RawBsonRef::Array(inner) => {
                    bson::RawDocument::from_bytes(inner.as_bytes()).map_err(FormatError::invalid)?
                }
                bson::RawBsonRef::JavaScriptCodeWithScope(code) => code.scope,
                _ => continue,
            },
        };
        if open.len() == DEPTH_MAX {
            return Err(FormatError::Invalid(format!("it is nested more than {DEPTH_MAX} deep")));
        }
        open.push(inner.iter());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;
    use crate::volume::hostile;

    #[test]
    fn documents_come_back() {
        for document in [doc! {}, doc! { "a": 1, "b": "x".repeat(10_000) }] {
            let sealed = seal(Kind::Head, &document).unwrap();
            assert_eq!(open::<Document>(Kind::Head, &sealed).unwrap(), document);
            let other = open::<Document>(Kind::Version, &sealed);
            assert!(matches!(other, Err(FormatError::Other { .. })), "{other:?}");
        }
    }

    #[test]
    fn no_damage_passes() {
        let sealed = seal(Kind::Project, &doc! { "text": "x".repeat(300) }).unwrap();
        hostile::cuts_and_flips(&sealed, |bytes| open::<Document>(Kind::Project, bytes).is_err());
    }

    fn forged(version: u16, encoding: u8, stored: u32, raw: u32, payload: &[u8]) -> Vec<u8> {
        hostile::forged_envelope(*b"HEAD", version, encoding, [stored, raw], payload)
    }

    #[test]
    fn what_was_made_to_harm_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; 10_000_000], 1).unwrap();
        let size = bomb.len() as u32;
        let empty = [5, 0, 0, 0, 0];
        // Documents in documents, a million deep, each with the key "".
        let mut deep = Vec::new();
        for depth in 0..1_000_000_u32 {
            deep.extend((5 + 7 * (1_000_000 - depth)).to_le_bytes());
            deep.extend([3, 0]);
        }
        deep.extend(empty);
        deep.extend(vec![0; 1_000_000]);
        let length = deep.len() as u32;
        for (object, words) in [
            (forged(2, 0, 5, 5, &empty), "format version 2"),
            (forged(1, 0, 4, 5, &empty), "5 bytes stand where 4"),
            (forged(1, 0, 5, 6, &empty), "5 bytes stand where 6"),
            (forged(1, 0, 0, 0, &[]), "length is 0"),
            (forged(1, 0, u32::MAX, u32::MAX, &empty), "67108864 is the most"),
            (forged(1, 1, size, 100_000, &bomb), "small"),
            (forged(1, 1, 5, 5, &empty), "Src size"),
            (forged(1, 9, 5, 5, &empty), "encoding 9"),
            (forged(1, 0, length, length, &deep), "nested"),
            (b"<html>not found</html>".to_vec(), "no object"),
        ] {
            let error = open::<Document>(Kind::Head, &object).unwrap_err();
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
        assert_eq!(open::<Document>(Kind::Head, &forged(1, 0, 5, 5, &empty)), Ok(doc! {}));
    }
}
