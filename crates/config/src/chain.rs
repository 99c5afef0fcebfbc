//! `[[flow]]` and `[[task]]`: what is taken from where and put where, and what may be run by name.
//!
//! These are the shapes that people write; what the filter, the expressions and the templates in them mean is decided by the flow service.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One `[[flow]]`: source, filter, fields, sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Its name: letters, digits, `-`, `_` and `.`; each flow has its own.
    pub name: String,
    /// Where records come from.
    pub from: Source,
    /// The filter; every record passes when there is none.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// How fields are taken from a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extract: Option<Extract>,
    /// Where records go.
    pub to: Sink,
    /// The topic for records on which the filter, the extraction or the sink failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<String>,
}

impl Flow {
    /// Keys of a `[[flow]]`.
    pub(crate) const KEYS: &[&str] = &["name", "from", "where", "extract", "to", "dead_letter"];
    /// The topic for records that failed: `dead_letter`, or the flow's name with `.dead`.
    pub fn dead_letter_topic(&self) -> String {
        self.dead_letter.clone().unwrap_or_else(|| format!("{}.dead", self.name))
    }
}

/// Where a flow's records come from: `from = "syslog"` or `from = { topic = "tasks" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The syslog listener.
    Syslog,
    /// A topic of the event log.
    Topic(String),
}

/// How fields are taken from a record; at least one way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Extract {
    /// A regular expression over the message; each named group is a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// The id of a structured-data element (RFC 5424); each of its parameters is a field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sd: Option<String>,
}

impl Extract {
    pub(crate) const KEYS: &[&str] = &["regex", "sd"];
}

/// Where a flow's records go: exactly one of `topic`, `exchange`, `job`, `syslog` and `file`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// A topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// With `topic`: the record's key, as a template over the fields: `"{id}"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// An exchange of the message broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// With `exchange`: the routing key, as a template over the fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routing_key: Option<String>,
    /// A task of the catalogue to run as a job, as a template over the fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// A syslog receiver: `"udp://HOST:PORT"`, `"tcp://HOST:PORT"` or `"relp://HOST:PORT"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syslog: Option<String>,
    /// A file to append to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What is written of a record; chosen by `extract` when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<ValueKind>,
}

/// What a flow writes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueKind {
    /// The line or the value as it came; chosen without `extract`.
    Raw,
    /// The fields as a JSON object; chosen with `extract`.
    Fields,
    /// A task request, checked against the catalogue; chosen when `extract` names the groups `id` and `task`.
    Task,
}

impl ValueKind {
    /// Each kind by its name in the file.
    pub(crate) const NAMES: [(&str, Self); 3] =
        [("raw", Self::Raw), ("fields", Self::Fields), ("task", Self::Task)];
}

impl Sink {
    pub(crate) const KEYS: &[&str] =
        &["topic", "key", "exchange", "routing_key", "job", "syslog", "file", "value"];

    /// The kinds of sink that are set, by their key.
    pub(crate) fn kinds(&self) -> Vec<&'static str> {
        [
            ("topic", &self.topic),
            ("exchange", &self.exchange),
            ("job", &self.job),
            ("syslog", &self.syslog),
            ("file", &self.file),
        ]
        .into_iter()
        .filter_map(|(kind, value)| value.is_some().then_some(kind))
        .collect()
    }
}

/// One `[[task]]` of the catalogue: a command line that a record may name, never write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// What a record calls it.
    pub name: String,
    /// The program and its arguments. `{NAME}` within an argument is replaced by the value of that argument; no shell sits between.
    pub command: Vec<String>,
    /// The arguments a record gives, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, Arg>,
    /// Which node runs it: `"any"`, a host name, or `"{NAME}"` for the value of that argument.
    #[serde(default = "any", skip_serializing_if = "is_any")]
    pub node: String,
    /// After this long the job is ended.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "duration")]
    pub time_limit: Option<Duration>,
}

impl Task {
    pub(crate) const KEYS: &[&str] = &["name", "command", "args", "node", "time_limit"];
}

pub(crate) fn any() -> String {
    "any".to_owned()
}

fn is_any(node: &str) -> bool {
    node == "any"
}

/// One argument of a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arg {
    /// What its value must be.
    #[serde(rename = "type", default)]
    pub kind: ArgKind,
    /// Its value when the record gives none; without it the argument is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// A regular expression that the whole value must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The smallest value of an integer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// The largest value of an integer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
}

impl Arg {
    pub(crate) const KEYS: &[&str] = &["type", "default", "pattern", "min", "max"];
}

/// What the value of an argument must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArgKind {
    /// Any text that does not begin with `-`.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// An absolute path without `..`.
    Path,
}

impl ArgKind {
    /// Each kind by its name in the file.
    pub(crate) const NAMES: [(&str, Self); 3] =
        [("string", Self::String), ("integer", Self::Integer), ("path", Self::Path)];
}

/// A duration as RFC 23 text, where one is given.
mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::value::{read_duration, show_duration};

    #[expect(clippy::ref_option, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, out: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(duration) => out.serialize_str(&show_duration(*duration)),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(input)?;
        text.map(|text| read_duration(&text).ok_or_else(|| D::Error::custom("no duration"))).transpose()
    }
}
