//! Deliveries of one channel that wait for an acknowledgement.

use std::collections::VecDeque;

/// An acknowledgement of a delivery tag that is not outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown delivery tag {0}")]
pub struct UnknownTag(pub u64);

/// Delivery tags and what was delivered under them.
///
/// Invariant: tags ascend, and none is above `last`.
#[derive(Debug)]
pub struct Unacked<D> {
    last: u64,
    entries: VecDeque<(u64, D)>,
}

impl<D> Default for Unacked<D> {
    fn default() -> Self {
        Self { last: 0, entries: VecDeque::new() }
    }
}

impl<D> Unacked<D> {
    /// The next delivery tag, for a delivery that needs no acknowledgement.
    pub fn skip(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Remembers a delivery and gives it a tag.
    pub fn push(&mut self, delivery: D) -> u64 {
        let tag = self.skip();
        self.entries.push_back((tag, delivery));
        tag
    }

    /// How many are outstanding.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is outstanding.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes the deliveries that an acknowledgement names, oldest first. With `multiple`, tag 0 is all of them.
    pub fn take(&mut self, tag: u64, multiple: bool) -> Result<Vec<D>, UnknownTag> {
        if !multiple {
            return self.take_one(tag).map(|delivery| vec![delivery]);
        }
        if tag == 0 {
            return Ok(self.take_all());
        }
        let count = self.entries.partition_point(|(other, _)| *other <= tag);
        if tag > self.last || count == 0 {
            return Err(UnknownTag(tag));
        }
        Ok(self.entries.drain(..count).map(|(_, delivery)| delivery).collect())
    }

    /// Takes one delivery.
    pub fn take_one(&mut self, tag: u64) -> Result<D, UnknownTag> {
        // Most acknowledge in order of delivery.
        if self.entries.front().is_some_and(|(first, _)| *first == tag) {
            return self.entries.pop_front().map(|(_, delivery)| delivery).ok_or(UnknownTag(tag));
        }
        let at = self.entries.binary_search_by_key(&tag, |(other, _)| *other).map_err(|_| UnknownTag(tag))?;
        self.entries.remove(at).map(|(_, delivery)| delivery).ok_or(UnknownTag(tag))
    }

    /// Takes everything, oldest first.
    pub fn take_all(&mut self) -> Vec<D> {
        std::mem::take(&mut self.entries).into_iter().map(|(_, delivery)| delivery).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Unacked<char> {
        let mut unacked = Unacked::default();
        for delivery in ['a', 'b', 'c'] {
            unacked.push(delivery);
        }
        unacked
    }

    #[test]
    fn one_and_many() {
        let mut unacked = three();
        assert_eq!(unacked.take(2, false), Ok(vec!['b']));
        assert_eq!(unacked.take(2, false), Err(UnknownTag(2)));
        assert_eq!(unacked.take(3, true), Ok(vec!['a', 'c']));
    }

    #[test]
    fn what_the_reference_calls_unknown() {
        let mut unacked = three();
        assert_eq!(unacked.take(0, false), Err(UnknownTag(0)));
        assert_eq!(unacked.take(4, true), Err(UnknownTag(4)));
        assert_eq!(unacked.take(0, true).map(|all| all.len()), Ok(3));
        assert_eq!(unacked.take(0, true), Ok(vec![]));
    }
}
