//! Damage for tests.

pub(super) use super::fuzzing::forged_envelope;

/// Asserts that `refuses` says so of every proper beginning of `bytes`, of every single flipped
/// bit, and of a byte too many.
pub fn cuts_and_flips(bytes: &[u8], refuses: impl Fn(&[u8]) -> bool) {
    assert!(!refuses(bytes), "the bytes are right before they are damaged");
    for length in 0..bytes.len() {
        assert!(refuses(&bytes[..length]), "cut to {length} of {}", bytes.len());
    }
    assert!(refuses(&[bytes, &[0]].concat()), "one byte more");
    let mut damaged = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(refuses(&damaged), "bit {} of byte {}", bit % 8, bit / 8);
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}

/// An envelope of this format version, with raw encoding and a fitting checksum around any document.
pub fn envelope(kind: [u8; 4], version: u16, document: &[u8]) -> Vec<u8> {
    let length = document.len() as u32;
    forged_envelope(kind, version, 0, [length, length], document)
}
