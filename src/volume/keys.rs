//! Where each object is in the store.

use std::fmt::Display;
use std::str::FromStr;

use super::pack::PackKind;
use crate::base::ids::{BranchId, PackId, ProjectId, ServerId, VersionId};
use crate::store::Key;

/// Before the id in the key of every project.
pub const PROJECTS: &str = "projects/";

/// Before the id in the key of every head.
pub const HEADS: &str = "heads/";

/// Before the id in the key of every version.
pub const VERSIONS: &str = "versions/";

/// Before the version's id in the key of every pin.
pub const PINS: &str = "pins/";

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

pub fn server(id: ServerId) -> Key {
    key("servers/", id)
}

pub fn version(id: VersionId) -> Key {
    key(VERSIONS, id)
}

pub fn pin(version: VersionId) -> Key {
    key(PINS, version)
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

/// The id in a key under `prefix`; none where something else stands there.
pub fn id<T: FromStr + Display>(prefix: &str, key: &Key) -> Option<T> {
    let text = key.as_str().strip_prefix(prefix)?;
    text.parse().ok().filter(|id: &T| id.to_string() == text)
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
            (server(ServerId::from_bytes([0; 16])), format!("servers/{text}")),
            (version(VersionId::from_bytes([0; 16])), format!("versions/{text}")),
            (pin(VersionId::from_bytes([0; 16])), format!("pins/{text}")),
            (pack(PackKind::Blocks, id), format!("packs/{text}")),
            (pack(PackKind::Pages, id), format!("pages/{text}")),
        ] {
            assert_eq!(key.as_str(), wanted);
        }
    }

    #[test]
    fn an_id_is_read_back_from_its_key_and_nothing_else_is_one() {
        let id = VersionId::from_bytes([7; 16]);
        assert_eq!(super::id(VERSIONS, &version(id)), Some(id));
        for other in ["versions/junk", "pins/0", "versions/070w3ge1r70w3ge1r70w3ge1r7/x"] {
            assert_eq!(super::id::<VersionId>(VERSIONS, &other.parse().unwrap()), None, "{other}");
        }
    }
}
