//! Choices that a seed repeats.

use std::time::{SystemTime, UNIX_EPOCH};

/// xorshift64*: enough for choosing whom to kill and when.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// By `seed`; 0 counts as 1.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }
}

/// The seed in `variable`, or a fresh one.
pub fn seed_from(variable: &str) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} must be a number, not {text}")),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |now| u64::from(now.subsec_nanos()) ^ now.as_secs()),
    }
}
