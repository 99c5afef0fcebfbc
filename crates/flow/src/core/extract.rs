//! Fields: what is taken of an event.

use super::definition::Extract;
use crate::syslog::StructuredData;
use regex::Regex;
use std::borrow::Cow;

/// Most fields taken of one event; further parameters of structured data are left.
const FIELDS_MAX: usize = 64;
const REGEX_BYTES_MAX: usize = 1 << 20;

/// Names and values in the order in which they were found; few, so that a list beats a map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Fields<'a> {
    /// The value of `name`.
    pub fn get(&self, name: &str) -> Option<&Cow<'a, str>> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn push(&mut self, name: impl Into<Cow<'a, str>>, value: Cow<'a, str>) {
        let name = name.into();
        if self.0.len() < FIELDS_MAX && self.get(&name).is_none() {
            self.0.push((name, value));
        }
    }
}

/// A checked [`Extract`].
#[derive(Debug)]
pub(super) struct Extractor {
    regex: Option<Regex>,
    sd: Option<String>,
}

impl Extractor {
    pub(super) fn compile(extract: &Extract) -> Result<Extractor, (&'static str, String)> {
        if extract.regex.is_none() && extract.sd.is_none() {
            return Err(("extract", "takes nothing: give `regex` or `sd`".to_owned()));
        }
        let compiled = extract.regex.as_deref().map(|text| {
            let built = regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
            built.map_err(|error| ("extract.regex", error.to_string()))
        });
        let regex = compiled.transpose()?;
        if regex.as_ref().is_some_and(|regex| regex.capture_names().flatten().next().is_none()) {
            return Err((
                "extract.regex",
                "names no group: write (?<name>...) around what to take".to_owned(),
            ));
        }
        Ok(Extractor { regex, sd: extract.sd.clone() })
    }

    /// The names it gives; `None` when they depend on the event.
    pub(super) fn names(&self) -> Option<Vec<&str>> {
        let regex = self.regex.as_ref().filter(|_| self.sd.is_none())?;
        Some(regex.capture_names().flatten().collect())
    }

    /// Whether the regular expression has groups of these names.
    pub(super) fn has_groups(&self, names: &[&str]) -> bool {
        let has = |wanted: &str| {
            self.regex.iter().any(|regex| regex.capture_names().flatten().any(|name| name == wanted))
        };
        names.iter().all(|name| has(name))
    }

    /// Takes the fields; the error says what did not match.
    pub(super) fn take<'a>(
        &'a self,
        text: &'a str,
        structured: StructuredData<'a>,
    ) -> Result<Fields<'a>, String> {
        let mut fields = Fields::default();
        if let Some(regex) = &self.regex {
            let captures =
                regex.captures(text).ok_or_else(|| format!("extract.regex `{regex}` does not match"))?;
            for name in regex.capture_names().flatten() {
                if let Some(group) = captures.name(name) {
                    fields.push(name, Cow::Borrowed(group.as_str()));
                }
            }
        }
        if let Some(id) = &self.sd {
            let found = structured.elements().find(|element| element.id == id);
            let element = found.ok_or_else(|| format!("the event has no structured data [{id} ...]"))?;
            element.params().for_each(|(name, value)| fields.push(name, value));
        }
        Ok(fields)
    }
}
