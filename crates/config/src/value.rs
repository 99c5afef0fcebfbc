//! The types of values in kiln.toml: how each is read from the file, from a variable or a flag, and how it is written.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use kiln_types::{ByteSize, Fsd};
use toml::de::DeValue;

/// A value as it was given, before its key says what it must be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Raw<'a> {
    /// A variable or a flag: text that may mean anything.
    Word(&'a str),
    /// A string of the file.
    Text(&'a str),
    /// An integer of the file.
    Integer(i64),
    /// `true` or `false` in the file.
    Bool(bool),
    /// Anything else that TOML has; its name, for the message.
    Other(&'static str),
}

impl<'a> Raw<'a> {
    pub(crate) fn from_toml(value: &'a DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.as_ref()),
            DeValue::Boolean(is) => Self::Bool(*is),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Self::Other("huge integer"), Self::Integer),
            other => Self::Other(other.type_str()),
        }
    }

    fn type_name(&self) -> &'static str {
        match self {
            Self::Word(_) | Self::Text(_) => "string",
            Self::Integer(_) => "integer",
            Self::Bool(_) => "boolean",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Raw<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => f.write_str(word),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => number.fmt(f),
            Self::Bool(is) => is.fmt(f),
            Self::Other(name) => write!(f, "<{name}>"),
        }
    }
}

/// A type that a setting may have.
pub(crate) trait Value: Sized {
    /// What a value looks like: fits after "must be".
    const KIND: &'static str;
    /// The value, or why it is none; the reason fits after the key.
    fn read(raw: &Raw<'_>) -> Result<Self, String>;
    /// As it is written in kiln.toml.
    fn show(&self) -> String;
}

fn wrong_type<T: Value>(raw: &Raw<'_>) -> String {
    format!("must be {}, not a {}", T::KIND, raw.type_name())
}

/// A value above or below its limits is told with both.
pub(crate) fn check_range<T: Value + PartialOrd>(value: &T, min: &T, max: &T) -> Result<(), String> {
    if value >= min && value <= max {
        return Ok(());
    }
    Err(format!("must be between {} and {}", min.show(), max.show()))
}

pub(crate) fn bytes(count: u64) -> ByteSize {
    ByteSize(count)
}

impl Value for bool {
    const KIND: &'static str = "true or false";

    fn read(raw: &Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Bool(is) => Ok(*is),
            Raw::Word("true" | "1" | "yes" | "on") => Ok(true),
            Raw::Word("false" | "0" | "no" | "off") => Ok(false),
            Raw::Word(_) => Err(format!("must be {}", Self::KIND)),
            other => Err(wrong_type::<Self>(other)),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const KIND: &'static str = "a whole number";

    fn read(raw: &Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Integer(number) => {
                Self::try_from(*number).map_err(|_| format!("must be a whole number from 0 to {}", Self::MAX))
            }
            Raw::Word(word) => {
                word.parse().map_err(|_| format!("must be a whole number from 0 to {}", Self::MAX))
            }
            other => Err(wrong_type::<Self>(other)),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: &'static str = "a string";

    fn read(raw: &Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Text(text) | Raw::Word(text) => Ok((*text).to_owned()),
            other => Err(wrong_type::<Self>(other)),
        }
    }

    fn show(&self) -> String {
        toml::Value::from(self.as_str()).to_string()
    }
}

impl Value for ByteSize {
    const KIND: &'static str = "a size such as \"64MiB\"";

    fn read(raw: &Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Text(text) | Raw::Word(text) => parsed::<Self>(text),
            Raw::Integer(number) => {
                u64::try_from(*number).map(ByteSize).map_err(|_| format!("must be {}", Self::KIND))
            }
            other => Err(wrong_type::<Self>(other)),
        }
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Value for Duration {
    const KIND: &'static str = "a duration such as \"30s\", \"5m\", \"1.5h\" or \"7d\"";

    fn read(raw: &Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Text(text) | Raw::Word(text) => {
                read_duration(text).ok_or_else(|| format!("must be {}", Self::KIND))
            }
            other => Err(wrong_type::<Self>(other)),
        }
    }

    fn show(&self) -> String {
        quoted(&show_duration(*self))
    }
}

/// Text with its unit (RFC 23), finite.
pub(crate) fn read_duration(text: &str) -> Option<Duration> {
    text.parse::<Fsd>().ok().and_then(Fsd::duration)
}

/// In the largest unit that divides it, to the millisecond, so that it reads back the same.
pub(crate) fn show_duration(duration: Duration) -> String {
    const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let millis = duration.as_millis();
    let whole = UNITS.iter().find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit));
    match whole {
        Some((unit, name)) => format!("{}{name}", millis / unit),
        None if millis == 0 => "0s".to_owned(),
        None => format!("{millis}ms"),
    }
}

fn parsed<T: Value + FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("must be {} ({error})", T::KIND))
}

fn quoted(value: &impl fmt::Display) -> String {
    format!("\"{value}\"")
}

/// A bound that may be absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit<T> {
    /// There is none: `"unlimited"`.
    Unlimited,
    /// This much.
    To(T),
}

impl<T> Limit<T> {
    /// The bound, where there is one.
    pub fn get(self) -> Option<T> {
        match self {
            Self::Unlimited => None,
            Self::To(bound) => Some(bound),
        }
    }
}

impl<T: Value> Value for Limit<T> {
    const KIND: &'static str = T::KIND;

