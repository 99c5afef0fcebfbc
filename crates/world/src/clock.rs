//! Time, as an argument.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kiln_types::Timestamp;

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The calendar time. It may jump, also backwards, when somebody sets the clock.
    fn now(&self) -> Timestamp;

    /// Time since some fixed moment of this run; never goes backwards.
    fn monotonic(&self) -> Duration;
}

/// The machine's own clock.
#[derive(Debug)]
pub struct RealClock {
    started: Instant,
}

impl RealClock {
    /// A clock whose [`Clock::monotonic`] starts at zero now.
    pub fn new() -> RealClock {
        RealClock { started: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        RealClock::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct SimClock {
    now_us: AtomicI64,
    monotonic: Mutex<Duration>,
}

impl SimClock {
    /// A clock that stands at `now`.
    pub fn new(now: Timestamp) -> SimClock {
        SimClock { now_us: AtomicI64::new(now.0), monotonic: Mutex::new(Duration::ZERO) }
    }

    /// Sets the calendar time, as an administrator would; the monotonic time stays.
    pub fn set(&self, now: Timestamp) {
        self.now_us.store(now.0, Ordering::SeqCst);
    }

    /// Lets `by` pass on both clocks.
    pub fn advance(&self, by: Duration) {
        let by_us = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.now_us.fetch_add(by_us, Ordering::SeqCst);
        *self.monotonic.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += by;
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now_us.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        *self.monotonic.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_the_calendar_leaves_the_monotonic_clock_alone() {
        let clock = SimClock::new(Timestamp(1_000));
        clock.advance(Duration::from_micros(5));
        clock.set(Timestamp(10));
        assert_eq!(clock.now(), Timestamp(10));
        assert_eq!(clock.monotonic(), Duration::from_micros(5));
    }

    #[test]
    fn the_real_clock_is_past_the_year_2020() {
        let clock = RealClock::new();
        assert!(clock.now() > Timestamp(1_577_836_800_000_000));
        let before = clock.monotonic();
        assert!(clock.monotonic() >= before);
    }
}
