//! What is decided about jobs, without any I/O: states, resources, the scheduler, and the job manager over them.
//!
//! Start reading at [`Manager`]. Everything that it knows follows from the [`Record`]s that it asks to append.

mod archive;
mod event;
mod graph;
mod history;
mod job;
mod list;
mod manager;
mod plan;
mod record;
#[cfg(test)]
mod tests;

pub use archive::{ArchiveLimits, NODE_LOST};
pub use event::{
    AllocatedNode, Allocation, ExecEvent, JobEvent, as_json, as_text, context_text, exit_code, output_entry,
    output_header, signal_of, worse,
};
pub use graph::{Graph, NodeConfig, Unsatisfiable};
pub use history::{Lookup, Want};
pub use job::{OUTPUT_TAIL_BYTES_MAX, Span, priority_of};
pub use manager::{BadRecord, Caller, Config, Effect, Input, Manager};
pub use plan::{Decision, Waiting, plan};
pub use record::{Checkpoint, FORMAT, Record, Source, Stamped, Submitted};
