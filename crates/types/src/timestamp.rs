//! A moment, as microseconds since the epoch.

use serde::{Deserialize, Serialize};
use std::{
    ops::{Add, Sub},
    time::Duration,
};

const MICROS_PER_MILLI: i64 = 1_000;
const MICROS_PER_SECOND: f64 = 1e6;

/// Microseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The moment `millis` milliseconds after the epoch; saturates.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(MICROS_PER_MILLI))
    }

    /// The moment `seconds` after the epoch, rounded to the microsecond; saturates, and NaN is the epoch.
    #[must_use]
    pub fn from_seconds_f64(seconds: f64) -> Self {
        Self((seconds * MICROS_PER_SECOND).round() as i64)
    }

    /// Whole milliseconds since the epoch, rounded down.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(MICROS_PER_MILLI)
    }

    /// Seconds since the epoch.
    #[must_use]
    pub fn seconds_f64(self) -> f64 {
        self.0 as f64 / MICROS_PER_SECOND
    }

    /// How long after `earlier` this is; zero when it is not after it (wall clocks may step back).
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    /// Saturates.
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(later.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    /// Saturates.
    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(earlier.as_micros()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn millis_round_down_also_before_the_epoch() {
        assert_eq!(Timestamp(1_999).millis(), 1);
        assert_eq!(Timestamp(-1).millis(), -1);
        assert_eq!(Timestamp::from_millis(7), Timestamp(7_000));
        assert_eq!(Timestamp::from_millis(i64::MAX), Timestamp(i64::MAX));
    }

    #[test]
    fn seconds_keep_microseconds() {
        let at = Timestamp(1_795_373_242_128_681);
        assert_eq!(Timestamp::from_seconds_f64(at.seconds_f64()), at);
        assert_eq!(Timestamp::from_seconds_f64(f64::NAN), Timestamp::EPOCH);
    }

    #[test]
    fn since_is_zero_when_the_clock_stepped_back() {
        assert_eq!(Timestamp(5).since(Timestamp(9)), Duration::ZERO);
        assert_eq!(Timestamp(9).since(Timestamp(5)), Duration::from_micros(4));
        assert_eq!(Timestamp(5) + Duration::from_micros(4), Timestamp(9));
        assert_eq!(Timestamp(9) - Duration::from_micros(4), Timestamp(5));
    }
}
