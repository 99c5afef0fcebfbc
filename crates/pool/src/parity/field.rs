//! The field GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1 (0x11d), in which 2 generates all that is not 0.

/// Bytes that are computed with at once.
pub(super) const WORD_BYTES: usize = 8;
/// What the polynomial leaves of x^8.
const REDUCTION: u8 = 0x1d;
/// Powers of 2 before they begin again.
const ORDER: usize = 255;

const EXP: [u8; ORDER] = exp();
const LOG: [u8; 256] = log();

const fn exp() -> [u8; ORDER] {
    let mut table = [0; ORDER];
    let mut value = 1_u8;
    let mut exponent = 0;
    while exponent < ORDER {
        table[exponent] = value;
        value = if value & 0x80 == 0 { value << 1 } else { (value << 1) ^ REDUCTION };
        exponent += 1;
    }
    table
}

/// Of 0 it has 0, which means nothing.
const fn log() -> [u8; 256] {
    let mut table = [0; 256];
    let mut exponent = 0;
    while exponent < ORDER {
        table[EXP[exponent] as usize] = exponent as u8;
        exponent += 1;
    }
    table
}

/// A power of 2.
pub(super) fn power(exponent: usize) -> u8 {
    EXP[exponent % ORDER]
}

pub(super) fn product(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    power(usize::from(LOG[usize::from(a)]) + usize::from(LOG[usize::from(b)]))
}

/// **Must hold:** `value` is not 0.
pub(super) fn inverse(value: u8) -> u8 {
    assert_ne!(value, 0, "0 has no inverse");
    power(ORDER - usize::from(LOG[usize::from(value)]))
}

/// Twice each of eight elements at once: those with the highest bit set are reduced.
pub(super) const fn double_word(word: u64) -> u64 {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let high = word & HIGH;
    // 0xff in each byte whose highest bit was set.
    let reduced = (high << 1).wrapping_sub(high >> 7);
    ((word << 1) & !(HIGH >> 7)) ^ (reduced & (REDUCTION as u64 * (HIGH >> 7)))
}

pub(super) fn words(bytes: &[u8]) -> impl Iterator<Item = &[u8; WORD_BYTES]> {
    bytes.as_chunks().0.iter()
}

pub(super) fn words_mut(bytes: &mut [u8]) -> impl Iterator<Item = &mut [u8; WORD_BYTES]> {
    bytes.as_chunks_mut().0.iter_mut()
}

/// Multiplies by a constant.
pub(super) struct Times([u8; 256]);

impl Times {
    pub(super) fn new(factor: u8) -> Times {
        let mut table = [0; 256];
        for (value, cell) in (0..=u8::MAX).zip(&mut table) {
            *cell = product(value, factor);
        }
        Times(table)
    }

    /// `into += factor * from`; what `from` has beyond `into` is left out.
    pub(super) fn add_to(&self, into: &mut [u8], from: &[u8]) {
        for (into, from) in into.iter_mut().zip(from) {
            *into ^= self.0[usize::from(*from)];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Multiplication as polynomials are multiplied, bit by bit.
    fn slow_product(a: u8, b: u8) -> u8 {
        let mut sum = 0;
        let mut shifted = a;
        for bit in 0..8 {
            if b & (1 << bit) != 0 {
                sum ^= shifted;
            }
            shifted = if shifted & 0x80 == 0 { shifted << 1 } else { (shifted << 1) ^ REDUCTION };
        }
        sum
    }

    #[test]
    fn products_are_those_of_polynomials() {
        for a in 0..=u8::MAX {
            for b in 0..=u8::MAX {
                assert_eq!(product(a, b), slow_product(a, b), "{a} * {b}");
            }
        }
    }

    #[test]
    fn every_element_but_0_is_a_power_of_2_and_has_an_inverse() {
        let mut seen: Vec<u8> = (0..ORDER).map(power).collect();
        seen.sort_unstable();
        assert_eq!(seen, (1..=u8::MAX).collect::<Vec<_>>());
        for value in 1..=u8::MAX {
            assert_eq!(product(value, inverse(value)), 1);
        }
    }

    #[test]
    fn words_are_doubled_byte_by_byte() {
        for value in 0..=u8::MAX {
            let bytes = [value, 0, 0xff, value ^ 0x55, 1, 0x80, !value, 0x7f];
            let doubled = double_word(u64::from_ne_bytes(bytes)).to_ne_bytes();
            assert_eq!(doubled, bytes.map(|byte| product(byte, 2)));
        }
    }
}
