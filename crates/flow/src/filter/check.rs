//! From the tree to the typed tree: every name, type, argument and regular expression is checked here.

use super::error::{Error, Span};
use super::eval::{Bool, Compare, Int, Lookup, Readable, Reading, Text, Time};
use super::parser::{Expr, Node};
use super::schema::{MapVariable, Name, Schema};
use crate::syslog;
use regex::Regex;

/// Bound of a compiled regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

enum Typed {
    Bool(Bool),
    Int(Int),
    Text(Text),
    Time(Time),
}

impl Typed {
    fn kind(&self) -> &'static str {
        match self {
            Typed::Bool(_) => "a condition",
            Typed::Int(_) => "a number",
            Typed::Text(_) => "a text",
            Typed::Time(_) => "a time",
        }
    }
}

/// Checks a clause; gives its test, and what it reads.
pub(super) fn condition(node: &Node, source: &str, schema: Schema) -> Result<(Bool, Vec<Reading>), Error> {
    let mut checker = Checker { source, schema, readings: Vec::new() };
    let test = checker.bool(node)?;
    Ok((test, checker.readings))
}

struct Checker<'a> {
    source: &'a str,
    schema: Schema,
    readings: Vec<Reading>,
}

type Checked<T> = Result<T, Error>;

impl Checker<'_> {
    fn error<T>(&self, span: Span, message: impl Into<String>, help: impl Into<String>) -> Checked<T> {
        Err(Error::new(self.source, span, message, help))
    }

    fn slice(&self, span: Span) -> &str {
        &self.source[span.start..span.end]
    }

    fn wrong<T>(&self, span: Span, expected: &str, found: &Typed, help: &str) -> Checked<T> {
        self.error(span, format!("expected {expected}, found {}", found.kind()), help)
    }

    fn bool(&mut self, node: &Node) -> Checked<Bool> {
        match self.typed(node)? {
            Typed::Bool(test) => Ok(test),
            other => self.wrong(
                node.span,
                "a condition",
                &other,
                "compare it with something, for instance `== ...`",
            ),
        }
    }

    fn int(&mut self, node: &Node) -> Checked<Int> {
        match self.typed(node)? {
            Typed::Int(int) => Ok(int),
            other => self.wrong(node.span, "a number", &other, "int(...) makes a number of a text"),
        }
    }

    fn text(&mut self, node: &Node) -> Checked<Text> {
        match self.typed(node)? {
            Typed::Text(text) => Ok(text),
            other => self.wrong(node.span, "a text", &other, "texts stand in quotes"),
        }
    }

    fn typed(&mut self, node: &Node) -> Checked<Typed> {
        match &node.expr {
            Expr::Bool(value) => Ok(Typed::Bool(Bool::Const(*value))),
            Expr::Int(value) => Ok(Typed::Int(Int::Const(*value))),
            Expr::Text(value) => Ok(Typed::Text(Text::Const(value.clone()))),
            Expr::Name(name) => self.name(name, node.span),
            Expr::List(_) => {
                self.error(node.span, "a list stands only after `in`", "write `variable in [\"a\", \"b\"]`")
            }
            Expr::Not(operand) => Ok(Typed::Bool(Bool::Not(self.bool(operand)?.into()))),
            Expr::Negate(operand) => {
                Ok(Typed::Int(Int::Subtract((Int::Const(0), self.int(operand)?).into())))
            }
            Expr::Binary { operator, left, right } => self.binary(node.span, operator, left, right),
            Expr::Conditional { test, yes, no } => {
                Ok(Typed::Bool(Bool::Choose((self.bool(test)?, self.bool(yes)?, self.bool(no)?).into())))
            }
            Expr::Index { .. } => self.lookup(node).map(|lookup| Typed::Text(Text::Lookup(lookup))),
            Expr::Call { target: Some(target), name, at, arguments } => {
                self.method(target, name, *at, arguments)
            }
            Expr::Call { target: None, name, at, arguments } => {
                self.function(name, *at, arguments, node.span)
            }
        }
    }

    fn name(&mut self, name: &str, span: Span) -> Checked<Typed> {
        if let Some((_, found)) = self.schema.names().iter().find(|(known, _)| *known == name) {
            return match found {
                Name::Text(variable) => {
                    self.reads(name, Readable::Text(Text::Variable(*variable)));
                    Ok(Typed::Text(Text::Variable(*variable)))
                }
                Name::Int(variable) => {
                    self.reads(name, Readable::Int(Int::Variable(*variable)));
                    Ok(Typed::Int(Int::Variable(*variable)))
                }
                Name::Time => {
                    self.reads(name, Readable::Time);
                    Ok(Typed::Time(Time::Event))
                }
                Name::Map(map) => self.error(span, format!("`{name}` needs keys"), map.usage()),
            };
        }
        if let Some(value) = self.schema.constant(name) {
            return Ok(Typed::Int(Int::Const(value)));
        }
        let help = match self.schema.nearest(name) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!(
                "known: {}",
                self.schema.names().iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ")
            ),
        };
        self.error(span, format!("unknown variable `{name}`"), help)
    }

    fn reads(&mut self, name: &str, of: Readable) {
        if !self.readings.iter().any(|reading| reading.name == name) {
            self.readings.push(Reading { name: name.to_owned(), of });
        }
    }

    fn binary(&mut self, span: Span, operator: &str, left: &Node, right: &Node) -> Checked<Typed> {
        match operator {
            "&&" => Ok(Typed::Bool(Bool::And(vec![self.bool(left)?, self.bool(right)?]))),
            "||" => Ok(Typed::Bool(Bool::Or(vec![self.bool(left)?, self.bool(right)?]))),
            "+" => self.sum(left, right),
            "-" => Ok(Typed::Int(Int::Subtract((self.int(left)?, self.int(right)?).into()))),
            "in" => self.membership(left, right),
            _ => self.comparison(span, operator, left, right),
        }
    }

    fn sum(&mut self, left: &Node, right: &Node) -> Checked<Typed> {
        match self.typed(left)? {
            Typed::Int(first) => Ok(Typed::Int(Int::Add((first, self.int(right)?).into()))),
            Typed::Text(first) => Ok(Typed::Text(Text::Join((first, self.text(right)?).into()))),
            other => self.wrong(left.span, "a number or a text", &other, "`+` adds numbers and joins texts"),
        }
    }

    fn comparison(&mut self, span: Span, operator: &str, left: &Node, right: &Node) -> Checked<Typed> {
        let compare = match operator {
            "==" => Compare::Equal,
            "!=" => Compare::NotEqual,
            "<" => Compare::Less,
            "<=" => Compare::LessOrEqual,
            ">" => Compare::Greater,
            _ => Compare::GreaterOrEqual,
        };
        let ordered = !matches!(compare, Compare::Equal | Compare::NotEqual);
        Ok(Typed::Bool(match (self.typed(left)?, self.typed(right)?) {
            (Typed::Int(a), Typed::Int(b)) => Bool::Ints(compare, a, b),
            (Typed::Text(a), Typed::Text(b)) => Bool::Texts(compare, a, b),
            (Typed::Time(a), Typed::Time(b)) => Bool::Times(compare, a, b),
            (Typed::Bool(_), Typed::Bool(_)) if ordered => {
                return self.error(span, "conditions have no order", "join them with `&&` or `||`");
            }
            (Typed::Bool(a), Typed::Bool(b)) => Bool::Bools(compare, (a, b).into()),
            (a, b) => {
                let message = format!("{} is compared with {}", a.kind(), b.kind());
                return self.error(span, message, self.mixed_help(left, right));
            }
        }))
    }

    fn mixed_help(&self, left: &Node, right: &Node) -> String {
        for node in [left, right] {
            match &node.expr {
                Expr::Name(name) if self.schema.constant(name).is_some() => {
                    return format!("`{name}` is a number here; write \"{name}\" for the text");
                }
                Expr::Text(text) if self.schema.constant(text).is_some() => {
                    return format!("write {text} without quotes");
                }
                Expr::Text(text) if syslog::parse_time(text).is_some() => {
                    return format!("write timestamp(\"{text}\")");
                }
                _ => {}
            }
        }
        "both sides must be of one type; int(...) makes a number of a text".to_owned()
    }

    fn membership(&mut self, left: &Node, right: &Node) -> Checked<Typed> {
        let Expr::List(items) = &right.expr else {
            return self.error(right.span, "`in` needs a list", "write `variable in [\"a\", \"b\"]`");
        };
        match self.typed(left)? {
            Typed::Int(value) => {
                let list = items.iter().map(|item| self.int(item)).collect::<Checked<_>>()?;
                Ok(Typed::Bool(Bool::IntIn(value, list)))
            }
            Typed::Text(value) => {
                let list = items.iter().map(|item| self.text(item)).collect::<Checked<_>>()?;
                Ok(Typed::Bool(Bool::TextIn(value, list)))
            }
            other => self.wrong(left.span, "a number or a text", &other, "lists hold numbers or texts"),
        }
    }

    /// `map["key"]...`, from the outermost bracket inwards.
    fn lookup(&mut self, node: &Node) -> Checked<Lookup> {
        let mut keys = Vec::new();
        let mut at = node;
        while let Expr::Index { target, key } = &at.expr {
            let Expr::Text(key_text) = &key.expr else {
                return self.error(key.span, "a key is a text in quotes", "for instance [\"name\"]");
            };
            keys.insert(0, key_text.clone());
            at = target;
        }
        let map = self.map(at)?;
        if !map.accepts(keys.len()) {
            return self.error(
                node.span,
                format!("{} keys where {} are needed", keys.len(), map.keys()),
                map.usage(),
            );
        }
        let source = self.slice(node.span).to_owned();
        let lookup = Lookup { map, keys, source: source.clone() };
        self.reads(&source, Readable::Text(Text::Lookup(lookup.clone())));
        Ok(lookup)
    }

    fn map(&self, node: &Node) -> Checked<MapVariable> {
        let Expr::Name(name) = &node.expr else {
            return self.error(node.span, "only a map has keys", "");
        };
        match self.schema.names().iter().find(|(known, _)| known == name) {
            Some((_, Name::Map(map))) => Ok(*map),
            Some(_) => self.error(node.span, format!("`{name}` has no keys"), "leave out the brackets"),
            None => {
                let maps = self.schema.names().iter().filter(|(_, kind)| matches!(kind, Name::Map(_)));
                let known: Vec<&str> = maps.map(|(known, _)| *known).collect();
                self.error(node.span, format!("unknown map `{name}`"), format!("known: {}", known.join(", ")))
            }
        }
    }

    fn method(&mut self, target: &Node, name: &str, at: Span, arguments: &[Node]) -> Checked<Typed> {
        const KNOWN: &str = "known: contains, startsWith, endsWith, matches, size, lowerAscii";
        let text = self.text(target)?;
        match (name, arguments) {
            ("contains", [part]) => Ok(Typed::Bool(Bool::Contains(text, self.text(part)?))),
            ("startsWith", [part]) => Ok(Typed::Bool(Bool::StartsWith(text, self.text(part)?))),
            ("endsWith", [part]) => Ok(Typed::Bool(Bool::EndsWith(text, self.text(part)?))),
            ("matches", [pattern]) => Ok(Typed::Bool(Bool::Matches(text, self.regex(pattern)?))),
            ("size", []) => Ok(Typed::Int(Int::Size(text.into()))),
            ("lowerAscii", []) => Ok(Typed::Text(Text::Lower(text.into()))),
            ("contains" | "startsWith" | "endsWith" | "matches", _) => {
                self.error(at, format!("`.{name}` takes one argument"), "a text in quotes")
            }
            ("size" | "lowerAscii", _) => self.error(at, format!("`.{name}()` takes no argument"), ""),
            _ => self.error(at, format!("unknown method `.{name}`"), KNOWN),
        }
    }

    fn regex(&self, pattern: &Node) -> Checked<Regex> {
        let Expr::Text(text) = &pattern.expr else {
            return self.error(
                pattern.span,
                "the pattern is not a text in quotes",
                "patterns are compiled once, when the flow is loaded",
            );
        };
        let built = regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build();
        built.or_else(|error| {
            self.error(pattern.span, format!("bad regular expression: {}", last_line(&error)), "")
        })
    }

    fn function(&mut self, name: &str, at: Span, arguments: &[Node], span: Span) -> Checked<Typed> {
        match (name, arguments) {
            ("has", [key]) => self.lookup_only(key).map(|lookup| Typed::Bool(Bool::Has(lookup))),
            ("size", [text]) => Ok(Typed::Int(Int::Size(self.text(text)?.into()))),
            ("int", [value]) => Ok(Typed::Int(Int::Parse(self.text(value)?.into()))),
            ("timestamp", [value]) => self.timestamp(value),
            ("has" | "size" | "int" | "timestamp", _) => {
                self.error(span, format!("`{name}` takes one argument"), "")
            }
            _ => self.error(at, format!("unknown function `{name}`"), "known: has, size, int, timestamp"),
        }
    }

    fn lookup_only(&mut self, node: &Node) -> Checked<Lookup> {
        if matches!(node.expr, Expr::Index { .. }) {
            return self.lookup(node);
        }
        self.error(node.span, "has(...) asks for a key of a map", "variables are always there, perhaps empty")
    }

    fn timestamp(&self, node: &Node) -> Checked<Typed> {
        let parsed = if let Expr::Text(text) = &node.expr { syslog::parse_time(text) } else { None };
        match parsed {
            Some(at) => Ok(Typed::Time(Time::Const(at))),
            None => self.error(
                node.span,
                "not a time",
                "RFC 3339 with a zone: timestamp(\"2026-11-22T10:00:00Z\")",
            ),
        }
    }
}

/// The part of a regex error that says what is wrong; the lines above draw the pattern.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned()
}
