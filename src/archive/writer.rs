//! Writes an archive that mongorestore reads.

use std::io::{self, BufWriter, Write};

use bson::raw::RawDocument;
use bson::{Document, doc};
use flate2::write::GzEncoder;

use super::blocks::{MAGIC, TERMINATOR};
use super::error::{ArchiveError, Damage};
use super::ledger::Ledger;
use super::prelude::{Namespace, Prelude};

/// Whether an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As `mongodump --archive` writes it.
    None,
    /// As `mongodump --archive --gzip` writes it.
    Gzip,
}

/// A writer of one archive. Without [`Writer::finish`] the archive is not complete.
pub struct Writer<W: Write> {
    output: Output<W>,
    ledger: Ledger,
    /// The namespace whose segment is open, by its entry's number.
    segment: Option<usize>,
    /// Where every namespace's segment was begun.
    begun: Vec<bool>,
}

enum Output<W: Write> {
    Plain(BufWriter<W>),
    Gzip(BufWriter<GzEncoder<W>>),
}

impl<W: Write> Writer<W> {
    /// Writes everything before the first document.
    pub fn new(into: W, prelude: &Prelude, compression: Compression) -> Result<Self, ArchiveError> {
        let output = match compression {
            Compression::None => Output::Plain(BufWriter::new(into)),
            Compression::Gzip => {
                Output::Gzip(BufWriter::new(GzEncoder::new(into, flate2::Compression::default())))
            }
        };
        let ledger = Ledger::new(&prelude.entries).map_err(|namespace| ArchiveError::Refused {
            namespace,
            damage: Damage::ListedTwice,
        })?;
        let begun = vec![false; prelude.entries.len()];
        let mut writer = Self { output, ledger, segment: None, begun };
        writer.put(&MAGIC)?;
        writer.put_document(&prelude.header.to_document())?;
        for entry in &prelude.entries {
            writer.put_document(&entry.to_document())?;
        }
        writer.put(&TERMINATOR)?;
        Ok(writer)
    }

    /// Writes a document of `namespace`, which the prelude lists and which has not ended.
    pub fn document(
        &mut self,
        namespace: &Namespace,
        document: &RawDocument,
    ) -> Result<(), ArchiveError> {
        self.put_segment(namespace)
            .and_then(|number| {
                self.ledger.add(number, document.as_bytes());
                self.put(document.as_bytes())
            })
            .map_err(|error| blame(error, namespace))
    }

    /// Ends `namespace`. One without documents gets an empty segment, as mongodump writes it.
    pub fn end(&mut self, namespace: &Namespace) -> Result<(), ArchiveError> {
        self.put_end(namespace).map_err(|error| blame(error, namespace))
    }

    /// Completes the archive and gives back what it was written into, flushed.
    pub fn finish(mut self) -> Result<W, ArchiveError> {
        self.ledger
            .finish()
            .map_err(|namespace| ArchiveError::Refused { namespace, damage: Damage::NeverEnded })?;
        self.close_segment()?;
        let failed = |source| ArchiveError::Write { namespace: None, source };
        let mut into = match self.output {
            Output::Plain(output) => output.into_inner().map_err(|error| error.into_error()),
            Output::Gzip(output) => output
                .into_inner()
                .map_err(|error| error.into_error())
                .and_then(|encoder| encoder.finish()),
        }
        .map_err(failed)?;
        into.flush().map_err(failed)?;
        Ok(into)
    }

    fn put_end(&mut self, namespace: &Namespace) -> Result<(), ArchiveError> {
        let number = self.open(namespace)?;
        if !self.begun[number] {
            self.put_segment(namespace)?;
        }
        self.close_segment()?;
        let crc = self.ledger.end(number);
        self.put_document(&block_header(namespace, true, crc))?;
        self.put(&TERMINATOR)
    }

    /// Begins a segment unless it is open already; a header only where the namespace changes.
    fn put_segment(&mut self, namespace: &Namespace) -> Result<usize, ArchiveError> {
        let number = self.open(namespace)?;
        if self.segment != Some(number) {
            self.close_segment()?;
            self.put_document(&block_header(namespace, false, 0))?;
            self.segment = Some(number);
            self.begun[number] = true;
        }
        Ok(number)
    }

    fn close_segment(&mut self) -> Result<(), ArchiveError> {
        match self.segment.take() {
            Some(_) => self.put(&TERMINATOR),
            None => Ok(()),
        }
    }

    fn open(&mut self, namespace: &Namespace) -> Result<usize, ArchiveError> {
        let refused = |damage| ArchiveError::Refused { namespace: namespace.clone(), damage };
        self.ledger.open(namespace).map_err(refused)
    }

    fn put_document(&mut self, document: &Document) -> Result<(), ArchiveError> {
        let encoded = document.to_vec().map_err(io::Error::other);
        let bytes = encoded.map_err(|source| ArchiveError::Write { namespace: None, source })?;
        self.put(&bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        match &mut self.output {
            Output::Plain(output) => output.write_all(bytes),
            Output::Gzip(output) => output.write_all(bytes),
        }
        .map_err(|source| ArchiveError::Write { namespace: None, source })
    }
}

fn block_header(namespace: &Namespace, eof: bool, crc: u64) -> Document {
    doc! {
        "db": &namespace.db,
        "collection": &namespace.collection,
        "EOF": eof,
        "CRC": crc.cast_signed(),
    }
}

fn blame(mut error: ArchiveError, blamed: &Namespace) -> ArchiveError {
    if let ArchiveError::Write { namespace, .. } = &mut error {
        namespace.get_or_insert_with(|| blamed.clone());
    }
    error
}
