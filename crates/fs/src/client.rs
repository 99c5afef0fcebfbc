//! The client: a mount.

pub mod data;
