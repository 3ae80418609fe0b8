//! Bytes that do not compress: what compresses would make others look few.

use bson::{Binary, spec::BinarySubtype};

/// xorshift64*
pub struct Noise(pub u64);

impl Noise {
    /// The next ones.
    pub fn bytes(&mut self, count: usize) -> Binary {
        let mut bytes = Vec::with_capacity(count + 8);
        while bytes.len() < count {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            bytes.extend(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        bytes.truncate(count);
        Binary { subtype: BinarySubtype::Generic, bytes }
    }
}
