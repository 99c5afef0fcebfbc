//! The recorder: one row for each task, from the line that issued it to the status it ended with.
//!
//! It reads the topic of requests and the topic of the agents' events, and turns each record into a `Sighting`. A batch of sightings is one command
//! that also carries which records it was made of; the command applies only when they follow on those applied before. So each record counts exactly
//! once, whatever is read twice after a crash.

mod histogram;
mod ledger;
mod machine;
mod pump;
mod row;

pub use histogram::Histogram;
pub use ledger::{LIST_ROWS_MAX, Ledger, Query};
pub use machine::{FlowCommand, FlowMachine, OutOfOrder, Place};
pub use pump::{Recorder, RecorderTopics};
pub use row::{Row, Sighting, Totals};

pub(crate) use machine::Offsets;
