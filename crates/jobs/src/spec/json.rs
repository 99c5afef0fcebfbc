//! JSON as Flux's tools print it: a blank after each comma and colon, and nothing but ASCII when asked.

use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};
use std::io::{self, Write};

/// `value` as JSON with blanks, such as `{"version": 1, "execution": {}}`.
#[must_use]
pub fn spaced<T: Serialize>(value: &T) -> String {
    write(value, Spaced { ascii: false })
}

/// As [`spaced`], with everything beyond ASCII escaped, as Python's `json.dumps` does.
#[must_use]
pub fn spaced_ascii<T: Serialize>(value: &T) -> String {
    write(value, Spaced { ascii: true })
}

fn write<T: Serialize>(value: &T, formatter: Spaced) -> String {
    let mut out = Vec::new();
    // Writing to memory cannot fail, and our documents have string keys only.
    let written = value.serialize(&mut Serializer::with_formatter(&mut out, formatter));
    debug_assert!(written.is_ok(), "a document of ours is not JSON");
    String::from_utf8(out).unwrap_or_default()
}

struct Spaced {
    ascii: bool,
}

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_string_fragment<W: ?Sized + Write>(&mut self, out: &mut W, fragment: &str) -> io::Result<()> {
        if !self.ascii || fragment.is_ascii() {
            return out.write_all(fragment.as_bytes());
        }
        for unit in fragment.encode_utf16() {
            match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => out.write_all(&[byte])?,
                _ => write!(out, "\\u{unit:04x}")?,
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        match escape {
            CharEscape::Quote => out.write_all(b"\\\""),
            CharEscape::ReverseSolidus => out.write_all(b"\\\\"),
            CharEscape::Solidus => out.write_all(b"/"),
            CharEscape::Backspace => out.write_all(b"\\b"),
            CharEscape::FormFeed => out.write_all(b"\\f"),
            CharEscape::LineFeed => out.write_all(b"\\n"),
            CharEscape::CarriageReturn => out.write_all(b"\\r"),
            CharEscape::Tab => out.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(out, "\\u{byte:04x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn blanks_and_escapes() {
        let value = json!({"b": [1, 2.0, "x\n"], "a": {"id": "ƒ😔"}});
        assert_eq!(spaced(&value), "{\"b\": [1, 2.0, \"x\\n\"], \"a\": {\"id\": \"ƒ😔\"}}");
        assert_eq!(spaced_ascii(&value["a"]), "{\"id\": \"\\u0192\\ud83d\\ude14\"}");
    }
}
