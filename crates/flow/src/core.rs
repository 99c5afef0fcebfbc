//! What a flow means: definitions, fields, templates, tasks, and the verdict on one event. Pure.
//!
//! An event goes in, and what is to be done about it comes out as data (`Batch`); `sinks` does it.

mod batch;
mod counters;
mod definition;
mod event;
mod extract;
mod flow;
mod task;
mod template;

pub use batch::{Batch, RecordRef, Records};
pub use counters::{Counters, Counts};
pub use definition::{
    ArgumentDefinition, ArgumentKind, Definition, Extract, Sink, Source, TaskDefinition, ValueKind,
};
pub use event::{AGENT_APPNAME, EventKind, TaskEvent};
pub use extract::Fields;
pub use flow::{Flow, Outlet, Problem, SHORT_BYTES_MAX, SinkAddress, compile};
pub use task::{Catalogue, TASK_ID_BYTES_MAX, TaskError, TaskId, TaskRequest, TaskRun};
pub use template::{BadTemplate, Template};
