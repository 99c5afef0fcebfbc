//! Prefetch: how many unacknowledged deliveries a consumer, or a whole channel, may hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A counted allowance, shared between the channel that sets it and the queues that draw on it.
///
/// Several queues draw on a channel's credit at once, hence atomics; each is correct alone, so no ordering between
/// them is needed: a refused consumer is resumed after every acknowledgement.
#[derive(Debug)]
pub struct Credit {
    /// 0 means without limit.
    limit: AtomicU32,
    used: AtomicU32,
    parent: Option<Arc<Credit>>,
}

impl Credit {
    /// An allowance of `limit` deliveries (0: any number) within `parent`, if there is one.
    pub fn new(limit: u32, parent: Option<Arc<Credit>>) -> Self {
        Self { limit: AtomicU32::new(limit), used: AtomicU32::new(0), parent }
    }

    /// Changes the limit; what is already out stays out.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
    }

    /// The limit; 0 means none.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    /// Deliveries out.
    pub fn used(&self) -> u32 {
        self.used.load(Ordering::Acquire)
    }

    /// Takes one delivery's worth here and in the parent; `false`, and nothing taken, when either is used up.
    pub fn take(&self) -> bool {
        if !self.take_own() {
            return false;
        }
        if self.parent.as_ref().is_some_and(|parent| !parent.take()) {
            self.used.fetch_sub(1, Ordering::AcqRel);
            return false;
        }
        true
    }

    fn take_own(&self) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                let limit = self.limit();
                (limit == 0 || used < limit).then_some(used + 1)
            })
            .is_ok()
    }

    /// Gives back `count` deliveries' worth, here and in the parent.
    pub fn give(&self, count: u32) {
        let before = self.used.fetch_sub(count, Ordering::AcqRel);
        debug_assert!(before >= count, "no more is given back than was taken");
        if let Some(parent) = &self.parent {
            parent.give(count);
        }
    }
}
