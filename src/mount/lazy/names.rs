//! The names of a mount: which directory holds which, in memory. What is kept of them on disk is
//! the log's.
//!
//! A change is checked first (`may_…`), so that it can be logged before it happens.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use super::node::Node;

/// The number of the root.
pub(super) const ROOT: u64 = 1;

/// What mongod looks at before it opens its storage, and the numbers that these have in every
/// overlay that begins now: a kernel that learnt of them on a mount that showed another overlay
/// before means the same ones (see `door`).
pub(super) const MET_FIRST: [(&str, u64); 3] =
    [("mongod.lock", 2), ("storage.bson", 3), ("journal", 4)];
const FIRST_FREE: u64 = 5;

/// Longest name, and longest path of a volume, bytes.
const NAME_BYTES_MAX: usize = 255;
const PATH_BYTES_MAX: usize = 1024;

/// What mongod makes anew and what no version holds: see `mount::walk`.
const LEFT_OUT: &str = "diagnostic.data";

/// All files and directories: those with a name, and those without that are still open.
#[derive(Debug)]
pub(super) struct Names {
    entries: HashMap<u64, Entry>,
    next: u64,
    /// A name or a mode differs from the version below.
    pub(super) changed: bool,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) node: Arc<Node>,
    pub(super) parent: u64,
    pub(super) name: String,
    pub(super) mode: u32,
    /// Of a directory.
    children: Option<BTreeMap<String, u64>>,
    /// It has a name.
    pub(super) linked: bool,
}

/// Whether something is to be a file or a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
}

/// What is to become of a file that is in the way of a rename.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replace {
    Yes,
    No,
}

fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Names {
    /// An empty root.
    pub(super) fn new(root_mode: u32) -> Self {
        let root = Entry {
            node: Arc::new(Node::directory(ROOT)),
            parent: ROOT,
            name: String::new(),
            mode: root_mode,
            children: Some(BTreeMap::new()),
            linked: true,
        };
        Self { entries: HashMap::from([(ROOT, root)]), next: FIRST_FREE, changed: false }
    }

    /// A number that was never used.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The number of something that a source has at this path.
    pub(super) fn number_for(&self, path: &str) -> u64 {
        let kept = MET_FIRST.iter().find(|(name, _)| *name == path);
        kept.map_or(self.next, |(_, number)| *number)
    }

    pub(super) fn entry(&self, number: u64) -> io::Result<&Entry> {
        self.entries.get(&number).ok_or_else(|| error(libc::ESTALE))
    }

    pub(super) fn node(&self, number: u64) -> io::Result<Arc<Node>> {
        self.entry(number).map(|entry| entry.node.clone())
    }

    fn children(&self, directory: u64) -> io::Result<&BTreeMap<String, u64>> {
        self.entry(directory)?.children.as_ref().ok_or_else(|| error(libc::ENOTDIR))
    }

    pub(super) fn lookup(&self, parent: u64, name: &str) -> io::Result<u64> {
        check_name(name)?;
        self.children(parent)?.get(name).copied().ok_or_else(|| error(libc::ENOENT))
    }

    /// What a directory holds, by number: an order that does not change while it is read.
    pub(super) fn list(&self, directory: u64) -> io::Result<Vec<(u64, Kind, &str)>> {
        let children = self.children(directory)?;
        let mut list: Vec<_> = children
            .iter()
            .filter_map(|(name, number)| Some((*number, self.entries.get(number)?, name)))
            .map(|(number, entry, name)| (number, entry.kind(), name.as_str()))
            .collect();
        list.sort_unstable_by_key(|(number, ..)| *number);
        Ok(list)
    }

    /// Whether something new may have this name.
    pub(super) fn may_create(&self, parent: u64, name: &str) -> io::Result<()> {
        check_name(name)?;
        if self.children(parent)?.contains_key(name) {
            return Err(error(libc::EEXIST));
        }
        if !self.entry(parent)?.linked {
            return Err(error(libc::ENOENT));
        }
        self.check_path(parent, name.len())
    }

    /// Gives a new node a name.
    pub(super) fn add(&mut self, node: Arc<Node>, parent: u64, name: &str, mode: u32) {
        let number = node.number;
        let children = (!node.is_file()).then(BTreeMap::new);
        let entry = Entry { node, parent, name: name.to_owned(), mode, children, linked: true };
        self.next = self.next.max(number + 1);
        self.entries.insert(number, entry);
        self.link(parent, name, number);
    }

    /// What a name means that may be taken away.
    pub(super) fn may_remove(&self, parent: u64, name: &str, kind: Kind) -> io::Result<u64> {
        let number = self.lookup(parent, name)?;
        let entry = self.entry(number)?;
        match (kind, &entry.children) {
            (Kind::File, Some(_)) => Err(error(libc::EISDIR)),
            (Kind::Directory, None) => Err(error(libc::ENOTDIR)),
            (Kind::Directory, Some(children)) if !children.is_empty() => {
                Err(error(libc::ENOTEMPTY))
            }
            _ => Ok(number),
        }
    }

    /// Takes the name away.
    pub(super) fn remove(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        entry.linked = false;
        let (parent, name) = (entry.parent, std::mem::take(&mut entry.name));
        self.unlink(parent, &name);
    }

    /// What a name means that may become another, and what has that other name.
    pub(super) fn may_rename(
        &self,
        from: (u64, &str),
        to: (u64, &str),
        replace: Replace,
    ) -> io::Result<(u64, Option<u64>)> {
        let number = self.lookup(from.0, from.1)?;
        check_name(to.1)?;
        if !self.entry(to.0)?.linked {
            return Err(error(libc::ENOENT));
        }
        let target = self.children(to.0)?.get(to.1).copied();
        let kind = self.entry(number)?.kind();
        match target {
            Some(_) if replace == Replace::No => return Err(error(libc::EEXIST)),
            Some(target) if target == number => return Ok((number, None)),
            Some(_) => {
                self.may_remove(to.0, to.1, kind)?;
            }
            None => {}
        }
        let mut above = to.0;
        while above != ROOT {
            if above == number {
                return Err(error(libc::EINVAL));
            }
            above = self.entry(above)?.parent;
        }
        self.check_path(to.0, to.1.len() + self.depth_bytes(number))?;
        Ok((number, target))
    }

    /// Gives it another name; what had it must be gone.
    pub(super) fn rename(&mut self, number: u64, parent: u64, name: &str) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        let old_parent = std::mem::replace(&mut entry.parent, parent);
        let old_name = std::mem::replace(&mut entry.name, name.to_owned());
        self.unlink(old_parent, &old_name);
        self.link(parent, name, number);
    }

    /// Puts another node in the place of one with the same number.
    pub(super) fn replace(&mut self, node: Arc<Node>) {
        if let Some(entry) = self.entries.get_mut(&node.number) {
            entry.node = node;
        }
    }

    pub(super) fn set_mode(&mut self, number: u64, mode: u32) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.mode = mode;
        }
    }

    /// Nobody knows the node any more, where it has no name.
    pub(super) fn forget(&mut self, number: u64) -> Option<Arc<Node>> {
        let orphan = self.entries.get(&number).is_some_and(|entry| !entry.linked);
        orphan.then(|| self.entries.remove(&number)).flatten().map(|entry| entry.node)
    }

    /// Every node that has a name or is open.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.entries.values().map(|entry| &entry.node)
    }

    /// The numbers of those that have no name.
    pub(super) fn orphans(&self) -> Vec<u64> {
        self.entries.values().filter(|entry| !entry.linked).map(|entry| entry.node.number).collect()
    }

    /// Everything with a name but the root, a directory before what is in it.
    pub(super) fn walk(&self) -> Vec<(String, &Entry)> {
        let mut found: Vec<(String, &Entry)> = Vec::with_capacity(self.entries.len());
        let mut waiting = vec![(String::new(), ROOT)];
        while let Some((base, directory)) = waiting.pop() {
            for (name, number) in self.children(directory).into_iter().flatten() {
                let separator = if base.is_empty() { "" } else { "/" };
                let path = format!("{base}{separator}{name}");
                let Some(entry) = self.entries.get(number) else { continue };
                if entry.children.is_some() {
                    waiting.push((path.clone(), *number));
                }
                found.push((path, entry));
            }
        }
        found
    }

    /// The same without what no version holds.
    pub(super) fn walk_volume(&self) -> Vec<(String, &Entry)> {
        let mut found = self.walk();
        let left_out = |path: &str| {
            path.strip_prefix(LEFT_OUT).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        };
        // What came from a version stays in the next.
        let is_own = |entry: &Entry| entry.node.origin().is_none();
        if found.iter().all(|(path, entry)| !left_out(path) || is_own(entry)) {
            found.retain(|(path, _)| !left_out(path));
        }
        found
    }

    fn link(&mut self, parent: u64, name: &str, number: u64) {
        let directory = self.entries.get_mut(&parent).and_then(|entry| entry.children.as_mut());
        if let Some(children) = directory {
            children.insert(name.to_owned(), number);
        }
    }

    fn unlink(&mut self, parent: u64, name: &str) {
        let directory = self.entries.get_mut(&parent).and_then(|entry| entry.children.as_mut());
        if let Some(children) = directory {
            children.remove(name);
        }
    }

    fn check_path(&self, parent: u64, rest: usize) -> io::Result<()> {
        let (mut bytes, mut above) = (rest, parent);
        while above != ROOT {
            let entry = self.entry(above)?;
            bytes += entry.name.len() + 1;
            above = entry.parent;
        }
        if bytes > PATH_BYTES_MAX { Err(error(libc::ENAMETOOLONG)) } else { Ok(()) }
    }

    /// How long the longest path below a directory is.
    fn depth_bytes(&self, number: u64) -> usize {
        let children = self.children(number).into_iter().flatten();
        children.map(|(name, child)| 1 + name.len() + self.depth_bytes(*child)).max().unwrap_or(0)
    }
}

impl Entry {
    pub(super) fn kind(&self) -> Kind {
        if self.children.is_some() { Kind::Directory } else { Kind::File }
    }

    /// Directories in it, and itself.
    pub(super) fn links(&self) -> u32 {
        match (&self.children, self.linked) {
            (_, false) => 0,
            (None, _) => 1,
            (Some(_), _) => 2,
        }
    }
}

fn check_name(name: &str) -> io::Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(error(libc::ENAMETOOLONG));
    }
    if matches!(name, "" | "." | "..") {
        return Err(error(libc::EINVAL));
    }
    Ok(())
}
