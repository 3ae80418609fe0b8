//! Versions: the root document of a volume at one moment.

use std::fmt;

use bson::Binary;
use bson::spec::BinarySubtype;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::boot;
use super::envelope::{self, Kind};
use super::fetch::Wanted;
use super::format::{Fields, FormatError, exactly, ms};
use super::page::pages_of;
use super::reference::Reference;
use crate::base::clock::Timestamp;
use crate::base::ids::{BranchId, VersionId};
use crate::mount::{DirectoryEntry, FileEntry, Tree, VolumePath};

/// What is known of a version without reading its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Its id.
    pub id: VersionId,
    /// The version that it was made from.
    pub parent: Option<VersionId>,
    /// The branch whose state it is; none for a base.
    pub branch: Option<BranchId>,
    /// Why it was made.
    pub cause: Cause,
    /// What a person called it.
    pub label: Option<String>,
    /// When it was made.
    pub created: Timestamp,
    /// The mongod whose files these are.
    pub mongod: MongodVersion,
    /// Sum of the files' sizes.
    pub total_bytes: u64,
    /// Bytes of the blocks that this version stored, before compression.
    pub new_bytes: u64,
    /// Bytes of the packs and pages objects that it wrote.
    pub stored_bytes: u64,
}

/// Why a version was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The branch was suspended.
    Suspend,
    /// The branch was deleted.
    Delete,
    /// A base archive was loaded.
    Base,
    /// An empty database was made.
    Empty,
    /// Somebody asked for it.
    Snapshot,
    /// The time for it came.
    Periodic,
    /// A branch was found on disk after a crash.
    Recovery,
    /// A reason of a later Argon.
    #[serde(other)]
    Unknown,
}

/// Which mongod can open the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MongodVersion {
    /// Of the server, as `6.0.5`.
    pub version: String,
    /// Its feature compatibility version, as `6.0`.
    pub fcv: String,
    /// The container image that it came from, as an engine finds it: `NAME@DIGEST`, or the engine's
    /// own id where no registry has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

impl Cause {
    /// The word in the format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Delete => "delete",
            Self::Base => "base",
            Self::Empty => "empty",
            Self::Snapshot => "snapshot",
            Self::Periodic => "periodic",
            Self::Recovery => "recovery",
            Self::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A whole root document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// What is known without the files.
    pub version: Version,
    /// The files and directories.
    pub tree: Tree,
    /// For each file of the tree its index pages; `None` is a page of zero blocks.
    pub pages: Vec<Vec<Option<Reference>>>,
    /// The boot set, in the order of files and blocks: where a wake reads each at once. Its content is
    /// what the pages say.
    pub boot: Vec<Wanted>,
}

impl Root {
    /// The object.
    pub fn seal(&self) -> Result<Bytes, FormatError> {
        let binary = |bytes| Binary { subtype: BinarySubtype::Generic, bytes };
        let directories = self.tree.directories().iter();
        let directories = directories.map(|entry| DirectoryDocument {
            path: entry.path.as_str().to_owned(),
            mode: entry.mode as i32,
        });
        let files = self.tree.files().iter().zip(&self.pages).map(|(file, pages)| {
            let mut bytes = Vec::with_capacity(pages.len() * Reference::BYTES);
            pages.iter().for_each(|page| Reference::write(page.as_ref(), &mut bytes));
            FileDocument {
                path: file.path.as_str().to_owned(),
                mode: file.mode as i32,
                bytes: file.bytes,
                pages: binary(bytes),
            }
        });
        let (boot, boot_blocks) = boot::encode(&self.boot);
        let boot = (!boot.is_empty()).then(|| (binary(boot), binary(boot_blocks)));
        let (boot, boot_blocks) = boot.unzip();
        let version = self.version.clone();
        let document = RootDocument {
            id: version.id,
            parent: version.parent,
            branch: version.branch,
            cause: version.cause,
            label: version.label,
            created: version.created,
            mongod: version.mongod,
            total_bytes: version.total_bytes,
            new_bytes: version.new_bytes,
            stored_bytes: version.stored_bytes,
            directories: directories.collect(),
            files: files.collect(),
            boot,
            boot_blocks,
        };
        envelope::seal(Kind::Version, &document)
    }

    /// Every page that is not all zero, with its file and its number there.
    pub fn wanted_pages(&self) -> impl Iterator<Item = Wanted> {
        self.pages.iter().enumerate().flat_map(|(file, pages)| {
            pages.iter().enumerate().filter_map(move |(index, reference)| {
                Some(Wanted { reference: (*reference)?, file, index: index as u64 })
            })
        })
    }

    /// Reads the object of the version with this id.
    pub fn open(id: VersionId, object: &[u8]) -> Result<Self, FormatError> {
        let document: RootDocument = envelope::open(Kind::Version, object)?;
        if document.id != id {
            let [expected, found] = [id, document.id].map(|id| format!("version {id}"));
            return Err(FormatError::Other { expected, found });
        }
        let version = Version {
            id,
            parent: document.parent,
            branch: document.branch,
            cause: document.cause,
            label: document.label,
            created: document.created,
            mongod: document.mongod,
            total_bytes: document.total_bytes,
            new_bytes: document.new_bytes,
            stored_bytes: document.stored_bytes,
        };
        let path = |text: &str| VolumePath::new(text).map_err(FormatError::invalid);
        let directory = |entry: DirectoryDocument| {
            Ok(DirectoryEntry { path: path(&entry.path)?, mode: entry.mode as u32 })
        };
        let directories =
            document.directories.into_iter().map(directory).collect::<Result<_, FormatError>>()?;
        let (mut files, mut pages) = (Vec::new(), Vec::new());
        for file in document.files {
            pages.push(read_pages(&file)?);
            let path = path(&file.path)?;
            files.push(FileEntry { path, mode: file.mode as u32, bytes: file.bytes });
        }
        if !files.is_sorted_by(|a, b| a.path < b.path) {
            return Err(FormatError::invalid("the files are not sorted"));
        }
        let tree = Tree::new(directories, files).map_err(FormatError::invalid)?;
        let boot = match (&document.boot, &document.boot_blocks) {
            (Some(runs), Some(blocks)) => boot::decode(&runs.bytes, &blocks.bytes, &tree)?,
            _ => Vec::new(),
        };
        Ok(Self { version, tree, pages, boot })
    }
}

