//! Which messages of a log are not settled yet: one bit for each.

use std::collections::BTreeMap;

/// Offsets per stretch, as a power of two.
const STRETCH_BITS: u32 = 10;
const WORDS: usize = 1 << (STRETCH_BITS - 6);

/// Sets of live offsets. A stretch that is not there has none.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    stretches: BTreeMap<i64, [u64; WORDS]>,
}

/// Word and bit of an offset within its stretch.
fn place(offset: i64) -> (usize, u64) {
    let within = (offset & ((1 << STRETCH_BITS) - 1)) as usize;
    (within / 64, 1 << (within % 64))
}

impl Live {
    pub(super) fn add(&mut self, base: i64, count: usize) {
        let end = base + count as i64;
        let mut at = base;
        while at < end {
            let stretch = at >> STRETCH_BITS;
            let next = end.min((stretch + 1) << STRETCH_BITS);
            let words = self.stretches.entry(stretch).or_insert([0; WORDS]);
            for offset in at..next {
                let (word, bit) = place(offset);
                words[word] |= bit;
            }
            at = next;
        }
    }

    /// Settles offsets; runs within one stretch are looked up together.
    pub(super) fn remove(&mut self, offsets: &[i64]) {
        for run in offsets.chunk_by(|a, b| a >> STRETCH_BITS == b >> STRETCH_BITS) {
            let stretch = run[0] >> STRETCH_BITS;
            let Some(words) = self.stretches.get_mut(&stretch) else { continue };
            for &offset in run {
                let (word, bit) = place(offset);
                words[word] &= !bit;
            }
            if words.iter().all(|&word| word == 0) {
                self.stretches.remove(&stretch);
            }
        }
    }

    /// Whether nothing from `base` to `last` is live.
    pub(super) fn is_dead(&self, base: i64, last: i64) -> bool {
        !self.within(base, last).any(|offset| (base..=last).contains(&offset))
    }

    /// Live offsets in ascending order, in all stretches that `base..=last` touches.
    fn within(&self, base: i64, last: i64) -> impl Iterator<Item = i64> + '_ {
        self.stretches.range(base >> STRETCH_BITS..=last >> STRETCH_BITS).flat_map(|(&stretch, words)| {
            let first = stretch << STRETCH_BITS;
            let bits = words.iter().enumerate().filter(|(_, word)| **word != 0);
            bits.flat_map(move |(at, &word)| {
                (0..64i64)
                    .filter(move |bit| word >> bit & 1 == 1)
                    .map(move |bit| first + at as i64 * 64 + bit)
            })
        })
    }

    /// All live offsets, in ascending order.
    pub(super) fn offsets(&self) -> impl Iterator<Item = i64> + '_ {
        self.within(0, i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_dead_when_all_of_it_is_settled() {
        let mut live = Live::default();
        live.add(1000, 100);
        assert!(!live.is_dead(1024, 2047));
        assert!(live.is_dead(0, 999));
        live.remove(&(1024..1100).collect::<Vec<_>>());
        assert!(live.is_dead(1024, 2047));
        assert!(!live.is_dead(1000, 1099));
        assert_eq!(live.offsets().collect::<Vec<_>>(), (1000..1024).collect::<Vec<_>>());
        live.remove(&(1000..1024).collect::<Vec<_>>());
        assert!(live.is_dead(0, 5000));
        assert!(live.stretches.is_empty());
    }
}
