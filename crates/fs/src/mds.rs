//! The metadata server.

pub mod mdt;
