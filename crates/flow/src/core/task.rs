//! The task catalogue: what may be run by name, and the way from a line to an argument vector.
//!
//! **Invariant:** a command line never comes from the network. A request names a task and gives values; each value is checked by its type and put
//! into the one place of the argument vector that its template names. No shell sees it, and no value can become a second argument.

use super::definition::{ArgumentDefinition, ArgumentKind, TaskDefinition};
use super::template::Template;
use crate::syslog;
use kiln_types::Timestamp;
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Longest task id, in bytes.
pub const TASK_ID_BYTES_MAX: usize = 128;
/// Longest value of an argument, in bytes.
const VALUE_BYTES_MAX: usize = 4096;
/// Most arguments of a request.
const ARGUMENTS_MAX: usize = 64;
/// The node of a task that may run anywhere.
const ANY: &str = "any";

/// What identifies a task from the line to the recorder: 1 to [`TASK_ID_BYTES_MAX`] printable ASCII characters without space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(String);

impl TaskId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TaskId {
    type Error = TaskError;

    fn try_from(text: String) -> Result<TaskId, TaskError> {
        let valid =
            (1..=TASK_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if valid { Ok(TaskId(text)) } else { Err(TaskError::Id) }
    }
}

impl From<TaskId> for String {
    fn from(id: TaskId) -> String {
        id.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A task as it travels through topic and queue, in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRequest {
    /// Its id: the idempotency key of everything that follows.
    pub id: TaskId,
    /// Its name in the catalogue.
    pub task: String,
    /// The values of its arguments.
    pub args: BTreeMap<String, String>,
    /// `any`, or the host that is to run it.
    pub node: String,
    /// When its line was written; RFC 3339.
    #[serde(with = "rfc3339")]
    pub issued: Timestamp,
}

/// A request that passed the catalogue: what to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRun {
    /// Its id: submitting the same id again must find the same job.
    pub id: TaskId,
    /// Its name in the catalogue.
    pub task: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The host that is to run it; `None` for any.
    pub host: Option<String>,
    /// After this long it is to be ended.
    pub time_limit: Option<Duration>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The id cannot serve as one.
    #[error("the task id must be 1 to {TASK_ID_BYTES_MAX} printable ASCII characters without spaces")]
    Id,
    /// Not a request.
    #[error("not a task request: {0}")]
    Malformed(String),
    /// No such name.
    #[error("unknown task `{0}`; known: {1}")]
    Unknown(String, String),
    /// Arguments that do not parse.
    #[error("arguments are written name=value, or name=\"value with spaces\": {0}")]
    Arguments(String),
    /// An argument that the task does not have.
    #[error("task `{task}` has no argument `{name}`")]
    UnknownArgument {
        /// The task.
        task: String,
        /// The argument.
        name: String,
    },
    /// An argument without value.
    #[error("task `{task}` needs argument `{name}`")]
    MissingArgument {
        /// The task.
        task: String,
        /// The argument.
        name: String,
    },
    /// A value that its type does not admit.
    #[error("argument `{name}` of task `{task}` {reason}")]
    BadArgument {
        /// The task.
        task: String,
        /// The argument.
        name: String,
        /// What is wrong with its value, as a verb phrase.
        reason: String,
    },
}

/// All tasks that may be run.
#[derive(Debug, Default)]
pub struct Catalogue {
    tasks: BTreeMap<String, Task>,
}

#[derive(Debug)]
struct Task {
    command: Vec<Template>,
    arguments: BTreeMap<String, Argument>,
    node: Template,
    time_limit: Option<Duration>,
}

#[derive(Debug)]
struct Argument {
    definition: ArgumentDefinition,
    pattern: Option<Regex>,
}

impl Catalogue {
    /// Checks all definitions; the errors are task, key and what is wrong.
    pub fn compile(definitions: &[TaskDefinition]) -> Result<Catalogue, Vec<(String, String, String)>> {
        let mut catalogue = Catalogue::default();
        let mut problems = Vec::new();
        for definition in definitions {
            let mut report =
                |key: &str, what: String| problems.push((definition.name.clone(), key.to_owned(), what));
            let task = compile_task(definition, &mut report);
            if catalogue.tasks.insert(definition.name.clone(), task).is_some() {
                report("name", "is taken by another task".to_owned());
            }
        }
        if problems.is_empty() { Ok(catalogue) } else { Err(problems) }
    }

