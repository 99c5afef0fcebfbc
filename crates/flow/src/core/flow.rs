//! A checked flow, and its verdict on an event.

use super::batch::{Batch, dead_headers};
use super::definition::{Definition, Sink, Source, ValueKind};
use super::extract::{Extractor, Fields};
use super::task::{Catalogue, TaskRequest};
use super::template::Template;
use crate::filter::{Filter, MapVariable, Record, Schema, Subject, TextVariable};
use crate::syslog::{Message, StructuredData};
use kiln_types::Timestamp;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Longest routing key and message id, in bytes: AMQP's short string.
pub const SHORT_BYTES_MAX: usize = 255;

/// A mistake in a definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `flow` or `task`.
    pub kind: &'static str,
    /// Which one.
    pub name: String,
    /// The key with the mistake, for instance `where` or `to.key`.
    pub key: String,
    /// What is wrong, and what to do; may be several lines.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}: {}", self.kind, self.name, self.key, self.message)
    }
}

impl std::error::Error for Problem {}

/// A flow that can run.
#[derive(Debug)]
pub struct Flow {
    name: String,
    source: Source,
    filter: Option<Filter>,
    extractor: Option<Extractor>,
    outlet: Outlet,
    value: ValueKind,
    dead_letter: String,
    catalogue: Arc<Catalogue>,
}

/// Where its events go.
#[derive(Debug)]
pub enum Outlet {
    /// A topic.
    Topic {
        /// Its name.
        topic: String,
        /// The records' key; without it the source's own.
        key: Option<Template>,
    },
    /// An exchange.
    Exchange {
        /// Its name.
        exchange: String,
        /// The routing key.
        routing_key: Template,
    },
    /// Jobs.
    Jobs {
        /// The task's name.
        task: Template,
    },
    /// A syslog receiver.
    Syslog(SinkAddress),
    /// A file.
    File(String),
}

/// Where a syslog sink sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkAddress {
    /// Datagrams; `HOST:PORT`.
    Udp(String),
    /// A stream, octet-counted; `HOST:PORT`.
    Tcp(String),
    /// RELP; `HOST:PORT`.
    Relp(String),
}

/// Checks the whole chain; reports every problem.
pub fn compile(definitions: &[Definition], catalogue: &Arc<Catalogue>) -> Result<Vec<Flow>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut flows: Vec<Flow> = Vec::new();
    for definition in definitions {
        let flow = Flow::compile(definition, catalogue).map_err(|found| problems.extend(found));
        if flows.iter().any(|other| other.name == definition.name) {
            problems.push(problem(definition, "name", "is taken by another flow".to_owned()));
        }
        flows.extend(flow);
    }
    if problems.is_empty() { Ok(flows) } else { Err(problems) }
}

fn problem(definition: &Definition, key: &str, message: String) -> Problem {
    Problem { kind: "flow", name: definition.name.clone(), key: key.to_owned(), message }
}

