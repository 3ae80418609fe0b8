//! Reading an OP_MSG in passing: the command's name and the few fields that decide how the proxy
//! treats it, found while the bytes go by in pieces of any size, in bounded memory.
//!
//! A large message is never whole in memory, drivers may put a document sequence before the
//! command, and some put megabytes of documents before `txnNumber`; hence a machine that steps over
//! values by their lengths. What it cannot read it reports; whether the rest of a message is sound
//! is mongod's to say.
//! Source: OP_MSG as in `wire::msg`; BSON <https://bsonspec.org/spec.html>.

use crate::wire::{MsgFlags, WireError};

/// Keys and names are kept up to this length; longer ones are none that matter here.
pub(super) const KEPT_BYTES: usize = 64;

/// What is known of a message so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The flag bits, once their four bytes came.
    pub(super) flags: Option<MsgFlags>,
    /// The command's name.
    pub(super) command: Option<String>,
    /// `txnNumber` is there: a retryable write, or part of a transaction.
    pub(super) has_txn_number: bool,
    /// `autocommit: false` is there: part of a transaction.
    pub(super) in_transaction: bool,
    /// `startTransaction: true` is there: the first command of one.
    pub(super) starts_transaction: bool,
}

/// The machine. Feed it a message's body from its first byte.
#[derive(Debug)]
pub(super) struct Skim {
    found: Found,
    step: Step,
    want: Want,
    gathered: Vec<u8>,
    /// Bytes of the body that have not come yet.
    body_left: usize,
    /// Bytes of the command document that have not come yet.
    document_left: usize,
    /// Bytes of checksum at the end of the body.
    tail: usize,
    element: u8,
    key: Key,
    /// The whole command document went by.
    complete: bool,
}

/// What the bytes that are gathered or skipped now are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Flags,
    Kind,
    SequenceSize,
    Sequence,
    DocumentSize,
    Element,
    Key,
    Size { plus: usize },
    Value,
    Pattern,
    Done,
}

/// How many bytes the step still takes.
#[derive(Clone, Copy, Debug)]
enum Want {
    Gather(usize),
    Skip(usize),
    /// To the next zero byte.
    Text,
}

/// Whether the value at hand is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Autocommit,
    StartTransaction,
    Other,
}

impl Skim {
    /// A machine for a body of this many bytes.
    pub(super) fn new(body_bytes: usize) -> Self {
        Self {
            found: Found::default(),
            step: Step::Flags,
            want: Want::Gather(4),
            gathered: Vec::new(),
            body_left: body_bytes,
            document_left: 0,
            tail: 0,
            element: 0,
            key: Key::Other,
            complete: false,
        }
    }

