//! Which answers may be kept.

use std::collections::{HashMap, VecDeque};

use crate::client::session::Stamp;
use crate::core::Ino;

/// Inodes whose last callback, or last release, is remembered. When one is forgotten, everything older than what it was
/// counts as stale, for every inode: that costs a cache entry now and then, never a stale one.
const REMEMBERED_MAX: usize = 4096;

/// The last number of each inode, of the inodes with the latest.
#[derive(Debug, Default)]
struct Recent {
    last: HashMap<Ino, u64>,
    /// **Invariant:** holds each key of `last` at least once.
    order: VecDeque<(Ino, u64)>,
    /// The highest number that was forgotten.
    floor: u64,
}

impl Recent {
    fn note(&mut self, ino: Ino, number: u64) {
        let last = self.last.entry(ino).or_default();
        *last = (*last).max(number);
        self.order.push_back((ino, number));
        while self.order.len() > REMEMBERED_MAX {
            let Some((ino, number)) = self.order.pop_front() else { break };
            self.floor = self.floor.max(number);
            if self.last.get(&ino).is_some_and(|last| *last <= number) {
                self.last.remove(&ino);
            }
        }
    }

    fn of(&self, ino: Ino) -> u64 {
        self.last.get(&ino).copied().unwrap_or_default().max(self.floor)
    }
}

/// See [`Freshness::is_fresh`].
#[derive(Debug, Default)]
pub(super) struct Freshness {
    /// By the numbers of callbacks.
    revoked: Recent,
    /// By tickets.
    released: Recent,
    /// Inodes with a release on its way, each with how many.
    releasing: HashMap<Ino, u32>,
}

impl Freshness {
    pub(super) fn revoked(&mut self, ino: Ino, seq: u64) {
        self.revoked.note(ino, seq);
    }

    /// The link was lost. Answers of before are stale anyway, and an MDS that was started again may count anew.
    pub(super) fn forget_revoked(&mut self) {
        self.revoked = Recent::default();
    }

    pub(super) fn releasing(&mut self, ino: Ino) {
        *self.releasing.entry(ino).or_default() += 1;
    }

    pub(super) fn is_releasing(&self, ino: Ino) -> bool {
        self.releasing.contains_key(&ino)
    }

    pub(super) fn released(&mut self, ino: Ino, ticket: u64) {
        if let Some(count) = self.releasing.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.releasing.remove(&ino);
            }
        }
        self.released.note(ino, ticket);
    }

    /// Whether an answer may be kept: it is of the link's epoch of now, no callback for the inode came after it was made, and
    /// the mount has not given the inode's leases back since it was asked for.
    pub(super) fn is_fresh(&self, ino: Ino, stamp: Stamp, epoch: u64) -> bool {
        stamp.epoch == epoch
            && stamp.seq >= self.revoked.of(ino)
            && stamp.ticket >= self.released.of(ino)
            && !self.is_releasing(ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ino = Ino(7);
    const OTHER: Ino = Ino(8);

    fn stamp(seq: u64, ticket: u64) -> Stamp {
        Stamp { seq, epoch: 1, ticket }
    }

    #[test]
    fn an_answer_from_before_a_callback_is_stale() {
        let mut fresh = Freshness::default();
        assert!(fresh.is_fresh(ONE, stamp(5, 1), 1));
        fresh.revoked(ONE, 6);
        assert!(!fresh.is_fresh(ONE, stamp(5, 1), 1));
        assert!(fresh.is_fresh(ONE, stamp(6, 1), 1));
        assert!(fresh.is_fresh(OTHER, stamp(5, 1), 1));
        assert!(!fresh.is_fresh(OTHER, stamp(5, 1), 2), "of an epoch that is over");
    }

    #[test]
    fn an_answer_that_a_release_may_have_overtaken_is_stale() {
        let mut fresh = Freshness::default();
        fresh.releasing(ONE);
        assert!(!fresh.is_fresh(ONE, stamp(1, 100), 1), "the release may come after it");
        fresh.released(ONE, 101);
        assert!(!fresh.is_fresh(ONE, stamp(1, 100), 1), "it was asked for before the release was done");
        assert!(fresh.is_fresh(ONE, stamp(1, 101), 1));
    }

    #[test]
    fn what_is_not_remembered_counts_as_stale() {
        let mut fresh = Freshness::default();
        fresh.revoked(ONE, 3);
        for n in 0..REMEMBERED_MAX as u64 {
            fresh.revoked(Ino(1000 + n), 10 + n);
        }
        assert!(!fresh.is_fresh(ONE, stamp(2, 1), 1));
        assert!(!fresh.is_fresh(OTHER, stamp(2, 1), 1));
        assert!(fresh.is_fresh(OTHER, stamp(3, 1), 1));
    }
}
