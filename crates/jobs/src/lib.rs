//! The workload manager: jobspec, scheduler, brokers, shell and PMI.
//!
//! Start reading at [`proto`] (what is said over the sockets), then `core` (what is decided, without any I/O).

pub mod proto;
pub mod spec;