    /// Whether nothing more will be found.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// What is known so far.
    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    /// Takes the next bytes of the body.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), WireError> {
        while !bytes.is_empty() && self.step != Step::Done {
            let taken = match &mut self.want {
                Want::Gather(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    self.gathered.extend_from_slice(&bytes[..taken]);
                    taken
                }
                Want::Skip(left) => {
                    let taken = bytes.len().min(*left);
                    *left -= taken;
                    taken
                }
                Want::Text => {
                    let end = bytes.iter().position(|byte| *byte == 0);
                    let text = &bytes[..end.unwrap_or(bytes.len())];
                    // One byte over the limit marks the text as too long.
                    let room = (KEPT_BYTES + 1).saturating_sub(self.gathered.len());
                    self.gathered.extend_from_slice(&text[..text.len().min(room)]);
                    if end.is_some() {
                        self.want = Want::Skip(0);
                    }
                    text.len() + usize::from(end.is_some())
                }
            };
            self.pass(taken)?;
            bytes = &bytes[taken..];
            while self.step != Step::Done && matches!(self.want, Want::Gather(0) | Want::Skip(0)) {
                self.advance()?;
                self.gathered.clear();
            }
        }
        Ok(())
    }

    fn in_document(&self) -> bool {
        use Step::{Element, Key, Pattern, Size, Value};
        matches!(self.step, Element | Key | Size { .. } | Value | Pattern)
    }

    fn pass(&mut self, count: usize) -> Result<(), WireError> {
        self.body_left = self.body_left.checked_sub(count).ok_or_else(|| malformed("body"))?;
        if self.in_document() {
            let left = self.document_left.checked_sub(count);
            self.document_left = left.ok_or_else(|| malformed("element's length"))?;
        }
        Ok(())
    }

    /// The step at hand is complete: takes its result and goes to the next.
    fn advance(&mut self) -> Result<(), WireError> {
        match self.step {
            Step::Flags => {
                let flags = MsgFlags(u32::from_le_bytes(self.four()?));
                if flags.has_unknown_required() {
                    return Err(malformed("required flag bit"));
                }
                self.tail = if flags.contains(MsgFlags::CHECKSUM_PRESENT) { 4 } else { 0 };
                self.found.flags = Some(flags);
                self.go(Step::Kind, Want::Gather(1));
            }
            Step::Kind => match self.gathered[0] {
                0 => self.go(Step::DocumentSize, Want::Gather(4)),
                1 => self.go(Step::SequenceSize, Want::Gather(4)),
                _ => return Err(malformed("section's kind")),
            },
            Step::SequenceSize => {
                let size = self.size(4, self.body_left)?;
                self.go(Step::Sequence, Want::Skip(size));
            }
            Step::Sequence => self.go(Step::Kind, Want::Gather(1)),
            Step::DocumentSize => {
                if self.found.command.is_some() {
                    return Err(malformed("second section of kind 0"));
                }
                self.document_left = self.size(4, self.body_left)?;
                self.go(Step::Element, Want::Gather(1));
            }
            Step::Element => match self.gathered[0] {
                0 if self.document_left > 0 => return Err(malformed("document's end")),
                0 => {
                    // An empty command has no name, and mongod says so.
                    self.found.command.get_or_insert_default();
                    self.complete = true;
                    self.go(Step::Kind, Want::Gather(1));
                }
                element => {
                    self.element = element;
                    self.go(Step::Key, Want::Text);
                }
            },
            Step::Key => {
                self.take_key();
                let (step, want) = value_of(self.element)?;
                if let Want::Gather(count) | Want::Skip(count) = want
                    && count >= self.document_left
                {
                    return Err(malformed("element's length"));
                }
                self.go(step, want);
            }
            Step::Size { plus } => {
                // A document's size counts its own four bytes; other sizes do not.
                let counted = if matches!(self.element, 0x03 | 0x04 | 0x0f) { 4 } else { 0 };
                // The document's last byte must still come.
                let most = self.document_left.saturating_sub(plus + 1);
                let size = self.size(counted, most)?;
                self.go(Step::Value, Want::Skip(size + plus));
            }
            Step::Pattern => self.go(Step::Value, Want::Text),
            Step::Value => {
                match self.key {
                    Key::Autocommit if self.gathered == [0] => self.found.in_transaction = true,
                    Key::StartTransaction if self.gathered == [1] => {
                        self.found.starts_transaction = true;
                    }
                    _ => {}
                }
                self.go(Step::Element, Want::Gather(1));
            }
            Step::Done => {}
        }
        if self.step == Step::Kind && self.body_left <= self.tail {
            self.step = Step::Done;
        }
        Ok(())
    }

    fn go(&mut self, step: Step, want: Want) {
        self.step = step;
        self.want = want;
    }

    fn take_key(&mut self) {
        let key = std::str::from_utf8(&self.gathered).unwrap_or_default();
        let key = if key.len() > KEPT_BYTES { "" } else { key };
        self.key = Key::Other;
        match key {
            _ if self.found.command.is_none() => self.found.command = Some(key.to_owned()),
            "txnNumber" => self.found.has_txn_number = true,
            "autocommit" if self.element == 0x08 => self.key = Key::Autocommit,
            "startTransaction" if self.element == 0x08 => self.key = Key::StartTransaction,
            _ => {}
        }
    }

    fn four(&self) -> Result<[u8; 4], WireError> {
        self.gathered[..].try_into().map_err(|_| malformed("number"))
    }

    /// The size that was gathered, less the bytes of it that it counts and that went by already.
    fn size(&self, counted: usize, most: usize) -> Result<usize, WireError> {
        let size = usize::try_from(i32::from_le_bytes(self.four()?)).ok();
        let size = size.and_then(|size| size.checked_sub(counted));
        size.filter(|size| *size <= most).ok_or_else(|| malformed("size"))
    }
}

