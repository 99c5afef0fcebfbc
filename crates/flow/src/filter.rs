//! The filter language: a typed, named subset of CEL (Common Expression Language). Pure.
//!
//! `appname == "taskd" && severity <= warning && message.matches(r"^TASK ")`. A filter is checked when it is compiled: names, types and regular
//! expressions; what is left to go wrong on an event is a missing key, a text that is no number, and overflow, and each of them is an error with its
//! reason, never a silent `false`. As in CEL, `false && error` is false and `true || error` is true, whichever side comes first.
//!
//! `lexer` makes tokens, `parser` a tree, `check` gives it types, `eval` runs it. The user's reference is docs/flows.md.

mod check;
mod error;
mod eval;
mod lexer;
mod parser;
mod schema;
mod subject;

pub use error::{Error, Span};
pub use eval::EvalError;
pub use schema::{IntVariable, MapVariable, Schema, TextVariable};
pub use subject::{Record, Subject};

use eval::{Bool, Reading};

/// Longest source of a filter, in bytes.
pub const SOURCE_BYTES_MAX: usize = 16 * 1024;

/// A compiled filter. Cheap to evaluate: no allocation unless a structured data value needs unescaping, texts are joined, or it fails.
#[derive(Debug)]
pub struct Filter {
    source: String,
    /// The operands of the outermost `&&`, in the order of the source.
    clauses: Vec<Clause>,
}

#[derive(Debug)]
struct Clause {
    span: Span,
    test: Bool,
    /// What the clause reads of an event, for `explain`.
    readings: Vec<Reading>,
}

/// Why an event did not pass.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Miss {
    /// Index of the first clause that was false, or that could not be decided.
    pub clause: usize,
    /// Its source text.
    pub source: String,
    /// Each name that the clause reads, and its value in this event.
    pub values: Vec<(String, String)>,
    /// The clause could not be decided.
    pub error: Option<String>,
}

impl Filter {
    /// Compiles `source` for events of `schema`; it must be a condition.
    pub fn compile(source: &str, schema: Schema) -> Result<Filter, Error> {
        let tree = parser::parse(source)?;
        let clauses = parser::conjuncts(&tree)
            .into_iter()
            .map(|node| {
                let (test, readings) = check::condition(node, source, schema)?;
                Ok(Clause { span: node.span, test, readings })
            })
            .collect::<Result<_, Error>>()?;
        Ok(Filter { source: source.to_owned(), clauses })
    }

    /// Whether the event passes.
    pub fn matches(&self, subject: &dyn Subject) -> Result<bool, EvalError> {
        eval::all(self.clauses.iter().map(|clause| &clause.test), subject)
    }

    /// The first clause that kept the event out; `None` when it passes.
    pub fn explain(&self, subject: &dyn Subject) -> Option<Miss> {
        let outcomes = || self.clauses.iter().map(|clause| clause.test.eval(subject)).enumerate();
        let failed = outcomes().find(|(_, outcome)| *outcome == Ok(false));
        let (index, outcome) = failed.or_else(|| outcomes().find(|(_, outcome)| outcome.is_err()))?;
        let clause = &self.clauses[index];
        Some(Miss {
            clause: index,
            source: self.clause_source(index).to_owned(),
            values: clause.readings.iter().map(|reading| reading.show(subject)).collect(),
            error: outcome.err().map(|error| error.to_string()),
        })
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// How many clauses the outermost `&&` joins; at least one.
    pub fn clauses(&self) -> usize {
        self.clauses.len()
    }

    /// The source of one clause. Panics when there are fewer.
    pub fn clause_source(&self, index: usize) -> &str {
        let span = self.clauses[index].span;
        &self.source[span.start..span.end]
    }
}

#[cfg(test)]
mod tests;
