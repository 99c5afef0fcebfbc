//! The documents that describe a job: jobspec (RFC 14 and 25), resources (RFC 20), task map (RFC 34). Pure.

pub mod build;
mod constraint;
mod jobspec;
pub mod json;
mod r;
mod shape;
mod taskmap;

pub use constraint::{BadConstraint, Constraint};
pub use jobspec::{BadJobspec, Condition, Dependency, JobFile, Jobspec, TaskCount};
pub use r::{BadR, R, RNode};
pub use shape::{BadShape, COUNT_MAX, Shape};
pub use taskmap::{process_mapping, taskmap_json};