    /// The names of all tasks.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tasks.keys().map(String::as_str)
    }

    /// Makes a request of a task's name and arguments as a line writes them (`path=/etc/hostname depth=2`), checked.
    pub fn request(
        &self,
        id: &str,
        task: &str,
        arguments: &str,
        issued: Timestamp,
    ) -> Result<TaskRequest, TaskError> {
        let id = TaskId::try_from(id.to_owned())?;
        let args = parse_arguments(arguments)?;
        let request = TaskRequest { id, task: task.to_owned(), args, node: String::new(), issued };
        let run = self.resolve(&request)?;
        Ok(TaskRequest { node: run.host.unwrap_or_else(|| ANY.to_owned()), ..request })
    }

    /// Reads a request from JSON and checks it.
    pub fn read(&self, json: &[u8]) -> Result<(TaskRequest, TaskRun), TaskError> {
        let request: TaskRequest =
            serde_json::from_slice(json).map_err(|error| TaskError::Malformed(error.to_string()))?;
        let run = self.resolve(&request)?;
        Ok((request, run))
    }

    /// From a request to what to start.
    pub fn resolve(&self, request: &TaskRequest) -> Result<TaskRun, TaskError> {
        let Some(task) = self.tasks.get(&request.task) else {
            let known = self.names().collect::<Vec<_>>().join(", ");
            return Err(TaskError::Unknown(request.task.clone(), known));
        };
        let values = task.check(&request.task, &request.args)?;
        let render = |template: &Template| {
            let rendered =
                template.render(|name| values.get(name).map(|value| Cow::Owned((*value).to_owned())));
            rendered.map(Cow::into_owned).map_err(|name| missing(&request.task, name))
        };
        let argv = task.command.iter().map(render).collect::<Result<_, _>>()?;
        let node = render(&task.node)?;
        let host = (node != ANY).then_some(node);
        Ok(TaskRun {
            id: request.id.clone(),
            task: request.task.clone(),
            argv,
            host,
            time_limit: task.time_limit,
        })
    }
}

fn missing(task: &str, name: &str) -> TaskError {
    TaskError::MissingArgument { task: task.to_owned(), name: name.to_owned() }
}

impl Task {
    /// Every argument with its checked value, given or by default.
    fn check<'a>(
        &'a self,
        task: &str,
        given: &'a BTreeMap<String, String>,
    ) -> Result<BTreeMap<&'a str, &'a str>, TaskError> {
        if let Some(name) = given.keys().find(|name| !self.arguments.contains_key(*name)) {
            return Err(TaskError::UnknownArgument { task: task.to_owned(), name: name.clone() });
        }
        let mut values = BTreeMap::new();
        for (name, argument) in &self.arguments {
            let value = given
                .get(name)
                .or(argument.definition.default.as_ref())
                .ok_or_else(|| missing(task, name))?;
            argument.check(value).map_err(|reason| TaskError::BadArgument {
                task: task.to_owned(),
                name: name.clone(),
                reason,
            })?;
            values.insert(name.as_str(), value.as_str());
        }
        Ok(values)
    }
}

