//! OP_MSG: flags, one body document, any number of document sequences, a checksum if announced.
//! Source: drivers' specification `message/OP_MSG.md`.

use bson::RawDocument;
use bytes::{BufMut, Bytes, BytesMut};

use super::bytes::Reader;
use super::error::WireError;
use super::header::{Header, OpCode};

/// An OP_MSG whose outer structure is checked: one body, legal sections, framed documents.
#[derive(Clone, Debug)]
pub struct Msg<'a> {
    /// The flag bits.
    pub flags: MsgFlags,
    /// The section of kind 0: the command or the reply.
    pub body: &'a RawDocument,
    /// The CRC-32C that came with it, not verified.
    pub checksum: Option<u32>,
    sections: Reader<'a>,
}

impl<'a> Msg<'a> {
    /// Reads a message's body (what follows the header).
    pub fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "OP_MSG");
        let flags = MsgFlags(reader.u32()?);
        if flags.has_unknown_required() {
            return Err(reader.malformed("a required flag bit is unknown"));
        }
        let checksum = if flags.contains(MsgFlags::CHECKSUM_PRESENT) {
            let all = reader.rest();
            let end = all.len().checked_sub(4).ok_or_else(|| reader.malformed("no checksum"))?;
            reader = Reader::new(&all[..end], "OP_MSG");
            Some(Reader::new(&all[end..], "checksum").u32()?)
        } else {
            None
        };
        let sections = reader.clone();
        let mut command = None;
        while let Some(section) = next_section(&mut reader)? {
            match section {
                Section::Body(_) if command.is_some() => {
                    return Err(reader.malformed("two sections of kind 0"));
                }
                Section::Body(document) => command = Some(document),
                Section::Sequence(sequence) => sequence.check()?,
            }
        }
        let body = command.ok_or_else(|| reader.malformed("no section of kind 0"))?;
        Ok(Self { flags, body, checksum, sections })
    }

    /// The document sequences, in their order.
    pub fn sequences(&self) -> impl Iterator<Item = Sequence<'a>> + use<'a> {
        let mut reader = self.sections.clone();
        // The walk in `parse` went through without an error, so this one does too.
        std::iter::from_fn(move || next_section(&mut reader).ok().flatten()).filter_map(|section| {
            match section {
                Section::Body(_) => None,
                Section::Sequence(sequence) => Some(sequence),
            }
        })
    }

    /// The body's first key: the command's name. `None` for an empty document.
    pub fn first_key(&self) -> Result<Option<&'a str>, WireError> {
        let first = self.body.iter_elements().next().transpose();
        Ok(first.map_err(WireError::bson("command"))?.map(|element| element.key().as_str()))
    }
}

/// OP_MSG's flag bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsgFlags(pub u32);

impl MsgFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// The message ends with a CRC-32C.
    pub const CHECKSUM_PRESENT: Self = Self(1);
    /// Another message follows without being asked for; on a request, none is answered.
    pub const MORE_TO_COME: Self = Self(1 << 1);
    /// The client takes answers with `MORE_TO_COME`.
    pub const EXHAUST_ALLOWED: Self = Self(1 << 16);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a bit is set that a reader must know (0 to 15) and this one does not.
    pub fn has_unknown_required(self) -> bool {
        self.0 & 0xffff & !(Self::CHECKSUM_PRESENT.0 | Self::MORE_TO_COME.0) != 0
    }
}

/// A section of kind 1.
#[derive(Clone, Debug)]
pub struct Sequence<'a> {
    /// The command's field that the documents belong to, such as `documents`.
    pub identifier: &'a str,
    documents: Reader<'a>,
}

impl<'a> Sequence<'a> {
    /// The documents, in their order.
    pub fn documents(&self) -> Documents<'a> {
        Documents(self.documents.clone())
    }

    fn check(&self) -> Result<(), WireError> {
        let mut documents = self.documents.clone();
        while !documents.is_empty() {
            documents.document()?;
        }
        Ok(())
    }
}

/// The documents of a [`Sequence`].
#[derive(Clone, Debug)]
pub struct Documents<'a>(Reader<'a>);

impl<'a> Iterator for Documents<'a> {
    type Item = &'a RawDocument;

    fn next(&mut self) -> Option<&'a RawDocument> {
        // `Msg::parse` walked them all.
        self.0.document().ok()
    }
}

enum Section<'a> {
    Body(&'a RawDocument),
    Sequence(Sequence<'a>),
}

fn next_section<'a>(reader: &mut Reader<'a>) -> Result<Option<Section<'a>>, WireError> {
    if reader.is_empty() {
        return Ok(None);
    }
    match reader.u8()? {
        0 => Ok(Some(Section::Body(reader.document()?))),
        1 => {
            // The size counts itself.
            let size = usize::try_from(reader.i32()?).ok().and_then(|size| size.checked_sub(4));
            let size = size.ok_or_else(|| reader.malformed("a document sequence's size"))?;
            let mut inside = Reader::new(reader.take(size)?, "document sequence");
            let identifier = inside.cstring()?;
            Ok(Some(Section::Sequence(Sequence { identifier, documents: inside })))
        }
        _ => Err(reader.malformed("a section's kind is unknown")),
    }
}

