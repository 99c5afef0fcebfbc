//! The message broker on AMQP 0-9-1.
//!
//! Start reading at [`core`]: what the broker decides. [`wire`] is the protocol's bytes. Both are pure. `server` puts
//! sockets, logs and the store around them.

pub mod core;
pub mod wire;
