//! Sources, filters and sinks: syslog to topic to queue to job to recorder.

pub mod filter;
pub mod syslog;
