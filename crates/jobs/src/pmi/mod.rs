//! The PMI-1 server: what an MPI program talks to while it starts.
//!
//! Each task has one end of a socket pair, whose number it finds in `PMI_FD`. [`node`] is the state of one job on one
//! node, without I/O; [`serve`] is the loop of one task's socket. What the tasks of different nodes put meets at each
//! barrier: a node whose tasks are all in sends what they put to the leader, which answers once it has it of all nodes.
//!
//! Open MPI 5 does not speak PMI-1, only `PMIx`, which is not served here: its program runs as so many processes of size 1,
//! and nothing tells the user. Use Open MPI 4 (`FLUX_PMI_LIBRARY_PATH`) or MPICH, or start `mpirun` in `flux alloc`.

mod node;
mod serve;

pub(crate) use node::{Node, Outcome, Pairs};
pub(crate) use serve::{Asked, serve};
