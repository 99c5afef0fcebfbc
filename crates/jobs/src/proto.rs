//! What clients and brokers say to each other.
//!
//! Two conversations, both in postcard inside frames of `kiln_net`:
//!
//! * [`Request`] and [`Answer`]: a client (the `flux` command line, the task agent) and a broker. Each request has
//!   exactly one answer. What other systems stream is polled here: [`Request::Events`], [`Request::Output`] and
//!   [`Request::Wait`] carry the position to go on from, and the broker holds its answer for up to `wait_ms` until
//!   there is something to say. So a client may go on with another connection, also after the leader restarted.
//! * [`FromAgent`] and [`ToAgent`]: the leader and the agent of each rank, one message at a time in both directions,
//!   in order, without answers. What an agent reports about a job is numbered, kept by the agent until the leader has
//!   it on disk ([`ToAgent::Acked`]), and sent again after a reconnect; the leader drops what it has seen.
//!
//! JSON documents (jobspec, R, event contexts) travel as text. Enum variants are only ever added at the end.

mod agent;
mod blob;
mod client;

pub use agent::{
    Exchange, FromAgent, Hello, LogLevel, OutputEvent, Running, ShellEvent, ShellNode, ShellReport,
    ShellStart, Stream, ToAgent,
};
pub use blob::Blob;
pub use client::{
    Answer, Drained, Entry, Failure, FailureKind, Filter, InfoKey, JobResult, JobRow, JobState, LogName,
    NodeRow, RaisedException, Reply, Request, Stats, Submit, SubmitFlags, Timed, Waited, WhichNodes,
};

/// Version of both conversations; a peer with another one is refused.
pub const PROTOCOL: u32 = 1;

/// The longest jobspec, in bytes of JSON; it holds the environment and, for batch, the script.
pub const JOBSPEC_BYTES_MAX: usize = 2 << 20;

/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;

/// The longest that a broker holds an answer, in milliseconds.
pub const WAIT_MS_MAX: u32 = 30_000;

/// The most bytes of output in one answer or one chunk.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// The most rows, events or chunks in one answer.
pub const ROWS_MAX: usize = 100_000;
