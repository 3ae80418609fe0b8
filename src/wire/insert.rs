//! Inserting raw documents in as few messages as the limits allow, bytes untouched.

use bson::{RawDocument, RawDocumentBuf, rawdoc};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::{Client, check_ok};
use super::error::WireError;
use super::header::{Header, OpCode};
use super::msg::MsgFlags;
use crate::base::limits::MESSAGE_BYTES_MAX;

/// Most documents of one insert: `maxWriteBatchSize` of every server since 3.6.
const BATCH_DOCUMENTS_MAX: usize = 100_000;

/// Room left for what surrounds a document sequence: header, flags, command.
const OVERHEAD_BYTES: usize = 16 * 1024;

/// Most bytes of documents of one insert.
const BATCH_BYTES_MAX: usize = MESSAGE_BYTES_MAX - OVERHEAD_BYTES;

/// How an insert goes about its documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InsertOptions {
    /// Whether the first refused document ends it.
    pub order: Order,
    /// Whether the collection's validator looks at the documents.
    pub validation: Validation,
}

/// Whether documents go in one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// They do; those after a refused one are not tried.
    #[default]
    Ordered,
    /// The server may choose; all of a batch are tried.
    Unordered,
}

/// Whether the collection's validator looks at the documents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// It does.
    #[default]
    Check,
    /// It does not: `bypassDocumentValidation`.
    Bypass,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Inserts documents, byte for byte as they are. A refused document is [`WireError::Write`];
    /// batches before it stay inserted. Not cancel safe.
    pub async fn insert(
        &mut self,
        db: &str,
        collection: &str,
        documents: &[RawDocumentBuf],
        options: InsertOptions,
    ) -> Result<(), WireError> {
        let command = rawdoc! {
            "insert": collection,
            "ordered": options.order == Order::Ordered,
            "bypassDocumentValidation": options.validation == Validation::Bypass,
            "$db": db,
        };
        let mut done = 0;
        while done < documents.len() {
            let batch = &documents[done..][..batch_length(&documents[done..])];
            let message = encode_insert(self.next_request_id(), &command, batch)?;
            let reply = self.exchange(&message).await?;
            check_ok(&command, &reply)?;
            check_written(&format!("{db}.{collection}"), &reply, done)?;
            done += batch.len();
        }
        Ok(())
    }
}

/// How many documents from the front fit one message; at least one, be it too large: then the
/// server says so.
fn batch_length(documents: &[RawDocumentBuf]) -> usize {
    let mut bytes = 0;
    let fits = documents.iter().take(BATCH_DOCUMENTS_MAX).take_while(|document| {
        bytes += document.as_bytes().len();
        bytes <= BATCH_BYTES_MAX
    });
    fits.count().max(1)
}

/// One message: the command, then the documents as a sequence of kind 1.
fn encode_insert(
    request_id: i32,
    command: &RawDocument,
    documents: &[RawDocumentBuf],
) -> Result<Bytes, WireError> {
    const IDENTIFIER: &[u8] = b"documents\0";
    let document_bytes: usize = documents.iter().map(|document| document.as_bytes().len()).sum();
    let sequence = 4 + IDENTIFIER.len() + document_bytes;
    let length = Header::BYTES + 4 + 1 + command.as_bytes().len() + 1 + sequence;
    if length > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLarge { length, max: MESSAGE_BYTES_MAX });
    }
    let in_range = "a checked length fits 32 bits";
    let header = Header {
        length: u32::try_from(length).expect(in_range),
        request_id,
        response_to: 0,
        opcode: OpCode::Msg,
    };
    let mut message = BytesMut::with_capacity(length);
    message.put_slice(&header.encode());
    message.put_u32_le(MsgFlags::NONE.0);
    message.put_u8(0);
    message.put_slice(command.as_bytes());
    message.put_u8(1);
    message.put_i32_le(i32::try_from(sequence).expect(in_range));
    message.put_slice(IDENTIFIER);
    documents.iter().for_each(|document| message.put_slice(document.as_bytes()));
    Ok(message.freeze())
}

