//! Which nodes a job accepts (Flux RFC 31).

use kiln_types::{Hostlist, IdSet, Rank};
use serde_json::Value;

/// How deep `and`, `or` and `not` may be nested.
const DEPTH_MAX: usize = 32;

/// A condition on nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// The node's name is one of these.
    Hosts(Hostlist),
    /// The node's rank is one of these.
    Ranks(IdSet),
    /// The node has all these properties. Kiln's nodes have none, so only `^name` (without it) holds.
    Properties(Vec<String>),
    /// All hold.
    And(Vec<Constraint>),
    /// At least one holds.
    Or(Vec<Constraint>),
    /// None holds.
    Not(Vec<Constraint>),
}

/// Why a constraint is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadConstraint {
    /// Not an object with one key, or its value is not an array.
    #[error("jobspec: constraints: must be an object of one operator and an array")]
    Malformed,
    /// The operator is none of RFC 31's.
    #[error(
        "jobspec: constraints: unknown operator '{0}', known are hostlist, ranks, properties, and, or, not"
    )]
    Operator(String),
    /// An operand does not parse.
    #[error("jobspec: constraints: {0}")]
    Operand(String),
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("jobspec: constraints: nested deeper than {DEPTH_MAX}")]
    Deep,
}

impl Constraint {
    /// Reads RFC 31's JSON.
    ///
    /// # Errors
    /// When it does not follow RFC 31, or uses an operator that is not known.
    pub fn parse(json: &Value) -> Result<Self, BadConstraint> {
        Self::parse_within(json, DEPTH_MAX)
    }

    fn parse_within(json: &Value, depth: usize) -> Result<Self, BadConstraint> {
        let depth = depth.checked_sub(1).ok_or(BadConstraint::Deep)?;
        let object = json.as_object().filter(|object| object.len() == 1);
        let (operator, operands) =
            object.and_then(|object| object.iter().next()).ok_or(BadConstraint::Malformed)?;
        let operands = operands.as_array().ok_or(BadConstraint::Malformed)?;
        let nested =
            || operands.iter().map(|operand| Self::parse_within(operand, depth)).collect::<Result<_, _>>();
        match operator.as_str() {
            "and" => Ok(Self::And(nested()?)),
            "or" => Ok(Self::Or(nested()?)),
            "not" => Ok(Self::Not(nested()?)),
            "hostlist" => Ok(Self::Hosts(read_hosts(operands)?)),
            "ranks" => Ok(Self::Ranks(read_ranks(operands)?)),
            "properties" => Ok(Self::Properties(words(operands)?.map(str::to_owned).collect())),
            other => Err(BadConstraint::Operator(other.to_owned())),
        }
    }

    /// Whether a node satisfies this.
    #[must_use]
    pub fn accepts(&self, rank: Rank, host: &str) -> bool {
        match self {
            Self::Hosts(hosts) => hosts.contains(host),
            Self::Ranks(ranks) => ranks.contains(rank.0),
            Self::Properties(names) => names.iter().all(|name| name.starts_with('^')),
            Self::And(all) => all.iter().all(|one| one.accepts(rank, host)),
            Self::Or(any) => any.iter().any(|one| one.accepts(rank, host)),
            Self::Not(none) => !none.iter().any(|one| one.accepts(rank, host)),
        }
    }
}

fn words(operands: &[Value]) -> Result<impl Iterator<Item = &str>, BadConstraint> {
    if operands.iter().all(Value::is_string) {
        Ok(operands.iter().filter_map(Value::as_str))
    } else {
        Err(BadConstraint::Operand("operands must be strings".to_owned()))
    }
}

fn read_hosts(operands: &[Value]) -> Result<Hostlist, BadConstraint> {
    let mut hosts = Hostlist::new();
    for word in words(operands)? {
        let list: Hostlist = word.parse().map_err(|bad| BadConstraint::Operand(format!("{bad}")))?;
        list.iter().for_each(|host| hosts.push(host));
    }
    Ok(hosts)
}

fn read_ranks(operands: &[Value]) -> Result<IdSet, BadConstraint> {
    words(operands)?.try_fold(IdSet::new(), |ranks, word| {
        let more: IdSet = word.parse().map_err(|bad| BadConstraint::Operand(format!("{bad}")))?;
        Ok(ranks.union(&more))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn accepts(json: &Value, rank: u32, host: &str) -> bool {
        Constraint::parse(json).unwrap().accepts(Rank(rank), host)
    }

    #[test]
    fn operators() {
        assert!(accepts(&json!({"hostlist": ["n[1-3]"]}), 9, "n2"));
        assert!(!accepts(&json!({"hostlist": ["n[1-3]"]}), 9, "n4"));
        assert!(accepts(&json!({"ranks": ["0-1", "4"]}), 4, "n"));
        assert!(!accepts(&json!({"properties": ["gpu"]}), 0, "n"));
        assert!(accepts(&json!({"properties": ["^gpu"]}), 0, "n"));
        assert!(accepts(&json!({"not": [{"ranks": ["0"]}]}), 1, "n"));
        assert!(accepts(&json!({"or": [{"ranks": ["0"]}, {"hostlist": ["n"]}]}), 1, "n"));
        assert!(!accepts(&json!({"and": [{"ranks": ["0"]}, {"hostlist": ["n"]}]}), 1, "n"));
    }

    #[test]
    fn refuses_garbage_and_depth() {
        for bad in [
            json!(1),
            json!({}),
            json!({"a": [], "b": []}),
            json!({"hostlist": [1]}),
            json!({"ranks": ["x"]}),
            json!({"near": []}),
        ] {
            assert!(Constraint::parse(&bad).is_err(), "{bad}");
        }
        let deep = (0..40).fold(json!({"ranks": ["0"]}), |inner, _| json!({"not": [inner]}));
        assert_eq!(Constraint::parse(&deep), Err(BadConstraint::Deep));
    }
}
