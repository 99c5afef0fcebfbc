//! Format strings as Flux's Python tools have them: `{name!conversion:spec}`.
//!
//! Conversions: `!d` and `!D` for times, `!F` and `!H` for durations. A spec is Python's, with two letters of Flux's
//! own at its end: `h` shows `-` for nothing, `+` marks what was cut.

use kiln_types::{Fsd, Timestamp};
use std::fmt::Write;

/// The widest field, in columns.
const WIDTH_MAX: usize = 1_000;

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Whole(i64),
    /// Seconds, or a moment as seconds since the epoch.
    Number(f64),
    /// There is none.
    Nothing,
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

macro_rules! from_whole {
    ($($number:ty),*) => {
        $(impl From<$number> for Value {
            fn from(number: $number) -> Self {
                Self::Whole(i64::from(number))
            }
        })*
    };
}

from_whole!(u8, i32, u32, i64);

impl Value {
    /// As Python's `str` shows it.
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Whole(number) => number.to_string(),
            Self::Number(number) => python_float(*number),
            Self::Nothing => String::new(),
        }
    }

    fn seconds(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Whole(number) => *number as f64,
            Self::Text(_) | Self::Nothing => 0.0,
        }
    }
}

fn python_float(number: f64) -> String {
    if number.is_finite() && number.fract() == 0.0 { format!("{number:.1}") } else { number.to_string() }
}

/// A format string, read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Format {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Text(String),
    Field(Field),
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    name: String,
    conversion: Option<char>,
    /// Format of a time, before `::`.
    time: String,
    spec: Spec,
    /// `?:` in front: the column goes away when it is empty in every row.
    optional: bool,
}

/// Python's format specification, as far as it makes sense for text and numbers.
#[derive(Debug, Clone, Default, PartialEq)]
struct Spec {
    fill: Option<char>,
    align: Option<char>,
    width: usize,
    precision: Option<usize>,
    /// `f`, `d`, `s` or nothing.
    kind: Option<char>,
    dash: bool,
    mark_cut: bool,
}

/// Why a format string cannot be used; the texts are for behind `--format: `.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadFormat(pub(super) String);

impl Format {
    /// Reads a format string; `known` tells the heading of a field, none when there is no such field.
    pub(super) fn parse(text: &str, known: impl Fn(&str) -> Option<&'static str>) -> Result<Self, BadFormat> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            literal.push_str(before);
            if brace.starts_with("{{") || brace.starts_with("}}") {
                literal.push_str(&brace[..1]);
                rest = &brace[2..];
                continue;
            }
            let inside = brace
                .strip_prefix('{')
                .ok_or_else(|| BadFormat("Single '}' encountered in format string".into()))?;
            let (field, behind) = inside
                .split_once('}')
                .ok_or_else(|| BadFormat("expected '}' before end of string".into()))?;
            let optional = ["?+:", "?:", "+:"]
                .iter()
                .find_map(|mark| literal.strip_suffix(mark).map(|rest| (mark, rest.to_owned())));
            let collapses = optional.as_ref().is_some_and(|(mark, _)| mark.starts_with('?'));
            if let Some((_, rest)) = optional {
                literal = rest;
            }
            let field = parse_field(field, collapses)?;
            known(&field.name).ok_or_else(|| BadFormat(format!("Unknown format field: {}", field.name)))?;
            parts.push(Part::Text(std::mem::take(&mut literal)));
            parts.push(Part::Field(field));
            rest = behind;
        }
        literal.push_str(rest);
        parts.push(Part::Text(literal));
        Ok(Self { parts })
    }

    /// Without the optional columns that are empty in every row.
    pub(super) fn without_empty<'a, R: 'a>(
        mut self,
        rows: &(impl Iterator<Item = &'a R> + Clone),
        value: impl Fn(&R, &str) -> Value,
    ) -> Self {
        let empty = |field: &Field| {
            field.optional && rows.clone().all(|row| is_nothing(&convert(field, &value(row, &field.name))))
        };
        let keep: Vec<bool> =
            self.parts.iter().map(|part| !matches!(part, Part::Field(field) if empty(field))).collect();
        let mut keep = keep.into_iter();
        self.parts.retain(|_| keep.next().unwrap_or(true));
        self
    }

    /// The line of headings.
    pub(super) fn header(&self, heading: impl Fn(&str) -> Option<&'static str>) -> String {
        self.line(|field| {
            let spec =
                Spec { dash: false, mark_cut: false, kind: None, precision: None, ..field.spec.clone() };
            pad(heading(&field.name).unwrap_or_default(), &spec, '<')
        })
    }

    /// A row's line.
    pub(super) fn row(&self, value: impl Fn(&str) -> Value) -> String {
        self.line(|field| {
            let value = value(&field.name);
            let default = if field.conversion.is_none() && matches!(value, Value::Whole(_) | Value::Number(_))
            {
                '>'
            } else {
                '<'
            };
            let text = match (&field.spec, field.conversion, &value) {
                (Spec { kind: Some('f'), precision, .. }, None, Value::Number(_) | Value::Whole(_)) => {
                    format!("{:.*}", precision.unwrap_or(6), value.seconds())
                }
                _ => convert(field, &value),
            };
            let spec = match field.spec.kind {
                Some('f') => &Spec { precision: None, ..field.spec.clone() },
                _ => &field.spec,
            };
            pad(&text, spec, default)
        })
    }

    fn line(&self, show: impl Fn(&Field) -> String) -> String {
        let mut line = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => line.push_str(text),
                Part::Field(field) => line.push_str(&show(field)),
            }
        }
        line
    }
}

