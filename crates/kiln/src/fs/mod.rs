//! The filesystem service of a node: one listener for whatever targets the node has, and on the leader the MGS.
//!
//! - [`mgs`]: answers nodes and clients out of the store; on the leader.
//! - [`duty`]: a thread that follows what the MGS says this node has to serve.
//! - [`targets`]: the targets of this node, each starting, served, or failed with the reason.
//! - [`ground`]: the directory of a target, and its lock.
//! - [`servers`]: how a target's server is built.
//! - [`service`]: takes requests from the listener to the target they are for.
//! - [`changelog`]: takes records of changes from an MDT to their topic.
//! - [`admin`]: what `kiln fs` does to filesystems, by way of the API; on the leader.
//! - [`view`]: a filesystem as the MGS and its nodes tell of it.

pub(crate) mod admin;
pub(crate) mod changelog;
mod duty;
mod ground;
pub(crate) mod mgs;
mod node;
mod servers;
mod service;
mod targets;
mod view;

pub(crate) use node::{FsNode, Start};
