//! Trying a flow on past lines: what matches, why the others do not, what is taken, and what would be run. Pure.

use crate::core::{Batch, Definition, Flow, Outlet, Problem, Sink, Source, TaskRequest};
use crate::filter::{Filter, Record, Subject};
use crate::syslog::{self, Received, StructuredData};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Lines kept as examples for each clause.
const EXAMPLES_MAX: usize = 2;
/// Distinct reasons of dead letters that are kept apart; further ones are counted together.
const REASONS_MAX: usize = 20;

/// What a flow makes of some lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Lines read.
    pub lines: u64,
    /// Lines that passed the filter.
    pub matched: u64,
    /// Lines that would go to the dead-letter topic, by reason.
    pub dead: BTreeMap<String, u64>,
    /// For each clause of the filter, the lines that it was the first to keep out.
    pub misses: Vec<ClauseMisses>,
    /// The first lines that matched.
    pub samples: Vec<Sample>,
}

/// A clause and what it kept out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClauseMisses {
    /// Its source.
    pub clause: String,
    /// How many lines.
    pub lines: u64,
    /// Some of them, with the values that the clause saw.
    pub examples: Vec<MissExample>,
}

/// A line that did not match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissExample {
    /// Its number, from 1.
    pub line: u64,
    /// Names that the clause reads, and their values.
    pub values: Vec<(String, String)>,
}

/// A line that matched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// Its number, from 1.
    pub line: u64,
    /// The line.
    pub text: String,
    /// The fields taken of it.
    pub fields: BTreeMap<String, String>,
    /// The key and the value that the sink would get; absent when it would be a dead letter.
    pub record: Option<(String, String)>,
    /// The argument vector that a job would run.
    pub command: Option<Vec<String>>,
    /// Why it would be a dead letter.
    pub dead: Option<String>,
}

/// A flow around a bare filter expression, for trying it.
pub fn of_expression(filter: &str) -> Result<Flow, Vec<Problem>> {
    let definition = Definition {
        name: "expression".to_owned(),
        from: Source::Syslog,
        filter: Some(filter.to_owned()),
        extract: None,
        to: Sink { topic: Some("none".to_owned()), ..Sink::default() },
        dead_letter: None,
    };
    Flow::compile(&definition, &Arc::default())
}

/// Tries `flow` on `lines`: on syslog messages, or on values of records when it reads a topic. Keeps the first `samples_max` that match; empty lines
/// are left out.
pub fn test<'a>(
    flow: &Flow,
    lines: impl Iterator<Item = &'a str>,
    received: Received,
    samples_max: usize,
) -> Report {
    let mut tester = Tester { flow, samples_max, batch: Batch::default(), report: Report::default() };
    let clauses = flow.filter().map_or(0, Filter::clauses);
    let clause =
        |index| flow.filter().map(|filter| filter.clause_source(index).to_owned()).unwrap_or_default();
    tester.report.misses =
        (0..clauses).map(|index| ClauseMisses { clause: clause(index), ..ClauseMisses::default() }).collect();
    for line in lines.filter(|line| !line.trim().is_empty()) {
        tester.report.lines += 1;
        tester.line(line, received);
    }
    tester.report
}

struct Tester<'a> {
    flow: &'a Flow,
    samples_max: usize,
    batch: Batch,
    report: Report,
}

impl Tester<'_> {
    fn line(&mut self, line: &str, received: Received) {
        self.batch.clear();
        if let Source::Topic(topic) = self.flow.source() {
            let record = Record::new(topic, b"", line.as_bytes(), received.now);
            self.flow.take_record(&record, &mut self.batch);
            self.note(&record, line, line, StructuredData::default());
        } else {
            let message = syslog::parse(line, received);
            self.flow.take_message(&message, &mut self.batch);
            self.note(&message, message.raw, message.message, message.structured);
        }
    }

    /// Notes what the flow made of an event.
    fn note(&mut self, subject: &dyn Subject, raw: &str, text: &str, structured: StructuredData<'_>) {
        let dead = self
            .batch
            .dead
            .iter()
            .next()
            .and_then(|record| record.headers.get(1).map(|(_, reason)| reason.clone()));
        if let Some(reason) = &dead {
            self.bury(reason);
        }
        if self.batch.matched == 0 {
            self.miss(subject);
            return;
        }
        self.report.matched += 1;
        if self.report.samples.len() < self.samples_max {
            let sample = self.sample(raw, text, structured, dead);
            self.report.samples.push(sample);
        }
    }

    fn bury(&mut self, reason: &str) {
        let full = self.report.dead.len() >= REASONS_MAX && !self.report.dead.contains_key(reason);
        let reason = if full { "other reasons" } else { reason };
        *self.report.dead.entry(reason.to_owned()).or_default() += 1;
    }

    fn miss(&mut self, subject: &dyn Subject) {
        let Some(miss) = self.flow.filter().and_then(|filter| filter.explain(subject)) else { return };
        let clause = &mut self.report.misses[miss.clause];
        clause.lines += 1;
        if clause.examples.len() < EXAMPLES_MAX {
            clause.examples.push(MissExample { line: self.report.lines, values: miss.values });
        }
    }

    fn sample(&self, raw: &str, text: &str, structured: StructuredData<'_>, dead: Option<String>) -> Sample {
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fields = self
            .flow
            .fields(text, structured)
            .map(|fields| fields.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
        let record = self.batch.records.iter().next();
        Sample {
            line: self.report.lines,
            text: raw.to_owned(),
            fields: fields.unwrap_or_default(),
            record: record.map(|record| (shown(record.key.unwrap_or_default()), shown(record.value))),
            command: self.command(),
            dead,
        }
    }

    /// What a job would run: of a job sink, or of the request that a flow puts into its topic.
    fn command(&self) -> Option<Vec<String>> {
        if matches!(self.flow.outlet(), Outlet::Jobs { .. }) {
            return self.batch.runs.first().map(|run| run.argv.clone());
        }
        let value = self.batch.records.iter().next()?.value;
        let request: TaskRequest = serde_json::from_slice(value).ok()?;
        self.flow.catalogue().resolve(&request).ok().map(|run| run.argv)
    }
}

#[cfg(test)]
mod tests;