fn parse_field(text: &str, optional: bool) -> Result<Field, BadFormat> {
    let (head, spec) = text.split_once(':').unwrap_or((text, ""));
    let (name, conversion) = head.split_once('!').unwrap_or((head, ""));
    let mut conversion = conversion.chars();
    let (conversion, more) = (conversion.next(), conversion.next());
    if more.is_some() || conversion.is_some_and(|c| !"dDFHhsr".contains(c)) {
        return Err(BadFormat(format!(
            "Unknown conversion specifier '!{}'",
            head.split_once('!').map_or("", |(_, c)| c)
        )));
    }
    let (time, spec) = match (conversion, spec.rsplit_once("::")) {
        (Some('d'), Some((time, spec))) => (time, spec),
        (Some('d'), None) if spec.contains('%') => (spec, ""),
        _ => ("", spec),
    };
    Ok(Field { name: name.to_owned(), conversion, time: time.to_owned(), spec: parse_spec(spec)?, optional })
}

fn parse_spec(text: &str) -> Result<Spec, BadFormat> {
    let bad = || BadFormat(format!("Invalid format specifier '{text}'"));
    let mut spec = Spec::default();
    let mut chars: Vec<char> = text.chars().collect();
    while let Some(&last) = chars.last() {
        match last {
            'h' => spec.dash = true,
            '+' => spec.mark_cut = true,
            _ => break,
        }
        chars.pop();
    }
    let is_align = |c: &char| "<>^=".contains(*c);
    let mut rest = chars.as_slice();
    if let [fill, align, tail @ ..] = rest
        && is_align(align)
    {
        (spec.fill, spec.align, rest) = (Some(*fill), Some(*align), tail);
    } else if let [align, tail @ ..] = rest
        && is_align(align)
    {
        (spec.align, rest) = (Some(*align), tail);
    }
    let (width, tail) = digits(rest);
    (spec.width, rest) = (width.unwrap_or(0), tail);
    if let ['.', tail @ ..] = rest {
        let (precision, tail) = digits(tail);
        (spec.precision, rest) = (Some(precision.ok_or_else(bad)?), tail);
    }
    if let [kind, tail @ ..] = rest
        && "fdsg".contains(*kind)
    {
        (spec.kind, rest) = (Some(*kind), tail);
    }
    if !rest.is_empty() || spec.width > WIDTH_MAX {
        return Err(bad());
    }
    Ok(spec)
}

fn digits(chars: &[char]) -> (Option<usize>, &[char]) {
    let count = chars.iter().take_while(|c| c.is_ascii_digit()).count();
    let text: String = chars[..count].iter().collect();
    (text.parse().ok(), &chars[count..])
}

/// The text of a value after its conversion, and before it is padded.
fn convert(field: &Field, value: &Value) -> String {
    match field.conversion {
        Some('d') => time(value, if field.time.is_empty() { "%FT%T" } else { &field.time }),
        Some('D') => time(value, "%FT%T"),
        Some('F') if *value != Value::Nothing => Fsd::from_seconds(value.seconds()).to_string(),
        Some('H') if *value != Value::Nothing => clock(value.seconds()),
        Some('r') => format!("'{}'", value.text()),
        _ => value.text(),
    }
}

/// Local time by a `strftime` format; empty when there is none.
fn time(value: &Value, format: &str) -> String {
    if value.seconds() <= 0.0 {
        return String::new();
    }
    local(Timestamp::from_seconds_f64(value.seconds()), format)
}

/// A moment in local time by a `strftime` format; what is no format is shown as it is.
pub(super) fn local(at: Timestamp, format: &str) -> String {
    let Ok(moment) = jiff::Timestamp::from_microsecond(at.0) else { return String::new() };
    let zoned = moment.to_zoned(jiff::tz::TimeZone::system());
    jiff::fmt::strtime::format(format, &zoned).unwrap_or_else(|_| format.to_owned())
}

