//! Durations counted in buckets of about 3 % width, so that a percentile of any number of tasks is one small row.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Each octave has this many buckets, as a power of two.
const BUCKET_BITS: u32 = 5;
/// More than a product of two numbers is rounded by, relative to it.
const ROUNDING: f64 = 4.0 * f64::EPSILON;

/// Counts by bucket. At most 1,920 buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    buckets: BTreeMap<u16, u64>,
    count: u64,
}

fn bucket(micros: u64) -> u16 {
    let octave = (micros | (1 << BUCKET_BITS)).ilog2();
    let shift = octave - BUCKET_BITS;
    ((shift << BUCKET_BITS) + (micros >> shift) as u32) as u16
}

/// The smallest value of a bucket, and how many values it holds.
fn range(bucket: u16) -> (u64, u64) {
    let shift = (bucket >> BUCKET_BITS).saturating_sub(1);
    let mantissa = u64::from(bucket) - (u64::from(shift) << BUCKET_BITS);
    (mantissa << shift, 1 << shift)
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        *self.buckets.entry(bucket(micros)).or_default() += 1;
        self.count += 1;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The duration that `fraction` (0 to 1) of all do not exceed, to about 3 %; `None` when none was counted.
    pub fn quantile(&self, fraction: f64) -> Option<Duration> {
        let share = self.count as f64 * fraction.clamp(0.0, 1.0);
        // A product that is a whole number may come out a little above it: 25 * 0.56 does.
        let rank = ((share - share * ROUNDING).ceil() as u64).max(1);
        let mut below = 0;
        let found = self.buckets.iter().find(|(_, count)| {
            below += **count;
            below >= rank
        });
        found.map(|(bucket, _)| {
            let (start, width) = range(*bucket);
            Duration::from_micros(start + width / 2)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(micros in prop_oneof![0u64..200, any::<u64>()]) {
            let (start, width) = range(bucket(micros));
            prop_assert!(start <= micros && micros - start < width, "{start} {width}");
            prop_assert!(width == 1 || width as f64 / start as f64 <= 1.0 / 32.0 + 1e-9);
        }

        #[test]
        fn quantiles_are_close_to_those_of_the_sorted_values(mut values in prop::collection::vec(0u64..10_000_000, 1..200), percent in 0u32..=100) {
            let mut histogram = Histogram::default();
            for micros in &values {
                histogram.add(Duration::from_micros(*micros));
            }
            values.sort_unstable();
            let rank = ((values.len() as f64 * f64::from(percent) / 100.0).ceil() as usize).max(1);
            let exact = values[rank - 1] as f64;
            let found = histogram.quantile(f64::from(percent) / 100.0).unwrap().as_micros() as f64;
            prop_assert!((found - exact).abs() <= exact * 0.032 + 1.0, "{found} for {exact}");
        }
    }

    #[test]
    fn a_share_that_is_a_whole_number_is_not_rounded_up() {
        let mut histogram = Histogram::default();
        (1..=25).for_each(|micros| histogram.add(Duration::from_micros(micros)));
        assert_eq!(histogram.quantile(0.56), Some(Duration::from_micros(14)));
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
