//! The broker around the core: sockets, logs, the store, and the calls of the rest of Kiln.
//!
//! One task serves one connection. A message goes from the publisher's task under the queue's lock into the log and
//! into the mailbox of the consumer's task; no other task is involved.
//!
//! Order of locks: topology, then queue, then mailbox.

mod backing;
mod batch;
mod broker;
mod burial;
mod io;
mod listing;
mod live;
mod machine;
mod mailbox;
mod methods;
mod names;
mod publish;
mod queue;
mod record;
mod routes;
mod serve;
mod session;
mod timers;
mod vhost;
mod vhosts;

pub use backing::BackingError;
pub use broker::{Broker, BrokerError, Conditions, Settings, StartError};
pub use listing::{BindingInfo, ConnectionInfo, ConsumerInfo, ExchangeInfo, QueueInfo};
pub use machine::{AmqpMachine, Command, Rejection};
pub use serve::Handle;