impl Flow {
    /// Checks one definition; reports every problem.
    pub fn compile(definition: &Definition, catalogue: &Arc<Catalogue>) -> Result<Flow, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut report = |key: &str, message: String| problems.push(problem(definition, key, message));
        let schema = match definition.from {
            Source::Syslog => Schema::Syslog,
            Source::Topic(_) => Schema::Record,
        };
        let filter = definition.filter.as_deref().and_then(|source| {
            Filter::compile(source, schema).inspect_err(|error| report("where", error.to_string())).ok()
        });
        let extractor = definition.extract.as_ref().and_then(|extract| {
            Extractor::compile(extract).inspect_err(|(key, message)| report(key, message.clone())).ok()
        });
        if schema == Schema::Record && definition.extract.as_ref().is_some_and(|extract| extract.sd.is_some())
        {
            report(
                "extract.sd",
                "records have no structured data; use `regex`, or the keys of a JSON value as they are"
                    .to_owned(),
            );
        }
        let fields = extractor.as_ref().and_then(Extractor::names);
        let known = |name: &str| {
            schema == Schema::Record
                || fields.as_ref().is_none_or(|names| names.contains(&name))
                || variable(name).is_some()
        };
        let outlet = compile_outlet(&definition.to, &known, &mut report);
        let issues = extractor.as_ref().is_some_and(|extractor| extractor.has_groups(&["id", "task"]));
        let value = definition.to.value.unwrap_or(match definition.extract {
            Some(_) if issues => ValueKind::Task,
            Some(_) => ValueKind::Fields,
            None => ValueKind::Raw,
        });
        let dead_letter =
            definition.dead_letter.clone().unwrap_or_else(|| format!("{}.dead", definition.name));
        match outlet {
            Some(outlet) if problems.is_empty() => Ok(Flow {
                name: definition.name.clone(),
                source: definition.from.clone(),
                filter,
                extractor,
                outlet,
                value,
                dead_letter,
                catalogue: catalogue.clone(),
            }),
            _ => Err(problems),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its events come from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Where they go.
    pub fn outlet(&self) -> &Outlet {
        &self.outlet
    }

    /// Where failures go.
    pub fn dead_letter(&self) -> &str {
        &self.dead_letter
    }

    /// Its filter.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// Decides on a syslog message, and adds what is to be done to `batch`.
    pub fn take_message(&self, message: &Message<'_>, batch: &mut Batch) {
        self.take_line(message, message.raw.as_bytes(), batch);
    }

    /// The same for a line that is not UTF-8: decides on its readable form, and hands on its own bytes.
    pub fn take_line(&self, message: &Message<'_>, raw: &[u8], batch: &mut Batch) {
        let event = Event {
            subject: message,
            text: message.message,
            raw,
            structured: message.structured,
            key: None,
            received: message.received,
        };
        self.take(&event, batch);
    }

    /// Decides on a record of a topic, and adds what is to be done to `batch`.
    pub fn take_record(&self, record: &Record<'_>, batch: &mut Batch) {
        let structured = StructuredData::default();
        let event = Event {
            subject: record,
            text: &record.value,
            raw: record.value.as_bytes(),
            structured,
            key: Some(&record.key),
            received: record.time,
        };
        self.take(&event, batch);
    }

    /// The tasks that it may name.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The fields that are taken of an event that passes: of its text, and of its structured data.
    pub fn fields<'a>(&'a self, text: &'a str, structured: StructuredData<'a>) -> Result<Fields<'a>, String> {
        self.extractor.as_ref().map_or(Ok(Fields::default()), |extractor| extractor.take(text, structured))
    }

    fn take(&self, event: &Event<'_>, batch: &mut Batch) {
        batch.seen += 1;
        let outcome = self.filter.as_ref().map_or(Ok(true), |filter| filter.matches(event.subject));
        let outcome = match outcome {
            Ok(false) => return,
            Ok(true) => {
                batch.matched += 1;
                self.produce(event, batch)
            }
            Err(error) => Err(format!("where: {error}")),
        };
        if let Err(reason) = outcome {
            batch.dead.push(
                event.key.map(str::as_bytes),
                event.raw,
                dead_headers(&self.name, &reason),
                event.received,
            );
        }
    }

    fn produce(&self, event: &Event<'_>, batch: &mut Batch) -> Result<(), String> {
        let extracted = self
            .extractor
            .as_ref()
            .map(|extractor| extractor.take(event.text, event.structured))
            .transpose()?;
        let scope = Scope { fields: extracted.unwrap_or_default(), event };
        let request = (self.value == ValueKind::Task).then(|| self.request(&scope)).transpose()?;
        let value = match (&request, self.value) {
            (Some(request), _) => Cow::Owned(to_json(request)?),
            (None, ValueKind::Fields) => {
                Cow::Owned(to_json(&scope.fields.iter().collect::<std::collections::BTreeMap<_, _>>())?)
            }
            (None, _) => Cow::Borrowed(event.raw),
        };
        let key = match &self.outlet {
            Outlet::Topic { key: Some(template), .. } => Some(scope.render("to.key", template)?),
            _ => request
                .as_ref()
                .map(|request| Cow::Borrowed(request.id.as_str()))
                .or(event.key.map(Cow::Borrowed)),
        };
        let key = key.as_deref().filter(|key| !key.is_empty());
        match &self.outlet {
            Outlet::Exchange { routing_key, .. } => {
                let node = request.as_ref().map(|request| request.node.as_str());
                let route = scope.render_with("to.routing_key", routing_key, node)?.into_owned();
                if route.len() > SHORT_BYTES_MAX {
                    return Err(format!("to.routing_key: longer than {SHORT_BYTES_MAX} bytes"));
                }
                batch.routes.push(route);
            }
            Outlet::Jobs { task } => {
                let name = scope.render("to.job", task)?;
                let request = self.named_request(&name, &scope)?;
                batch.runs.push(self.catalogue.resolve(&request).map_err(|error| error.to_string())?);
            }
            Outlet::Topic { .. } | Outlet::Syslog(_) | Outlet::File(_) => {}
        }
        batch.records.push(key.map(str::as_bytes), &value, Vec::new(), event.received);
        Ok(())
    }

    fn request(&self, scope: &Scope<'_>) -> Result<TaskRequest, String> {
        let task = scope.get("task").ok_or("the event has no field `task`")?;
        self.named_request(&task, scope)
    }

    fn named_request(&self, task: &str, scope: &Scope<'_>) -> Result<TaskRequest, String> {
        let id =
            scope.get("id").ok_or("the event has no field `id`, which tells a repeat from a new task")?;
        let arguments = scope.get("args").unwrap_or_default();
        let made = self.catalogue.request(&id, task, &arguments, scope.event.subject.time());
        made.map_err(|error| error.to_string())
    }
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, String> {
    serde_json::to_vec(value).map_err(|error| error.to_string())
}

