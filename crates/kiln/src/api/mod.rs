//! The HTTP API: what the command line and the console are made of.
//!
//! It is served twice: on `[console] listen`, where it only answers questions, and on a Unix socket in the data directory, where the user who owns the
//! instance may also change things. `kiln` commands are clients of the latter, so whatever they can do, `curl --unix-socket` can.

mod ask;
pub(crate) mod client;
pub(crate) mod model;
pub(crate) mod routes;
pub(crate) mod server;
