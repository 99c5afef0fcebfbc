//! A message, and the small entry that a queue keeps for it.

use std::sync::Arc;

use bytes::Bytes;

use crate::core::Refusal;
use crate::wire::{ShortStr, Traits};

/// `Entry::expires_at` of a message that does not expire.
pub const NEVER: i64 = i64::MAX;

/// `Entry::offset` of a message that is only in memory.
pub const UNLOGGED: i64 = -1;

/// What a queue counts for an entry besides its body and properties, in bytes.
const ENTRY_OVERHEAD: usize = 200;

/// A published message, shared by every queue that it was routed to.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The exchange it was published to; empty for the default exchange.
    pub exchange: ShortStr,
    /// The routing key it was published with.
    pub routing_key: ShortStr,
    /// Property flags and list, as received.
    pub properties: Bytes,
    /// The body.
    pub body: Bytes,
    /// Whether it outlives a restart in a durable queue.
    pub persistent: bool,
    /// Its priority, not yet cut to a queue's maximum.
    pub priority: u8,
    /// Its own time to live in milliseconds.
    pub expiration: Option<u64>,
}

impl Message {
    /// A message whose traits are already known.
    pub fn new(
        (exchange, routing_key): (ShortStr, ShortStr),
        properties: Bytes,
        body: Bytes,
        traits: &Traits,
    ) -> Result<Self, Refusal> {
        let expiration = traits.expiration.as_ref().map(parse_expiration).transpose()?;
        let Traits { persistent, priority, .. } = *traits;
        Ok(Self { exchange, routing_key, properties, body, persistent, priority, expiration })
    }

    /// Memory held for it, in bytes.
    pub fn footprint(&self) -> usize {
        self.body.len() + self.properties.len() + ENTRY_OVERHEAD
    }
}

/// `expiration` is decimal text in milliseconds; the error texts are `RabbitMQ`'s.
fn parse_expiration(text: &ShortStr) -> Result<u64, Refusal> {
    match text.parse::<i64>() {
        Ok(ms) if ms >= 0 => Ok(ms.unsigned_abs()),
        Ok(ms) => Err(Refusal::precondition(format!("invalid expiration '{text}': {{value_negative,{ms}}}"))),
        Err(_) => Err(Refusal::precondition(format!("invalid expiration '{text}': no_integer"))),
    }
}

/// A queue's handle on a message: its place, and either the message or where to read it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The place in the queue, given once: a requeued message goes back to it.
    pub position: u64,
    /// The message's offset in the queue's log, or [`UNLOGGED`].
    pub offset: i64,
    /// When it expires, in microseconds since the epoch, or [`NEVER`].
    pub expires_at: i64,
    /// Octets of the body.
    pub size: u32,
    /// Its priority in this queue.
    pub priority: u8,
    /// Whether it was given to a consumer before.
    pub redelivered: bool,
    /// The message; `None` while it is only in the log. Invariant: present unless `offset` is not [`UNLOGGED`].
    pub message: Option<Arc<Message>>,
}

impl Entry {
    /// Whether the message can be read back from the log.
    pub fn is_logged(&self) -> bool {
        self.offset != UNLOGGED
    }
}
