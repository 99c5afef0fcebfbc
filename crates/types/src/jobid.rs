//! Job ids: FLUIDs and their written forms (Flux RFC 19).

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const PREFIX: char = 'ƒ';
const PREFIX_PLAIN: char = 'f';
const KVS_PREFIX: &str = "job.";
const GENERATOR_BITS: u32 = 14;
const SEQUENCE_BITS: u32 = 10;
const SEQUENCE_MAX: u64 = (1 << SEQUENCE_BITS) - 1;
const MILLIS_MAX: u64 = (1 << 40) - 1;

/// A job's id: 40 bits of milliseconds since the instance began, 14 bits of generator, 10 bits of sequence.
///
/// Reads every form of RFC 19 but words and emoji (their word lists are not part of Kiln), and is
/// displayed as `ƒ` with base 58.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobId(u64);

impl JobId {
    /// The id with this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The id as a number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Base 58 with the ASCII prefix `f`, for terminals that are not UTF-8.
    #[must_use]
    pub fn to_f58_plain(self) -> String {
        format!("{PREFIX_PLAIN}{}", self.base58())
    }

    /// `0x1b500000000`.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:#x}", self.0)
    }

    /// `0000.01b5.0000.0000`.
    #[must_use]
    pub fn to_dothex(self) -> String {
        let part = |shift: u32| (self.0 >> shift) & 0xffff;
        format!("{:04x}.{:04x}.{:04x}.{:04x}", part(48), part(32), part(16), part(0))
    }

    /// The job's directory in Flux's key-value store: `job.0000.01b5.0000.0000`.
    #[must_use]
    pub fn to_kvs(self) -> String {
        format!("{KVS_PREFIX}{}", self.to_dothex())
    }

    fn base58(self) -> String {
        let mut digits = Vec::with_capacity(11);
        let mut rest = self.0;
        loop {
            digits.push(BASE58[(rest % 58) as usize]);
            rest /= 58;
            if rest == 0 {
                break;
            }
        }
        digits.iter().rev().map(|&digit| char::from(digit)).collect()
    }
}

impl From<u64> for JobId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{PREFIX}{}", self.base58()))
    }
}

/// Why a text is not a job id. The messages are Flux's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadJobId {
    /// Not one of the forms of RFC 19.
    #[error("{0}: malformed input")]
    Malformed(String),
    /// The mnemonic and emoji forms, which Kiln does not read.
    #[error("{0}: job ids as words or emoji are not supported, use the f58, decimal or hex form")]
    Words(String),
}

impl FromStr for JobId {
    type Err = BadJobId;

    /// Accepts f58 (`ƒ` or `f`), decimal, `0x` hex, dothex and `job.` KVS paths, with blanks around.
    fn from_str(text: &str) -> Result<Self, BadJobId> {
        let malformed = || BadJobId::Malformed(text.to_owned());
        let id = text.trim();
        // Dots decide first: a dothex id may begin with the digit f.
        let dotted = id.strip_prefix(KVS_PREFIX).unwrap_or(id);
        if dotted.contains('.') {
            return from_dothex(dotted).map(Self).ok_or_else(malformed);
        }
        if let Some(digits) = id.strip_prefix([PREFIX, PREFIX_PLAIN]) {
            return from_base58(digits).map(Self).ok_or_else(malformed);
        }
        if let Some(digits) = id.strip_prefix("0x") {
            return from_hex(digits, 16).map(Self).ok_or_else(malformed);
        }
        if id.contains("--") || id.starts_with(|c: char| u32::from(c) > 0x2_0000 || is_emoji(c)) {
            return Err(BadJobId::Words(text.to_owned()));
        }
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(malformed());
        }
        id.parse().map(Self).map_err(|_| malformed())
    }
}

fn is_emoji(c: char) -> bool {
    ('\u{1f000}'..'\u{20000}').contains(&c)
}

fn from_base58(digits: &str) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.bytes().try_fold(0u64, |number, byte| {
        let digit = BASE58.iter().position(|&known| known == byte)?;
        number.checked_mul(58)?.checked_add(digit as u64)
    })
}

fn from_hex(digits: &str, digits_max: usize) -> Option<u64> {
    let sound = !digits.is_empty()
        && digits.len() <= digits_max
        && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
}

fn from_dothex(text: &str) -> Option<u64> {
    let mut parts = text.split('.');
    let number = parts
        .by_ref()
        .take(4)
        .try_fold((0u64, 0), |(number, count), part| Some(((number << 16) | from_hex(part, 4)?, count + 1)));
    match (number?, parts.next()) {
        ((number, 4), None) => Some(number),
        _ => None,
    }
}

/// Makes job ids that only ever grow, also when the clock steps back or many come in one millisecond.
#[derive(Clone, Debug)]
pub struct JobIds {
    epoch: Timestamp,
    generator: u64,
    /// Milliseconds and sequence of the last id given out.
    last: Option<(u64, u64)>,
}

