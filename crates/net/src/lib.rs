//! Listeners and the framed RPC between Kiln's own processes.
//!
//! A connection carries many calls at once. A call is one request frame from the client, answered by any number of item
//! frames and one final frame. A frame is a fixed header, a postcard body and bulk bytes that are not encoded at all.
//! `docs/formats/rpc.md` describes the bytes.
//!
//! - [`wire`]: the pure codec, no sockets.
//! - [`Client`]: calls, streams, deadlines; a dropped call is cancelled at the other side.
//! - [`serve`] and [`Service`]: the other side; one task per call, bounded per connection.
//! - [`accept_loop`]: the accept loop with a permit before each accept, for every listener of Kiln, not only RPC.
//! - [`blocking`]: the same frames on blocking sockets, for what waits on disks and counts context switches.
//!
//! **Invariant:** nothing here grows with what a peer claims or how slowly it reads: frames have limits, queues have
//! lengths, and a stream may have at most [`STREAM_WINDOW_BYTES`] on its way.

pub mod blocking;
mod client;
mod connection;
mod listen;
mod server;
pub mod wire;

#[cfg(test)]
mod tests;

pub use client::{CallError, CallOptions, Client, ItemStream};
pub use listen::{
    AcceptLimits, Connections, Listener, Peer, Shutdown, ShutdownTrigger, Stream, accept_loop, shutdown_pair,
};
pub use server::{Call, Fault, Gone, Replies, ServeLimits, Server, Service, serve};
pub use wire::{Limits, STREAM_WINDOW_BYTES, Status};
