//! How much a job asks for, in nodes, slots and cores.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The most nodes, slots or cores that one job may ask for; above that it is a typing error.
pub const COUNT_MAX: u32 = 1 << 24;

/// The resource section of jobspec V1 (RFC 25): `node -> slot -> core`, or `slot -> core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// How many nodes; none when the slots may lie anywhere.
    pub nodes: Option<u32>,
    /// Slots on each node, or in all when no node count is given.
    pub slots: u32,
    /// Cores in each slot.
    pub cores: u32,
    /// GPUs in each slot.
    pub gpus: u32,
    /// Whole nodes, shared with nobody.
    pub exclusive: bool,
}

impl Shape {
    /// Slots in all.
    #[must_use]
    pub fn slots_total(&self) -> u64 {
        u64::from(self.slots) * u64::from(self.nodes.unwrap_or(1))
    }

    /// Cores on each node, or in all when no node count is given.
    #[must_use]
    pub fn cores_wanted(&self) -> u64 {
        u64::from(self.slots) * u64::from(self.cores)
    }
}

/// Why a resource section is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadShape {
    /// Something is not where RFC 25 has it.
    #[error("jobspec: resources: {0}")]
    Malformed(&'static str),
    /// Zero, negative, not whole, or larger than [`COUNT_MAX`].
    #[error("jobspec: resources: count of '{0}' must be a whole number from 1 to {COUNT_MAX}")]
    Count(String),
    /// Only node, slot, core and gpu are known.
    #[error("jobspec: resources: unsupported resource type '{0}'")]
    Type(String),
}

/// Reads the `resources` array of a jobspec.
///
/// # Errors
/// When it is none of the two forms of RFC 25.
pub(super) fn parse(resources: &Value) -> Result<Shape, BadShape> {
    let top = only(resources, "must be an array with one element")?;
    match kind(top)? {
        "node" => {
            let slot = only(&top["with"], "a node must be made of one kind of slot")?;
            if kind(slot)? != "slot" {
                return Err(BadShape::Malformed("a node must be made of slots"));
            }
            let exclusive = top["exclusive"].as_bool().unwrap_or(false);
            Ok(Shape { nodes: Some(count(top, "node")?), exclusive, ..of_slot(slot)? })
        }
        "slot" => of_slot(top),
        other => Err(BadShape::Type(other.to_owned())),
    }
}

fn of_slot(slot: &Value) -> Result<Shape, BadShape> {
    let mut shape = Shape { nodes: None, slots: count(slot, "slot")?, cores: 0, gpus: 0, exclusive: false };
    for child in slot["with"].as_array().ok_or(BadShape::Malformed("a slot must be made of cores"))? {
        match kind(child)? {
            "core" => shape.cores = count(child, "core")?,
            "gpu" => shape.gpus = count(child, "gpu")?,
            other => return Err(BadShape::Type(other.to_owned())),
        }
    }
    if shape.cores == 0 {
        return Err(BadShape::Malformed("a slot must have at least one core"));
    }
    Ok(shape)
}

fn only<'a>(list: &'a Value, otherwise: &'static str) -> Result<&'a Value, BadShape> {
    match list.as_array().map(Vec::as_slice) {
        Some([one]) => Ok(one),
        _ => Err(BadShape::Malformed(otherwise)),
    }
}

fn kind(resource: &Value) -> Result<&str, BadShape> {
    resource["type"].as_str().ok_or(BadShape::Malformed("each element needs a type"))
}

fn count(resource: &Value, what: &str) -> Result<u32, BadShape> {
    let number = resource["count"].as_u64().and_then(|number| u32::try_from(number).ok());
    number.filter(|&number| (1..=COUNT_MAX).contains(&number)).ok_or_else(|| BadShape::Count(what.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn slots_anywhere() {
        let shape = parse(
            &json!([{"type": "slot", "count": 4, "label": "task", "with": [{"type": "core", "count": 2}]}]),
        );
        assert_eq!(shape, Ok(Shape { nodes: None, slots: 4, cores: 2, gpus: 0, exclusive: false }));
        assert_eq!(shape.unwrap().cores_wanted(), 8);
    }

    #[test]
    fn slots_on_nodes() {
        let shape = parse(&json!([{"type": "node", "count": 2, "exclusive": true, "with": [
            {"type": "slot", "count": 3, "label": "task", "with": [{"type": "core", "count": 1}, {"type": "gpu", "count": 1}]}]}]));
        assert_eq!(shape, Ok(Shape { nodes: Some(2), slots: 3, cores: 1, gpus: 1, exclusive: true }));
        assert_eq!(shape.unwrap().slots_total(), 6);
    }

    #[test]
    fn refuses_what_rfc_25_does_not_have() {
        for bad in [
            json!(null),
            json!([]),
            json!([{"type": "slot", "count": 0, "with": [{"type": "core", "count": 1}]}]),
            json!([{"type": "slot", "count": 4_000_000_000u32, "with": [{"type": "core", "count": 1}]}]),
            json!([{"type": "slot", "count": 1, "with": []}]),
            json!([{"type": "rack", "count": 1}]),
            json!([{"type": "node", "count": 1, "with": [{"type": "core", "count": 1}]}]),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
