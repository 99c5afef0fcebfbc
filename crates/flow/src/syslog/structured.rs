//! Structured data (RFC 5424, 6.3): `[id name="value" ...][...]`, kept as text and read on demand.

use std::borrow::Cow;

/// The structured data of one message: well formed, and borrowed from the line. Empty for NILVALUE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StructuredData<'a>(&'a str);

/// One `[id name="value" ...]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// The SD-ID, for instance `exampleSDID@32473`.
    pub id: &'a str,
    params: &'a str,
}

impl<'a> StructuredData<'a> {
    /// Splits structured data or NILVALUE off the front of `text`; `None` when it is neither.
    pub(super) fn split(text: &'a str) -> Option<(StructuredData<'a>, &'a str)> {
        if let Some(rest) = text.strip_prefix('-') {
            return (rest.is_empty() || rest.starts_with(' ')).then_some((StructuredData(""), rest));
        }
        let mut rest = text;
        while rest.starts_with('[') {
            rest = split_element(rest)?.1;
        }
        let taken = text.len() - rest.len();
        let ends = rest.is_empty() || rest.starts_with(' ');
        (taken > 0 && ends).then(|| (StructuredData(&text[..taken]), rest))
    }

    /// The text as it stood in the line, without NILVALUE.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The elements in the order of the line.
    pub fn elements(self) -> impl Iterator<Item = Element<'a>> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (element, after) = split_element(rest)?;
            rest = after;
            Some(element)
        })
    }

    /// The value of parameter `name` in element `id`, unescaped; the first one when it is repeated.
    pub fn get(self, id: &str, name: &str) -> Option<Cow<'a, str>> {
        let element = self.elements().find(|element| element.id == id)?;
        element.params().find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

impl<'a> Element<'a> {
    /// Names and unescaped values in the order of the line.
    pub fn params(self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let mut rest = self.params;
        std::iter::from_fn(move || {
            let (name, value, after) = split_param(rest)?;
            rest = after;
            Some((name, unescape(value)))
        })
    }
}

/// SD-NAME: printable ASCII without `=`, `]`, `"` and space. Its limit of 32 is not held against the sender.
fn name_length(text: &str) -> Option<usize> {
    let end =
        text.find(|c: char| !c.is_ascii_graphic() || matches!(c, '=' | ']' | '"')).unwrap_or(text.len());
    (end > 0).then_some(end)
}

fn split_element(text: &str) -> Option<(Element<'_>, &str)> {
    let inner = text.strip_prefix('[')?;
    let (id, params) = inner.split_at(name_length(inner)?);
    let mut rest = params;
    while let Some((_, _, after)) = split_param(rest) {
        rest = after;
    }
    let after = rest.trim_start_matches(' ').strip_prefix(']')?;
    Some((Element { id, params: &params[..params.len() - rest.len()] }, after))
}

/// ` name="value"` off the front; the value still escaped.
fn split_param(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.strip_prefix(' ')?.trim_start_matches(' ');
    let (name, rest) = text.split_at(name_length(text)?);
    let value = rest.strip_prefix("=\"")?;
    let mut escaped = false;
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some((name, &value[..at], &value[at + 1..])),
            _ => {}
        }
    }
    None
}

/// Undoes `\"`, `\\` and `\]`; a backslash before anything else stays (RFC 5424, 6.3.3).
fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        let special = c == '\\' && matches!(chars.peek(), Some('"' | '\\' | ']'));
        out.extend(if special { chars.next() } else { Some(c) });
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nil_and_the_rest() {
        assert_eq!(StructuredData::split("- text"), Some((StructuredData(""), " text")));
        assert_eq!(StructuredData::split("-"), Some((StructuredData(""), "")));
        assert_eq!(StructuredData::split("text"), None);
        assert_eq!(StructuredData::split("[a b=\"c\"]x"), None, "no space before the message");
    }

    #[test]
    fn example_of_the_rfc() {
        let text = r#"[exampleSDID@32473 iut="3" eventSource="Application"][examplePriority@32473 class="high"] tail"#;
        let (data, rest) = StructuredData::split(text).unwrap();
        assert_eq!(rest, " tail");
        assert_eq!(data.get("exampleSDID@32473", "eventSource").as_deref(), Some("Application"));
        assert_eq!(data.get("examplePriority@32473", "class").as_deref(), Some("high"));
        assert_eq!(data.get("examplePriority@32473", "iut"), None);
        assert_eq!(data.elements().count(), 2);
    }

    #[test]
    fn escapes_are_undone_and_brackets_inside_values_do_not_end_the_element() {
        let (data, _) = StructuredData::split(r#"[x a="q\"\\\] \n" b="]"]"#).unwrap();
        assert_eq!(data.get("x", "a").as_deref(), Some(r#"q"\] \n"#));
        assert_eq!(
            data.get("x", "b").as_deref(),
            Some("]"),
            "senders that forget this escape are understood"
        );
    }

    #[test]
    fn unfinished_elements_are_refused() {
        for text in ["[", "[]", "[a", "[a b]", "[a b=c]", r#"[a b="c]"#, r#"[a b="c\"]"#] {
            assert_eq!(StructuredData::split(text), None, "{text}");
        }
    }
}
