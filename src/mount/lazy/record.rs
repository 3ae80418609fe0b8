//! The records of an overlay's log, and their bytes.
//!
//! All numbers are little-endian. A record is a tag, then its fields in the order in which they
//! stand here; a name is last and goes on to the record's end.

use crate::base::ids::VersionId;

/// Most runs of one record; more make more records, so that a record has a limit.
pub(super) const RUNS_MAX: usize = 2048;

/// Something that became true of an overlay. `node` is the number of a file or directory, never
/// used twice in an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The version below. The first record of a log, and only there.
    Base { version: VersionId },
    /// A directory is there.
    Directory { node: u64, parent: u64, mode: u32, name: String },
    /// A file is there; of the source's file `origin.0` its first `origin.1` bytes still count.
    File { node: u64, parent: u64, mode: u32, origin: Option<(u64, u64)>, name: String },
    /// It has another name; what had that name before is gone.
    Rename { node: u64, parent: u64, name: String },
    /// It is gone.
    Remove { node: u64 },
    /// Other permission bits.
    Mode { node: u64, mode: u32 },
    /// The file is about to be cut to this size: nothing of the source behind it counts any more.
    Cut { node: u64, bytes: u64 },
    /// That happened.
    CutDone { node: u64 },
    /// The data file is on the disk: at least so long, with these pages, as half-open ranges.
    Pages { node: u64, bytes: u64, runs: Vec<(u64, u64)> },
    /// From here on something may differ from the version below.
    Dirty,
    /// Says nothing but what its frame says: how much of the log is on the disk.
    Marker,
    /// From here on nothing need be on the disk, whatever other records say.
    Starting,
    /// All that came before is on the disk.
    Started,
}

impl Record {
    /// The bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        match self {
            Self::Base { version } => {
                out.push(1);
                out.extend(version.to_bytes());
            }
            Self::Directory { node, parent, mode, name } => {
                out.push(2);
                put(&mut out, &[*node, *parent, u64::from(*mode)]);
                out.extend(name.as_bytes());
            }
            Self::File { node, parent, mode, origin, name } => {
                out.push(3);
                // One more than the index, so that 0 says none.
                let (file, bytes) = origin.map_or((0, 0), |(file, bytes)| (file + 1, bytes));
                put(&mut out, &[*node, *parent, u64::from(*mode), file, bytes]);
                out.extend(name.as_bytes());
            }
            Self::Rename { node, parent, name } => {
                out.push(4);
                put(&mut out, &[*node, *parent]);
                out.extend(name.as_bytes());
            }
            Self::Remove { node } => {
                out.push(5);
                put(&mut out, &[*node]);
            }
            Self::Mode { node, mode } => {
                out.push(6);
                put(&mut out, &[*node, u64::from(*mode)]);
            }
            Self::Cut { node, bytes } => {
                out.push(7);
                put(&mut out, &[*node, *bytes]);
            }
            Self::CutDone { node } => {
                out.push(8);
                put(&mut out, &[*node]);
            }
            Self::Pages { node, bytes, runs } => {
                out.push(9);
                put(&mut out, &[*node, *bytes]);
                runs.iter().for_each(|(start, end)| put(&mut out, &[*start, *end]));
            }
            Self::Dirty => out.push(10),
            Self::Marker => out.push(11),
            Self::Starting => out.push(12),
            Self::Started => out.push(13),
        }
        out
    }

    /// The record; none where the bytes are no record.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let mut rest = Reader(rest);
        let record = match tag {
            1 => Self::Base { version: VersionId::from_bytes(rest.array()?) },
            2 => Self::Directory {
                node: rest.number()?,
                parent: rest.number()?,
                mode: rest.mode()?,
                name: rest.name()?,
            },
            3 => Self::File {
                node: rest.number()?,
                parent: rest.number()?,
                mode: rest.mode()?,
                origin: rest.origin()?,
                name: rest.name()?,
            },
            4 => Self::Rename { node: rest.number()?, parent: rest.number()?, name: rest.name()? },
            5 => Self::Remove { node: rest.number()? },
            6 => Self::Mode { node: rest.number()?, mode: rest.mode()? },
            7 => Self::Cut { node: rest.number()?, bytes: rest.number()? },
            8 => Self::CutDone { node: rest.number()? },
            9 => Self::Pages { node: rest.number()?, bytes: rest.number()?, runs: rest.runs()? },
            10 => Self::Dirty,
            11 => Self::Marker,
            12 => Self::Starting,
            13 => Self::Started,
            _ => return None,
        };
        rest.0.is_empty().then_some(record)
    }
}

fn put(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| out.extend(number.to_le_bytes()));
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn mode(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    fn origin(&mut self) -> Option<Option<(u64, u64)>> {
        let (file, bytes) = (self.number()?, self.number()?);
        Some(file.checked_sub(1).map(|file| (file, bytes)))
    }

    fn name(&mut self) -> Option<String> {
        std::str::from_utf8(std::mem::take(&mut self.0)).ok().map(str::to_owned)
    }

    fn runs(&mut self) -> Option<Vec<(u64, u64)>> {
        let mut runs = Vec::with_capacity(self.0.len() / 16);
        while !self.0.is_empty() {
            let (start, end) = (self.number()?, self.number()?);
            (start < end).then(|| runs.push((start, end)))?;
        }
        Some(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_half_of_one_does_not() {
        let name = || "journal/ü".to_owned();
        let rows = [
            Record::Base { version: VersionId::from_bytes([7; 16]) },
            Record::Directory { node: 2, parent: 1, mode: 0o700, name: name() },
            Record::File { node: 3, parent: 2, mode: 0o600, origin: None, name: name() },
            Record::File { node: 3, parent: 2, mode: 0o600, origin: Some((0, 9)), name: name() },
            Record::Rename { node: 3, parent: 1, name: name() },
            Record::Remove { node: 3 },
            Record::Mode { node: 3, mode: 0o640 },
            Record::Cut { node: 3, bytes: 4097 },
            Record::CutDone { node: 3 },
            Record::Pages { node: 3, bytes: 8192, runs: vec![(0, 1), (5, 900)] },
            Record::Dirty,
            Record::Marker,
            Record::Starting,
            Record::Started,
        ];
        for record in rows {
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes), Some(record.clone()));
            assert_ne!(Record::decode(&bytes[..bytes.len() - 1]), Some(record));
        }
        assert_eq!(Record::decode(&[14]), None);
        assert_eq!(Record::decode(&[5, 0, 0, 0, 0, 0, 0, 0, 0, 1]), None, "too long");
    }
}
