//! Reads kiln.toml. Goes on after a mistake, so that one run names all of them, each with its line and column.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::chain::{Arg, ArgKind, Extract, Flow, Sink, Source, Task, ValueKind, any};
use crate::load::{Origins, TomlFile};
use crate::nearest::{did_you_mean, nearest};
use crate::problem::{Origin, Problem};
use crate::settings::{Config, Section, sections};
use crate::value::{Raw, Value};

/// Sets in `config` what `file` says, and adds to `problems` what cannot be understood.
pub(crate) fn read(file: &TomlFile, config: &mut Config, origins: &mut Origins, problems: &mut Vec<Problem>) {
    let (document, syntax) = DeTable::parse_recoverable(&file.text);
    let mut reader = Reader { file, origins, problems };
    for error in &syntax {
        let at = error.span().unwrap_or(0..0);
        reader.problem(
            &at,
            "",
            None,
            &format!("not TOML: {}", error.message()),
            "mend the line; strings need quotes, tables [brackets]",
        );
    }
    if syntax.is_empty() {
        reader.document(document.get_ref(), config);
    }
}

/// A dotted key below `path`.
fn below(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

struct Reader<'r> {
    file: &'r TomlFile,
    origins: &'r mut Origins,
    problems: &'r mut Vec<Problem>,
}

