//! What people write: flows and tasks, before they are checked. The crate `config` reads them from TOML in the same shapes.

use std::collections::BTreeMap;
use std::time::Duration;

/// One flow: where events come from, which are taken, what is taken of them, and where that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name; each flow has its own.
    pub name: String,
    /// Where events come from.
    pub from: Source,
    /// The filter; without one every event passes.
    pub filter: Option<String>,
    /// How fields are taken from an event.
    pub extract: Option<Extract>,
    /// Where it goes.
    pub to: Sink,
    /// The topic for events that failed; `NAME.dead` when absent.
    pub dead_letter: Option<String>,
}

/// Where events come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The syslog listener.
    Syslog,
    /// A topic.
    Topic(String),
}

/// How fields are taken from an event. Both ways together give the fields of both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extract {
    /// A regular expression over the message (of a record: over its value); each named group is a field.
    pub regex: Option<String>,
    /// The id of a structured data element; each of its parameters is a field.
    pub sd: Option<String>,
}

/// Where a flow's events go: exactly one of `topic`, `exchange`, `job`, `syslog` and `file`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sink {
    /// A topic.
    pub topic: Option<String>,
    /// With `topic`: the record's key, a template over the fields.
    pub key: Option<String>,
    /// An exchange.
    pub exchange: Option<String>,
    /// With `exchange`: the routing key, a template over the fields.
    pub routing_key: Option<String>,
    /// A task of the catalogue to run as a job, a template over the fields.
    pub job: Option<String>,
    /// `udp://HOST:PORT`, `tcp://HOST:PORT` or `relp://HOST:PORT`.
    pub syslog: Option<String>,
    /// A file to append lines to.
    pub file: Option<String>,
    /// What is written; see [`ValueKind`] for what is chosen without it.
    pub value: Option<ValueKind>,
}

/// What is written of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// The line or the record's value as it came. The default without `extract`.
    Raw,
    /// The fields as a JSON object. The default with `extract`.
    Fields,
    /// A task request, checked against the catalogue. The default when `extract` names the groups `id` and `task`.
    Task,
}

/// One entry of the task catalogue: a command that a line may name, never write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskDefinition {
    /// What a line calls it.
    pub name: String,
    /// Program and arguments. `{NAME}` within one of them stands for the value of that argument; no shell sits between.
    pub command: Vec<String>,
    /// The arguments that a line gives, by name.
    pub arguments: BTreeMap<String, ArgumentDefinition>,
    /// `any`, the name of a host, or `{NAME}` for the value of that argument.
    pub node: String,
    /// After this long the job is ended.
    pub time_limit: Option<Duration>,
}

/// One argument of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArgumentDefinition {
    /// What its value must be.
    pub kind: ArgumentKind,
    /// Its value when the line gives none; without it the argument is required.
    pub default: Option<String>,
    /// A regular expression that the whole value must match.
    pub pattern: Option<String>,
    /// The smallest integer.
    pub min: Option<i64>,
    /// The largest integer.
    pub max: Option<i64>,
}

/// What the value of an argument must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ArgumentKind {
    /// Text without control characters, that does not begin with `-` unless a pattern admits it.
    #[default]
    String,
    /// A whole number.
    Integer,
    /// An absolute path without `..`.
    Path,
}
