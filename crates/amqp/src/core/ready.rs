//! The ready messages of a queue: one list for each priority, each ordered by position.

use std::collections::VecDeque;

use crate::core::Entry;

/// Invariant: every list ascends in `position`; `count` and `bytes` are the sums over all lists.
#[derive(Debug)]
pub(super) struct Ready {
    levels: Vec<VecDeque<Entry>>,
    count: usize,
    bytes: u64,
}

impl Ready {
    /// Lists for priorities 0 to `max_priority`.
    pub(super) fn new(max_priority: u8) -> Self {
        let levels = (0..=max_priority).map(|_| VecDeque::new()).collect();
        Self { levels, count: 0, bytes: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Puts an entry at its position: at the end for a new one, where it was for a requeued one.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.count += 1;
        self.bytes += u64::from(entry.size);
        let list = &mut self.levels[usize::from(entry.priority)];
        if list.back().is_none_or(|last| last.position < entry.position) {
            list.push_back(entry);
        } else {
            let at = list.partition_point(|other| other.position < entry.position);
            list.insert(at, entry);
        }
    }

    fn first_level(&self) -> Option<usize> {
        if self.levels.len() == 1 {
            return (!self.levels[0].is_empty()).then_some(0);
        }
        (0..self.levels.len()).rev().find(|&level| !self.levels[level].is_empty())
    }

    pub(super) fn head(&self) -> Option<&Entry> {
        self.levels[self.first_level()?].front()
    }

    /// The list that the head stands in.
    pub(super) fn head_list(&mut self) -> Option<&mut VecDeque<Entry>> {
        let level = self.first_level()?;
        Some(&mut self.levels[level])
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        let level = self.first_level()?;
        self.pop_level(level)
    }

    fn pop_level(&mut self, level: usize) -> Option<Entry> {
        let entry = self.levels[level].pop_front()?;
        self.count -= 1;
        self.bytes -= u64::from(entry.size);
        Some(entry)
    }

    /// The oldest of the lowest priority: what a full queue drops.
    pub(super) fn pop_least(&mut self) -> Option<Entry> {
        let level = (0..self.levels.len()).find(|&level| !self.levels[level].is_empty())?;
        self.pop_level(level)
    }

    /// Takes expired entries off the heads of all lists.
    pub(super) fn expire(&mut self, now: i64, out: &mut Vec<Entry>) {
        for level in 0..self.levels.len() {
            while self.levels[level].front().is_some_and(|head| head.expires_at <= now) {
                out.extend(self.pop_level(level));
            }
        }
    }

    /// When the next head expires.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        let heads = self.levels.iter().filter_map(VecDeque::front);
        heads.map(|head| head.expires_at).filter(|&at| at != super::NEVER).min()
    }

    pub(super) fn take_all(&mut self) -> Vec<Entry> {
        self.count = 0;
        self.bytes = 0;
        self.levels.iter_mut().rev().flat_map(std::mem::take).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.levels.iter().flatten()
    }
}