/// What `take` needs of an event of either source.
struct Event<'a> {
    subject: &'a dyn Subject,
    /// What a regular expression looks at.
    text: &'a str,
    /// As it came, byte for byte.
    raw: &'a [u8],
    structured: StructuredData<'a>,
    key: Option<&'a str>,
    /// When it came to us: the time of the records that are made of it, so that retention by age keeps old lines that are replayed.
    received: Timestamp,
}

/// Where templates find their values: the fields, then the variables of the event, then the keys of a JSON value.
struct Scope<'a> {
    fields: Fields<'a>,
    event: &'a Event<'a>,
}

impl Scope<'_> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        if let Some(value) = self.fields.get(name) {
            return Some(Cow::Borrowed(value));
        }
        let json = self.event.subject.lookup(MapVariable::Json, &[name.to_owned()]);
        json.or_else(|| variable(name).map(|variable| Cow::Borrowed(self.event.subject.text(variable))))
    }

    fn render<'s>(&'s self, key: &str, template: &'s Template) -> Result<Cow<'s, str>, String> {
        self.render_with(key, template, None)
    }

    /// `node` answers for the field of that name, where the task's own choice is known.
    fn render_with<'s>(
        &'s self,
        key: &str,
        template: &'s Template,
        node: Option<&'s str>,
    ) -> Result<Cow<'s, str>, String> {
        let value = |name: &str| {
            if name == "node" { node.map(Cow::Borrowed).or_else(|| self.get(name)) } else { self.get(name) }
        };
        template.render(value).map_err(|name| format!("{key}: the event has no field `{name}`"))
    }
}

/// Variables that templates may name.
fn variable(name: &str) -> Option<TextVariable> {
    Some(match name {
        "appname" => TextVariable::Appname,
        "hostname" => TextVariable::Hostname,
        "procid" => TextVariable::Procid,
        "msgid" => TextVariable::Msgid,
        "message" => TextVariable::Message,
        "key" => TextVariable::Key,
        "topic" => TextVariable::Topic,
        _ => return None,
    })
}

fn compile_outlet(
    sink: &Sink,
    known: &dyn Fn(&str) -> bool,
    report: &mut dyn FnMut(&str, String),
) -> Option<Outlet> {
    let template = |key: &str, text: &str, report: &mut dyn FnMut(&str, String)| {
        let parsed = Template::parse(text).inspect_err(|error| report(key, error.to_string())).ok()?;
        for name in parsed.names().filter(|name| !known(name) && *name != "node") {
            report(key, format!("`{{{name}}}` is no field: `extract` does not name it"));
        }
        Some(parsed)
    };
    match (&sink.topic, &sink.exchange, &sink.job, &sink.syslog, &sink.file) {
        (Some(topic), None, None, None, None) => {
            let key = sink.key.as_deref().and_then(|key| template("to.key", key, report));
            Some(Outlet::Topic { topic: topic.clone(), key })
        }
        (None, Some(exchange), None, None, None) => {
            let routing_key =
                template("to.routing_key", sink.routing_key.as_deref().unwrap_or_default(), report)?;
            Some(Outlet::Exchange { exchange: exchange.clone(), routing_key })
        }
        (None, None, Some(job), None, None) => Some(Outlet::Jobs { task: template("to.job", job, report)? }),
        (None, None, None, Some(url), None) => {
            let address = sink_address(url);
            if address.is_none() {
                report(
                    "to.syslog",
                    format!("`{url}` is no address: write udp://, tcp:// or relp://HOST:PORT"),
                );
            }
            address.map(Outlet::Syslog)
        }
        (None, None, None, None, Some(file)) => Some(Outlet::File(file.clone())),
        _ => {
            report("to", "must name exactly one of topic, exchange, job, syslog and file".to_owned());
            None
        }
    }
}

fn sink_address(url: &str) -> Option<SinkAddress> {
    let (scheme, address) = url.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return None;
    }
    match scheme {
        "udp" => Some(SinkAddress::Udp(address.to_owned())),
        "tcp" => Some(SinkAddress::Tcp(address.to_owned())),
        "relp" => Some(SinkAddress::Relp(address.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
