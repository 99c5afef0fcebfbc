//! The rule of one binding of a headers exchange.

use crate::core::Refusal;
use crate::wire::{ShortStr, Table, Value};

/// Which headers a message needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeadersRule {
    any: bool,
    wanted: Vec<(ShortStr, Value)>,
}

impl HeadersRule {
    /// Reads `x-match`: `all` (the default), `any`, and both `-with-x`, which also look at headers named `x-...`.
    pub(super) fn parse(arguments: &Table) -> Result<Self, Refusal> {
        let (any, with_x) = match arguments.get("x-match") {
            None => (false, false),
            Some(value) => match value.as_text() {
                Some("all") => (false, false),
                Some("any") => (true, false),
                Some("all-with-x") => (false, true),
                Some("any-with-x") => (true, true),
                _ => return Err(bad_match(value)),
            },
        };
        let counts = |name: &str| name != "x-match" && (with_x || !name.starts_with("x-"));
        let wanted = arguments.0.iter().filter(|(name, _)| counts(name)).cloned().collect();
        Ok(Self { any, wanted })
    }

    /// Whether a message with these headers goes through the binding.
    pub(super) fn matches(&self, headers: &Table) -> bool {
        let met = |(name, value): &(ShortStr, Value)| match (value, headers.get(name)) {
            (_, None) => false,
            // A binding without a value asks only that the header is there.
            (Value::Void, Some(_)) => true,
            (wanted, Some(found)) => wanted.equivalent(found),
        };
        if self.any { self.wanted.iter().any(met) } else { self.wanted.iter().all(met) }
    }
}

fn bad_match(value: &Value) -> Refusal {
    let shown = match value.as_text() {
        Some(text) => format!("<<\"{text}\">>"),
        None => value.to_string(),
    };
    Refusal::precondition(format!(
        "Invalid x-match field value {shown}; expected all, any, all-with-x, or any-with-x"
    ))
}
