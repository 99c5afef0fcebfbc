//! The event log on the Kafka protocol.
//!
//! `wire` reads and writes the protocol, `core` decides, `server` talks to sockets; `broker` ties them to the
//! logs and the store, and is what the rest of Kiln uses. Start reading at [`Broker`].
//!
//! ```text
//! socket -> server::connection -> wire::frame -> server::dispatch -> broker -> kiln_log, kiln_store
//!                                                      \-> core (groups, producers, topics): decisions
//! ```
//!
//! **Invariant:** a record batch is never decoded between socket and file: its header is checked, its base offset
//! patched in the request's own buffer, and it is written once. **Invariant:** a consumer sees durable records
//! only: the high watermark is the log's durable offset. **Invariant:** what `ApiVersions` announces and what is
//! served come from one table, `wire::api`.

pub mod broker;
pub mod core;
pub mod machine;
mod server;
pub mod settings;
pub mod wire;

pub use broker::{
    AdminError, AppendError, Broker, GroupInfo, Lag, NewTopic, OffsetError, PartitionInfo, Parts, Placed,
    ProduceError, ReadError, StartError, TopicInfo,
};
pub use core::topic::{TopicConfig, TopicDefaults};
pub use machine::{Commit, KafkaMachine};
pub use server::Handle;
pub use settings::Settings;
