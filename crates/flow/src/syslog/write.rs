//! From fields to an RFC 5424 line.

use super::parse::rfc3339;
use super::priority::{self, Priority};
use kiln_types::Timestamp;
use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// One element of structured data to be written: its id, and names with unescaped values.
pub type Element<'a> = (&'a str, &'a [(&'a str, &'a str)]);

/// An outgoing message. `to_string()` gives the RFC 5424 line without a terminator; what the grammar does not allow in a name becomes `_`.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// Facility and severity.
    pub priority: Priority,
    /// When.
    pub timestamp: Timestamp,
    /// Who; empty is written as NILVALUE, as in the next three.
    pub hostname: &'a str,
    /// Which program.
    pub appname: &'a str,
    /// Which process.
    pub procid: &'a str,
    /// Which kind of message.
    pub msgid: &'a str,
    /// Structured data; empty is written as NILVALUE.
    pub structured: &'a [Element<'a>],
    /// Free text.
    pub message: &'a str,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>1 {}", self.priority.value(), format_time(self.timestamp))?;
        // Limits of RFC 5424, section 6.
        for (field, bytes_max) in
            [(self.hostname, 255), (self.appname, 48), (self.procid, 128), (self.msgid, 32)]
        {
            f.write_char(' ')?;
            graphic(f, field, bytes_max, "")?;
        }
        f.write_char(' ')?;
        if self.structured.is_empty() {
            f.write_char('-')?;
        }
        for element in self.structured {
            write_element(f, element)?;
        }
        if self.message.is_empty() {
            return Ok(());
        }
        let mark = if self.message.is_ascii() { "" } else { "\u{feff}" };
        write!(f, " {mark}{}", self.message)
    }
}

fn write_element(f: &mut fmt::Formatter<'_>, (id, params): &Element<'_>) -> fmt::Result {
    f.write_char('[')?;
    sd_name(f, id)?;
    for (name, value) in *params {
        f.write_char(' ')?;
        sd_name(f, name)?;
        f.write_str("=\"")?;
        for c in value.chars() {
            if matches!(c, '"' | '\\' | ']') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')?;
    }
    f.write_char(']')
}

fn sd_name(f: &mut fmt::Formatter<'_>, name: &str) -> fmt::Result {
    graphic(f, name, 32, "=]\"")
}

fn graphic(f: &mut fmt::Formatter<'_>, text: &str, bytes_max: usize, refused: &str) -> fmt::Result {
    if text.is_empty() {
        return f.write_char('-');
    }
    text.chars()
        .take(bytes_max)
        .try_for_each(|c| f.write_char(if c.is_ascii_graphic() && !refused.contains(c) { c } else { '_' }))
}

/// RFC 3339 in UTC with microseconds: `2026-11-22T10:00:00.000000Z`. Times outside of jiff's years -9999 to 9999 are clamped.
pub fn format_time(at: Timestamp) -> String {
    let clamped = jiff::Timestamp::from_microsecond(at.0).unwrap_or(if at.0 < 0 {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    format!("{clamped:.6}")
}

/// The same line as if written at `now`. Only RFC 5424 lines carry a time that can be exchanged; others come back as they are.
pub fn with_timestamp(line: &str, now: Timestamp) -> Cow<'_, str> {
    let (priority, rest) = priority::split(line);
    let parts = priority.and_then(|p| Some((p, rest.strip_prefix("1 ")?.split_once(' ')?)));
    match parts {
        Some((p, (time, tail))) if time == "-" || rfc3339(time).is_some() => {
            Cow::Owned(format!("<{}>1 {} {tail}", p.value(), format_time(now)))
        }
        _ => Cow::Borrowed(line),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Received, parse};
    use super::*;
    use proptest::prelude::*;

    const NOON: Timestamp = Timestamp(1_795_341_600_000_007);

    #[test]
    fn golden_line() {
        let line = Line {
            priority: Priority::LOCAL0_INFO,
            timestamp: NOON,
            hostname: "silicon2",
            appname: "kiln-agent",
            procid: "",
            msgid: "",
            structured: &[("kiln@32473", &[("key", "t-1"), ("note", r#"a"b\c]d"#)])],
            message: "task done",
        };
        assert_eq!(
            line.to_string(),
            r#"<134>1 2026-11-22T10:00:00.000007Z silicon2 kiln-agent - - [kiln@32473 key="t-1" note="a\"b\\c\]d"] task done"#
        );
    }

    #[test]
    fn the_time_of_a_line_is_exchanged() {
        let line = "<134>1 2026-01-01T00:00:00Z host taskd - - - TASK x";
        assert_eq!(with_timestamp(line, NOON), "<134>1 2026-11-22T10:00:00.000007Z host taskd - - - TASK x");
        for other in ["Jun 14 15:16:01 combo x: y", "<1>1 z", "<1>1 now host", ""] {
            assert_eq!(with_timestamp(other, NOON), other);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in "\\PC{0,40}", message in "\\PC{0,40}", host in "[a-z0-9.]{1,20}") {
            let line = Line {
                priority: Priority::USER_NOTICE, timestamp: NOON, hostname: &host, appname: "a", procid: "1", msgid: "",
                structured: &[("id@1", &[("k", &value)])], message: &message,
            }.to_string();
            let read = parse(&line, Received::at(NOON));
            prop_assert_eq!(read.structured.get("id@1", "k").unwrap(), value);
            prop_assert_eq!(read.message, message);
            prop_assert_eq!((read.hostname, read.timestamp), (host.as_str(), Some(NOON)));
        }
    }
}
