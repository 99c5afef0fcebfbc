//! Sources, filters and sinks: syslog to topic to queue to job to recorder.

pub mod core;
pub mod filter;
pub mod syslog;

/// The header of a message on a queue that says when it was put there; RFC 3339.
pub const QUEUED_HEADER: &str = "kiln-queued";
