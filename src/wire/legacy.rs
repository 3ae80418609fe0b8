//! OP_QUERY and OP_REPLY: how older drivers say hello, and what answers them.
//! Source: <https://www.mongodb.com/docs/manual/legacy-opcodes/>.

use bson::RawDocument;
use bytes::{BufMut, Bytes, BytesMut};

use super::bytes::Reader;
use super::error::WireError;
use super::header::{Header, OpCode};

/// An OP_QUERY.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The full name, such as `admin.$cmd`.
    pub collection: &'a str,
    /// The query; on `….$cmd`, the command.
    pub document: &'a RawDocument,
}

impl<'a> Query<'a> {
    /// Reads a message's body (what follows the header).
    pub fn parse(body: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body, "OP_QUERY");
        let _flags = reader.i32()?;
        let collection = reader.cstring()?;
        let _skip = reader.i32()?;
        let _count = reader.i32()?;
        let document = reader.document()?;
        if !reader.is_empty() {
            let _fields = reader.document()?;
        }
        if !reader.is_empty() {
            return Err(reader.malformed("bytes after its documents"));
        }
        Ok(Self { collection, document })
    }

    /// The database whose command this is; `None` where it is no command but a real query.
    pub fn command_database(&self) -> Option<&'a str> {
        self.collection.strip_suffix(".$cmd")
    }

    /// The command: old drivers may wrap it as `{$query: {…}, $readPreference: …}`.
    pub fn command(&self) -> &'a RawDocument {
        let first = self.document.iter_elements().next().and_then(Result::ok);
        first
            .filter(|element| matches!(element.key().as_str(), "$query" | "query"))
            .and_then(|element| element.value().ok())
            .and_then(|value| value.as_document())
            .unwrap_or(self.document)
    }
}

/// OP_REPLY's flag bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyFlags(pub i32);

impl ReplyFlags {
    /// A good answer. Bit 3, AwaitCapable, is set in every answer of every server since 1.6.
    pub const SUCCESS: Self = Self(1 << 3);
    /// The one document is an error: bit 1, QueryFailure.
    pub const FAILURE: Self = Self(1 << 3 | 1 << 1);
}

/// A whole OP_REPLY of one document.
pub fn encode_reply(
    request_id: i32,
    response_to: i32,
    flags: ReplyFlags,
    document: &RawDocument,
) -> Bytes {
    let length = Header::BYTES + 20 + document.as_bytes().len();
    let mut out = BytesMut::with_capacity(length);
    let length = u32::try_from(length).expect("a document is at most 2 GiB");
    out.put_slice(&Header { length, request_id, response_to, opcode: OpCode::Reply }.encode());
    out.put_i32_le(flags.0);
    out.put_i64_le(0); // no cursor stays open
    out.put_i32_le(0); // starting at document 0
    out.put_i32_le(1); // one document
    out.put_slice(document.as_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn query(collection: &[u8], documents: &[&RawDocument]) -> Vec<u8> {
        let mut bytes = [&[4, 0, 0, 0][..], collection, &[0; 9]].concat();
        documents.iter().for_each(|document| bytes.extend_from_slice(document.as_bytes()));
        bytes[4 + collection.len() + 5..][..4].copy_from_slice(&(-1_i32).to_le_bytes());
        bytes
    }

    #[test]
    fn commands_are_found_plain_and_wrapped() {
        let plain = rawdoc! { "isMaster": 1 };
        let wrapped = rawdoc! { "$query": { "isMaster": 1 }, "$readPreference": {} };
        let fields = rawdoc! {};
        for (collection, documents, database) in [
            ("admin.$cmd", vec![&*plain], Some("admin")),
            ("admin.$cmd", vec![&*wrapped], Some("admin")),
            ("admin.$cmd", vec![&*plain, &*fields], Some("admin")),
            ("shop.orders", vec![&*plain], None),
        ] {
            let bytes = query(collection.as_bytes(), &documents);
            let query = Query::parse(&bytes).unwrap();
            assert_eq!(query.command(), &*plain);
            assert_eq!(query.command_database(), database);
        }
    }

    #[test]
    fn cut_and_overlong_queries_are_errors() {
        let document = rawdoc! { "isMaster": 1 };
        let whole = query(b"admin.$cmd", &[&document]);
        for end in 0..whole.len() {
            assert!(Query::parse(&whole[..end]).is_err(), "{end}");
        }
        for extra in [&[0][..], &[5, 0, 0, 0, 1], &[255; 8]] {
            assert!(Query::parse(&[&whole[..], extra].concat()).is_err(), "{extra:?}");
        }
        assert!(Query::parse(&query(b"\xff", &[&document])).is_err());
    }

    #[test]
    fn a_reply_has_one_document_and_no_cursor() {
        let document = rawdoc! { "ok": 1 };
        let bytes = encode_reply(7, 8, ReplyFlags::FAILURE, &document);
        let header = Header::parse(bytes[..16].try_into().unwrap()).unwrap();
        assert_eq!((header.length as usize, header.opcode), (bytes.len(), OpCode::Reply));
        assert_eq!((header.request_id, header.response_to), (7, 8));
        assert_eq!(bytes[16..20], 10_i32.to_le_bytes());
        assert_eq!(bytes[32..36], 1_i32.to_le_bytes());
        assert_eq!(&bytes[36..], document.as_bytes());
    }
}
