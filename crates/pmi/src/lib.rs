//! `libpmi.so`: the PMI-1 client library that Open MPI 4 loads, and the PMI-1 wire that it speaks.
//!
//! - [`wire`]: requests and responses as lines (RFC 13 of flux-framework); pure, shared with the server in the job shell.
//! - [`client`]: the calling side over the socket that `PMI_FD` names.
//! - [`mapping`]: `PMI_process_mapping`, which ranks share a node.
//! - [`symbols`]: the 18 C functions that Open MPI's flux component looks up; a library with just these works.

pub mod client;
pub mod mapping;
pub mod symbols;
pub mod wire;
