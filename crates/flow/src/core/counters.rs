//! Counts at every hop of a flow.

use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters that tasks share. Each only grows while the process lives.
#[derive(Debug, Default)]
pub struct Counters {
    seen: AtomicU64,
    matched: AtomicU64,
    delivered: AtomicU64,
    dead: AtomicU64,
    retries: AtomicU64,
}

/// The counts of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Events that came in.
    pub seen: u64,
    /// Events that the filter took.
    pub matched: u64,
    /// Events that the sink has stored.
    pub delivered: u64,
    /// Events that went to the dead-letter topic.
    pub dead: u64,
    /// Times that a sink was tried again.
    pub retries: u64,
}

impl Counters {
    /// Counts a batch that was stored.
    pub fn stored(&self, seen: u64, matched: u64, delivered: u64, dead: u64) {
        self.seen.fetch_add(seen, Relaxed);
        self.matched.fetch_add(matched, Relaxed);
        self.delivered.fetch_add(delivered, Relaxed);
        self.dead.fetch_add(dead, Relaxed);
    }

    /// Counts an attempt that has to be repeated.
    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        Counts {
            seen: self.seen.load(Relaxed),
            matched: self.matched.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            dead: self.dead.load(Relaxed),
            retries: self.retries.load(Relaxed),
        }
    }
}