impl Argument {
    fn check(&self, value: &str) -> Result<(), String> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(format!("is longer than {VALUE_BYTES_MAX} bytes"));
        }
        if value.chars().any(char::is_control) {
            return Err("holds a control character".to_owned());
        }
        match self.definition.kind {
            ArgumentKind::String if value.starts_with('-') && self.pattern.is_none() => {
                return Err("begins with `-`, which the program could take for an option".to_owned());
            }
            ArgumentKind::String => {}
            ArgumentKind::Integer => self.check_integer(value)?,
            ArgumentKind::Path => check_path(value)?,
        }
        match &self.pattern {
            Some(pattern) if !pattern.is_match(value) => {
                Err(format!("does not match `{}`", self.definition.pattern.as_deref().unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }

    fn check_integer(&self, value: &str) -> Result<(), String> {
        let number: i64 = value.parse().map_err(|_| "is no whole number".to_owned())?;
        if self.definition.min.is_some_and(|min| number < min)
            || self.definition.max.is_some_and(|max| number > max)
        {
            let bound = |bound: Option<i64>| bound.map_or("any".to_owned(), |bound| bound.to_string());
            return Err(format!(
                "is not between {} and {}",
                bound(self.definition.min),
                bound(self.definition.max)
            ));
        }
        Ok(())
    }
}

fn check_path(value: &str) -> Result<(), String> {
    if !value.starts_with('/') {
        return Err("is no absolute path".to_owned());
    }
    if value.split('/').any(|part| part == "..") {
        return Err("climbs with `..`".to_owned());
    }
    Ok(())
}

fn compile_task(definition: &TaskDefinition, report: &mut dyn FnMut(&str, String)) -> Task {
    if definition.command.first().is_none_or(String::is_empty) {
        report("command", "is empty: give the program and its arguments".to_owned());
    }
    let template = |key: &str, text: &str, report: &mut dyn FnMut(&str, String)| {
        let parsed = Template::parse(text).inspect_err(|error| report(key, error.to_string())).ok()?;
        for name in parsed.names().filter(|name| !definition.arguments.contains_key(*name)) {
            report(key, format!("`{{{name}}}` is no argument of the task"));
        }
        Some(parsed)
    };
    let command: Vec<Template> =
        definition.command.iter().filter_map(|text| template("command", text, report)).collect();
    if command.first().is_some_and(|program| program.names().next().is_some()) {
        report("command", "the program itself must not come from an argument".to_owned());
    }
    let node = template("node", &definition.node, report).unwrap_or(Template::parse("").expect("no braces"));
    let arguments = definition
        .arguments
        .iter()
        .map(|(name, argument)| (name.clone(), compile_argument(name, argument, report)));
    Task { arguments: arguments.collect(), command, node, time_limit: definition.time_limit }
}

fn compile_argument(
    name: &str,
    definition: &ArgumentDefinition,
    report: &mut dyn FnMut(&str, String),
) -> Argument {
    let key = format!("args.{name}");
    let compiled = definition.pattern.as_deref().map(|pattern| Regex::new(&format!("^(?:{pattern})$")));
    let pattern = compiled.transpose().unwrap_or_else(|error| {
        report(&format!("{key}.pattern"), error.to_string());
        None
    });
    if definition.kind != ArgumentKind::Integer && (definition.min.is_some() || definition.max.is_some()) {
        report(&key, "min and max are for integers".to_owned());
    }
    let argument = Argument { definition: definition.clone(), pattern };
    if let Some(Err(reason)) = definition.default.as_deref().map(|value| argument.check(value)) {
        report(&format!("{key}.default"), reason);
    }
    argument
}

/// `name=value name="value with \"spaces\""`.
fn parse_arguments(text: &str) -> Result<BTreeMap<String, String>, TaskError> {
    let mut arguments = BTreeMap::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let bad = || TaskError::Arguments(rest.chars().take(40).collect());
        let (name, after) = rest.split_once('=').ok_or_else(bad)?;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) {
            return Err(bad());
        }
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            unquote(quoted).ok_or_else(bad)?
        } else {
            let (value, tail) = after.split_once(' ').unwrap_or((after, ""));
            (value.to_owned(), tail)
        };
        if arguments.insert(name.to_owned(), value).is_some() || arguments.len() > ARGUMENTS_MAX {
            return Err(bad());
        }
        rest = tail.trim_start();
    }
    Ok(arguments)
}

/// A value up to its closing quote, and what follows the space behind it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    loop {
        match chars.next()? {
            (at, '"') => {
                let tail = &text[at + 1..];
                return (tail.is_empty() || tail.starts_with(' ')).then_some((value, tail));
            }
            (_, '\\') => value.push(chars.next()?.1),
            (_, c) => value.push(c),
        }
    }
}

/// Times as RFC 3339 text, for people who read the topic.
mod rfc3339 {
    use super::{Timestamp, syslog};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
    pub(super) fn serialize<S: Serializer>(at: &Timestamp, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&syslog::format_time(*at))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(input)?;
        syslog::parse_time(&text).ok_or_else(|| D::Error::custom("not a time in RFC 3339"))
    }
}

#[cfg(test)]
mod tests;
