//! A position in a log.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of a record in a log, counted from 0.
///
/// Signed because Kafka's protocol keeps negative values for "none" and "earliest".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offset(pub i64);

impl Offset {
    /// The first position of every log.
    pub const ZERO: Self = Self(0);

    /// The position after this one; stays at the highest number there is.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<i64> for Offset {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_counts_up_and_stays_at_the_top() {
        assert_eq!(Offset(41).next(), Offset(42));
        assert_eq!(Offset(i64::MAX).next(), Offset(i64::MAX));
    }
}
