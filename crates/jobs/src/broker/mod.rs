//! The brokers of an instance: one leader with the job manager, and an agent on each rank.
//!
//! - `start`: [`start_leader`], [`start_member`] and the [`Handle`] of a running broker.
//! - `runner`: carries out what the job manager decides; `events`: its log; `exits`: tasks that outlive their siblings.
//! - `desk`: what answers on the sockets.
//! - `agent`: starts tasks and reports what becomes of them; `uplink`: its connection to the leader.
//! - [`nested`]: an instance inside a job, for batch scripts.
//! - [`Jobs`]: submits jobs and waits for them, for those who use the workload manager from within.
//!
//! All agents are connected to the leader directly. A tree of brokers, as Flux has it, is a later step: it matters from
//! some hundreds of nodes on.

mod agent;
mod client;
mod desk;
mod events;
mod exits;
mod nested;
mod runner;
mod start;
mod uplink;

#[cfg(test)]
mod tests;

pub use client::{Ended, Jobs, JobsError};
pub use events::EventsError;
pub use nested::{NestedError, NestedSettings, nested};
pub use runner::Stopped;
pub use start::{Handle, LeaderSettings, NodeSettings, StartError, start_leader, start_member};