/// How to step over the value of an element of this type.
fn value_of(element: u8) -> Result<(Step, Want), WireError> {
    Ok(match element {
        0x08 => (Step::Value, Want::Gather(1)),
        0x06 | 0x0a | 0x7f | 0xff => (Step::Value, Want::Skip(0)),
        0x10 => (Step::Value, Want::Skip(4)),
        0x01 | 0x09 | 0x11 | 0x12 => (Step::Value, Want::Skip(8)),
        0x07 => (Step::Value, Want::Skip(12)),
        0x13 => (Step::Value, Want::Skip(16)),
        0x02 | 0x0d | 0x0e | 0x03 | 0x04 | 0x0f => (Step::Size { plus: 0 }, Want::Gather(4)),
        0x05 => (Step::Size { plus: 1 }, Want::Gather(4)),
        0x0c => (Step::Size { plus: 12 }, Want::Gather(4)),
        0x0b => (Step::Pattern, Want::Text),
        _ => return Err(malformed("element's type")),
    })
}

fn malformed(part: &'static str) -> WireError {
    WireError::Malformed { part, problem: "it breaks the format of OP_MSG or BSON" }
}

#[cfg(test)]
mod tests {
    use bson::oid::ObjectId;
    use bson::{Binary, Bson, DateTime, Decimal128, RawDocumentBuf, Regex, Timestamp, doc, rawdoc};

    use super::*;

    fn body(flags: u32, sections: &[&[u8]]) -> Vec<u8> {
        [&flags.to_le_bytes()[..], &sections.concat()].concat()
    }

    fn kind0(document: &RawDocumentBuf) -> Vec<u8> {
        [&[0], document.as_bytes()].concat()
    }

    fn kind1(bytes: usize) -> Vec<u8> {
        let size = (4 + 10 + bytes) as i32;
        [&[1][..], &size.to_le_bytes(), b"documents\0", &vec![0xee; bytes]].concat()
    }

    /// Skims in pieces of `piece` bytes.
    fn skim(body: &[u8], piece: usize) -> Result<Found, WireError> {
        let mut skim = Skim::new(body.len());
        body.chunks(piece).try_for_each(|bytes| skim.feed(bytes))?;
        Ok(skim.found)
    }

    fn every_type() -> RawDocumentBuf {
        let scope = Bson::JavaScriptCodeWithScope(bson::JavaScriptCodeWithScope {
            code: "f()".to_owned(),
            scope: doc! { "txnNumber": 1 },
        });
        let document = doc! {
            "insert": "orders",
            "double": 1.5,
            "string": "autocommit",
            "document": { "autocommit": false, "txnNumber": 1 },
            "array": [1, { "txnNumber": 2 }],
            "binary": Binary { subtype: bson::spec::BinarySubtype::Generic, bytes: vec![0; 70] },
            "undefined": Bson::Undefined,
            "oid": ObjectId::new(),
            "bool": false,
            "date": DateTime::from_millis(5),
            "null": Bson::Null,
            "regex": Regex { pattern: bson::raw::cstr!("a.*").into(), options: bson::raw::cstr!("i").into() },
            "code": Bson::JavaScriptCode("g()".to_owned()),
            "symbol": Bson::Symbol("s".to_owned()),
            "scope": scope,
            "int32": 7,
            "timestamp": Timestamp { time: 1, increment: 2 },
            "int64": 8_i64,
            "decimal": Decimal128::from_bytes([1; 16]),
            "min": Bson::MinKey,
            "max": Bson::MaxKey,
            "k".repeat(300): 1,
        };
        RawDocumentBuf::try_from(&document).unwrap()
    }

