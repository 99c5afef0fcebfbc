//! The documents that describe a job: jobspec (RFC 14 and 25), resources (RFC 20), task map (RFC 34).

mod taskmap;

pub use taskmap::{process_mapping, taskmap_json};
