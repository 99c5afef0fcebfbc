//! Sources, filters and sinks: syslog to topic to queue to job to recorder.
//!
//! `syslog` reads and writes lines, `filter` decides on them, `core` says what a flow and a task mean: all three are pure. Around them, `sources`
//! brings events in, `sinks` carries out what was decided, `service` runs both; `agent` turns queued tasks into jobs, and `recorder` keeps one row for
//! each task. What flows ask of topics, exchanges and jobs are the traits in `ports`, which the binary implements. `tester`, `replay` and `generator`
//! are for people who write flows.

pub mod agent;
mod backoff;
pub mod core;
pub mod filter;
pub mod generator;
pub mod ports;
pub mod recorder;
pub mod replay;
mod service;
mod sinks;
mod sources;
pub mod syslog;
pub mod tester;
#[cfg(test)]
mod testing;

pub use backoff::Stopped;
pub use service::{Chain, FlowStatus, Service, SyslogListeners};
pub use sinks::Ports;
pub use sinks::relp::{Acknowledgement, RelpSender, SendError};
pub use sources::{IntakeCounts, Limits};

/// The header of a message on a queue that says when it was put there; RFC 3339.
pub const QUEUED_HEADER: &str = "kiln-queued";
