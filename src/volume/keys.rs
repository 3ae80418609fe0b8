//! Where each object is in the store.

use std::fmt::Display;

use super::pack::PackKind;
use crate::base::ids::{BranchId, PackId, ProjectId, ServerId, VersionId};
use crate::store::Key;

/// Before the id in the key of every project.
pub const PROJECTS: &str = "projects/";

pub fn marker() -> Key {
    key("argon/", "format")
}

pub fn project(id: ProjectId) -> Key {
    key(PROJECTS, id)
}

pub fn head(id: BranchId) -> Key {
    key("heads/", id)
}

pub fn server(id: ServerId) -> Key {
    key("servers/", id)
}

pub fn version(id: VersionId) -> Key {
    key("versions/", id)
}

pub fn pack(kind: PackKind, id: PackId) -> Key {
    match kind {
        PackKind::Blocks => key("packs/", id),
        PackKind::Pages => key("pages/", id),
    }
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
            (project(ProjectId::from_bytes([0; 16])), format!("projects/{text}")),
            (head(BranchId::from_bytes([0; 16])), format!("heads/{text}")),
            (server(ServerId::from_bytes([0; 16])), format!("servers/{text}")),
            (version(VersionId::from_bytes([0; 16])), format!("versions/{text}")),
            (pack(PackKind::Blocks, id), format!("packs/{text}")),
            (pack(PackKind::Pages, id), format!("pages/{text}")),
        ] {
            assert_eq!(key.as_str(), wanted);
        }
    }
}
