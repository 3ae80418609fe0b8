//! Sets of 4 KiB pages, as bitmaps in chunks: a file of 10 GB that was written all over costs 330
//! KB, one that was written nowhere nothing.

/// Size of a page, bytes: what the kernel writes, and what a write is accounted for by.
pub(super) const PAGE_BYTES: u64 = 4096;

const WORDS: usize = 64;
/// Pages of a chunk: 16 MiB of a file.
const CHUNK: u64 = WORDS as u64 * 64;

/// A set of page numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct PageMap {
    chunks: Vec<Option<Box<[u64; WORDS]>>>,
}

/// The pages that a range of bytes touches, as a half-open range.
pub(super) fn touched(start: u64, end: u64) -> (u64, u64) {
    if start >= end { (0, 0) } else { (start / PAGE_BYTES, end.div_ceil(PAGE_BYTES)) }
}

impl PageMap {
    /// Whether a page is in the set.
    pub(super) fn has(&self, page: u64) -> bool {
        let (chunk, word, bit) = place(page);
        self.chunk(chunk).is_some_and(|words| words[word] & bit != 0)
    }

    /// Whether any of `start..end` is in the set.
    pub(super) fn has_any(&self, start: u64, end: u64) -> bool {
        self.next(start).is_some_and(|page| page < end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.next(0).is_none()
    }

    pub(super) fn insert(&mut self, page: u64) {
        self.insert_range(page, page + 1);
    }

    pub(super) fn insert_range(&mut self, start: u64, end: u64) {
        for_words(start, end, |chunk, word, mask| {
            if chunk >= self.chunks.len() {
                self.chunks.resize(chunk + 1, None);
            }
            self.chunks[chunk].get_or_insert_with(|| Box::new([0; WORDS]))[word] |= mask;
        });
    }

    pub(super) fn remove_range(&mut self, start: u64, end: u64) {
        let end = end.min(self.chunks.len() as u64 * CHUNK);
        for_words(start, end, |chunk, word, mask| {
            if let Some(words) = &mut self.chunks[chunk] {
                words[word] &= !mask;
            }
        });
    }

    /// Removes everything from a page on.
    pub(super) fn truncate(&mut self, start: u64) {
        self.remove_range(start, u64::MAX);
        self.chunks.truncate(usize::try_from(start.div_ceil(CHUNK)).unwrap_or(usize::MAX));
    }

    /// Adds all of another set.
    pub(super) fn join(&mut self, other: &Self) {
        if self.chunks.len() < other.chunks.len() {
            self.chunks.resize(other.chunks.len(), None);
        }
        for (own, theirs) in self.chunks.iter_mut().zip(&other.chunks) {
            match (own.as_mut(), theirs) {
                (_, None) => {}
                (None, Some(_)) => *own = theirs.clone(),
                (Some(own), Some(theirs)) => {
                    own.iter_mut().zip(theirs.iter()).for_each(|(own, theirs)| *own |= theirs);
                }
            }
        }
    }

    /// Removes all of another set.
    pub(super) fn subtract(&mut self, other: &Self) {
        for (own, theirs) in self.chunks.iter_mut().zip(&other.chunks) {
            if let (Some(own), Some(theirs)) = (own, theirs) {
                own.iter_mut().zip(theirs.iter()).for_each(|(own, theirs)| *own &= !theirs);
            }
        }
    }

    /// What is in both, and from `all_from` on whatever is in `self`.
    pub(super) fn within(&self, other: &Self, all_from: u64) -> Self {
        let mut rest = self.clone();
        rest.subtract(other);
        rest.truncate(all_from);
        let mut both = self.clone();
        both.subtract(&rest);
        both
    }

    /// The first page of the set that is not below `from`.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        let (mut chunk, mut word, bit) = place(from);
        let mut mask = !(bit - 1);
        while chunk < self.chunks.len() {
            if let Some(words) = &self.chunks[chunk] {
                while word < WORDS {
                    let found = words[word] & mask;
                    if found != 0 {
                        let page = word as u64 * 64 + u64::from(found.trailing_zeros());
                        return Some(chunk as u64 * CHUNK + page);
                    }
                    mask = u64::MAX;
                    word += 1;
                }
            }
            (chunk, word, mask) = (chunk + 1, 0, u64::MAX);
        }
        None
    }

