//! `"task {id} on {host}"`: text with names in braces. `{{` and `}}` are braces.

use std::borrow::Cow;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

/// Why a template does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTemplate {
    /// A brace without its partner.
    #[error("`{0}` at byte {1} has no partner; write `{0}{0}` for the character itself")]
    Brace(char, usize),
    /// Something that is no name between braces.
    #[error("`{{{0}}}` names no field: letters, digits, `_`, `-` and `.` only")]
    Name(String),
}

impl Template {
    /// Parses `text`.
    pub fn parse(text: &str) -> Result<Template, BadTemplate> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let brace = rest.as_bytes()[at] as char;
            literal.push_str(&rest[..at]);
            let offset = text.len() - rest.len() + at;
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push(brace);
                rest = after;
                continue;
            }
            let (name, after) =
                rest.split_once('}').filter(|_| brace == '{').ok_or(BadTemplate::Brace(brace, offset))?;
            if !is_name(name) {
                return Err(BadTemplate::Name(name.to_owned()));
            }
            parts.extend((!literal.is_empty()).then(|| Part::Text(std::mem::take(&mut literal))));
            parts.push(Part::Name(name.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        parts.extend((!literal.is_empty()).then_some(Part::Text(literal)));
        Ok(Template { parts })
    }

    /// The names that it needs.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Puts values in place of the names; the error is the first name without one.
    pub fn render<'a>(
        &'a self,
        value: impl Fn(&str) -> Option<Cow<'a, str>>,
    ) -> Result<Cow<'a, str>, &'a str> {
        let one = |part: &'a Part| match part {
            Part::Text(text) => Ok(Cow::Borrowed(text.as_str())),
            Part::Name(name) => value(name).ok_or(name.as_str()),
        };
        match self.parts.as_slice() {
            [] => Ok(Cow::Borrowed("")),
            [only] => one(only),
            parts => parts.iter().map(one).collect::<Result<String, _>>().map(Cow::Owned),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str) -> Result<String, String> {
        let template = Template::parse(template).map_err(|error| error.to_string())?;
        let value = |name: &str| (name != "none").then(|| Cow::Owned(name.to_uppercase()));
        template.render(value).map(Cow::into_owned).map_err(ToOwned::to_owned)
    }

    #[test]
    fn names_are_replaced() {
        assert_eq!(render("a {b} {c.d}{e}"), Ok("a B C.DE".to_owned()));
        assert_eq!(render("{{a}} {b}}}"), Ok("{a} B}".to_owned()));
        assert_eq!(render(""), Ok(String::new()));
        assert_eq!(render("x{none}"), Err("none".to_owned()));
        assert_eq!(Template::parse("{a}-{b}").unwrap().names().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn braces_must_pair() {
        assert_eq!(Template::parse("a{b"), Err(BadTemplate::Brace('{', 1)));
        assert_eq!(Template::parse("ab}"), Err(BadTemplate::Brace('}', 2)));
        assert_eq!(Template::parse("{}"), Err(BadTemplate::Name(String::new())));
        assert_eq!(Template::parse("{a b}"), Err(BadTemplate::Name("a b".to_owned())));
    }
}
