//! A tree of files as a value: what a directory holds, or is to hold.

use std::collections::HashSet;
use std::fmt;

use thiserror::Error;

/// Longest path, bytes.
const PATH_BYTES_MAX: usize = 1024;
/// Longest part of a path, bytes: the limit of every file system in use.
const PART_BYTES_MAX: usize = 255;
/// The bits of a mode that are kept: read, write, execute.
pub(super) const MODE_BITS: u32 = 0o777;

/// The directories and files below a root, each list sorted by path, every parent of a path listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    directories: Vec<DirectoryEntry>,
    files: Vec<FileEntry>,
}

/// A directory, empty or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Where.
    pub path: VolumePath,
    /// Permission bits, at most 0o777.
    pub mode: u32,
}

/// A plain file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Where.
    pub path: VolumePath,
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// Its size.
    pub bytes: u64,
}

/// A path relative to a volume's root, checked so that it stays below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumePath(String);

/// Names that make no tree.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("path `{path}`: {reason}")]
pub struct InvalidTree {
    path: String,
    reason: &'static str,
}

impl Tree {
    /// A tree of these, in any order.
    pub fn new(
        mut directories: Vec<DirectoryEntry>,
        mut files: Vec<FileEntry>,
    ) -> Result<Self, InvalidTree> {
        directories.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let modes = directories.iter().map(|d| (&d.path, d.mode));
        let modes = modes.chain(files.iter().map(|f| (&f.path, f.mode)));
        let known: HashSet<&str> = directories.iter().map(|d| d.path.as_str()).collect();
        let mut seen = HashSet::new();
        for (path, mode) in modes {
            if !seen.insert(path.as_str()) {
                return Err(InvalidTree::new(path.as_str(), "it stands twice"));
            }
            if path.parent().is_some_and(|parent| !known.contains(parent)) {
                return Err(InvalidTree::new(path.as_str(), "its directory is not there"));
            }
            if mode & !MODE_BITS != 0 {
                return Err(InvalidTree::new(path.as_str(), "its mode is above 0o777"));
            }
        }
        Ok(Self { directories, files })
    }

    /// The directories, sorted by path: a parent stands before its children.
    pub fn directories(&self) -> &[DirectoryEntry] {
        &self.directories
    }

    /// The files, sorted by path.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The sum of the files' sizes, bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }
}

impl VolumePath {
    /// Checks a path.
    pub fn new(text: &str) -> Result<Self, InvalidTree> {
        let reason = if text.is_empty() || text.len() > PATH_BYTES_MAX {
            "it is not 1 to 1024 bytes long"
        } else if text.contains('\0') {
            "it holds a NUL"
        } else if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            "a part of it is empty, `.` or `..`"
        } else if text.split('/').any(|part| part.len() > PART_BYTES_MAX) {
            "a part of it is longer than 255 bytes"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(InvalidTree::new(text, reason))
    }

    /// The path as text, its parts divided by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parent(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(parent, _)| parent)
    }
}

impl InvalidTree {
    pub(super) fn new(path: &str, reason: &'static str) -> Self {
        Self { path: path.chars().take(200).collect(), reason }
    }
}

impl fmt::Display for VolumePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (text, legal) in [
            ("WiredTiger.wt", true),
            ("journal/WiredTigerLog.0000000001", true),
            ("a b\n", true),
            (&"x/".repeat(511), false),
            (&format!("{}x", "x/".repeat(511)), true),
            (&format!("{}xxx", "x/".repeat(511)), false),
            (&"ü".repeat(127), true),
            (&"ü".repeat(128), false),
            ("", false),
            ("/etc/passwd", false),
            ("..", false),
            ("a/../../b", false),
            ("./a", false),
            ("a//b", false),
            ("a\0b", false),
        ] {
            assert_eq!(VolumePath::new(text).is_ok(), legal, "{text}");
        }
    }

    #[test]
    fn only_whole_trees_are_trees() {
        let path = |text: &str| VolumePath::new(text).unwrap();
        let tree = |directories: &[&str], files: &[&str], mode| {
            let directories = directories.iter();
            let files = files.iter();
            Tree::new(
                directories.map(|text| DirectoryEntry { path: path(text), mode: 0o700 }).collect(),
                files.map(|text| FileEntry { path: path(text), mode, bytes: 1 }).collect(),
            )
        };
        assert_eq!(tree(&["a/b", "a"], &["z", "a/b/c"], 0o600).unwrap().bytes(), 2);
        for (directories, files, mode) in [
            (&[][..], &["a/b"][..], 0o600),
            (&["a/b"], &[], 0o600),
            (&["a", "a"], &[], 0o600),
            (&["a"], &["a"], 0o600),
            (&[], &["a", "a"], 0o600),
            (&[], &["a", "a/b"], 0o600),
            (&[], &["a"], 0o4755),
        ] {
            assert!(tree(directories, files, mode).is_err(), "{directories:?} {files:?}");
        }
    }
}
