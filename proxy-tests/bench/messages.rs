//! Messages that are made once and sent many times, and replies that are checked without being
//! parsed.

use anyhow::{Result, ensure};
use argon::wire::{Header, Msg, MsgFlags, encode_msg};
use bson::{RawDocument, RawDocumentBuf, rawdoc};

/// Where all figures come from.
pub const DATABASE: &str = "bench";

/// A command, ready to be sent any number of times.
#[derive(Clone, Debug)]
pub struct Prepared {
    bytes: Vec<u8>,
    next_id: i32,
}

impl Prepared {
    /// A command for the bench's database.
    pub fn new(mut command: RawDocumentBuf) -> Self {
        command.append(bson::raw::cstr!("$db"), DATABASE);
        Self { bytes: encode_msg(0, 0, MsgFlags::NONE, &command).to_vec(), next_id: 0 }
    }

    /// The message with a new id, and that id.
    pub fn next(&mut self) -> (&[u8], i32) {
        self.next_id += 1;
        self.bytes[4..8].copy_from_slice(&self.next_id.to_le_bytes());
        (&self.bytes, self.next_id)
    }
}

/// The first message of a connection. Only Argon looks at the appName; the others get the same.
pub fn hello(app_name: &str) -> Prepared {
    Prepared::new(rawdoc! {
        "hello": 1,
        "client": {
            "application": { "name": app_name },
            "driver": { "name": "argon-bench", "version": "1" },
            "os": { "type": "Linux" },
        },
    })
}

/// How good replies to one command look: the first is parsed, and the others must have the same
/// length and the same `ok: 1` at the same place. (No reply of the bench varies in length.)
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    length: usize,
    ok_at: usize,
}

/// `ok: 1.0`, as it stands in a reply of mongod.
const OK: &[u8] = b"\x01ok\0\0\0\0\0\0\0\xf0\x3f";

impl Expected {
    /// Learns from a whole reply.
    pub fn from_reply(reply: &[u8]) -> Result<Self> {
        let body: &RawDocument = Msg::parse(&reply[Header::BYTES..])?.body;
        ensure!(body.get_f64("ok").is_ok_and(|ok| ok == 1.0), "a command failed: {body:?}");
        ensure!(body.get("writeErrors")?.is_none(), "a write failed: {body:?}");
        // From the end: the documents of a reply may hold anything, and stand before it.
        let ok_at = reply.windows(OK.len()).rposition(|window| window == OK);
        let ok_at = ok_at.ok_or_else(|| anyhow::anyhow!("no `ok` in {body:?}"))?;
        Ok(Self { length: reply.len(), ok_at })
    }

    /// Whether this is a good reply to message `id`.
    pub fn holds(&self, reply: &[u8], id: i32) -> bool {
        reply.len() == self.length
            && reply[8..12] == id.to_le_bytes()
            && &reply[self.ok_at..self.ok_at + OK.len()] == OK
    }
}

/// The length of the message that begins here; `None` before its first four bytes came.
pub fn length(bytes: &[u8]) -> Option<usize> {
    let four: [u8; 4] = *bytes.first_chunk()?;
    usize::try_from(i32::from_le_bytes(four)).ok()
}
