//! The framed RPC on blocking sockets: the frames of [`wire`](crate::wire), without a runtime.
//!
//! A connection carries one call at a time, and its thread at the server reads the request, does the work and writes the
//! answer: a call costs two context switches, and may wait for a disk without holding up anybody else. Whoever wants
//! several calls under way opens several connections.
//!
//! - [`Connection`]: the calling side.
//! - [`serve`] and [`Service`]: the answering side, one thread for each connection.
//!
//! There are no credits and no cancels here: a stream is as fast as the socket, and a call that nobody waits for ends
//! with its connection. `docs/formats/rpc.md` says what that means for a peer that speaks the other form.

mod client;
mod frames;
mod memory;
mod part;
mod patience;
mod server;
mod socket;

#[cfg(test)]
mod tests;

pub use client::{Closer, Connection};
pub use memory::Span;
pub use patience::{Patience, Waits, on_wait, waits};
pub use server::{Call, ConnId, Replies, ServeLimits, Server, Service, serve};
pub use socket::Listener;