impl JobIds {
    /// Ids that count their milliseconds from `epoch`; `generator` tells brokers apart (14 bits are used).
    #[must_use]
    pub fn new(epoch: Timestamp, generator: u16) -> Self {
        Self { epoch, generator: u64::from(generator) & ((1 << GENERATOR_BITS) - 1), last: None }
    }

    /// Takes note of an id given out earlier, so that the next ones are greater.
    pub fn seen(&mut self, id: JobId) {
        let seen = (id.0 >> (GENERATOR_BITS + SEQUENCE_BITS), id.0 & SEQUENCE_MAX);
        self.last = self.last.max(Some(seen));
    }

    /// The next id. When a millisecond has used up its 1,024 ids, the next millisecond's are taken.
    pub fn next(&mut self, now: Timestamp) -> JobId {
        let elapsed = u64::try_from(now.millis() - self.epoch.millis()).unwrap_or(0).min(MILLIS_MAX);
        let (millis, sequence) = match self.last {
            Some((millis, sequence)) if elapsed <= millis && sequence < SEQUENCE_MAX => {
                (millis, sequence + 1)
            }
            Some((millis, _)) if elapsed <= millis => (millis + 1, 0),
            _ => (elapsed, 0),
        };
        self.last = Some((millis, sequence));
        JobId((millis << (GENERATOR_BITS + SEQUENCE_BITS)) | (self.generator << SEQUENCE_BITS) | sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(text: &str) -> Option<u64> {
        text.parse::<JobId>().ok().map(JobId::number)
    }

    #[test]
    fn forms_of_one_id() {
        let id = JobId(1_876_900_708_352);
        assert_eq!(id.to_string(), "ƒrJaHjMZ");
        assert_eq!(id.to_f58_plain(), "frJaHjMZ");
        assert_eq!(id.to_hex(), "0x1b500000000");
        assert_eq!(id.to_dothex(), "0000.01b5.0000.0000");
        assert_eq!(id.to_kvs(), "job.0000.01b5.0000.0000");
    }

    #[test]
    fn small_numbers() {
        for (value, text) in
            [(0, "ƒ1"), (1, "ƒ2"), (57, "ƒz"), (58, "ƒ21"), (12345, "ƒ4fr"), (1_234_567_890_123, "ƒZRwY92z")]
        {
            assert_eq!(JobId(value).to_string(), text);
            assert_eq!(number(text), Some(value));
        }
    }

    #[test]
    fn reads_every_form() {
        for text in ["16", "0x10", "fH", "ƒH", "0.0.0.10", "0000.0000.0000.0010", " job.0000.0000.0000.0010 "]
        {
            assert_eq!(number(text), Some(16), "{text}");
        }
        assert_eq!(number("f123"), Some(59 + 1));
    }

    #[test]
    fn refuses_what_is_no_id() {
        for text in [
            "",
            "f",
            "xyz",
            "0x",
            "f0",
            "1.2.3",
            "1.2.3.4.5",
            "-1",
            "+1",
            "18446744073709551616",
            "12345.0.0.1",
        ] {
            assert_eq!(text.parse::<JobId>(), Err(BadJobId::Malformed(text.to_owned())), "{text}");
        }
        assert_eq!("xyz".parse::<JobId>().unwrap_err().to_string(), "xyz: malformed input");
    }

    #[test]
    fn words_and_emoji_are_told_apart_from_garbage() {
        for text in ["academy-academy-academy--matrix-academy-academy", "😔😖🍣🐒🏃"] {
            assert!(matches!(text.parse::<JobId>(), Err(BadJobId::Words(_))), "{text}");
        }
    }

    #[test]
    fn ids_grow_when_the_clock_does_not() {
        let mut ids = JobIds::new(Timestamp::from_millis(1_000), 0);
        let first = ids.next(Timestamp::from_millis(1_005));
        assert_eq!(first, JobId(5 << 24));
        assert_eq!(ids.next(Timestamp::from_millis(1_005)), JobId((5 << 24) | 1));
        assert!(ids.next(Timestamp::from_millis(2)) > first);
        let mut last = ids.next(Timestamp::from_millis(3));
        for _ in 0..2_000 {
            let id = ids.next(Timestamp::from_millis(1_005));
            assert!(id > last);
            last = id;
        }
    }

    #[test]
    fn ids_continue_after_those_seen() {
        let mut ids = JobIds::new(Timestamp::EPOCH, 0);
        ids.seen(JobId((9 << 24) | 3));
        assert_eq!(ids.next(Timestamp::from_millis(1)), JobId((9 << 24) | 4));
    }

    #[test]
    fn dothex_that_begins_with_f_is_no_f58() {
        assert_eq!(number("f000.0000.0000.0000"), Some(0xf << 60));
    }

    proptest! {
        #[test]
        fn written_and_read_back(value: u64) {
            let id = JobId(value);
            for text in [id.to_string(), id.to_f58_plain(), id.to_hex(), id.to_dothex(), id.to_kvs(), value.to_string()] {
                prop_assert_eq!(text.parse::<JobId>(), Ok(id));
            }
        }

        #[test]
        fn any_text_is_read_without_panic(text in "\\PC{0,40}") {
            drop(text.parse::<JobId>());
        }
    }
}
