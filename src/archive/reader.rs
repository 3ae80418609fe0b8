//! Reads an archive from front to back, in bounded memory, and trusts none of it.

use std::io::Read;

use bson::raw::{RawBsonRef, RawDocument};

use super::blocks::{Blocks, Piece, damaged};
use super::error::{ArchiveError, Damage};
use super::ledger::{Account, Ledger};
use super::prelude::{Entry, Header, Namespace, Prelude};

/// Longest prelude, bytes: a hundred thousand collections with an index or two. All of it is kept,
/// and takes some times as much when it is parsed.
const PRELUDE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A reader of one archive, plain or gzip. After an error it is of no further use.
pub struct Reader<R> {
    blocks: Blocks<R>,
    prelude: Prelude,
    ledger: Ledger,
    /// The namespace whose segment is being read, by its entry's number.
    segment: Option<usize>,
}

/// What comes next in an archive.
#[derive(Debug)]
pub enum Item<'a> {
    /// A document. Documents of several namespaces may alternate.
    Document {
        /// The number of the namespace's entry in the prelude.
        entry: usize,
        /// The namespace as the archive has it: for a time-series collection that of its buckets.
        namespace: &'a Namespace,
        /// The document, of which nothing but its length and its last byte was checked.
        document: &'a RawDocument,
    },
    /// A namespace is complete, and its checksum is right.
    End {
        /// The number of the namespace's entry in the prelude.
        entry: usize,
        /// The namespace.
        namespace: &'a Namespace,
    },
}

/// What a namespace held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The namespace as the archive has it.
    pub namespace: Namespace,
    /// How many documents; of a time-series collection, how many buckets.
    pub documents: u64,
    /// Their bytes together.
    pub bytes: u64,
}

enum Step {
    Document(usize),
    End(usize),
}

impl<R: Read> Reader<R> {
    /// Reads everything before the first document.
    pub fn open(source: R) -> Result<Self, ArchiveError> {
        let mut blocks = Blocks::open(source)?;
        let prelude = read_prelude(&mut blocks)?;
        let ledger = Ledger::new(&prelude.entries).map_err(|namespace| {
            damaged(blocks.offset(), Damage::ListedTwice).within(&namespace)
        })?;
        Ok(Self { blocks, prelude, ledger, segment: None })
    }

    /// Who wrote the archive, and which namespaces it holds.
    pub fn prelude(&self) -> &Prelude {
        &self.prelude
    }

    /// What comes next; none at the end of a sound archive.
    #[expect(clippy::should_implement_trait, reason = "an item borrows the reader's one buffer")]
    pub fn next(&mut self) -> Result<Option<Item<'_>>, ArchiveError> {
        let step = self.step().map_err(|error| match self.segment {
            Some(entry) => error.within(&self.ledger.account(entry).namespace),
            None => error,
        })?;
        Ok(step.map(|step| match step {
            Step::Document(entry) => Item::Document {
                entry,
                namespace: &self.ledger.account(entry).namespace,
                document: self.blocks.document(),
            },
            Step::End(entry) => {
                Item::End { entry, namespace: &self.ledger.account(entry).namespace }
            }
        }))
    }

    /// What was read so far of every namespace, in the prelude's order.
    pub fn contents(&self) -> Vec<Contents> {
        let contents = |account: &Account| Contents {
            namespace: account.namespace.clone(),
            documents: account.documents,
            bytes: account.bytes,
        };
        self.ledger.accounts().iter().map(contents).collect()
    }

    fn step(&mut self) -> Result<Option<Step>, ArchiveError> {
        loop {
            let Some(entry) = self.segment else {
                match self.block_start()? {
                    BlockStart::Segment(entry) => self.segment = Some(entry),
                    BlockStart::End(entry) => return Ok(Some(Step::End(entry))),
                    BlockStart::Finished => return Ok(None),
                }
                continue;
            };
            match self.blocks.next()? {
                Some(Piece::Document) => {
                    self.ledger.add(entry, self.blocks.document().as_bytes());
                    return Ok(Some(Step::Document(entry)));
                }
                Some(Piece::Terminator) => self.segment = None,
                None => return Err(self.blocks.cut("a block")),
            }
        }
    }

    fn block_start(&mut self) -> Result<BlockStart, ArchiveError> {
        let start = self.blocks.offset();
        match self.blocks.next()? {
            Some(Piece::Document) => {}
            Some(Piece::Terminator) => return Err(damaged(start, Damage::EmptyBlock)),
            None => {
                let unended =
                    |namespace: Namespace| damaged(start, Damage::NeverEnded).within(&namespace);
                return self.ledger.finish().map(|()| BlockStart::Finished).map_err(unended);
            }
        }
        let header =
            BlockHeader::parse(self.blocks.document()).map_err(|damage| damaged(start, damage))?;
        let blame = |damage| damaged(start, damage).within(&header.namespace);
        let entry = self.ledger.open(&header.namespace).map_err(blame)?;
        if !header.eof {
            return Ok(BlockStart::Segment(entry));
        }
        let (found, expected) = (self.ledger.end(entry), header.crc);
        if found != expected {
            return Err(blame(Damage::Checksum { found, expected }));
        }
        match self.blocks.next().map_err(|error| error.within(&header.namespace))? {
            Some(Piece::Terminator) => Ok(BlockStart::End(entry)),
            Some(Piece::Document) => Err(blame(Damage::Reopened)),
            None => Err(self.blocks.cut("a block").within(&header.namespace)),
        }
    }
}

