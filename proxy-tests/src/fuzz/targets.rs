//! The fuzz targets: what reads bytes of strangers, and what must hold whatever the bytes are.
//!
//! Each panics where that is broken. libFuzzer's programs in `proxy-tests/fuzz` include this file
//! as it is; hence it uses nothing of this crate.

use std::io::{self, Read};

use argon::archive::{Item, Reader};
use argon::wire::{Header, Msg, MsgFlags, Query, decompress, encode_msg, read_message};
use argon::{proxy, volume};

/// A target: its name, which is also its corpus' folder, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 12] = [
    ("header", header),
    ("op_msg", op_msg),
    ("op_query", op_query),
    ("op_compressed", op_compressed),
    ("hello", proxy::fuzzing::hello),
    ("app_name", proxy::fuzzing::app_name),
    ("skim", proxy::fuzzing::skim),
    ("archive", archive),
    ("volume_envelope", volume::fuzzing::envelope),
    ("volume_document", volume::fuzzing::document),
    ("volume_pack", volume::fuzzing::pack),
    ("volume_page", volume::fuzzing::page),
];

/// Runs the target of this name.
///
/// # Panics
/// Where there is none, and where it finds something.
pub fn run(name: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.expect("the name is that of a target");
    target(bytes);
}

/// The largest message that targets read, bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Messages one after the other, as they come from a socket.
fn header(bytes: &[u8]) {
    if let Some(Ok(header)) = bytes.first_chunk().map(Header::parse) {
        assert_eq!(header.encode(), bytes[..Header::BYTES], "a header has one form");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime without drivers needs nothing");
    runtime.block_on(async {
        let (mut rest, mut taken) = (bytes, 0);
        while let Ok(Some(message)) = read_message(&mut rest, MESSAGE_BYTES_MAX).await {
            assert_eq!(message.body.len(), message.header.body_bytes());
            taken += message.header.length as usize;
            assert_eq!(taken + rest.len(), bytes.len(), "exactly the announced bytes are taken");
        }
    });
}

/// The body of an OP_MSG.
fn op_msg(body: &[u8]) {
    let Ok(msg) = Msg::parse(body) else { return };
    let mut bytes = 4 + 1 + msg.body.as_bytes().len() + msg.checksum.map_or(0, |_| 4);
    for sequence in msg.sequences() {
        let documents: usize = sequence.documents().map(|one| one.as_bytes().len()).sum();
        bytes += 1 + 4 + sequence.identifier.len() + 1 + documents;
    }
    assert_eq!(bytes, body.len(), "every byte belongs to something");
    let first = msg.first_key();
    let again = encode_msg(1, 2, msg.flags_without_checksum(), msg.body);
    let again = Msg::parse(&again[Header::BYTES..]).expect("what is encoded is read back");
    assert_eq!(again.body, msg.body);
    assert_eq!(again.first_key().ok(), first.ok());
}

trait WithoutChecksum {
    fn flags_without_checksum(&self) -> MsgFlags;
}

impl WithoutChecksum for Msg<'_> {
    fn flags_without_checksum(&self) -> MsgFlags {
        MsgFlags(self.flags.0 & !MsgFlags::CHECKSUM_PRESENT.0)
    }
}

/// The body of an OP_QUERY.
fn op_query(body: &[u8]) {
    let Ok(query) = Query::parse(body) else { return };
    let command = query.command().as_bytes().as_ptr_range();
    let whole = body.as_ptr_range();
    assert!(whole.start <= command.start && command.end <= whole.end, "nothing is made up");
    assert!(query.command_database().is_none_or(|name| query.collection.starts_with(name)));
}

/// The body of an OP_COMPRESSED, and what is in it.
fn op_compressed(body: &[u8]) {
    let Ok((_, plain)) = decompress(body, MESSAGE_BYTES_MAX) else { return };
    assert!(plain.len() + Header::BYTES <= MESSAGE_BYTES_MAX, "no more than allowed");
    let announced = body.get(4..8).and_then(|size| size.try_into().ok()).map(i32::from_le_bytes);
    assert_eq!(announced, i32::try_from(plain.len()).ok(), "as much as announced");
    op_msg(&plain);
}

/// An archive, which reads the same whether its bytes come together or one by one. How far broken
/// gzip is unpacked depends on how it comes; that it is broken does not.
fn archive(bytes: &[u8]) {
    let together = read_archive(bytes);
    let one_by_one = read_archive(OneByOne(bytes));
    if bytes.starts_with(&[0x1f, 0x8b]) {
        assert_eq!(together.1.is_some(), one_by_one.1.is_some());
    } else {
        assert_eq!(together, one_by_one);
    }
}

/// How many items of an archive are looked at: compressed, a few bytes make millions.
const ITEMS_MAX: usize = 1000;

/// How many items there are, and what is wrong after them.
fn read_archive(source: impl Read) -> (usize, Option<String>) {
    let mut reader = match Reader::open(source) {
        Ok(reader) => reader,
        Err(error) => return (0, Some(error.to_string())),
    };
    for count in 0..ITEMS_MAX {
        match reader.next() {
            Ok(Some(Item::Document { document, .. })) => assert!(document.as_bytes().len() >= 5),
            Ok(Some(Item::End { .. })) => {}
            Ok(None) => return (count, None),
            Err(error) => return (count, Some(error.to_string())),
        }
    }
    (ITEMS_MAX, None)
}

struct OneByOne<'a>(&'a [u8]);

impl Read for OneByOne<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let one = buffer.len().min(1);
        self.0.read(&mut buffer[..one])
    }
}
