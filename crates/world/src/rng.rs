//! Random bytes, as an argument.

use std::sync::atomic::{AtomicU64, Ordering};

/// Where random bytes come from.
pub trait Rng: Send + Sync + 'static {
    /// Overwrites `out` with random bytes.
    fn fill(&self, out: &mut [u8]);
}

/// The kernel's randomness, fit for keys and passwords.
#[derive(Debug, Default, Clone, Copy)]
pub struct RealRng;

impl Rng for RealRng {
    fn fill(&self, out: &mut [u8]) {
        getrandom::fill(out).expect("getrandom(2) does not fail on Linux once the system is up");
    }
}

/// A reproducible stream: `SplitMix64` (Steele, Lea, Flood 2014). Not for secrets.
#[derive(Debug)]
pub struct SimRng {
    state: AtomicU64,
}

impl SimRng {
    /// A stream that is the same for the same `seed`.
    pub fn new(seed: u64) -> SimRng {
        SimRng { state: AtomicU64::new(seed) }
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, or 0 when `bound` is 0.
    pub fn below(&self, bound: u64) -> u64 {
        self.next_u64().checked_rem(bound).unwrap_or(0)
    }
}

impl Rng for SimRng {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_u64().to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_published_stream() {
        // First outputs of SplitMix64 for seed 1234567, as in the reference implementation.
        let rng = SimRng::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn real_randomness_fills_everything() {
        let mut bytes = [0_u8; 64];
        RealRng.fill(&mut bytes);
        assert!(bytes.iter().filter(|byte| **byte != 0).count() > 32);
    }

    #[test]
    fn below_zero_is_zero() {
        assert_eq!(SimRng::new(1).below(0), 0);
    }
}
