//! Where events come from: the syslog listener, and topics.

mod intake;
pub(crate) mod topic;

mod tcp;
mod udp;

pub use intake::{IntakeCounts, Limits};

pub(crate) use intake::Intake;
pub(crate) use tcp::serve as serve_stream;
pub(crate) use udp::serve as serve_datagrams;
