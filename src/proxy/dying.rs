//! What a mongod says that is being stopped, or stops by itself.
//!
//! Its codes make drivers believe that the whole address has gone: they empty their pools and end
//! requests that are well. But the address is Argon's and stays, so such an answer is not passed on.
//! Source: drivers' specification `server-discovery-and-monitoring`, "node is recovering" and "not
//! writable primary" errors.

use bson::RawDocument;

use crate::wire::{Header, Msg, OpCode};

/// PrimarySteppedDown, ShutdownInProgress, LegacyNotPrimary, NotWritablePrimary,
/// InterruptedAtShutdown, InterruptedDueToReplStateChange, NotPrimaryNoSecondaryOk,
/// NotPrimaryOrSecondary.
const CODES: [i32; 8] = [189, 91, 10058, 10107, 11600, 11602, 13435, 13436];

/// Larger replies are none of these. Bytes; less than a connection reads ahead.
const BYTES_MAX: usize = 8 * 1024;

/// How much of a reply must be ahead for [`suspicious`], bytes: header, flags, section's kind,
/// document's length, and `ok` with its value.
pub(super) const HEAD_BYTES: usize = FIRST_ELEMENT + NOT_OK.len();

const FIRST_ELEMENT: usize = Header::BYTES + 4 + 1 + 4;

/// A double of 0 named `ok`: how every error of mongod's begins.
const NOT_OK: [u8; 12] = *b"\x01ok\0\0\0\0\0\0\0\0\0";

/// Whether the reply that begins so must be read whole. Once its life is over, any small one must:
/// a write concern's error stands behind the good news.
pub(super) fn suspicious(header: &Header, head: &[u8], is_over: bool) -> bool {
    let small = header.opcode == OpCode::Msg && header.length as usize <= BYTES_MAX;
    small && (is_over || head.get(FIRST_ELEMENT..HEAD_BYTES) == Some(&NOT_OK))
}

/// The last words of a mongod, if this whole reply has them.
pub(super) fn last_words(body: &[u8]) -> Option<String> {
    let reply = Msg::parse(body).ok()?.body;
    told(reply).or_else(|| told(reply.get_document("writeConcernError").ok()?))
}

fn told(error: &RawDocument) -> Option<String> {
    let code = error.get_i32("code").ok().filter(|code| CODES.contains(code))?;
    let text = error.get_str("errmsg").unwrap_or_default();
    Some(format!("code {code}: {text}"))
}

#[cfg(test)]
mod tests {
    use bson::{RawDocumentBuf, rawdoc};

    use super::*;
    use crate::wire::{MsgFlags, encode_msg};

    fn found(reply: &RawDocumentBuf, is_over: bool) -> Option<String> {
        let whole = encode_msg(1, 2, MsgFlags::NONE, reply);
        let header = Header::parse(whole[..Header::BYTES].try_into().unwrap()).unwrap();
        let read = suspicious(&header, &whole[..HEAD_BYTES.min(whole.len())], is_over);
        read.then(|| last_words(&whole[Header::BYTES..])).flatten()
    }

    #[test]
    fn last_words_are_known_wherever_they_stand() {
        let error = |code: i32| rawdoc! { "ok": 0.0, "errmsg": "bye", "code": code };
        let good = rawdoc! { "n": 1, "ok": 1.0 };
        let late = rawdoc! {
            "n": 1, "writeConcernError": { "code": 11600, "errmsg": "bye" }, "ok": 1.0,
        };
        let long = rawdoc! { "ok": 0.0, "code": 91, "errmsg": "x".repeat(BYTES_MAX) };
        for (reply, living, over) in [
            (error(91), Some("code 91: bye"), Some("code 91: bye")),
            (error(11602), Some("code 11602: bye"), Some("code 11602: bye")),
            (error(43), None, None),
            (rawdoc! { "ok": 0.0, "code": 10107 }, Some("code 10107: "), Some("code 10107: ")),
            (late, None, Some("code 11600: bye")),
            (good, None, None),
            (rawdoc! {}, None, None),
            (long, None, None),
        ] {
            assert_eq!(found(&reply, false).as_deref(), living, "{reply:?}");
            assert_eq!(found(&reply, true).as_deref(), over, "{reply:?}");
        }
    }
}