fn check_written(namespace: &str, reply: &RawDocument, done: usize) -> Result<(), WireError> {
    let first = reply.get_array("writeErrors").ok().and_then(|errors| errors.get_document(0).ok());
    let error = first.or_else(|| reply.get_document("writeConcernError").ok());
    let Some(error) = error else { return Ok(()) };
    let index = error.get_i32("index").ok().and_then(|index| usize::try_from(index).ok());
    Err(WireError::Write {
        namespace: namespace.to_owned(),
        index: done + index.unwrap_or(0),
        code: error.get_i32("code").unwrap_or(0),
        message: error.get_str("errmsg").unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::client::tests::{reply, scripted};
    use super::super::msg::Msg;
    use super::*;

    #[tokio::test]
    async fn documents_arrive_untouched_in_as_few_messages_as_fit() {
        // A key twice and an odd order: nothing may be parsed and written anew.
        let mut odd = rawdoc! { "b": 1, "a": { "z": 1, "y": 2 } };
        odd.append(bson::raw::cstr!("b"), 2);
        let large = rawdoc! { "x": "x".repeat(16 * 1024 * 1024) };
        let documents = [odd, large.clone(), large.clone(), large];
        let (mut client, peer) = scripted(|request| reply(request, &rawdoc! { "ok": 1, "n": 1 }));
        let options = InsertOptions { order: Order::Unordered, validation: Validation::Bypass };
        client.insert("d", "c", &documents, options).await.unwrap();
        drop(client);
        let seen = peer.await.unwrap();
        assert_eq!(seen.len(), 2);
        let mut arrived = Vec::new();
        for message in &seen {
            let msg = Msg::parse(&message.body).unwrap();
            assert!(!msg.body.get_bool("ordered").unwrap());
            assert!(msg.body.get_bool("bypassDocumentValidation").unwrap());
            for sequence in msg.sequences() {
                assert_eq!(sequence.identifier, "documents");
                arrived.extend(sequence.documents().map(ToOwned::to_owned));
            }
        }
        assert!(arrived == documents);
    }

    #[test]
    fn a_batch_is_bounded_by_count_and_by_bytes() {
        let small = vec![rawdoc! {}; BATCH_DOCUMENTS_MAX + 1];
        let huge = vec![rawdoc! { "x": "x".repeat(BATCH_BYTES_MAX) }; 2];
        for (documents, expected) in
            [(&small[..], BATCH_DOCUMENTS_MAX), (&small[..3], 3), (&huge[..], 1)]
        {
            assert_eq!(batch_length(documents), expected);
        }
    }

    #[tokio::test]
    async fn a_document_larger_than_a_message_is_an_error_before_anything_is_sent() {
        let (mut client, peer) = scripted(|request| reply(request, &rawdoc! { "ok": 1 }));
        let huge = [rawdoc! { "x": "x".repeat(MESSAGE_BYTES_MAX) }];
        let error = client.insert("d", "c", &huge, InsertOptions::default()).await.unwrap_err();
        assert!(matches!(error, WireError::TooLarge { .. }), "{error}");
        drop(client);
        assert!(peer.await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_refused_document_is_named_by_its_place() {
        for (answer, index, code) in [
            (
                rawdoc! { "ok": 1, "writeErrors": [{ "index": 1, "code": 11000, "errmsg": "twice" }] },
                1,
                11000,
            ),
            (rawdoc! { "ok": 1, "writeConcernError": { "code": 64, "errmsg": "late" } }, 0, 64),
        ] {
            let (mut client, _peer) = scripted(move |request| reply(request, &answer));
            let documents = [rawdoc! {}, rawdoc! {}];
            let options = InsertOptions::default();
            match client.insert("d", "c", &documents, options).await.unwrap_err() {
                WireError::Write { namespace, index: found, code: found_code, .. } => {
                    assert_eq!((namespace.as_str(), found, found_code), ("d.c", index, code));
                }
                other => panic!("{other}"),
            }
        }
    }
}
