//! What the broker decides, without I/O: routing, queues, acknowledgements, and the state of connections.
//!
//! Time, randomness and bytes are arguments; effects are return values. The `server` module owns sockets, logs and
//! locks, and calls in here.

mod arguments;
mod channel;
mod confirms;
mod connection;
mod credit;
mod dead_letter;
mod exchange;
mod headers;
mod message;
mod queue;
mod ready;
mod refusal;
mod topic;
mod topology;
mod unacked;

pub use arguments::{Overflow, QueueArguments};
pub use channel::{Channel, Content};
pub use confirms::{Confirms, Outcome};
pub use connection::{Capabilities, Connection, Event, Limits, Release, login_refused};
pub use credit::Credit;
pub use dead_letter::{Death, Reason, dead_letter_properties, is_cycle};
pub use exchange::{Binding, Destination, Exchange, ExchangeKind, ExchangeSpec, Target};
pub use message::{Entry, Message, NEVER, UNLOGGED};
pub use queue::{ConsumerKey, Drained, Offer, Queue};
pub use refusal::{Refusal, ReplyCode, Scope};
pub use topology::{Change, Changes, ConnectionId, Origin, QueueSpec, QueueView, Routed, Topology};
pub use unacked::{Unacked, UnknownTag};
