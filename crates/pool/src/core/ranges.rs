//! Sets of transaction groups, kept as ranges: a disk that was away has missed a few long stretches.

use std::fmt;

/// A set of numbers of transaction groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First and last of each range. **Invariant:** ascending, none is empty, and no two touch.
    ranges: Vec<(u64, u64)>,
}

impl Ranges {
    /// The ranges, first and last of each, ascending; no two touch.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().copied()
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u64) -> bool {
        let next = self.ranges.partition_point(|(_, last)| *last < number);
        self.ranges.get(next).is_some_and(|(first, _)| *first <= number)
    }

    /// The lowest and the highest number in it.
    pub fn span(&self) -> Option<(u64, u64)> {
        Some((self.ranges.first()?.0, self.ranges.last()?.1))
    }

    /// Puts in `first` to `last`; nothing when `last` is below `first`.
    pub fn insert(&mut self, first: u64, last: u64) {
        if last < first {
            return;
        }
        let from = self.ranges.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.ranges.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        let merged = self.ranges[from..to]
            .iter()
            .fold((first, last), |(low, high), (begin, end)| (low.min(*begin), high.max(*end)));
        self.ranges.splice(from..to, [merged]);
    }

    /// Takes out `first` to `last`.
    pub fn remove(&mut self, first: u64, last: u64) {
        if last < first {
            return;
        }
        let from = self.ranges.partition_point(|(_, end)| *end < first);
        let to = self.ranges.partition_point(|(begin, _)| *begin <= last);
        if from >= to {
            return;
        }
        let (low, high) = (self.ranges[from].0, self.ranges[to - 1].1);
        let before = (low < first).then(|| (low, first - 1));
        let behind = (high > last).then(|| (last + 1, high));
        self.ranges.splice(from..to, before.into_iter().chain(behind));
    }
}

impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            if first == last { write!(f, "{comma}{first}")? } else { write!(f, "{comma}{first}-{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        let mut ranges = Ranges::default();
        ranges.insert(10, 20);
        ranges.insert(30, 30);
        ranges.insert(21, 29);
        assert_eq!(ranges.to_string(), "10-30");
        ranges.remove(15, 15);
        assert_eq!(ranges.to_string(), "10-14,16-30");
        assert_eq!(ranges.span(), Some((10, 30)));
        ranges.insert(5, 4);
        ranges.remove(12, 11);
        assert_eq!(ranges.to_string(), "10-14,16-30", "an empty range changes nothing");
    }

    #[test]
    fn the_ends_of_the_numbers_are_numbers_too() {
        let mut ranges = Ranges::default();
        ranges.insert(u64::MAX - 1, u64::MAX);
        ranges.insert(0, 0);
        assert!(ranges.contains(0) && ranges.contains(u64::MAX) && !ranges.contains(1));
        ranges.remove(u64::MAX, u64::MAX);
        ranges.remove(0, 0);
        assert_eq!(ranges.to_string(), (u64::MAX - 1).to_string());
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in prop::collection::vec((any::<bool>(), 0_u64..60, 0_u64..15), 1..60)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (inserts, first, len) in steps {
                let last = first + len;
                if inserts {
                    ranges.insert(first, last);
                    model.extend(first..=last);
                } else {
                    ranges.remove(first, last);
                    model.retain(|number| !(first..=last).contains(number));
                }
                let listed: Vec<u64> = ranges.iter().flat_map(|(first, last)| first..=last).collect();
                prop_assert!(listed.iter().eq(model.iter()));
                prop_assert!((0..80).all(|number| ranges.contains(number) == model.contains(&number)));
                let pairs: Vec<_> = ranges.iter().collect();
                prop_assert!(pairs.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "no two touch");
            }
        }
    }
}
