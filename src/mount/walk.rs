//! Reads a dbpath into a tree.

use std::fs::{self, FileType};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use super::tree::MODE_BITS;
use super::{DirectoryEntry, FileEntry, InvalidTree, MountError, Tree, VolumePath};

/// Everything in `directory` that belongs to a volume. Blocks.
///
/// `mongod.lock` does: it is empty after a clean stop and holds a process id else, and mongod knows
/// by it whether to look for what an unclean stop left behind; nobody's life is read from the id.
/// So does `WiredTiger.lock`: 21 bytes that never change, a part of what WiredTiger made. Left out
/// is what mongod makes anew and what would only cost: its sockets, and `diagnostic.data`, its own
/// metrics, which change every second.
pub fn walk(directory: &Path) -> Result<Tree, MountError> {
    let (mut directories, mut files) = (Vec::new(), Vec::new());
    let mut waiting = vec![String::new()];
    while let Some(base) = waiting.pop() {
        let place = directory.join(&base);
        for entry in fs::read_dir(&place).map_err(MountError::io("list", &place))? {
            let entry = entry.map_err(MountError::io("list", &place))?;
            let path = entry.path();
            let facts = entry.metadata().map_err(MountError::io("read the size of", &path))?;
            let kind = facts.file_type();
            if kind.is_socket() || base.is_empty() && entry.file_name() == "diagnostic.data" {
                continue;
            }
            let invalid = |source| MountError::Tree { path: path.clone(), source };
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| {
                invalid(InvalidTree::new(&name.to_string_lossy(), "it is not UTF-8"))
            })?;
            let separator = if base.is_empty() { "" } else { "/" };
            let name = format!("{base}{separator}{name}");
            let volume_path = VolumePath::new(&name).map_err(invalid)?;
            let mode = facts.permissions().mode() & MODE_BITS;
            if kind.is_dir() {
                directories.push(DirectoryEntry { path: volume_path, mode });
                waiting.push(name);
            } else if kind.is_file() {
                files.push(FileEntry { path: volume_path, mode, bytes: facts.len() });
            } else {
                return Err(MountError::Unsupported { path, kind: describe(kind) });
            }
        }
    }
    Tree::new(directories, files)
        .map_err(|source| MountError::Tree { path: directory.to_owned(), source })
}

fn describe(kind: FileType) -> &'static str {
    if kind.is_symlink() {
        "symbolic link"
    } else if kind.is_fifo() {
        "named pipe"
    } else {
        "device"
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_mongod_needs_is_listed_and_nothing_else() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path();
        for name in ["journal", "_tmp", "diagnostic.data"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        for (name, content) in [
            ("WiredTiger.lock", "WiredTiger lock file\n"),
            ("mongod.lock", "4711\n"),
            ("journal/WiredTigerLog.0000000001", "log"),
            ("diagnostic.data/metrics.interim", "figures"),
            ("storage.bson", ""),
        ] {
            fs::write(root.join(name), content).unwrap();
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
        let _socket = UnixListener::bind(root.join("mongodb-27017.sock")).unwrap();
        let tree = walk(root).unwrap();
        let directories: Vec<_> = tree.directories().iter().map(|d| d.path.as_str()).collect();
        assert_eq!(directories, ["_tmp", "journal"]);
        let files: Vec<_> =
            tree.files().iter().map(|f| (f.path.as_str(), f.mode, f.bytes)).collect();
        assert_eq!(
            files,
            [
                ("WiredTiger.lock", 0o640, 21),
                ("journal/WiredTigerLog.0000000001", 0o640, 3),
                ("mongod.lock", 0o640, 5),
                ("storage.bson", 0o640, 0),
            ]
        );
        assert_eq!(tree.bytes(), 29);
    }

    #[test]
    fn what_no_volume_can_hold_is_named() {
        let check = |make: &dyn Fn(&Path), words: [&str; 2]| {
            let temporary = tempfile::tempdir().unwrap();
            make(temporary.path());
            let error = walk(temporary.path()).unwrap_err();
            let text = format!("{error} {:?}", std::error::Error::source(&error));
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        check(&|root| symlink("/etc/passwd", root.join("link")).unwrap(), ["/link", "symbolic"]);
        let odd = OsStr::from_bytes(b"odd\xff");
        check(&|root| fs::write(root.join(odd), "").unwrap(), ["/odd", "UTF-8"]);
        let absent = walk(Path::new("/nonexistent/dbpath")).unwrap_err();
        assert!(absent.to_string().contains("list /nonexistent/dbpath"), "{absent}");
    }
}
