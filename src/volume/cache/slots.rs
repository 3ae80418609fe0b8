//! Which slot of the cache's slab holds what: bookkeeping alone, no file.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// What a block is found by: eight bytes of its hash. Two blocks that share them displace each
/// other; the whole hash is checked by whoever reads.
pub type Name = u64;

/// Names are parts of a hash already.
#[derive(Default)]
pub struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, name: u64) {
        self.0 = name;
    }
}

/// About 45 bytes of memory for each slot that was ever used.
#[derive(Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    places: HashMap<Name, u32, BuildHasherDefault<Same>>,
    free: Vec<u32>,
    /// Where the search for the next victim goes on.
    hand: usize,
    /// Most slots that may be taken.
    limit: u32,
    /// Slots that are not free.
    taken: u32,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    name: Name,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    /// Being written, or being given back to the disk.
    Busy,
    Held,
    /// Held, and used since the hand came by.
    Used,
}

impl Slots {
    /// Slots as they were found, each with a name or free.
    pub fn new(limit: u32, found: impl Iterator<Item = Option<Name>>) -> Self {
        let (slots, places, free) = (Vec::new(), HashMap::default(), Vec::new());
        let mut new = Self { slots, places, free, hand: 0, limit, taken: 0 };
        for (number, name) in (0..limit).zip(found) {
            match name {
                Some(name) if !new.places.contains_key(&name) => {
                    new.places.insert(name, number);
                    new.slots.push(Slot { name, state: State::Held });
                    new.taken += 1;
                }
                _ => {
                    new.slots.push(Slot { name: 0, state: State::Free });
                    new.free.push(number);
                }
            }
        }
        new
    }

    /// Where a block is; it counts as used.
    pub fn find(&mut self, name: Name) -> Option<u32> {
        let number = *self.places.get(&name)?;
        let slot = &mut self.slots[number as usize];
        if !matches!(slot.state, State::Held | State::Used) {
            return None;
        }
        slot.state = State::Used;
        Some(number)
    }

    /// Whether a block is held, or about to be.
    pub fn contains(&self, name: Name) -> bool {
        self.places.contains_key(&name)
    }

    /// A slot to write a block into, which takes the place of one that was not used for long.
    /// None where it is there already, or everything is being written.
    pub fn reserve(&mut self, name: Name) -> Option<u32> {
        if self.contains(name) || self.taken > self.limit || self.limit == 0 {
            return None;
        }
        let number = if self.taken < self.limit {
            self.taken += 1;
            self.free.pop().unwrap_or_else(|| {
                self.slots.push(Slot { name, state: State::Free });
                self.slots.len() as u32 - 1
            })
        } else {
            self.evict()?
        };
        self.slots[number as usize] = Slot { name, state: State::Busy };
        self.places.insert(name, number);
        Some(number)
    }

    /// The block is written.
    pub fn publish(&mut self, number: u32) {
        self.slots[number as usize].state = State::Held;
    }

    /// The block could not be written.
    pub fn abandon(&mut self, number: u32) {
        self.places.remove(&self.slots[number as usize].name);
        self.release(number);
    }

    /// What was read is not what was written: the block is not held any more. Whether that is so: the
    /// slot may hold another one by now.
    pub fn forget(&mut self, number: u32, name: Name) -> bool {
        let slot = self.slots[number as usize];
        if slot.name != name || !matches!(slot.state, State::Held | State::Used) {
            return false;
        }
        self.abandon(number);
        true
    }

    /// Sets how many slots may be taken. Gives those that must be given back to the disk, and then
    /// to [`Self::release`].
    pub fn set_limit(&mut self, limit: u32) -> Vec<u32> {
        self.limit = limit;
        let mut victims = Vec::new();
        while (self.taken as usize) > limit as usize + victims.len() {
            match self.evict() {
                Some(victim) => victims.push(victim),
                None => break,
            }
        }
        victims
    }

    /// A slot is free.
    pub fn release(&mut self, number: u32) {
        self.slots[number as usize].state = State::Free;
        self.free.push(number);
        self.taken -= 1;
    }

    /// Slots that are taken.
    pub fn taken(&self) -> u32 {
        self.taken
    }

    /// Whether a block can be taken without another's going.
    pub fn has_room(&self) -> bool {
        self.taken < self.limit
    }

    /// Bytes of memory that it takes.
    #[cfg(test)]
    pub fn memory(&self) -> usize {
        // A hash table's buckets are a power of two, and at most 7 of 8 are in use.
        let buckets = (self.places.capacity() * 8 / 7).next_power_of_two();
        let place = size_of::<(Name, u32)>() + 1;
        self.slots.capacity() * size_of::<Slot>() + buckets * place + self.free.capacity() * 4
    }

    /// Takes the first slot that was not used since the hand came by last.
    fn evict(&mut self) -> Option<u32> {
        for _ in 0..2 * self.slots.len() {
            let number = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            let slot = &mut self.slots[number];
            match slot.state {
                State::Free | State::Busy => {}
                State::Used => slot.state = State::Held,
                State::Held => {
                    slot.state = State::Busy;
                    self.places.remove(&slot.name);
                    return Some(number as u32);
                }
            }
        }
        None
    }
}
