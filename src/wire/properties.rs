//! What is encoded is read back, whatever it is.

use std::io::Write;

use bson::{Bson, Document, RawDocument, RawDocumentBuf};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::base::limits::{MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN};

fn value() -> impl Strategy<Value = Bson> {
    let leaf = prop_oneof![
        Just(Bson::Null),
        any::<bool>().prop_map(Bson::Boolean),
        any::<i32>().prop_map(Bson::Int32),
        any::<i64>().prop_map(Bson::Int64),
        (-1e300..1e300).prop_map(Bson::Double),
        ".{0,20}".prop_map(Bson::String),
        any::<[u8; 12]>().prop_map(|bytes| Bson::ObjectId(bytes.into())),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Bson::Array),
            vec(("[a-z$.]{0,8}", inner), 0..4)
                .prop_map(|fields| Bson::Document(fields.into_iter().collect())),
        ]
    })
}

fn document() -> impl Strategy<Value = RawDocumentBuf> {
    let fields = vec(("[a-zA-Z$.é]{0,12}", value()), 0..6);
    fields.prop_map(|fields| {
        let document: Document = fields.into_iter().collect();
        RawDocumentBuf::try_from(&document).unwrap()
    })
}

/// The body of an OP_MSG with the command between its sequences.
fn msg_body(
    flags: u32,
    command: &RawDocument,
    before: usize,
    sequences: &[(String, Vec<RawDocumentBuf>)],
) -> Vec<u8> {
    let sequence = |(name, documents): &(String, Vec<RawDocumentBuf>)| {
        let inside: Vec<u8> = documents.iter().flat_map(|one| one.as_bytes().to_vec()).collect();
        let size = (4 + name.len() + 1 + inside.len()) as i32;
        [&[1][..], &size.to_le_bytes(), name.as_bytes(), &[0], &inside].concat()
    };
    let (first, last) = sequences.split_at(before.min(sequences.len()));
    let mut body = flags.to_le_bytes().to_vec();
    first.iter().for_each(|one| body.extend(sequence(one)));
    body.extend([&[0], command.as_bytes()].concat());
    last.iter().for_each(|one| body.extend(sequence(one)));
    body
}

fn packed(compressor: u8, plain: &[u8]) -> Vec<u8> {
    match compressor {
        0 => plain.to_vec(),
        1 => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
        2 => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), Default::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd::bulk::compress(plain, 1).unwrap(),
    }
}

proptest! {
    #[test]
    fn headers(
        length in MESSAGE_BYTES_MIN as u32..=MESSAGE_BYTES_MAX as u32,
        ids: (i32, i32),
        opcode: i32,
    ) {
        let (request_id, response_to) = ids;
        let header = Header { length, request_id, response_to, opcode: OpCode::from(opcode) };
        prop_assert_eq!(Header::parse(&header.encode()).unwrap(), header);
        prop_assert_eq!(i32::from(header.opcode), opcode);
    }

    #[test]
    fn illegal_lengths_are_refused(length: i32) {
        let legal = usize::try_from(length)
            .is_ok_and(|length| (MESSAGE_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&length));
        let bytes = [length, 1, 0, 2013].map(i32::to_le_bytes).concat();
        prop_assert_eq!(Header::parse(bytes[..].try_into().unwrap()).is_ok(), legal);
    }

    #[test]
    fn commands_and_replies(ids: (i32, i32), more: bool, document in document()) {
        let flags = if more { MsgFlags::MORE_TO_COME } else { MsgFlags::NONE };
        let bytes = encode_msg(ids.0, ids.1, flags, &document);
        let header = Header::parse(bytes[..16].try_into().unwrap()).unwrap();
        prop_assert_eq!((header.request_id, header.response_to), ids);
        prop_assert_eq!((header.length as usize, header.opcode), (bytes.len(), OpCode::Msg));
        let msg = Msg::parse(&bytes[16..]).unwrap();
        prop_assert_eq!((msg.flags, msg.body, msg.checksum), (flags, &*document, None));
        let first = document.iter_elements().next().map(|first| first.unwrap().key().to_owned());
        prop_assert_eq!(msg.first_key().unwrap(), first.as_ref().map(|key| key.as_str()));
    }

    #[test]
    fn sections_in_any_order(
        command in document(),
        before in 0..4_usize,
        sequences in vec(("[a-z]{0,9}", vec(document(), 0..4)), 0..4),
        checksum: Option<u32>,
    ) {
        let mut bytes = msg_body(u32::from(checksum.is_some()), &command, before, &sequences);
        bytes.extend(checksum.iter().flat_map(|sum| sum.to_le_bytes()));
        let msg = Msg::parse(&bytes).unwrap();
        prop_assert_eq!((msg.body, msg.checksum), (&*command, checksum));
        let found: Vec<(String, Vec<RawDocumentBuf>)> = msg
            .sequences()
            .map(|one| (one.identifier.to_owned(), one.documents().map(ToOwned::to_owned).collect()))
            .collect();
        prop_assert_eq!(found, sequences);
    }

    #[test]
    fn old_replies(ids: (i32, i32), document in document()) {
        let bytes = encode_reply(ids.0, ids.1, ReplyFlags::FAILURE, &document);
        let header = Header::parse(bytes[..16].try_into().unwrap()).unwrap();
        prop_assert_eq!((header.request_id, header.response_to), ids);
        prop_assert_eq!((header.length as usize, header.opcode), (bytes.len(), OpCode::Reply));
        prop_assert_eq!(&bytes[16..20], &ReplyFlags::FAILURE.0.to_le_bytes());
        prop_assert_eq!(&bytes[32..36], &1_i32.to_le_bytes());
        prop_assert_eq!(&bytes[36..], document.as_bytes());
    }

    #[test]
    fn old_queries(
        database in "[a-z]{1,9}",
        wrapped: bool,
        command in document(),
        fields in proptest::option::of(document()),
    ) {
        // A command that is named like a wrapper is one.
        let first = command.iter_elements().next().map(|first| first.unwrap().key().to_owned());
        prop_assume!(first.is_none_or(|key| !matches!(key.as_str(), "query" | "$query")));
        let mut document = command.clone();
        if wrapped {
            document = RawDocumentBuf::new();
            document.append(bson::raw::cstr!("$query"), command.clone());
        }
        let collection = format!("{database}.$cmd\0");
        let mut bytes = [&[0; 4], collection.as_bytes(), &[0; 8], document.as_bytes()].concat();
        bytes.extend(fields.iter().flat_map(|fields| fields.as_bytes().to_vec()));
        let query = Query::parse(&bytes).unwrap();
        prop_assert_eq!(query.command(), &*command);
        prop_assert_eq!(query.command_database(), Some(&*database));
    }

    #[test]
    fn compressed_messages(
        opcode in prop_oneof![Just(1), Just(2004), Just(2013)],
        plain in vec(any::<u8>(), 0..2000),
        compressor in 0..4_u8,
    ) {
        let size = (plain.len() as i32).to_le_bytes();
        let head = [&i32::to_le_bytes(opcode)[..], &size, &[compressor]].concat();
        let bytes = [head, packed(compressor, &plain)].concat();
        let length = plain.len() + Header::BYTES;
        let (found, unpacked) = decompress(&bytes, length).unwrap();
        prop_assert_eq!((i32::from(found), &unpacked[..]), (opcode, &plain[..]));
        let over = decompress(&bytes, length - 1);
        prop_assert!(matches!(over, Err(WireError::TooLarge { .. })), "{:?}", over);
    }
}
