//! Listing a directory in the order of S3: by the bytes of the whole key.

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use crate::base::clock::Timestamp;
use crate::store::{Key, LIST_PAGE, Listed};

/// The first objects below `root` whose keys start with `prefix` and come after `after`. The prefix
/// is only compared, never made a path.
pub fn list(root: &Path, prefix: &str, after: Option<&Key>) -> io::Result<Vec<Listed>> {
    let mut search = Search { prefix, after: after.map_or("", Key::as_str), found: Vec::new() };
    search.visit(root, "")?;
    Ok(search.found)
}

struct Search<'a> {
    prefix: &'a str,
    after: &'a str,
    found: Vec<Listed>,
}

impl Search<'_> {
    fn visit(&mut self, directory: &Path, base: &str) -> io::Result<()> {
        // A directory sorts as its name with a slash, as the keys in it do.
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let kind = entry.file_type()?;
            let is_directory =
                kind.is_dir() || kind.is_symlink() && fs::metadata(entry.path())?.is_dir();
            let key = format!("{base}{name}{}", if is_directory { "/" } else { "" });
            if !name.starts_with('.') && self.may_hold_more(&key, is_directory) {
                entries.push(key);
            }
        }
        entries.sort_unstable();
        for key in entries {
            if self.found.len() == LIST_PAGE {
                break;
            }
            let path = directory.join(&key[base.len()..]);
            if key.ends_with('/') {
                self.visit(&path, &key)?;
            } else {
                self.add(&path, &key)?;
            }
        }
        Ok(())
    }

    fn may_hold_more(&self, key: &str, is_directory: bool) -> bool {
        let wanted = key.starts_with(self.prefix) || is_directory && self.prefix.starts_with(key);
        let later = key > self.after || is_directory && self.after.starts_with(key);
        wanted && later
    }

    fn add(&mut self, path: &Path, key: &str) -> io::Result<()> {
        // A file that no key names was put here by somebody else.
        let Ok(key) = key.parse() else { return Ok(()) };
        let facts = match fs::metadata(path) {
            Ok(facts) => facts,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let since = facts.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified = Timestamp::from_unix_ms(since.as_millis() as u64);
        self.found.push(Listed { key, bytes: facts.len(), modified });
        Ok(())
    }
}
