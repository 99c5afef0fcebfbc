//! Sets of small numbers, written as `0-3,7` (Flux RFC 22).

use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive, str::FromStr};

/// A set of numbers, kept as ranges; memory goes by the number of gaps and not of members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct IdSet {
    /// Sorted, disjoint, and never adjacent: `a.1 + 1 < b.0` for neighbours `a`, `b`.
    ranges: Vec<(u32, u32)>,
}

/// Why a text is not an idset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid idset '{0}', expected numbers and ranges like 0-3,7")]
pub struct BadIdSet(String);

impl IdSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: Vec::new() }
    }

    /// All numbers of `range`.
    #[must_use]
    pub fn range(range: RangeInclusive<u32>) -> Self {
        if range.is_empty() { Self::new() } else { Self { ranges: vec![range.into_inner()] } }
    }

    /// How many numbers are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|&(low, high)| u64::from(high - low) + 1).sum()
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether `id` is in the set.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        let at = self.ranges.partition_point(|&(_, high)| high < id);
        self.ranges.get(at).is_some_and(|&(low, _)| low <= id)
    }

    /// The smallest number.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.ranges.first().map(|&(low, _)| low)
    }

    /// The greatest number.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.ranges.last().map(|&(_, high)| high)
    }

    /// The numbers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.ranges.iter().flat_map(|&(low, high)| low..=high)
    }

    /// The runs of numbers that follow on each other, lowest first.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u32>> + '_ {
        self.ranges.iter().map(|&(low, high)| low..=high)
    }

    /// Puts `id` in; tells whether it is new.
    pub fn insert(&mut self, id: u32) -> bool {
        let new = !self.contains(id);
        if new {
            self.insert_range(id, id);
        }
        new
    }

    /// Takes `id` out; tells whether it was there.
    pub fn remove(&mut self, id: u32) -> bool {
        let had = self.contains(id);
        if had {
            *self = self.difference(&Self::range(id..=id));
        }
        had
    }

    /// What is in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all = self.clone();
        for &(low, high) in &other.ranges {
            all.insert_range(low, high);
        }
        all
    }

    /// What is here and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut ranges = Vec::with_capacity(self.ranges.len());
        for &(low, high) in &self.ranges {
            subtract((low, high), &other.ranges, &mut ranges);
        }
        Self { ranges }
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.difference(&self.difference(other))
    }

    /// The first `count` numbers.
    #[must_use]
    pub fn take(&self, count: u64) -> Self {
        let mut ranges = Vec::new();
        let mut left = count;
        for &(low, high) in &self.ranges {
            if left == 0 {
                break;
            }
            let here = left.min(u64::from(high - low) + 1);
            ranges.push((low, low + (here - 1) as u32));
            left -= here;
        }
        Self { ranges }
    }

    /// With brackets when there is more than one number: `3`, `[0-3]`.
    #[must_use]
    pub fn bracketed(&self) -> String {
        if self.len() > 1 { format!("[{self}]") } else { self.to_string() }
    }

    fn insert_range(&mut self, low: u32, high: u32) {
        let from = self.ranges.partition_point(|&(_, end)| end < low.saturating_sub(1));
        let to = self.ranges.partition_point(|&(start, _)| start <= high.saturating_add(1));
        let joined = self.ranges[from..to]
            .iter()
            .fold((low, high), |(low, high), &(start, end)| (low.min(start), high.max(end)));
        self.ranges.splice(from..to, [joined]);
    }
}

/// Appends to `out` the parts of `range` that none of the sorted `holes` covers.
fn subtract(range: (u32, u32), holes: &[(u32, u32)], out: &mut Vec<(u32, u32)>) {
    let (mut low, high) = range;
    for &(start, end) in &holes[holes.partition_point(|&(_, end)| end < low)..] {
        if start > high {
            break;
        }
        if start > low {
            out.push((low, start - 1));
        }
        if end >= high {
            return;
        }
        low = end + 1;
    }
    out.push((low, high));
}

