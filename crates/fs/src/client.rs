//! The client: a mount.

pub mod control;
