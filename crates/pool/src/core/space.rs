//! Which sectors of a stretch of a vdev are taken.
//!
//! A vdev is divided into stretches of [`SECTORS`], each with a map of one bit a sector, which is written as a whole. What is allocated
//! lies within one stretch.

/// Sectors of a stretch: what fits into a map of one sector beside its head.
pub const SECTORS: u32 = (WORDS * WORD_BITS) as u32;

const WORDS: usize = 504;
const WORD_BITS: usize = u64::BITS as usize;

/// The map of a stretch. A bit that is set is a sector that is taken; sector 0 is the lowest bit of the first word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    words: Box<[u64; WORDS]>,
    /// **Invariant:** as many as bits of `words` that are not set.
    free: u32,
}

/// Sectors were to be freed that are not taken, or that the stretch does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sectors} sectors from {first} on are not taken, and cannot be freed")]
pub struct NotTaken {
    /// The first.
    pub first: u32,
    /// How many.
    pub sectors: u32,
}

impl Map {
    /// A stretch of which only the first `sectors` can be used: the last one of a vdev.
    ///
    /// # Panics
    ///
    /// For more than [`SECTORS`].
    pub fn new(sectors: u32) -> Map {
        assert!(sectors <= SECTORS, "a stretch of {sectors} sectors");
        let mut map = Map { words: Box::new([0; WORDS]), free: SECTORS };
        map.set(sectors, SECTORS - sectors, true);
        map
    }

    /// The map of these bits.
    pub fn from_words(words: Box<[u64; WORDS]>) -> Map {
        let taken: u32 = words.iter().map(|word| word.count_ones()).sum();
        Map { words, free: SECTORS - taken }
    }

    /// Its bits.
    pub fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// Sectors that are free.
    pub fn free_sectors(&self) -> u32 {
        self.free
    }

    /// Takes so many sectors that follow one another, at or behind `from` if there are any, else from the beginning. The first of
    /// them; `None` when there is no such run.
    pub fn allocate(&mut self, sectors: u32, from: u32) -> Option<u32> {
        if sectors == 0 || sectors > self.free {
            return None;
        }
        let first = self.run(sectors, from.min(SECTORS)).or_else(|| self.run(sectors, 0))?;
        self.set(first, sectors, true);
        Some(first)
    }

    /// Gives sectors back.
    pub fn free(&mut self, first: u32, sectors: u32) -> Result<(), NotTaken> {
        let end = first.checked_add(sectors).filter(|end| *end <= SECTORS);
        let taken = end.is_some_and(|end| self.next(first, false) >= end);
        if !taken {
            return Err(NotTaken { first, sectors });
        }
        self.set(first, sectors, false);
        Ok(())
    }

    /// Takes sectors that something is known to lie in; whether they were free.
    pub fn claim(&mut self, first: u32, sectors: u32) -> bool {
        let end = first.checked_add(sectors).filter(|end| *end <= SECTORS);
        let free = end.is_some_and(|end| self.next(first, true) >= end);
        if free {
            self.set(first, sectors, true);
        }
        free
    }

    /// The runs of sectors that are taken, first and length of each.
    pub fn taken(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut at = 0;
        std::iter::from_fn(move || {
            let first = self.next(at, true);
            at = self.next(first, false);
            (first < SECTORS).then(|| (first, at - first))
        })
    }

    /// The first run of so many free sectors at or behind `from`.
    fn run(&self, sectors: u32, from: u32) -> Option<u32> {
        let mut first = self.next(from, false);
        while SECTORS - first >= sectors {
            let end = self.next(first, true);
            if end - first >= sectors {
                return Some(first);
            }
            first = self.next(end, false);
        }
        None
    }

    /// The first sector at or behind `from` that is taken, or free; [`SECTORS`] when there is none.
    fn next(&self, from: u32, taken: bool) -> u32 {
        let mut index = from as usize / WORD_BITS;
        let mut ignored = from as usize % WORD_BITS;
        while index < WORDS {
            let word = if taken { self.words[index] } else { !self.words[index] };
            let found = word & (u64::MAX << ignored);
            if found != 0 {
                return (index * WORD_BITS) as u32 + found.trailing_zeros();
            }
            (index, ignored) = (index + 1, 0);
        }
        SECTORS
    }

