//! The workload manager: jobspec, scheduler, brokers, shell and PMI.
//!
//! Start reading at [`proto`] (what is said over the sockets), then [`core`](self::core) (what is decided, without any I/O).

pub mod broker;
pub mod core;
mod pmi;
pub mod proto;
mod shell;
pub mod spec;
