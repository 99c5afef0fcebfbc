//! From a line to its fields.

use super::priority::{self, Priority};
use super::structured::StructuredData;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use kiln_types::Timestamp;

/// What the receiver knows about a line that the line itself does not say.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// When it came in. Chooses the year of an RFC 3164 timestamp.
    pub now: Timestamp,
    /// Seconds east of UTC in which RFC 3164 timestamps are read: senders write local time and do not say which.
    pub utc_offset_seconds: i32,
}

impl Received {
    /// A line received at `now` from senders that write UTC.
    pub fn at(now: Timestamp) -> Received {
        Received { now, utc_offset_seconds: 0 }
    }
}

/// Which standard a line followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RFC 5424, version 1.
    Rfc5424,
    /// RFC 3164, or anything else.
    Legacy,
}

/// One syslog message, borrowed from its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Facility and severity; `user.notice` when the line names none.
    pub priority: Priority,
    /// Which grammar was found.
    pub form: Form,
    /// When it was written, by the sender's clock.
    pub timestamp: Option<Timestamp>,
    /// When it was received, by ours.
    pub received: Timestamp,
    /// HOSTNAME; empty when absent or NILVALUE, as are the next three.
    pub hostname: &'a str,
    /// APP-NAME, or the name part of an RFC 3164 TAG.
    pub appname: &'a str,
    /// PROCID, or what stands between the brackets of an RFC 3164 TAG.
    pub procid: &'a str,
    /// MSGID.
    pub msgid: &'a str,
    /// Structured data.
    pub structured: StructuredData<'a>,
    /// MSG without its byte order mark.
    pub message: &'a str,
    /// The whole line without its terminator.
    pub raw: &'a str,
}

impl Message<'_> {
    /// The sender's time, or else ours.
    pub fn time(&self) -> Timestamp {
        self.timestamp.unwrap_or(self.received)
    }
}

/// Parses one line. A line that follows no standard becomes a message of `user.notice` with all of its text.
pub fn parse(line: &str, received: Received) -> Message<'_> {
    let raw = line.trim_end_matches(['\r', '\n', '\0']);
    let (priority, rest) = priority::split(raw);
    let blank = Message {
        priority: priority.unwrap_or(Priority::USER_NOTICE),
        form: Form::Legacy,
        timestamp: None,
        received: received.now,
        hostname: "",
        appname: "",
        procid: "",
        msgid: "",
        structured: StructuredData::default(),
        message: rest,
        raw,
    };
    rest.strip_prefix("1 ")
        .and_then(|header| modern(header, blank))
        .unwrap_or_else(|| legacy(rest, received, blank))
}

/// RFC 5424, section 6, from the timestamp on.
fn modern<'a>(header: &'a str, blank: Message<'a>) -> Option<Message<'a>> {
    let mut fields = header.splitn(6, ' ');
    let mut next = || fields.next().filter(|field| !field.is_empty());
    let timestamp = match next()? {
        "-" => None,
        text => Some(rfc3339(text)?),
    };
    let [hostname, appname, procid, msgid] =
        [next()?, next()?, next()?, next()?].map(|f| if f == "-" { "" } else { f });
    let (structured, rest) = StructuredData::split(next()?)?;
    let text = rest.strip_prefix(' ').unwrap_or(rest);
    let message = text.strip_prefix('\u{feff}').unwrap_or(text);
    Some(Message {
        form: Form::Rfc5424,
        timestamp,
        hostname,
        appname,
        procid,
        msgid,
        structured,
        message,
        ..blank
    })
}

/// RFC 3164, section 4: a timestamp and a host that may be missing, a tag that may be missing, and text.
fn legacy<'a>(rest: &'a str, received: Received, blank: Message<'a>) -> Message<'a> {
    let Some((timestamp, after)) = legacy_time(rest, received) else {
        let has_priority = blank.raw.len() != rest.len();
        let (appname, procid, message) = if has_priority { tag(rest) } else { ("", "", rest) };
        return Message { appname, procid, message, ..blank };
    };
    let after = after.trim_start_matches(' ');
    let (first, beyond) = after.split_once(' ').unwrap_or((after, ""));
    let (hostname, text) = if is_tag(first) { ("", after) } else { (first, beyond.trim_start_matches(' ')) };
    let (appname, procid, message) = tag(text);
    Message { timestamp: Some(timestamp), hostname, appname, procid, message, ..blank }
}