impl Reader<'_> {
    fn origin(&self, at: &Range<usize>) -> Origin {
        let before = &self.file.text[..at.start.min(self.file.text.len())];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Origin::File {
            path: self.file.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }

    fn problem(&mut self, at: &Range<usize>, key: &str, value: Option<String>, reason: &str, remedy: &str) {
        let origin = self.origin(at);
        self.problems.push(Problem {
            origin,
            key: key.to_owned(),
            value,
            reason: reason.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    fn unknown(&mut self, at: &Range<usize>, path: &str, key: &str, known: &[&str]) {
        self.problem(at, &below(path, key), None, "unknown key", &did_you_mean(key, known));
    }

    fn wrong(&mut self, value: &Spanned<DeValue<'_>>, key: &str, reason: &str, remedy: &str) {
        let shown = Raw::from_toml(value.get_ref()).to_string();
        self.problem(&value.span(), key, Some(shown), reason, remedy);
    }

    fn document(&mut self, document: &DeTable<'_>, config: &mut Config) {
        for (key, value) in document {
            match key.get_ref().as_ref() {
                "flow" => {
                    self.each_table(value, "flow", |reader, table, path| {
                        reader.flow(table, path).map(|flow| config.flow.push(flow))
                    });
                }
                "task" => {
                    self.each_table(value, "task", |reader, table, path| {
                        reader.task(table, path).map(|task| config.task.push(task))
                    });
                }
                name => match sections().iter().find(|section| section.name == name) {
                    Some(section) => self.section(section, value, config),
                    None => self.unknown_section(&key.span(), name),
                },
            }
        }
    }

    fn unknown_section(&mut self, at: &Range<usize>, name: &str) {
        let homes: Vec<_> = sections()
            .iter()
            .filter(|s| s.settings.iter().any(|setting| setting.name == name))
            .map(|s| s.name)
            .collect();
        if homes.is_empty() {
            let known: Vec<_> =
                sections().iter().map(|section| section.name).chain(["flow", "task"]).collect();
            self.unknown(at, "", name, &known);
        } else {
            let remedy = format!("write it under [{}]", homes.join("] or ["));
            self.problem(at, name, None, "this key belongs in a section", &remedy);
        }
    }

    fn section(&mut self, section: &Section, value: &Spanned<DeValue<'_>>, config: &mut Config) {
        let Some(table) = value.get_ref().as_table() else {
            self.wrong(
                value,
                section.name,
                "must be a table",
                &format!("write [{}] on a line of its own, and its keys below", section.name),
            );
            return;
        };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            let Some(setting) = section.settings.iter().find(|setting| setting.name == name) else {
                let known: Vec<_> = section.settings.iter().map(|setting| setting.name).collect();
                self.misplaced_or_unknown(&key.span(), section.name, name, &known);
                continue;
            };
            match (setting.set)(config, &Raw::from_toml(value.get_ref())) {
                Ok(()) => {
                    let origin = self.origin(&key.span());
                    self.origins.set(&setting.key(), origin);
                }
                Err(reason) => {
                    let remedy = format!("the default is {}", setting.show(&Config::default()));
                    self.wrong(value, &setting.key(), &reason, &remedy);
                }
            }
        }
    }

    /// A key that exists in another section under exactly this name is named before a similar one of this section.
    fn misplaced_or_unknown(&mut self, at: &Range<usize>, section: &str, name: &str, known: &[&str]) {
        let elsewhere = sections().iter().find(|s| s.settings.iter().any(|setting| setting.name == name));
        match (nearest(name, known.iter().copied()), elsewhere) {
            (None, Some(home)) => {
                let remedy = format!("did you mean `{}.{name}`?", home.name);
                self.problem(at, &below(section, name), None, "unknown key", &remedy);
            }
            _ => self.unknown(at, section, name, known),
        }
    }

    /// Runs `read` on each table of `[[kind]]`, with the path that messages give it: by its name, or by its place.
    fn each_table(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        kind: &str,
        mut read: impl FnMut(&mut Self, &Fields<'_>, &str) -> Option<()>,
    ) {
        let Some(tables) = value.get_ref().as_array() else {
            self.wrong(
                value,
                kind,
                "must be a list of tables",
                &format!("write [[{kind}]], with two brackets"),
            );
            return;
        };
        for (index, item) in tables.iter().enumerate() {
            let Some(table) = item.get_ref().as_table() else {
                self.wrong(
                    item,
                    &format!("{kind}[{index}]"),
                    "must be a table",
                    &format!("write [[{kind}]] and its keys below"),
                );
                continue;
            };
            let name = table.get("name").and_then(|name| name.get_ref().as_str());
            let path = name.map_or_else(|| format!("{kind}[{index}]"), |name| format!("{kind}.{name}"));
            let fields = Fields { table, at: item.span() };
            self.note_origins(&fields, &path);
            // A table that cannot be understood has been reported by its reader.
            let _ = read(self, &fields, &path);
        }
    }

    /// Remembers where each key of a table stands, for what is found wrong later.
    fn note_origins(&mut self, fields: &Fields<'_>, path: &str) {
        let origin = self.origin(&fields.at);
        self.origins.set(path, origin);
        for (key, value) in fields.table {
            let key_path = below(path, key.get_ref());
            let origin = self.origin(&key.span());
            self.origins.set(&key_path, origin);
            if let Some(table) = value.get_ref().as_table() {
                self.note_origins(&Fields { table, at: key.span() }, &key_path);
            }
        }
    }

    fn flow(&mut self, fields: &Fields<'_>, path: &str) -> Option<Flow> {
        self.only(fields, path, Flow::KEYS);
        let name = self.required(fields, path, "name", "a name such as \"tasks\"");
        let from = self.source(fields, path);
        let to = match fields.get("to") {
            Some(value) => self.sink(value, &below(path, "to")),
            None => self.missing(fields, path, "to", "{ topic = \"NAME\" } or another sink"),
        };
        let flow = Flow {
            filter: self.optional(fields, path, "where"),
            extract: fields.get("extract").and_then(|value| self.extract(value, &below(path, "extract"))),
            dead_letter: self.optional(fields, path, "dead_letter"),
            name: name?,
            from: from?,
            to: to?,
        };
        Some(flow)
    }

    fn source(&mut self, fields: &Fields<'_>, path: &str) -> Option<Source> {
        const WANTED: &str = "\"syslog\" or { topic = \"NAME\" }";
        let Some(value) = fields.get("from") else {
            return self.missing(fields, path, "from", WANTED);
        };
        let path = below(path, "from");
        match value.get_ref() {
            DeValue::String(text) if text == "syslog" => Some(Source::Syslog),
            DeValue::Table(table) => {
                let inner = Fields { table, at: value.span() };
                self.only(&inner, &path, &["topic"]);
                self.required(&inner, &path, "topic", "the topic's name").map(Source::Topic)
            }
            _ => {
                self.wrong(value, &path, "is no source", &format!("write {WANTED}"));
                None
            }
        }
    }

    fn extract(&mut self, value: &Spanned<DeValue<'_>>, path: &str) -> Option<Extract> {
        let fields = self.table(value, path, "{ regex = \"...\" } or { sd = \"ID\" }")?;
        self.only(&fields, path, Extract::KEYS);
        Some(Extract { regex: self.optional(&fields, path, "regex"), sd: self.optional(&fields, path, "sd") })
    }

    fn sink(&mut self, value: &Spanned<DeValue<'_>>, path: &str) -> Option<Sink> {
        let fields = self.table(value, path, "{ topic = \"NAME\" }")?;
        self.only(&fields, path, Sink::KEYS);
        Some(Sink {
            topic: self.optional(&fields, path, "topic"),
            key: self.optional(&fields, path, "key"),
            exchange: self.optional(&fields, path, "exchange"),
            routing_key: self.optional(&fields, path, "routing_key"),
            job: self.optional(&fields, path, "job"),
            syslog: self.optional(&fields, path, "syslog"),
            file: self.optional(&fields, path, "file"),
            value: self.one_of(&fields, path, "value", &ValueKind::NAMES),
        })
    }

    fn task(&mut self, fields: &Fields<'_>, path: &str) -> Option<Task> {
        self.only(fields, path, Task::KEYS);
        let name = self.required(fields, path, "name", "a name such as \"checksum\"");
        let command = self.command(fields, path);
        let task = Task {
            args: self.args(fields, path),
            node: self.optional(fields, path, "node").unwrap_or_else(any),
            time_limit: self.optional(fields, path, "time_limit"),
            name: name?,
            command: command?,
        };
        Some(task)
    }

    fn command(&mut self, fields: &Fields<'_>, path: &str) -> Option<Vec<String>> {
        const WANTED: &str = "a list such as [\"sha256sum\", \"{path}\"]";
        let Some(value) = fields.get("command") else {
            return self.missing(fields, path, "command", WANTED);
        };
        let words = value
            .get_ref()
            .as_array()
            .map(|list| list.iter().map(|word| word.get_ref().as_str().map(str::to_owned)));
        let command: Option<Vec<String>> = words.and_then(Iterator::collect);
        if command.is_none() {
            self.wrong(
                value,
                &below(path, "command"),
                "must be a list of strings",
                &format!("write {WANTED}; no shell splits a string"),
            );
        }
        command
    }

    fn args(&mut self, fields: &Fields<'_>, path: &str) -> std::collections::BTreeMap<String, Arg> {
        let path = below(path, "args");
        let table =
            fields.get("args").and_then(|value| self.table(value, &path, "{ NAME = { type = \"string\" } }"));
        let entries = table.iter().flat_map(|fields| fields.table.iter());
        entries
            .filter_map(|(name, value)| {
                let path = below(&path, name.get_ref());
                let fields = self.table(value, &path, "{ type = \"string\" }")?;
                Some((name.get_ref().to_string(), self.arg(&fields, &path)))
            })
            .collect()
    }

    fn arg(&mut self, fields: &Fields<'_>, path: &str) -> Arg {
        self.only(fields, path, Arg::KEYS);
        Arg {
            kind: self.one_of(fields, path, "type", &ArgKind::NAMES).unwrap_or_default(),
            default: self.optional(fields, path, "default"),
            pattern: self.optional(fields, path, "pattern"),
            min: self.integer(fields, path, "min"),
            max: self.integer(fields, path, "max"),
        }
    }

    /// One of a few words.
    fn one_of<T: Copy>(
        &mut self,
        fields: &Fields<'_>,
        path: &str,
        key: &str,
        names: &[(&str, T)],
    ) -> Option<T> {
        let value = fields.get(key)?;
        let given = value.get_ref().as_str().unwrap_or_default();
        let found = names.iter().find(|(name, _)| *name == given);
        if found.is_none() {
            let words: Vec<_> = names.iter().map(|(name, _)| *name).collect();
            self.wrong(value, &below(path, key), &format!("is no {key}"), &did_you_mean(given, &words));
        }
        found.map(|(_, meaning)| *meaning)
    }

    fn table<'v>(
        &mut self,
        value: &'v Spanned<DeValue<'v>>,
        path: &str,
        example: &str,
    ) -> Option<Fields<'v>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong(value, path, "must be a table", &format!("write something like {example}"));
        }
        table.map(|table| Fields { table, at: value.span() })
    }

    fn only(&mut self, fields: &Fields<'_>, path: &str, known: &[&str]) {
        for key in fields.table.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                self.unknown(&key.span(), path, key.get_ref(), known);
            }
        }
    }

    fn missing<T>(&mut self, fields: &Fields<'_>, path: &str, key: &str, example: &str) -> Option<T> {
        self.problem(&fields.at, &below(path, key), None, "is missing", &format!("add {key} = {example}"));
        None
    }

    fn required(&mut self, fields: &Fields<'_>, path: &str, key: &str, example: &str) -> Option<String> {
        if fields.get(key).is_none() {
            return self.missing(fields, path, key, example);
        }
        self.optional(fields, path, key)
    }

    fn optional<T: Value>(&mut self, fields: &Fields<'_>, path: &str, key: &str) -> Option<T> {
        let value = fields.get(key)?;
        let read = T::read(&Raw::from_toml(value.get_ref()));
        read.map_err(|reason| self.wrong(value, &below(path, key), &reason, &format!("write {}", T::KIND)))
            .ok()
    }

    fn integer(&mut self, fields: &Fields<'_>, path: &str, key: &str) -> Option<i64> {
        let value = fields.get(key)?;
        let Raw::Integer(number) = Raw::from_toml(value.get_ref()) else {
            self.wrong(value, &below(path, key), "must be a whole number", "write it without quotes");
            return None;
        };
        Some(number)
    }
}

/// The keys of one table, and where it stands.
struct Fields<'a> {
    table: &'a DeTable<'a>,
    at: Range<usize>,
}

impl<'a> Fields<'a> {
    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }
}