impl FromIterator<u32> for IdSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        let mut set = Self::new();
        for id in ids {
            set.insert_range(id, id);
        }
        set
    }
}

impl Extend<u32> for IdSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, ids: I) {
        for id in ids {
            self.insert_range(id, id);
        }
    }
}

impl fmt::Display for IdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, &(low, high)) in self.ranges.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            if low == high { write!(f, "{low}")? } else { write!(f, "{low}-{high}")? }
        }
        Ok(())
    }
}

impl FromStr for IdSet {
    type Err = BadIdSet;

    /// Reads `0-3,7`, `[0-3,7]`, and the empty text as the empty set. Ranges must ascend (RFC 22).
    fn from_str(text: &str) -> Result<Self, BadIdSet> {
        let bad = || BadIdSet(text.to_owned());
        let body = match text.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(bad)?,
            None => text,
        };
        let mut set = Self::new();
        if body.is_empty() {
            return Ok(set);
        }
        for part in body.split(',') {
            let (low, high) = read_range(part).ok_or_else(bad)?;
            set.insert_range(low, high);
        }
        Ok(set)
    }
}

fn read_range(part: &str) -> Option<(u32, u32)> {
    let (low, high) = part.split_once('-').unwrap_or((part, part));
    let (low, high) = (read_number(low)?, read_number(high)?);
    (low <= high).then_some((low, high))
}

fn read_number(digits: &str) -> Option<u32> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

impl From<IdSet> for String {
    fn from(set: IdSet) -> Self {
        set.to_string()
    }
}

impl TryFrom<String> for IdSet {
    type Error = BadIdSet;

    fn try_from(text: String) -> Result<Self, BadIdSet> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn reads_and_writes() {
        for (text, written) in [
            ("", ""),
            ("[]", ""),
            ("3", "3"),
            ("[0-3]", "0-3"),
            ("0,1,2,5", "0-2,5"),
            ("5,0-2,3", "0-3,5"),
            ("0-4294967295", "0-4294967295"),
        ] {
            assert_eq!(text.parse::<IdSet>().unwrap().to_string(), written);
        }
        assert_eq!("0-3".parse::<IdSet>().unwrap().bracketed(), "[0-3]");
        assert_eq!("3".parse::<IdSet>().unwrap().bracketed(), "3");
    }

    #[test]
    fn refuses_garbage() {
        for text in ["a", "1-", "-1", "3-1", "1,,2", "[1", "1]", "+1", "4294967296", "1-2-3"] {
            assert!(text.parse::<IdSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_huge_range_costs_nothing() {
        let all: IdSet = "0-4294967295".parse().unwrap();
        assert_eq!(all.len(), 1 << 32);
        assert!(all.contains(u32::MAX));
        assert_eq!(all.difference(&"7".parse().unwrap()).to_string(), "0-6,8-4294967295");
    }

    fn small() -> impl Strategy<Value = BTreeSet<u32>> {
        proptest::collection::btree_set(0u32..40, 0..20)
    }

    fn set(ids: &BTreeSet<u32>) -> IdSet {
        ids.iter().copied().collect()
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(a in small(), b in small(), id in 0u32..40, count in 0u64..50) {
            let (x, y) = (set(&a), set(&b));
            prop_assert_eq!(x.union(&y), set(&(&a | &b)));
            prop_assert_eq!(x.difference(&y), set(&(&a - &b)));
            prop_assert_eq!(x.intersection(&y), set(&(&a & &b)));
            prop_assert_eq!(x.take(count), a.iter().copied().take(count as usize).collect());
            prop_assert_eq!(x.contains(id), a.contains(&id));
            prop_assert_eq!(x.len(), a.len() as u64);
            prop_assert!(x.iter().eq(a.iter().copied()));
            let mut without = x.clone();
            prop_assert_eq!(without.remove(id), a.contains(&id));
            prop_assert!(!without.contains(id));
            prop_assert_eq!(x.to_string().parse::<IdSet>(), Ok(x));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[-0-9,\\[\\]a]{0,20}") {
            drop(text.parse::<IdSet>());
        }
    }
}
