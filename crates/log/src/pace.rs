//! When the next round begins.
//!
//! A round costs the disk about the same whether it serves one waiter or a thousand. Whoever was served by a round
//! usually appends and waits again at once, so the flusher gives those who are just being woken a moment to come
//! back, instead of leaving with the first of them and letting the rest wait for two syncs.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// While gathering, a pause this long without anybody new ends it.
pub(crate) const QUIET: Duration = Duration::from_micros(50);

/// Gathering takes at most this part of the time that the last round took. What it gathers is served by one sync;
/// beyond that it is faster to let the next sync run while the rest append. Measured: docs/benchmarks/log.md.
const GATHER_PART: u32 = 6;

/// How many have asked for a flush since the last round began.
pub(crate) struct Asks {
    count: AtomicUsize,
    /// The flusher sleeps until so many have asked.
    wanted: AtomicUsize,
    /// Somebody is already waking the flusher.
    waking: AtomicBool,
}

impl Asks {
    pub(crate) fn new() -> Asks {
        Asks { count: AtomicUsize::new(0), wanted: AtomicUsize::new(1), waking: AtomicBool::new(false) }
    }

    /// Counts one in; true when the caller is to wake the flusher.
    pub(crate) fn add(&self) -> bool {
        let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        count >= self.wanted.load(Ordering::SeqCst) && !self.waking.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Before the flusher sleeps: from now on it is woken once `wanted` have asked. Returns whether they have.
    pub(crate) fn arm(&self, wanted: usize) -> bool {
        self.wanted.store(wanted, Ordering::SeqCst);
        self.waking.store(false, Ordering::SeqCst);
        self.count() >= wanted
    }

    /// A round begins, for all who have asked.
    pub(crate) fn reset(&self) {
        self.count.store(0, Ordering::SeqCst);
    }
}

/// What the last round tells about the next.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Who had asked when the round ended, and who was woken by it.
    expected: usize,
    ended: Duration,
    took: Duration,
}

impl Pace {
    /// A round that ended at `now` took `took`; `asked` had asked for the next one, `woken` were woken.
    pub(crate) fn round_ended(&mut self, now: Duration, took: Duration, asked: usize, woken: usize) {
        *self = Pace { expected: asked + woken, ended: now, took };
    }

    /// For how many to wait, and until when at the latest. One, long after the last round: then nobody who asks is
    /// held up.
    pub(crate) fn gather(&self, now: Duration) -> (usize, Duration) {
        let deadline = self.ended + self.took / GATHER_PART;
        if now < deadline { (self.expected.max(1), deadline) } else { (1, deadline) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_of_those_who_ask_wakes_the_flusher() {
        let asks = Asks::new();
        assert!(!asks.arm(2));
        assert_eq!([asks.add(), asks.add(), asks.add()], [false, true, false]);
        asks.reset();
        assert!(!asks.arm(1));
        assert!(asks.add());
        assert!(asks.arm(1), "who asked before the flusher sleeps is seen");
    }

    #[test]
    fn waits_for_those_just_served_but_only_for_a_part_of_a_round() {
        let ms = Duration::from_millis;
        let mut pace = Pace::default();
        pace.round_ended(ms(100), ms(12), 3, 5);
        assert_eq!(pace.gather(ms(101)), (8, ms(102)));
        assert_eq!(pace.gather(ms(102)).0, 1);
    }
}
