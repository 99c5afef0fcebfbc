//! The message broker on AMQP 0-9-1.
//!
//! Start reading at [`core`]: what the broker decides. [`wire`] is the protocol's bytes. Both are pure. `server` puts
//! sockets, logs and the store around them; [`client`] speaks to any AMQP broker.
//!
//! ```text
//! socket -> wire::Frame -> core::Connection -> Event -> Session -> Topology (route) -> Queue (lock, log) -> mailbox
//!                                                                            consumer's socket <- Session <---'
//! ```
//!
//! **Invariant:** a message that was confirmed is on the disk. **Invariant:** memory is bounded by settings, however
//! many messages wait; what does not fit is only in the log. **Invariant:** no lock is held across an await.

pub mod client;
pub mod core;
mod server;
pub mod wire;

pub use crate::core::{Binding, Destination, ExchangeKind, ExchangeSpec, Limits, Refusal, ReplyCode, Target};
pub use crate::server::*;
