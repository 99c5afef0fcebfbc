//! Flux Standard Duration (Flux RFC 23): `500ms`, `10s`, `1.5h`, `inf`.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, time::Duration};

const MINUTE: f64 = 60.0;
const HOUR: f64 = 60.0 * MINUTE;
const DAY: f64 = 24.0 * HOUR;

/// A length of time in seconds, never negative, possibly infinite.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct Fsd(f64);

/// Why a text is not a duration. The message is Flux's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid Flux standard duration")]
pub struct BadFsd;

impl Fsd {
    /// `seconds`, where negative numbers and NaN count as zero.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Self {
        Self(seconds.max(0.0))
    }

    /// In seconds; infinity for `inf`.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.0
    }

    /// As a `Duration`; none when it is infinite or longer than one can be.
    #[must_use]
    pub fn duration(self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.0).ok()
    }

    /// As `Display` does, but with `digits` significant digits from 10 seconds up, 2 as `flux uptime` prints.
    #[must_use]
    pub fn rounded(self, digits: usize) -> String {
        match self.0 {
            infinite if infinite.is_infinite() => "infinity".to_owned(),
            short if short < 1e-3 => "0s".to_owned(),
            seconds if seconds < MINUTE => format!("{}s", significant(seconds, digits)),
            minutes if minutes < HOUR => format!("{}m", significant(minutes / MINUTE, digits)),
            hours if hours < DAY => format!("{}h", significant(hours / HOUR, digits)),
            days => format!("{}d", significant(days / DAY, digits)),
        }
    }
}

/// C's `%.{digits}g` for numbers that are small enough not to need an exponent.
fn significant(number: f64, digits: usize) -> String {
    let magnitude = if number == 0.0 { 0 } else { number.abs().log10().floor() as i32 };
    let places = |magnitude: i32| usize::try_from(digits as i32 - 1 - magnitude).unwrap_or(0);
    let mut text = format!("{number:.*}", places(magnitude));
    // Rounding may add a digit in front: 9.9996 is 10.00 with two places, and wants 10.
    let integers = text.split('.').next().map_or(0, str::len) as i32;
    if integers > magnitude + 1 && magnitude >= 0 {
        text = format!("{number:.*}", places(magnitude + 1));
    }
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text
}

impl fmt::Display for Fsd {
    /// As Flux's tools print a duration: milliseconds below ten seconds, else four significant digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if (1e-3..10.0).contains(&self.0) {
            f.pad(&format!("{:.3}s", self.0))
        } else {
            f.pad(&self.rounded(4))
        }
    }
}

impl FromStr for Fsd {
    type Err = BadFsd;

    fn from_str(text: &str) -> Result<Self, BadFsd> {
        if matches!(text.to_ascii_lowercase().as_str(), "inf" | "infinity") {
            return Ok(Self(f64::INFINITY));
        }
        let digits = text.bytes().take_while(|&byte| byte.is_ascii_digit() || byte == b'.').count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "" | "s" => 1.0,
            "ms" => 1e-3,
            "m" => MINUTE,
            "h" => HOUR,
            "d" => DAY,
            _ => return Err(BadFsd),
        };
        let seconds = number.parse::<f64>().map_err(|_| BadFsd)? * scale;
        if seconds.is_finite() { Ok(Self(seconds)) } else { Err(BadFsd) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads() {
        for (text, seconds) in [
            ("0", 0.0),
            ("10", 10.0),
            ("1s", 1.0),
            ("0.5m", 30.0),
            ("500ms", 0.5),
            ("1.50h", 5400.0),
            ("2d", 172_800.0),
            ("60.0s", 60.0),
        ] {
            assert_eq!(text.parse::<Fsd>().map(Fsd::seconds), Ok(seconds), "{text}");
        }
        assert_eq!("inf".parse::<Fsd>().unwrap().duration(), None);
        for text in ["", "bogus", "-1", "1x", "s", "1.2.3", "1 s", "nan", "1e400"] {
            assert!(text.parse::<Fsd>().is_err(), "{text}");
        }
    }

    #[test]
    fn writes_as_flux_does() {
        for (seconds, text) in [
            (0.0, "0s"),
            (0.0004, "0s"),
            (0.208, "0.208s"),
            (7.776, "7.776s"),
            (9.9999, "10.000s"),
            (10.29, "10.29s"),
            (60.0, "1m"),
            (59.75 * 60.0, "59.75m"),
            (3600.0, "1h"),
            (90_000.0, "1.042d"),
            (99.999_99 * 86400.0, "100d"),
            (1234.6 * 86400.0, "1235d"),
        ] {
            assert_eq!(Fsd(seconds).to_string(), text);
        }
        assert_eq!(Fsd(209.18).rounded(2), "3.5m");
        assert_eq!(Fsd(10.2).rounded(2), "10s");
        assert_eq!(Fsd(2.5).rounded(2), "2.5s");
    }

    proptest! {
        #[test]
        fn written_is_read_back_within_a_thousandth(seconds in 0.001f64..1e7) {
            let read: Fsd = Fsd(seconds).to_string().parse().unwrap();
            prop_assert!((read.seconds() - seconds).abs() <= seconds * 1e-3 + 6e-4);
        }
    }
}