fn read_pages(file: &FileDocument) -> Result<Vec<Option<Reference>>, FormatError> {
    // Counted by the bytes that are there; what the file's size says must agree with it.
    let count = file.pages.bytes.len() / Reference::BYTES;
    if pages_of(file.bytes) != count as u64 {
        let path = &file.path;
        return Err(FormatError::Invalid(format!("file `{path}` has {count} pages for its size")));
    }
    exactly(count * Reference::BYTES, &file.pages.bytes)?;
    let mut fields = Fields(&file.pages.bytes);
    (0..count).map(|_| Reference::read(&mut fields)).collect()
}

#[derive(Serialize, Deserialize)]
struct RootDocument {
    id: VersionId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<VersionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    branch: Option<BranchId>,
    cause: Cause,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(rename = "created_ms", with = "ms")]
    created: Timestamp,
    mongod: MongodVersion,
    total_bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    directories: Vec<DirectoryDocument>,
    files: Vec<FileDocument>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<Binary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot_blocks: Option<Binary>,
}

#[derive(Serialize, Deserialize)]
struct DirectoryDocument {
    path: String,
    mode: i32,
}

#[derive(Serialize, Deserialize)]
struct FileDocument {
    path: String,
    mode: i32,
    bytes: u64,
    pages: Binary,
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc};

    use super::*;

    fn id() -> VersionId {
        VersionId::from_bytes([1; 16])
    }

    fn document() -> Document {
        doc! {
            "id": id().to_string(), "cause": "suspend", "created_ms": 5_i64,
            "mongod": { "version": "6.0.5", "fcv": "6.0" },
            "total_bytes": 1_i64, "new_bytes": 0_i64, "stored_bytes": 0_i64,
            "directories": [{ "path": "a", "mode": 0o700 }],
            "files": [
                { "path": "a/x", "mode": 0o600, "bytes": 1_i64, "pages": pages(vec![0; 64]) },
                { "path": "b", "mode": 0o600, "bytes": 0_i64, "pages": pages(vec![]) },
            ],
        }
    }

    fn pages(bytes: Vec<u8>) -> Binary {
        Binary { subtype: BinarySubtype::Generic, bytes }
    }

    fn open(document: &Document) -> Result<Root, FormatError> {
        Root::open(id(), &envelope::seal(Kind::Version, document).unwrap())
    }

    #[test]
    fn what_a_later_argon_adds_is_no_obstacle() {
        let plain = open(&document()).unwrap();
        let mut later = document();
        later.insert("boot", pages(vec![0; 12]));
        later.insert("pinned", doc! { "by": ["a", "b"] });
        assert_eq!(open(&later).unwrap(), plain);
        later.insert("cause", "moonshine");
        assert_eq!(open(&later).unwrap().version.cause, Cause::Unknown);
    }

    #[test]
    fn what_was_made_to_harm_is_refused() {
        let file = |path: &str, bytes: i64, pages: Binary| doc! { "files": [{ "path": path, "mode": 0o600, "bytes": bytes, "pages": pages }] };
        let none = || pages(vec![]);
        // A reference to one raw byte.
        let reference = |offset: u32, encoding: u8| {
            let numbers = [offset, 1, 1].map(u32::to_le_bytes).concat();
            pages([&[7; 16], &numbers[..], &[encoding, 0, 0, 0], &[7; 32]].concat())
        };
        open(&{
            let mut legal = document();
            legal.extend(file("x", 1, reference(32, 0)));
            legal
        })
        .unwrap();
        for (change, words) in [
            (doc! { "id": VersionId::from_bytes([2; 16]).to_string() }, "it is version"),
            (doc! { "id": "../../etc/passwd" }, "id"),
            (doc! { "cause": 7 }, "enum"),
            (doc! { "created_ms": -1_i64 }, "-1"),
            (doc! { "total_bytes": "many" }, "many"),
            (doc! { "directories": [{ "path": "..", "mode": 0o700 }] }, ".."),
            (doc! { "directories": [{ "path": "a", "mode": -1 }] }, "mode"),
            (doc! { "directories": [] }, "directory is not there"),
            (file("../x", 0, none()), "../x"),
            (file("/etc/passwd", 0, none()), "/etc/passwd"),
            (file("a", 0, none()), "twice"),
            (file("x", 1, none()), "0 pages"),
            (file("x", i64::MAX, none()), "0 pages"),
            (file("x", -1, none()), "-1"),
            (file("x", 1, pages(vec![0; 65])), "65 bytes"),
            (file("x", 1, pages(vec![0; 128])), "2 pages"),
            (file("x", 1, reference(32, 7)), "encoding 7"),
            (file("x", 1, reference(31, 0)), "in the header"),
            (file("x", 1, reference(u32::MAX, 0)), "a frame's end"),
        ] {
            let mut changed = document();
            changed.extend(change);
            let error = open(&changed).unwrap_err().to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
        let mut unsorted = document();
        unsorted.get_array_mut("files").unwrap().reverse();
        assert!(open(&unsorted).is_err());
    }
}
