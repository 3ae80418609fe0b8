//! Who this server is: the id that heads name as their owner.
//!
//! It stands in the catalog and, as the catalog can be lost, in a file beside it. By it unsaved
//! writes on this disk are known to be this server's own.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::BranchError;
use crate::base::clock::Clock;
use crate::base::ids::ServerId;
use crate::catalog::Catalog;

/// The catalog's name for it, and the file's.
const FACT: &str = "server";
const FILE: &str = "server-id";

/// The data directory's own id, a new one where it has none; the catalog notes it, and is a server's
/// from now on.
pub(super) fn server_id(
    catalog: &Catalog,
    data: &Path,
    clock: &dyn Clock,
) -> Result<ServerId, BranchError> {
    let id = of_directory(catalog, data, clock)?;
    if noted(catalog)? != Some(id) {
        catalog.set_fact(FACT, id.to_string().as_bytes())?;
    }
    Ok(id)
}

/// The same for a catalog that is not to be a server's yet.
pub(super) fn of_directory(
    catalog: &Catalog,
    data: &Path,
    clock: &dyn Clock,
) -> Result<ServerId, BranchError> {
    let kept = kept(data)?;
    let id = noted(catalog)?.or(kept).unwrap_or_else(|| ServerId::generate(clock.now()));
    if kept != Some(id) {
        write(data, id)?;
    }
    Ok(id)
}

/// Whether no server ever used this catalog, and nobody filled it.
pub(super) fn is_new(catalog: &Catalog) -> Result<bool, BranchError> {
    Ok(noted(catalog)?.is_none() && catalog.counts()? == (0, 0))
}

/// Whether a server used this data directory.
pub(super) fn was_used(data: &Path) -> Result<bool, BranchError> {
    Ok(kept(data)?.is_some() || data.join("work").exists())
}

fn noted(catalog: &Catalog) -> Result<Option<ServerId>, BranchError> {
    let fact = catalog.fact(FACT)?.and_then(|id| String::from_utf8(id).ok());
    Ok(fact.and_then(|id| id.parse().ok()))
}

/// A file that holds something else is as good as none.
fn kept(data: &Path) -> Result<Option<ServerId>, BranchError> {
    let path = data.join(FILE);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(source) => Err(BranchError::local("read", path, source)),
    }
}

/// Whole or not at all.
fn write(data: &Path, id: ServerId) -> Result<(), BranchError> {
    let (path, next) = (data.join(FILE), data.join(format!("{FILE}.new")));
    let written = File::create(&next).and_then(|mut file| {
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&next, &path)?;
        File::open(data)?.sync_all()
    });
    written.map_err(|source| BranchError::local("write", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::SystemClock;

    #[test]
    fn an_id_outlives_the_catalog_and_the_file_but_not_both() {
        let dir = tempfile::tempdir().unwrap();
        let clock = SystemClock::default();
        let catalog = |name: &str| Catalog::open(&dir.path().join(name)).unwrap();
        let first = catalog("first");
        assert!(is_new(&first).unwrap() && !was_used(dir.path()).unwrap());
        let id = server_id(&first, dir.path(), &clock).unwrap();
        assert!(!is_new(&first).unwrap() && was_used(dir.path()).unwrap());
        assert_eq!(server_id(&first, dir.path(), &clock).unwrap(), id);
        assert_eq!(server_id(&catalog("second"), dir.path(), &clock).unwrap(), id);
        for junk in [&b"junk"[..], b"", b"\xff\xff"] {
            fs::write(dir.path().join(FILE), junk).unwrap();
            assert_eq!(server_id(&first, dir.path(), &clock).unwrap(), id);
            assert_eq!(kept(dir.path()).unwrap(), Some(id), "it is written anew");
        }
        fs::remove_file(dir.path().join(FILE)).unwrap();
        assert_ne!(server_id(&catalog("third"), dir.path(), &clock).unwrap(), id);
    }
}