/// `H:MM:SS`.
fn clock(seconds: f64) -> String {
    let whole = seconds.round().max(0.0) as u64;
    format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

fn is_nothing(text: &str) -> bool {
    matches!(text, "" | "0" | "0s" | "0.0" | "0:00:00" | "1970-01-01T00:00:00")
}

fn pad(text: &str, spec: &Spec, default: char) -> String {
    let text = if spec.dash && is_nothing(text) { "-" } else { text };
    let mut shown: String = match spec.precision {
        Some(precision) => text.chars().take(precision).collect(),
        None => text.to_owned(),
    };
    if spec.mark_cut && shown.len() < text.len() {
        shown.pop();
        shown.push('+');
    }
    let missing = spec.width.saturating_sub(shown.chars().count());
    let (left, right) = match spec.align.unwrap_or(default) {
        '>' | '=' => (missing, 0),
        '^' => (missing / 2, missing - missing / 2),
        _ => (0, missing),
    };
    let fill = |count: usize| std::iter::repeat_n(spec.fill.unwrap_or(' '), count).collect::<String>();
    let mut out = fill(left);
    // Writing to a String cannot fail.
    let _ = write!(out, "{shown}{}", fill(right));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: &str, value: &Value) -> String {
        let format = Format::parse(format, |name| (name == "x").then_some("HEAD")).unwrap();
        format.row(|_| value.clone())
    }

    fn header(format: &str) -> String {
        Format::parse(format, |_| Some("HEADING")).unwrap().header(|_| Some("HEADING"))
    }

    #[test]
    fn python_specs() {
        for (format, value, text) in [
            ("{x}|", Value::from("a"), "a|"),
            ("{x:>4}|", Value::from("a"), "   a|"),
            ("{x:<4.2}|", Value::from("abc"), "ab  |"),
            ("{x:^5}|", Value::from("a"), "  a  |"),
            ("{x:*>3}|", Value::from("a"), "**a|"),
            ("{x:4}|", Value::from(7), "   7|"),
            ("{x:.1f}|", Value::Number(1.26), "1.3|"),
            ("{x:>8.2f}|", Value::Number(1.256), "    1.26|"),
            ("{{{x}}}", Value::from("a"), "{a}"),
            ("{x}", Value::Number(0.0), "0.0"),
            ("{x}", Value::Number(1_795_376_868.969_736_6), "1795376868.9697366"),
        ] {
            assert_eq!(shown(format, &value), text, "{format}");
        }
    }

    #[test]
    fn flux_letters() {
        assert_eq!(shown("{x:>6h}|", &Value::Nothing), "     -|");
        assert_eq!(shown("{x:>6h}|", &Value::from(0)), "     -|");
        assert_eq!(shown("{x!F:>8h}|", &Value::Number(0.0)), "       -|");
        assert_eq!(shown("{x:<4.4+}|", &Value::from("abcdef")), "abc+|");
        assert_eq!(shown("{x:<4.4+}|", &Value::from("abcd")), "abcd|");
    }

    #[test]
    fn conversions() {
        assert_eq!(shown("{x!F}", &Value::Number(7.776)), "7.776s");
        assert_eq!(shown("{x!F:>8}|", &Value::Number(60.0)), "      1m|");
        assert_eq!(shown("{x!H}", &Value::Number(3725.4)), "1:02:05");
        assert_eq!(shown("{x!d:%s}", &Value::Number(1_795_373_268.9)), "1795373268");
        assert_eq!(shown("{x!d:%s::>12}|", &Value::Number(1_795_373_268.9)), "  1795373268|");
        assert_eq!(shown("{x!D}", &Value::Number(0.0)), "");
    }

    #[test]
    fn headings_are_as_wide_as_their_columns() {
        assert_eq!(
            header("{x:>10} {x:<9.9+}|{x!F:>9h}|{x!d:%b%d %R::>12}|{x:.1f}"),
            "   HEADING HEADING  |  HEADING|     HEADING|HEADING"
        );
    }

    #[test]
    fn optional_columns_go_when_empty() {
        let rows = ["a"];
        let format = Format::parse("{x} ?:{y:>3}", |_| Some("H")).unwrap();
        let short =
            format.without_empty(
                &rows.iter(),
                |row, name| if name == "x" { Value::from(*row) } else { Value::Nothing },
            );
        assert_eq!(short.row(|_| Value::from("a")), "a ");
    }

    #[test]
    fn errors() {
        let error = |format: &str| Format::parse(format, |name| (name == "x").then_some("H")).unwrap_err().0;
        assert_eq!(error("{nope}"), "Unknown format field: nope");
        assert!(error("{x!q}").contains("Unknown conversion"));
        assert!(error("{x:>99999}").contains("Invalid format specifier"));
        assert!(error("{x:zzz}").contains("Invalid format specifier"));
        assert!(error("{x").contains("expected '}'"));
        assert!(error("x}").contains("Single '}'"));
    }
}