    fn read(raw: &Raw<'_>) -> Result<Self, String> {
        match raw {
            Raw::Text("unlimited") | Raw::Word("unlimited") => Ok(Self::Unlimited),
            other => T::read(other).map(Self::To).map_err(|reason| format!("{reason}, or \"unlimited\"")),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Unlimited => "\"unlimited\"".to_owned(),
            Self::To(bound) => bound.show(),
        }
    }
}

/// Where a listener listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere: `"off"`.
    Off,
    /// This address; port 0 picks a free one.
    At(SocketAddr),
}

impl Listen {
    pub(crate) fn loopback(port: u16) -> Self {
        Self::At(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// The address, unless it is off.
    pub fn addr(self) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::At(addr) => Some(addr),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(addr) => addr.fmt(f),
        }
    }
}

impl Value for Listen {
    const KIND: &'static str = "ADDRESS:PORT such as \"127.0.0.1:9092\" or \"[::1]:9092\", or \"off\"";

    fn read(raw: &Raw<'_>) -> Result<Self, String> {
        let (Raw::Text(text) | Raw::Word(text)) = raw else {
            return Err(wrong_type::<Self>(raw));
        };
        if *text == "off" {
            return Ok(Self::Off);
        }
        let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = numeric.as_deref().unwrap_or(text);
        address.parse().map(Self::At).map_err(|_| format!("must be {}", Self::KIND))
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

/// A type with a few named values.
macro_rules! words {
    ($(#[doc = $doc:literal])+ $name:ident, $kind:literal { $( $(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal, )+ }) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $( $(#[doc = $variant_doc])+ $variant, )+
        }

        impl Value for $name {
            const KIND: &'static str = $kind;

            fn read(raw: &Raw<'_>) -> Result<Self, String> {
                match raw {
                    $( Raw::Text($word) | Raw::Word($word) => Ok(Self::$variant), )+
                    Raw::Text(_) | Raw::Word(_) => Err(format!("must be {}", Self::KIND)),
                    other => Err(wrong_type::<Self>(other)),
                }
            }

            fn show(&self) -> String {
                match self {
                    $( Self::$variant => concat!("\"", $word, "\"").to_owned(), )+
                }
            }
        }
    };
}

words! {
    /// Whether nodes have host names of their own.
    Hostnames, "\"auto\", \"require\" or \"off\"" {
        /// Where the system allows it; a note where not.
        Auto = "auto",
        /// Or `kiln up` fails.
        Require = "require",
        /// Every node has this machine's name.
        Off = "off",
    }
}

words! {
    /// How diagnostics are written.
    LogFormat, "\"human\" or \"json\"" {
        /// For a terminal.
        Human = "human",
        /// One object per line.
        Json = "json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word<T: Value>(text: &str) -> Result<T, String> {
        T::read(&Raw::Word(text))
    }

    #[test]
    fn listeners_are_addresses_or_off() {
        assert_eq!(word("off"), Ok(Listen::Off));
        assert_eq!(word("localhost:0"), Ok(Listen::loopback(0)));
        assert_eq!(word("[::1]:9"), Ok(Listen::At("[::1]:9".parse().expect("an address"))));
        for wrong in ["9092", "127.0.0.1", ":9092", "example.org:9092", "127.0.0.1:99999", ""] {
            let reason = word::<Listen>(wrong).expect_err(wrong);
            assert!(reason.contains("ADDRESS:PORT"), "{reason}");
        }
    }

    #[test]
    fn numbers_in_quotes_are_refused_in_the_file_and_taken_from_variables() {
        assert_eq!(u32::read(&Raw::Word("4")), Ok(4));
        assert_eq!(u32::read(&Raw::Text("4")), Err("must be a whole number, not a string".to_owned()));
        assert!(u32::read(&Raw::Integer(-1)).is_err());
        assert!(bool::read(&Raw::Text("true")).is_err());
        assert_eq!(word("yes"), Ok(true));
    }

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(word("64MiB"), Ok(ByteSize(64 << 20)));
        assert_eq!(ByteSize::read(&Raw::Integer(4096)), Ok(ByteSize(4096)));
        assert_eq!(word("5m"), Ok(Duration::from_mins(5)));
        assert!(word::<Duration>("inf").is_err(), "a bound is finite, or \"unlimited\"");
        assert!(Duration::read(&Raw::Integer(5)).is_err(), "a bare number has no unit");
        assert_eq!(word("unlimited"), Ok(Limit::<ByteSize>::Unlimited));
        assert!(word::<Limit<ByteSize>>("lots").expect_err("no size").contains("unlimited"));
    }

    #[test]
    fn what_is_shown_can_be_read() {
        fn round<T: Value + PartialEq + fmt::Debug>(value: T) {
            let shown = value.show();
            let text = shown.trim_matches('"');
            assert_eq!(T::read(&Raw::Word(text)), Ok(value), "{shown}");
        }
        round(bytes((1 << 20) + 12));
        round(bytes(64 << 20));
        for seconds in [0, 1, 59, 60, 90, 86_400, 7 * 86_400, 90_061] {
            round(Duration::from_secs(seconds));
        }
        round(Duration::from_millis(1500));
        round(Listen::loopback(1));
        round(Hostnames::Require);
        round(LogFormat::Json);
        round(Limit::To(bytes(1)));
    }
}