enum BlockStart {
    Segment(usize),
    End(usize),
    Finished,
}

struct BlockHeader {
    namespace: Namespace,
    eof: bool,
    crc: u64,
}

impl BlockHeader {
    fn parse(document: &RawDocument) -> Result<Self, Damage> {
        let malformed =
            |reason: String| Damage::Malformed { what: "the header of a block", reason };
        let (mut db, mut collection, mut eof, mut crc) = (None, None, None, None);
        // Read in place: decoding would recurse as deep as a hostile header nests.
        for element in document.iter() {
            let (key, value) = element.map_err(|error| malformed(error.to_string()))?;
            match (key.as_str(), value) {
                ("db", RawBsonRef::String(text)) => db = Some(text.to_owned()),
                ("collection", RawBsonRef::String(text)) => collection = Some(text.to_owned()),
                ("EOF", RawBsonRef::Boolean(flag)) => eof = Some(flag),
                ("CRC", RawBsonRef::Int64(number)) => crc = Some(number.cast_unsigned()),
                ("db" | "collection" | "EOF" | "CRC", _) => {
                    return Err(malformed(format!("`{key}` has the wrong type")));
                }
                _ => {
                    let key: String = key.as_str().chars().take(64).collect();
                    return Err(malformed(format!("its key `{key}` is unknown")));
                }
            }
        }
        match (db, collection, eof, crc) {
            (Some(db), Some(collection), Some(eof), Some(crc)) => {
                Ok(Self { namespace: Namespace { db, collection }, eof, crc })
            }
            _ => Err(malformed("`db`, `collection`, `EOF` or `CRC` is missing".to_owned())),
        }
    }
}

fn read_prelude<R: Read>(blocks: &mut Blocks<R>) -> Result<Prelude, ArchiveError> {
    let start = blocks.offset();
    let header = match blocks.next()? {
        Some(Piece::Document) => Header::parse(blocks.document()),
        Some(Piece::Terminator) => Err(Damage::EmptyBlock),
        None => return Err(blocks.cut("its head")),
    };
    let header = header.map_err(|damage| damaged(start, damage))?;
    let mut entries = Vec::new();
    loop {
        let start = blocks.offset();
        if start > PRELUDE_BYTES_MAX as u64 {
            return Err(damaged(start, Damage::PreludeTooLong(PRELUDE_BYTES_MAX)));
        }
        match blocks.next()? {
            Some(Piece::Document) => {}
            Some(Piece::Terminator) => return Ok(Prelude { header, entries }),
            None => return Err(blocks.cut("its list of namespaces")),
        }
        let entry = Entry::parse(blocks.document()).map_err(|(namespace, damage)| {
            ArchiveError::Damaged { offset: start, namespace, damage }
        })?;
        entries.push(entry);
    }
}
