//! The typed tree, and its evaluation.

use super::schema::{IntVariable, MapVariable, TextVariable};
use super::subject::Subject;
use kiln_types::Timestamp;
use regex::Regex;
use std::borrow::Cow;
use std::cmp::Ordering;

/// Why an event could not be decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// A key that the event does not have.
    #[error("the event has no {0}; test it with has(...)")]
    Missing(String),
    /// `int()` of something else.
    #[error("int(\"{0}\") is not a whole number")]
    NotANumber(String),
    /// A sum beyond 64 bits.
    #[error("a sum does not fit 64 bits")]
    Overflow,
}

type Outcome<T> = Result<T, EvalError>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Compare {
    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Compare::Equal => ordering.is_eq(),
            Compare::NotEqual => ordering.is_ne(),
            Compare::Less => ordering.is_lt(),
            Compare::LessOrEqual => ordering.is_le(),
            Compare::Greater => ordering.is_gt(),
            Compare::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

#[derive(Debug)]
pub(super) enum Bool {
    Const(bool),
    Not(Box<Bool>),
    And(Vec<Bool>),
    Or(Vec<Bool>),
    Choose(Box<(Bool, Bool, Bool)>),
    Bools(Compare, Box<(Bool, Bool)>),
    Ints(Compare, Int, Int),
    Texts(Compare, Text, Text),
    Times(Compare, Time, Time),
    IntIn(Int, Vec<Int>),
    TextIn(Text, Vec<Text>),
    Contains(Text, Text),
    StartsWith(Text, Text),
    EndsWith(Text, Text),
    Matches(Text, Regex),
    Has(Lookup),
}

#[derive(Clone, Debug)]
pub(super) enum Int {
    Const(i64),
    Variable(IntVariable),
    Add(Box<(Int, Int)>),
    Subtract(Box<(Int, Int)>),
    Size(Box<Text>),
    Parse(Box<Text>),
}

#[derive(Clone, Debug)]
pub(super) enum Text {
    Const(String),
    Variable(TextVariable),
    Lookup(Lookup),
    Join(Box<(Text, Text)>),
    Lower(Box<Text>),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Time {
    Const(Timestamp),
    Event,
}

#[derive(Clone, Debug)]
pub(super) struct Lookup {
    pub(super) map: MapVariable,
    pub(super) keys: Vec<String>,
    /// As it stands in the source.
    pub(super) source: String,
}

/// True when all hold; a false one outweighs errors.
pub(super) fn all<'a>(tests: impl Iterator<Item = &'a Bool>, subject: &dyn Subject) -> Outcome<bool> {
    decide(tests, subject, false)
}

/// The first outcome equal to `decisive` settles it; otherwise the first error; otherwise the opposite.
fn decide<'a>(tests: impl Iterator<Item = &'a Bool>, subject: &dyn Subject, decisive: bool) -> Outcome<bool> {
    let mut failed = None;
    for test in tests {
        match test.eval(subject) {
            Ok(outcome) if outcome == decisive => return Ok(decisive),
            Ok(_) => {}
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(!decisive), Err)
}

impl Bool {
    pub(super) fn eval(&self, subject: &dyn Subject) -> Outcome<bool> {
        Ok(match self {
            Bool::Const(value) => *value,
            Bool::Not(operand) => !operand.eval(subject)?,
            Bool::And(operands) => return decide(operands.iter(), subject, false),
            Bool::Or(operands) => return decide(operands.iter(), subject, true),
            Bool::Choose(parts) => {
                let (test, yes, no) = &**parts;
                return if test.eval(subject)? { yes.eval(subject) } else { no.eval(subject) };
            }
            Bool::Bools(compare, pair) => compare.holds(pair.0.eval(subject)?.cmp(&pair.1.eval(subject)?)),
            Bool::Ints(compare, left, right) => compare.holds(left.eval(subject)?.cmp(&right.eval(subject)?)),
            Bool::Texts(compare, left, right) => {
                compare.holds(left.eval(subject)?.cmp(&right.eval(subject)?))
            }
            Bool::Times(compare, left, right) => compare.holds(left.eval(subject).cmp(&right.eval(subject))),
            Bool::IntIn(value, list) => {
                is_in(&value.eval(subject)?, list.iter().map(|item| item.eval(subject)))?
            }
            Bool::TextIn(value, list) => {
                is_in(&value.eval(subject)?, list.iter().map(|item| item.eval(subject)))?
            }
            Bool::Contains(text, part) => text.eval(subject)?.contains(&*part.eval(subject)?),
            Bool::StartsWith(text, part) => text.eval(subject)?.starts_with(&*part.eval(subject)?),
            Bool::EndsWith(text, part) => text.eval(subject)?.ends_with(&*part.eval(subject)?),
            Bool::Matches(text, regex) => regex.is_match(&text.eval(subject)?),
            Bool::Has(lookup) => subject.lookup(lookup.map, &lookup.keys).is_some(),
        })
    }
}

fn is_in<T: PartialEq>(value: &T, list: impl Iterator<Item = Outcome<T>>) -> Outcome<bool> {
    for item in list {
        if item? == *value {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Int {
    pub(super) fn eval(&self, subject: &dyn Subject) -> Outcome<i64> {
        match self {
            Int::Const(value) => Ok(*value),
            Int::Variable(variable) => Ok(subject.int(*variable)),
            Int::Add(pair) => {
                pair.0.eval(subject)?.checked_add(pair.1.eval(subject)?).ok_or(EvalError::Overflow)
            }
            Int::Subtract(pair) => {
                pair.0.eval(subject)?.checked_sub(pair.1.eval(subject)?).ok_or(EvalError::Overflow)
            }
            Int::Size(text) => Ok(text.eval(subject)?.chars().count() as i64),
            Int::Parse(text) => {
                let text = text.eval(subject)?;
                text.trim().parse().map_err(|_| EvalError::NotANumber(text.into_owned()))
            }
        }
    }
}

impl Text {
    pub(super) fn eval<'a>(&'a self, subject: &'a dyn Subject) -> Outcome<Cow<'a, str>> {
        match self {
            Text::Const(value) => Ok(Cow::Borrowed(value)),
            Text::Variable(variable) => Ok(Cow::Borrowed(subject.text(*variable))),
            Text::Lookup(lookup) => {
                let found = subject.lookup(lookup.map, &lookup.keys);
                found.ok_or_else(|| EvalError::Missing(lookup.source.clone()))
            }
            Text::Join(pair) => Ok(pair.0.eval(subject)? + pair.1.eval(subject)?),
            Text::Lower(text) => {
                let text = text.eval(subject)?;
                let changes = text.bytes().any(|b| b.is_ascii_uppercase());
                Ok(if changes { Cow::Owned(text.to_ascii_lowercase()) } else { text })
            }
        }
    }
}

impl Time {
    fn eval(self, subject: &dyn Subject) -> Timestamp {
        match self {
            Time::Const(at) => at,
            Time::Event => subject.time(),
        }
    }
}

/// A name that a clause reads, for showing its value.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) name: String,
    pub(super) of: Readable,
}

#[derive(Clone, Debug)]
pub(super) enum Readable {
    Int(Int),
    Text(Text),
    Time,
}

impl Reading {
    pub(super) fn show(&self, subject: &dyn Subject) -> (String, String) {
        let value = match &self.of {
            Readable::Int(int) => int.eval(subject).map(|value| value.to_string()),
            Readable::Text(text) => text.eval(subject).map(|value| format!("{value:?}")),
            Readable::Time => Ok(crate::syslog::format_time(subject.time())),
        };
        (self.name.clone(), value.unwrap_or_else(|_| "missing".to_owned()))
    }
}
