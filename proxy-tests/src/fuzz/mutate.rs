//! Changed bytes, the same in every run: what libFuzzer does, without what it learns on the way.

/// Random numbers from a seed: SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Those of this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    /// A part of `length` bytes; may be empty.
    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (a, b) = (self.below(length + 1), self.below(length + 1));
        // Long parts are seldom worth more than short ones.
        a.min(b)..a.max(b).min(a.min(b) + 64)
    }
}

/// Sizes and numbers at which readers go wrong.
const NUMBERS: [i32; 16] =
    [0, 1, 2, 3, 4, 5, 6, 12, 16, 127, 255, 65_535, -1, i32::MIN, i32::MAX, 48_000_001];

/// Words that decide something.
const WORDS: [&[u8]; 12] = [
    b"txnNumber\0",
    b"autocommit\0",
    b"hello\0",
    b"client\0",
    b"application\0",
    b"name\0",
    b"argon.",
    b"shop/dev",
    b"$query\0",
    b"documents\0",
    b"\xff\xff\xff\xff",
    b"\x05\0\0\0\0",
];

/// Longest input, bytes.
const INPUT_BYTES_MAX: usize = 16 * 1024;

/// One of the seeds with one to six changes.
pub fn mutate(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        change(&mut bytes, seeds, random);
    }
    bytes.truncate(INPUT_BYTES_MAX);
    bytes
}

fn change(bytes: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    match random.below(9) {
        0 => flip(bytes, at, 1 << random.below(8)),
        1 => flip(bytes, at, random.number() as u8),
        2 => {
            let number = NUMBERS[random.below(NUMBERS.len())];
            overwrite(bytes, at, &number.to_le_bytes());
        }
        // A size that is nearly right.
        3 => {
            let near = |four: [u8; 4], by: i32| i32::from_le_bytes(four).wrapping_add(by);
            if let Some(four) = bytes.get(at..).and_then(|rest| rest.first_chunk().copied()) {
                let by = random.below(9) as i32 - 4;
                overwrite(bytes, at, &near(four, by).to_le_bytes());
            }
        }
        4 => bytes.truncate(at),
        5 => drop(bytes.drain(random.range(bytes.len()))),
        6 => {
            let part = bytes[random.range(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        7 => {
            let word = WORDS[random.below(WORDS.len())];
            bytes.splice(at..at, word.iter().copied());
        }
        _ => {
            let other = &seeds[random.below(seeds.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len() + 1)..]);
        }
    }
}

fn flip(bytes: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= bits;
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(with) {
        *byte = *new;
    }
}
