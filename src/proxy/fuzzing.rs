//! For fuzzing: what reads a stranger's bytes, on bytes alone. Each function panics where a promise
//! is broken, and returns whatever else it finds.

use bson::RawDocument;

use super::address::Address;
use super::hello::{APP_NAME_BYTES_MAX, CLIENT_BYTES_MAX, Greeting};
use super::skim::{Found, KEPT_BYTES, Skim};
use crate::base::limits::FIRST_MESSAGE_BYTES_MAX;
use crate::wire::{Header, Msg, OpCode, Query, WireError, decompress};

/// A connection's first message, header included, as the session reads it: what is kept of it for
/// the connection's whole life is small.
pub fn hello(message: &[u8]) {
    let Some((head, body)) = message.split_first_chunk() else { return };
    let Ok(header) = Header::parse(head) else { return };
    match header.opcode {
        OpCode::Compressed => {
            let unpacked = decompress(body, FIRST_MESSAGE_BYTES_MAX);
            if let Ok((opcode, body)) = unpacked {
                plain_hello(opcode, &body);
            }
        }
        opcode => plain_hello(opcode, body),
    }
}

fn plain_hello(opcode: OpCode, body: &[u8]) {
    let document = match opcode {
        OpCode::Msg => Msg::parse(body).ok().map(|msg| msg.body),
        OpCode::Query => Query::parse(body).ok().map(|query| query.command()),
        _ => None,
    };
    let Some(Ok(greeting)) = document.map(Greeting::read) else { return };
    let Greeting { app_name, client, .. } = greeting;
    assert!(app_name.as_ref().is_none_or(|name| name.len() <= APP_NAME_BYTES_MAX));
    assert!(client.is_none_or(|client| client.as_bytes().len() <= CLIENT_BYTES_MAX));
    let _ = Address::parse(app_name.as_deref());
}

/// The grammar of the appName: an address that is taken is the only one that its text means.
pub fn app_name(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(Address { project, branch }) = Address::parse(Some(text)) {
        let again = match &project {
            Some(project) => format!("argon.{project}/{branch}"),
            None => format!("argon.{branch}"),
        };
        assert_eq!(again, text);
    }
}

/// The skimmer on an OP_MSG's body: however the bytes are cut, it finds the same, and on a message
/// that reads as a whole it finds what is there.
pub fn skim(body: &[u8]) {
    let whole = skim_in_pieces(body, |_| body.len());
    // Cuts of one size, and cuts that the bytes themselves choose.
    for size in [1, 2, 3, 5, 17, 64] {
        assert_eq!(skim_in_pieces(body, |_| size), whole, "in pieces of {size}");
    }
    let chosen = skim_in_pieces(body, |rest| 1 + usize::from(rest[0] % 32));
    assert_eq!(chosen, whole, "in pieces of sizes that the bytes choose");
    if let Some(expected) = Msg::parse(body).ok().and_then(|msg| found_in(&msg)) {
        assert_eq!(whole, Some(expected), "what the whole message says");
    }
}

/// What is found at the end; `None` where the skimmer reports the message.
fn skim_in_pieces(body: &[u8], size: impl Fn(&[u8]) -> usize) -> Option<Found> {
    let mut skim = Skim::new(body.len());
    let mut rest = body;
    while !rest.is_empty() {
        let piece;
        (piece, rest) = rest.split_at(size(rest).min(rest.len()));
        skim.feed(piece).ok()?;
    }
    Some(skim.found().clone())
}

/// What must be found in a message whose command is sound at its top level.
fn found_in(msg: &Msg<'_>) -> Option<Found> {
    let fields = fields(msg.body).ok()?;
    let after_the_first = || fields.iter().skip(1);
    let command = fields.first().map(|(name, _)| name.as_str()).unwrap_or_default();
    let command = if command.len() > KEPT_BYTES { "" } else { command };
    Some(Found {
        flags: Some(msg.flags),
        command: Some(command.to_owned()),
        has_txn_number: after_the_first().any(|(key, _)| key == "txnNumber"),
        in_transaction: after_the_first()
            .any(|(key, value)| key == "autocommit" && *value == Some(false)),
        starts_transaction: after_the_first()
            .any(|(key, value)| key == "startTransaction" && *value == Some(true)),
    })
}

/// Each key, and its value where that is a boolean.
fn fields(document: &RawDocument) -> Result<Vec<(String, Option<bool>)>, WireError> {
    let wrong = || WireError::bson("command");
    let field = |element: bson::error::Result<bson::raw::RawElement<'_>>| {
        let element = element.map_err(wrong())?;
        let value = element.value().map_err(wrong())?.as_bool();
        Ok((element.key().as_str().to_owned(), value))
    };
    document.iter_elements().map(field).collect()
}