    #[test]
    fn fields_are_found_wherever_they_stand_and_however_the_bytes_come() {
        let mut transaction = every_type();
        transaction.append(bson::raw::cstr!("txnNumber"), 3_i64);
        transaction.append(bson::raw::cstr!("autocommit"), false);
        let plain = every_type();
        let retryable = rawdoc! { "insert": "c", "txnNumber": 3_i64 };
        let mut first = transaction.clone();
        first.append(bson::raw::cstr!("startTransaction"), true);
        let mut not_first = transaction.clone();
        not_first.append(bson::raw::cstr!("startTransaction"), false);
        for (what, command, has_txn_number, in_transaction) in [
            ("plain", &plain, false, false),
            ("retryable", &retryable, true, false),
            ("transaction", &transaction, true, true),
            ("a transaction's first", &first, true, true),
            ("startTransaction false", &not_first, true, true),
            ("autocommit true", &rawdoc! { "insert": "c", "autocommit": true }, false, false),
            ("named like a field", &rawdoc! { "txnNumber": 1 }, false, false),
        ] {
            let (command, rows) = (kind0(command), kind1(500));
            let name = if what == "named like a field" { "txnNumber" } else { "insert" };
            let expected = |flags| Found {
                flags: Some(MsgFlags(flags)),
                command: Some(name.to_owned()),
                has_txn_number,
                in_transaction,
                starts_transaction: what == "a transaction's first",
            };
            for (flags, sections) in [
                (0, vec![&command[..]]),
                (2, vec![&command[..], &rows]),
                (1 << 16, vec![&rows[..], &command, &rows]),
                (1, vec![&rows[..], &command, b"csum"]),
            ] {
                let whole = body(flags, &sections);
                for piece in [1, 2, 3, 7, 64, whole.len()] {
                    let found = skim(&whole, piece).unwrap();
                    assert_eq!(found, expected(flags), "{what}, pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn a_name_is_known_before_the_rest_came() {
        let whole = body(0, &[&kind0(&rawdoc! { "find": "c", "filter": {} })]);
        let mut skim = Skim::new(whole.len());
        let end_of_name = 4 + 1 + 4 + 1 + "find\0".len();
        skim.feed(&whole[..end_of_name - 1]).unwrap();
        assert_eq!(skim.found().command, None);
        skim.feed(&whole[end_of_name - 1..end_of_name]).unwrap();
        assert_eq!(skim.found().command.as_deref(), Some("find"));
    }

    #[test]
    fn memory_is_bounded_whatever_comes() {
        let long = rawdoc! { "ping": 1, "x": "x".repeat(100_000) };
        let endless_key = [&[0, 0xff, 0xff, 0, 0, 8][..], &vec![b'k'; 65_000]].concat();
        for bytes in [body(0, &[&kind0(&long)]), body(0, &[&kind1(100_000), &endless_key])] {
            let mut skim = Skim::new(bytes.len());
            for piece in bytes.chunks(1000) {
                // What is malformed stays bounded too.
                let _ = skim.feed(piece);
                assert!(skim.gathered.capacity() <= 4 * KEPT_BYTES);
            }
        }
    }

    #[test]
    fn hostile_sizes_are_errors() {
        let command = kind0(&rawdoc! { "ping": 1 });
        let sized = |kind: u8, size: i32| [&[kind][..], &size.to_le_bytes(), &[0; 20]].concat();
        let element = |bytes: &[u8]| {
            let length = (4 + bytes.len() + 1) as i32;
            [&[0][..], &length.to_le_bytes(), bytes, &[0]].concat()
        };
        let rows: Vec<(&str, Vec<u8>)> = vec![
            ("unknown required flag", body(4, &[&command])),
            ("kind 2", body(0, &[&[2]])),
            ("two of kind 0", body(0, &[&command, &command])),
            ("sequence of 3", body(0, &[&sized(1, 3)])),
            ("negative sequence", body(0, &[&sized(1, -1)])),
            ("overlong sequence", body(0, &[&sized(1, i32::MAX)])),
            ("document of 3", body(0, &[&sized(0, 3)])),
            ("negative document", body(0, &[&sized(0, i32::MIN)])),
            ("overlong document", body(0, &[&sized(0, 10_000)])),
            ("zero inside the document", body(0, &[&sized(0, 20)])),
            ("unknown type", body(0, &[&element(b"\x20a\0")])),
            ("negative string", body(0, &[&element(b"\x02a\0\xff\xff\xff\xff")])),
            ("overlong string", body(0, &[&element(b"\x02a\0\x40\0\0\0")])),
            ("document value of 3", body(0, &[&element(b"\x03a\0\x03\0\0\0")])),
            ("overlong binary", body(0, &[&element(b"\x05a\0\x01\0\0\0")])),
            ("number over the end", body(0, &[&element(b"\x12a\0\0")])),
        ];
        for (what, bytes) in rows {
            for piece in [1, bytes.len()] {
                assert!(skim(&bytes, piece).is_err(), "{what}");
            }
        }
    }

    #[test]
    fn an_empty_command_has_an_empty_name() {
        let found = skim(&body(0, &[&kind0(&rawdoc! {})]), 1).unwrap();
        assert_eq!(found.command.as_deref(), Some(""));
    }
}