    /// **Must hold:** the sectors are of the stretch, and all of them are otherwise now.
    fn set(&mut self, first: u32, sectors: u32, taken: bool) {
        let (mut at, end) = (first as usize, (first + sectors) as usize);
        while at < end {
            let (index, low) = (at / WORD_BITS, at % WORD_BITS);
            let count = (end - at).min(WORD_BITS - low);
            let mask = (u64::MAX >> (WORD_BITS - count)) << low;
            if taken {
                self.words[index] |= mask;
            } else {
                self.words[index] &= !mask;
            }
            at += count;
        }
        self.free = if taken { self.free - sectors } else { self.free + sectors };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_stretch_of_a_vdev_is_shorter() {
        let mut map = Map::new(100);
        assert_eq!(map.free_sectors(), 100);
        assert_eq!(map.taken().collect::<Vec<_>>(), [(100, SECTORS - 100)]);
        assert_eq!(map.allocate(101, 0), None);
        assert_eq!(map.allocate(100, 50), Some(0), "there is no run of a hundred behind 50");
        assert_eq!(map.allocate(1, 0), None);
        assert_eq!(Map::new(0).free_sectors(), 0);
    }

    #[test]
    fn only_what_is_taken_is_freed() {
        let mut map = Map::new(SECTORS);
        assert_eq!(map.allocate(10, 60), Some(60), "over the border of a word");
        assert_eq!(map.free(65, 6), Err(NotTaken { first: 65, sectors: 6 }), "one more than was taken");
        assert_eq!(map.free(u32::MAX, 2), Err(NotTaken { first: u32::MAX, sectors: 2 }));
        assert_eq!(map.free(SECTORS, 1), Err(NotTaken { first: SECTORS, sectors: 1 }));
        assert_eq!(map.free(62, 3), Ok(()));
        assert_eq!(map.taken().collect::<Vec<_>>(), [(60, 2), (65, 5)]);
        assert!(!map.claim(61, 2) && map.claim(62, 3) && !map.claim(SECTORS - 1, 2));
        assert_eq!(map, Map::from_words(Box::new(*map.words())));
    }

    /// A step of the random test: allocate, free or claim; where, and how many.
    type Step = (u8, prop::sample::Index, u32);

    /// Does a step with the map and with a set; whether both agree.
    fn step(map: &mut Map, taken: &mut BTreeSet<u32>, size: u32, (what, at, len): &Step) -> bool {
        let (at, len) = (at.index(size as usize) as u32, *len);
        let is_free = |taken: &BTreeSet<u32>, first: u32| {
            first + len <= size && (first..first + len).all(|sector| !taken.contains(&sector))
        };
        match what {
            0 => {
                let Some(first) = map.allocate(len, at) else {
                    return (0..size).all(|first| !is_free(taken, first));
                };
                let was_free = is_free(taken, first);
                taken.extend(first..first + len);
                was_free
            }
            1 => {
                let all = at + len <= size && (at..at + len).all(|sector| taken.contains(&sector));
                // Behind the end everything is taken for good, and is nobody's to free.
                if at + len <= size && map.free(at, len).is_ok() != all {
                    return false;
                }
                taken.retain(|sector| !all || !(at..at + len).contains(sector));
                true
            }
            _ => {
                let free = is_free(taken, at);
                if free {
                    taken.extend(at..at + len);
                }
                map.claim(at, len) == free
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set_of_sectors(
            size in 1..1000_u32,
            steps in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), 1..200_u32), 1..40),
        ) {
            let mut map = Map::new(size);
            let mut taken: BTreeSet<u32> = BTreeSet::new();
            for next in steps {
                prop_assert!(step(&mut map, &mut taken, size, &next), "{:?}", next);
                prop_assert_eq!(map.free_sectors(), size - taken.len() as u32);
                let listed = map.taken().flat_map(|(first, len)| first..(first + len).min(size));
                prop_assert!(listed.eq(taken.iter().copied()));
            }
        }
    }
}
