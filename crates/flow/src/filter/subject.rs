//! What a filter looks at.

use super::schema::{IntVariable, MapVariable, TextVariable};
use crate::syslog::Message;
use kiln_types::Timestamp;
use std::borrow::Cow;

/// An event. A variable that its schema does not have is empty or 0; the checker lets no filter ask.
pub trait Subject {
    /// A text; empty when absent.
    fn text(&self, variable: TextVariable) -> &str;
    /// A number.
    fn int(&self, variable: IntVariable) -> i64;
    /// When it was written.
    fn time(&self) -> Timestamp;
    /// A text under keys; `None` when one of them is missing.
    fn lookup(&self, map: MapVariable, keys: &[String]) -> Option<Cow<'_, str>>;
}

impl Subject for Message<'_> {
    fn text(&self, variable: TextVariable) -> &str {
        match variable {
            TextVariable::Appname => self.appname,
            TextVariable::Hostname => self.hostname,
            TextVariable::Procid => self.procid,
            TextVariable::Msgid => self.msgid,
            TextVariable::Message => self.message,
            TextVariable::Raw => self.raw,
            TextVariable::Key | TextVariable::Value | TextVariable::Topic => "",
        }
    }

    fn int(&self, variable: IntVariable) -> i64 {
        match variable {
            IntVariable::Facility => self.priority.facility().into(),
            IntVariable::Severity => self.priority.severity().into(),
        }
    }

    fn time(&self) -> Timestamp {
        Message::time(self)
    }

    fn lookup(&self, map: MapVariable, keys: &[String]) -> Option<Cow<'_, str>> {
        match (map, keys) {
            (MapVariable::Structured, [id, name]) => self.structured.get(id, name),
            _ => None,
        }
    }
}

/// A record of a topic, its value read as text and, where it is one, as a JSON object.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key; empty when null.
    pub key: Cow<'a, str>,
    /// The value; empty when null.
    pub value: Cow<'a, str>,
    /// The record's own time.
    pub time: Timestamp,
    /// Names and values; the first of a name counts.
    pub headers: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The value as JSON; `Null` when it is no object.
    pub json: serde_json::Value,
}

impl<'a> Record<'a> {
    /// A record with this value; bytes that are no UTF-8 are replaced.
    pub fn new(topic: &'a str, key: &'a [u8], value: &'a [u8], time: Timestamp) -> Record<'a> {
        let json = if value.first() == Some(&b'{') { serde_json::from_slice(value).ok() } else { None };
        Record {
            topic,
            key: String::from_utf8_lossy(key),
            value: String::from_utf8_lossy(value),
            time,
            headers: Vec::new(),
            json: json.unwrap_or_default(),
        }
    }
}

/// A JSON scalar as text; containers and null have none.
pub(crate) fn scalar(value: &serde_json::Value) -> Option<Cow<'_, str>> {
    match value {
        serde_json::Value::String(text) => Some(Cow::Borrowed(text)),
        serde_json::Value::Number(number) => Some(Cow::Owned(number.to_string())),
        serde_json::Value::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        _ => None,
    }
}

impl Subject for Record<'_> {
    fn text(&self, variable: TextVariable) -> &str {
        match variable {
            TextVariable::Key => &self.key,
            TextVariable::Value => &self.value,
            TextVariable::Topic => self.topic,
            _ => "",
        }
    }

    fn int(&self, _: IntVariable) -> i64 {
        0
    }

    fn time(&self) -> Timestamp {
        self.time
    }

    fn lookup(&self, map: MapVariable, keys: &[String]) -> Option<Cow<'_, str>> {
        match (map, keys) {
            (MapVariable::Json, _) => scalar(keys.iter().try_fold(&self.json, |value, key| value.get(key))?),
            (MapVariable::Headers, [name]) => {
                self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| Cow::Borrowed(&**value))
            }
            _ => None,
        }
    }
}