    /// The set as half-open ranges, ascending, none adjacent.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = self.next(from)?;
            let mut end = start + 1;
            while self.has(end) {
                end += 1;
            }
            from = end;
            Some((start, end))
        })
    }

    /// How many pages there are.
    pub(super) fn count(&self) -> u64 {
        let ones = |words: &[u64; WORDS]| words.iter().map(|w| u64::from(w.count_ones())).sum();
        self.chunks.iter().flatten().map(|words| -> u64 { ones(words) }).sum()
    }

    fn chunk(&self, chunk: usize) -> Option<&[u64; WORDS]> {
        self.chunks.get(chunk)?.as_deref()
    }
}

fn place(page: u64) -> (usize, usize, u64) {
    let within = page % CHUNK;
    let chunk = usize::try_from(page / CHUNK).unwrap_or(usize::MAX);
    (chunk, (within / 64) as usize, 1 << (within % 64))
}

fn for_words(mut start: u64, end: u64, mut each: impl FnMut(usize, usize, u64)) {
    while start < end {
        let (chunk, word, bit) = place(start);
        let count = (64 - start % 64).min(end - start);
        let mask = if count == 64 { u64::MAX } else { ((1 << count) - 1) * bit };
        each(chunk, word, mask);
        start += count;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u64, u64),
        Remove(u64, u64),
        Truncate(u64),
        Join(u64, u64),
        Subtract(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let edge = 0..3 * CHUNK;
        let range = (edge.clone(), 0..2 * CHUNK);
        prop::collection::vec(
            prop_oneof![
                range.clone().prop_map(|(at, n)| Step::Insert(at, at + n % 200)),
                range.clone().prop_map(|(at, n)| Step::Insert(at, at + n)),
                range.clone().prop_map(|(at, n)| Step::Remove(at, at + n)),
                edge.prop_map(Step::Truncate),
                range.clone().prop_map(|(at, n)| Step::Join(at, at + n)),
                range.prop_map(|(at, n)| Step::Subtract(at, at + n)),
            ],
            1..12,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_map_is_a_set(steps in steps()) {
            let (mut map, mut model) = (PageMap::default(), BTreeSet::new());
            let single = |start, end| {
                let mut map = PageMap::default();
                map.insert_range(start, end);
                map
            };
            for step in steps {
                match step {
                    Step::Insert(start, end) => {
                        map.insert_range(start, end);
                        model.extend(start..end);
                    }
                    Step::Remove(start, end) => {
                        map.remove_range(start, end);
                        model.retain(|page| !(start..end).contains(page));
                    }
                    Step::Truncate(start) => {
                        map.truncate(start);
                        model.retain(|page| *page < start);
                    }
                    Step::Join(start, end) => {
                        map.join(&single(start, end));
                        model.extend(start..end);
                    }
                    Step::Subtract(start, end) => {
                        map.subtract(&single(start, end));
                        model.retain(|page| !(start..end).contains(page));
                    }
                }
                let found: BTreeSet<u64> = map.runs().flat_map(|(start, end)| start..end).collect();
                prop_assert_eq!(&found, &model);
                prop_assert_eq!(map.count(), model.len() as u64);
                prop_assert_eq!(map.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn what_both_have_and_all_behind_a_page() {
        let mut map = PageMap::default();
        map.insert_range(10, 20);
        let mut other = PageMap::default();
        other.insert_range(0, 12);
        let both: Vec<_> = map.within(&other, 18).runs().collect();
        assert_eq!(both, [(10, 12), (18, 20)]);
    }

    #[test]
    fn bytes_touch_pages() {
        for (start, end, pages) in
            [(0, 0, (0, 0)), (0, 1, (0, 1)), (4095, 4097, (0, 2)), (4096, 8192, (1, 2))]
        {
            assert_eq!(touched(start, end), pages);
        }
    }
}
