//! Sizes in bytes with human units: `64MiB`, `10G`, `512`.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Binary units by power of 1024; the first letter is enough when reading.
const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ByteSize(pub u64);

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid size '{0}', expected a number with an optional unit like 512, 64KiB or 10G")]
pub struct BadByteSize(String);

impl FromStr for ByteSize {
    type Err = BadByteSize;

    /// Units are powers of 1024 (`K`, `KB` and `KiB` are the same), in any case, with an optional blank before.
    fn from_str(text: &str) -> Result<Self, BadByteSize> {
        let bad = || BadByteSize(text.to_owned());
        let digits = text.bytes().take_while(|&byte| byte.is_ascii_digit() || byte == b'.').count();
        let (number, unit) = text.split_at(digits);
        let shift = shift_of(unit.trim_start()).ok_or_else(bad)?;
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(1 << shift).map(Self).ok_or_else(bad);
        }
        let bytes = number.parse::<f64>().map_err(|_| bad())? * (1u64 << shift) as f64;
        if bytes < u64::MAX as f64 { Ok(Self(bytes.round() as u64)) } else { Err(bad()) }
    }
}

fn shift_of(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_lowercase();
    if matches!(unit.as_str(), "" | "b") {
        return Some(0);
    }
    UNITS.iter().zip(1..).find_map(|(name, power)| {
        let name = name.to_ascii_lowercase();
        let known = unit == name || unit == name[..1] || unit == name.replace('i', "");
        known.then_some(power * 10)
    })
}

impl fmt::Display for ByteSize {
    /// Exact sizes get their largest even unit (`64MiB`, `1000B`), so that what is written reads back the same.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let power = (self.0.trailing_zeros() / 10).min(UNITS.len() as u32);
        match power {
            _ if self.0 == 0 => f.pad("0B"),
            0 => f.pad(&format!("{}B", self.0)),
            power => f.pad(&format!("{}{}", self.0 >> (power * 10), UNITS[power as usize - 1])),
        }
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl TryFrom<String> for ByteSize {
    type Error = BadByteSize;

    fn try_from(text: String) -> Result<Self, BadByteSize> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_units_in_every_spelling() {
        for (text, bytes) in [
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65536),
            ("64k", 65536),
            ("1 MB", 1 << 20),
            ("1.5G", 3 << 29),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for text in ["", "x", "-1", "1X", "16EiB", "1.2.3K", "18446744073709551616"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn writes_the_largest_even_unit() {
        for (bytes, text) in
            [(0, "0B"), (1000, "1000B"), (65536, "64KiB"), (64 << 20, "64MiB"), (1536, "1536B")]
        {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn written_and_read_back(bytes: u64) {
            prop_assert_eq!(ByteSize(bytes).to_string().parse(), Ok(ByteSize(bytes)));
        }
    }
}
