//! Where each object is in the store.

use std::fmt::Display;
use std::str::FromStr;

use super::pack::PackKind;
use crate::base::ids::{BranchId, PackId, ProjectId, VersionId};
use crate::store::Key;

/// Before the id in the key of every project.
pub const PROJECTS: &str = "projects/";
/// Before the id in the key of every head.
pub const HEADS: &str = "heads/";
/// Before the id in the key of every version.
pub const VERSIONS: &str = "versions/";

pub fn marker() -> Key {
    key("argon/", "format")
}

pub fn condemned() -> Key {
    key("argon/", "condemned")
}

pub fn project(id: ProjectId) -> Key {
    key(PROJECTS, id)
}

pub fn head(id: BranchId) -> Key {
    key(HEADS, id)
}

pub fn version(id: VersionId) -> Key {
    key(VERSIONS, id)
}

pub fn pack(kind: PackKind, id: PackId) -> Key {
    key(packs(kind), id)
}

/// Before the id in the key of every pack of this kind.
pub fn packs(kind: PackKind) -> &'static str {
    match kind {
        PackKind::Blocks => "packs/",
        PackKind::Pages => "pages/",
    }
}

/// The id in a key with this prefix; none where something else stands there.
pub fn id<T: FromStr>(prefix: &str, key: &Key) -> Option<T> {
    key.as_str().strip_prefix(prefix)?.parse().ok()
}

fn key(prefix: &str, id: impl Display) -> Key {
    format!("{prefix}{id}").parse().expect("ids are lower-case letters and digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_format() {
        let text = "00000000000000000000000000";
        let id = PackId::from_bytes([0; 16]);
        for (key, wanted) in [
            (marker(), "argon/format".to_owned()),
            (condemned(), "argon/condemned".to_owned()),
            (project(ProjectId::from_bytes([0; 16])), format!("projects/{text}")),
            (head(BranchId::from_bytes([0; 16])), format!("heads/{text}")),
            (version(VersionId::from_bytes([0; 16])), format!("versions/{text}")),
            (pack(PackKind::Blocks, id), format!("packs/{text}")),
            (pack(PackKind::Pages, id), format!("pages/{text}")),
        ] {
            assert_eq!(key.as_str(), wanted);
        }
    }
}
