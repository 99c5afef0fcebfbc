//! What a Kafka broker decides, without I/O, clock or randomness: names and settings of topics, the sequence
//! numbers of idempotent producers, and the classic group protocol.

pub(crate) mod group;
pub(crate) mod producer;
pub mod topic;
pub(crate) mod warm;
