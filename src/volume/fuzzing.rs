//! For fuzzing: the decoders of what lies in the store, behind the checksums that would keep chance
//! away from them. Each function panics where a promise is broken.

use bson::Document;

use super::envelope::{self, Kind};
use super::head::Head;
use super::pack::{HEADER_BYTES, PackKind, TRAILER_BYTES, Trailer};
use super::page::Page;
use super::project::Project;
use super::server_lease::ServerLease;
use super::version::Root;
use crate::base::ids::{BranchId, PackId, ServerId, VersionId};

/// The document of an envelope, as each of the five objects that have one. The first byte chooses
/// the encoding; the checksum always fits.
pub fn document(bytes: &[u8]) {
    let Some((choice, payload)) = bytes.split_first() else { return };
    let encoding = choice % 3;
    let stored = payload.len() as u32;
    let raw = match encoding {
        0 => stored,
        _ => u32::from(*choice) * 64,
    };
    let object = |kind| forged_envelope(kind, 1, encoding, [stored, raw], payload);
    let _ = envelope::open::<Document>(Kind::Format, &object(*b"FRMT"));
    if let Ok(project) = Project::open(&object(*b"PROJ")) {
        let sealed = envelope::seal(Kind::Project, &project).expect("what was read can be written");
        assert_eq!(Project::open(&sealed).ok(), Some(project));
    }
    if let Ok(head) = Head::open(BranchId::from_bytes([1; 16]), &object(*b"HEAD")) {
        let sealed = head.seal().expect("what was read can be written");
        assert_eq!(Head::open(head.branch, &sealed).ok(), Some(head));
    }
    let server = ServerId::from_bytes([4; 16]);
    if let Ok(lease) = ServerLease::open(server, &object(*b"SRVR")) {
        let sealed = envelope::seal(Kind::Server, &lease).expect("what was read can be written");
        assert_eq!(ServerLease::open(server, &sealed).ok(), Some(lease));
    }
    if let Ok(root) = Root::open(VersionId::from_bytes([3; 16]), &object(*b"VERS")) {
        let sealed = root.seal().expect("what was read can be written");
        assert_eq!(Root::open(root.version.id, &sealed).ok(), Some(root));
    }
}

/// An object as it is: nothing but what Argon wrote is one.
pub fn envelope(bytes: &[u8]) {
    let _ = envelope::open::<Document>(Kind::Format, bytes);
    let _ = Project::open(bytes);
    let _ = Head::open(BranchId::from_bytes([1; 16]), bytes);
    let _ = ServerLease::open(ServerId::from_bytes([4; 16]), bytes);
    let _ = Root::open(VersionId::from_bytes([3; 16]), bytes);
}

/// A pack: its trailer, and its table with the checksum made right.
pub fn pack(object: &[u8]) {
    let Some(at) = object.len().checked_sub(TRAILER_BYTES) else { return };
    let Ok(trailer) = Trailer::read(&object[at..], object.len() as u64) else { return };
    let table = trailer.table();
    let table = table.start as usize..table.end as usize;
    assert_eq!(table.end, at, "a table that was read ends where the trailer begins");
    let Some((head, _)) = object.split_first_chunk::<HEADER_BYTES>() else { return };
    let mut hasher = blake3::Hasher::new();
    hasher.update(head).update(&object[table.start..at + 8]);
    let mut right = object[at..].to_vec();
    right[8..40].copy_from_slice(hasher.finalize().as_bytes());
    let trailer = Trailer::read(&right, object.len() as u64).expect("only its hash is another");
    let id = PackId::from_bytes(head[16..].try_into().expect("a header ends with the id"));
    for kind in [PackKind::Blocks, PackKind::Pages] {
        let Ok(frames) = trailer.frames(kind, id, head, &object[table.clone()]) else { continue };
        for frame in frames {
            assert!(frame.end() as usize <= table.start, "a frame lies before the table");
        }
    }
}

/// An index page: one that is read is written as the same bytes.
pub fn page(bytes: &[u8]) {
    if let Ok(page) = Page::decode(bytes) {
        assert!(page.encode() == bytes, "a page has one form");
    }
}

/// An envelope with a fitting checksum around anything; `lengths` are stored and raw.
pub(super) fn forged_envelope(
    kind: [u8; 4],
    version: u16,
    encoding: u8,
    lengths: [u32; 2],
    payload: &[u8],
) -> Vec<u8> {
    let mut out = [*b"ARGN", kind].concat();
    out.extend(version.to_le_bytes());
    out.extend([encoding, 0]);
    lengths.iter().for_each(|length| out.extend(length.to_le_bytes()));
    out.extend(payload);
    let hash = blake3::hash(&out);
    out.extend(hash.as_bytes());
    out
}