/// A whole OP_MSG of one body document, without a checksum.
pub fn encode_msg(
    request_id: i32,
    response_to: i32,
    flags: MsgFlags,
    document: &RawDocument,
) -> Bytes {
    let length = Header::BYTES + 4 + 1 + document.as_bytes().len();
    let mut out = BytesMut::with_capacity(length);
    let length = u32::try_from(length).expect("a document is at most 2 GiB");
    out.put_slice(&Header { length, request_id, response_to, opcode: OpCode::Msg }.encode());
    out.put_u32_le(flags.0);
    out.put_u8(0);
    out.put_slice(document.as_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::*;

    fn kind0(document: &RawDocument) -> Vec<u8> {
        [&[0], document.as_bytes()].concat()
    }

    fn kind1(identifier: &str, documents: &[RawDocumentBuf]) -> Vec<u8> {
        let inside: Vec<u8> = documents.iter().flat_map(|d| d.as_bytes().to_vec()).collect();
        let size = (4 + identifier.len() + 1 + inside.len()) as i32;
        [&[1][..], &size.to_le_bytes(), identifier.as_bytes(), &[0], &inside].concat()
    }

    fn body(flags: u32, sections: &[Vec<u8>]) -> Vec<u8> {
        [&flags.to_le_bytes()[..], &sections.concat()].concat()
    }

    #[test]
    fn sections_come_in_any_order() {
        let command = rawdoc! { "insert": "c", "$db": "d" };
        let rows = [rawdoc! { "a": 1 }, rawdoc! { "a": 2 }];
        let command = kind0(&command);
        let (some, none) = (kind1("documents", &rows), kind1("updates", &[]));
        for sections in [
            [command.clone(), some.clone(), none.clone()],
            [some.clone(), command.clone(), none.clone()],
            [some, none, command],
        ] {
            let bytes = body(0, &sections);
            let msg = Msg::parse(&bytes).unwrap();
            assert_eq!(msg.first_key().unwrap(), Some("insert"));
            let found: Vec<_> =
                msg.sequences().map(|s| (s.identifier, s.documents().count())).collect();
            assert_eq!(found, [("documents", 2), ("updates", 0)]);
        }
    }

    #[test]
    fn a_checksum_is_set_aside() {
        let mut bytes = body(1, &[kind0(&rawdoc! { "ping": 1 })]);
        bytes.extend_from_slice(&0xdead_beef_u32.to_le_bytes());
        let msg = Msg::parse(&bytes).unwrap();
        assert_eq!(msg.checksum, Some(0xdead_beef));
        assert_eq!(msg.sequences().count(), 0);
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let document = rawdoc! { "hello": 1, "$db": "admin" };
        let bytes = encode_msg(5, 6, MsgFlags::EXHAUST_ALLOWED, &document);
        let header = Header::parse(bytes[..16].try_into().unwrap()).unwrap();
        assert_eq!((header.length as usize, header.opcode), (bytes.len(), OpCode::Msg));
        assert_eq!((header.request_id, header.response_to), (5, 6));
        let msg = Msg::parse(&bytes[16..]).unwrap();
        assert_eq!(msg.body, &*document);
        assert!(msg.flags.contains(MsgFlags::EXHAUST_ALLOWED));
    }

    #[test]
    fn hostile_sizes_are_errors() {
        let ok = kind0(&rawdoc! { "ping": 1 });
        let sized = |size: i32, rest: &[u8]| [&[1][..], &size.to_le_bytes(), rest].concat();
        let document = |length: i32| [&[0][..], &length.to_le_bytes(), &[0; 8]].concat();
        let rows: Vec<(&str, Vec<u8>)> = vec![
            ("nothing", vec![]),
            ("half the flags", vec![0, 0]),
            ("no section", body(0, &[])),
            ("unknown required flag", body(1 << 5, std::slice::from_ref(&ok))),
            ("checksum flag without room", body(1, &[])),
            ("checksum eats the document", body(1, std::slice::from_ref(&ok))),
            ("two of kind 0", body(0, &[ok.clone(), ok.clone()])),
            ("only kind 1", body(0, &[kind1("documents", &[])])),
            ("kind 2", body(0, &[ok.clone(), vec![2]])),
            ("sequence of size 0", body(0, &[ok.clone(), sized(0, b"a\0")])),
            ("sequence of size 3", body(0, &[ok.clone(), sized(3, b"a\0")])),
            ("sequence of size 4, no identifier", body(0, &[ok.clone(), sized(4, b"a\0")])),
            ("negative sequence", body(0, &[ok.clone(), sized(-1, b"a\0")])),
            ("overlong sequence", body(0, &[ok.clone(), sized(i32::MAX, b"a\0")])),
            ("identifier without end", body(0, &[ok.clone(), sized(5, b"a")])),
            ("identifier not UTF-8", body(0, &[ok.clone(), sized(6, b"\xff\0")])),
            ("document cut in sequence", body(0, &[ok.clone(), sized(8, b"a\0\x05\0")])),
            ("zero document in sequence", body(0, &[ok.clone(), sized(10, b"a\0\0\0\0\0")])),
            ("negative document", body(0, &[document(-1)])),
            ("document of 0", body(0, &[document(0)])),
            ("document of 4", body(0, &[document(4)])),
            ("overlong document", body(0, &[document(i32::MAX)])),
            ("document without its zero", body(0, &[b"\0\x05\0\0\0\x01".to_vec()])),
        ];
        for (what, bytes) in rows {
            assert!(Msg::parse(&bytes).is_err(), "{what}");
        }
    }

    #[test]
    fn no_prefix_of_a_message_is_a_message() {
        let rows = [rawdoc! { "a": 1 }];
        let whole = body(0, &[kind1("documents", &rows), kind0(&rawdoc! { "insert": "c" })]);
        for end in 0..whole.len() {
            assert!(Msg::parse(&whole[..end]).is_err(), "{end}");
        }
        assert!(Msg::parse(&whole).is_ok());
    }
}