/// A token that ends like a tag is no host: local senders leave the host out.
fn is_tag(token: &str) -> bool {
    token.ends_with(':') || token.ends_with("]:")
}

/// Splits `name[pid]: text` into its parts. Real names hold parentheses and slashes (`sshd(pam_unix)[19939]:`, `postfix/smtpd:`), and
/// some leave out the colon after the bracket.
fn tag(text: &str) -> (&str, &str, &str) {
    const NAME_BYTES_MAX: usize = 64;
    let none = ("", "", text);
    let Some(end) = text.find([' ', ':', '[']).filter(|end| (1..=NAME_BYTES_MAX).contains(end)) else {
        return none;
    };
    let (name, rest) = text.split_at(end);
    if let Some(message) = rest.strip_prefix(':') {
        // A colon inside a word (`http://`, `12:30`) ends no tag.
        return if message.is_empty() || message.starts_with(' ') {
            (name, "", trim_one(message))
        } else {
            none
        };
    }
    if let Some(message) = after_version(rest) {
        return (name, "", message);
    }
    let Some((procid, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) else {
        return none;
    };
    if procid.contains(' ') || !(after.is_empty() || after.starts_with([':', ' '])) {
        return none;
    }
    (name, procid, trim_one(after.strip_prefix(':').unwrap_or(after)))
}

/// The text behind ` 1.4.1: `, as sysklogd writes its own tag.
fn after_version(rest: &str) -> Option<&str> {
    let (version, message) = rest.strip_prefix(' ')?.split_once(": ")?;
    let digits = version.starts_with(|c: char| c.is_ascii_digit()) && version.contains('.');
    (digits && version.bytes().all(|b| b.is_ascii_digit() || b == b'.')).then_some(message)
}

fn trim_one(text: &str) -> &str {
    text.strip_prefix(' ').unwrap_or(text)
}

/// The timestamp at the front of a line without version: `Mmm dd hh:mm:ss`, or RFC 3339 as rsyslog's forward format writes it.
fn legacy_time(text: &str, received: Received) -> Option<(Timestamp, &str)> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let (token, rest) = text.split_once(' ')?;
        return Some((rfc3339(token)?, rest));
    }
    let month = month(text.get(..3)?)?;
    let (day, after_day) = text.get(3..)?.strip_prefix(' ')?.trim_start_matches(' ').split_once(' ')?;
    let clock = after_day.get(..8)?;
    let rest = after_day[8..].strip_prefix([' ', ':']).or_else(|| after_day[8..].is_empty().then_some(""))?;
    let mut parts = clock.splitn(3, ':').map(two_digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let time = jiff::civil::Time::new(hour, minute, second.min(59), 0).ok()?;
    Some((nearest_year(month, two_digits(day)?, time, received)?, rest))
}

fn month(name: &str) -> Option<i8> {
    const NAMES: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    NAMES.iter().position(|known| *known == name).map(|at| at as i8 + 1)
}

fn two_digits(text: &str) -> Option<i8> {
    ((1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The latest year in which the date exists and is at most a day ahead of `now`: clocks differ, and the year turns between sender and receiver.
fn nearest_year(month: i8, day: i8, time: jiff::civil::Time, received: Received) -> Option<Timestamp> {
    const DAY_MICROS: i64 = 86_400_000_000;
    /// 29 February comes round within eight years, also across 2100.
    const YEARS_BACK_MAX: i16 = 8;
    let latest = received.now.0.checked_add(DAY_MICROS)?;
    let offset = Offset::from_seconds(received.utc_offset_seconds).ok()?;
    let this_year = offset.to_datetime(jiff::Timestamp::from_microsecond(latest).ok()?).year();
    (0..=YEARS_BACK_MAX).find_map(|back| {
        let date = Date::new(this_year - back, month, day).ok()?;
        let at = offset.to_timestamp(DateTime::from_parts(date, time)).ok()?;
        (at.as_microsecond() <= latest).then(|| Timestamp(at.as_microsecond()))
    })
}

/// RFC 3339 with a mandatory zone, as RFC 5424 asks; `None` for anything else.
pub fn rfc3339(text: &str) -> Option<Timestamp> {
    let shaped = text.len() >= 20 && text.as_bytes()[10] == b'T' && !text.contains('[');
    shaped.then(|| text.parse::<jiff::Timestamp>().ok())?.map(|at| Timestamp(at.as_microsecond()))
}

#[cfg(test)]
mod tests;
