//! Typed transactional tables behind replayable commands, snapshots and watches.
//!
//! Everything that Kiln's services share (users, topics, exchanges, flows) is rows in tables. Rows change in one
//! way only: a service's [`Machine`] is given a command, and its `apply` says what the command does to the
//! tables. A command is first put into its place in one order and made durable (`sequence`), then applied in a
//! transaction that also records that it was applied (`state`). What was acknowledged is therefore there after
//! any crash, whole and once, and any copy that applies the same commands holds the same rows.
//!
//! ```text
//! Handle::submit -> applier thread: [ take all that wait | Sequencer::commit | State::apply | watches, replies ]
//! Handle::read   -> Snapshot: a view that stands still while commands go on
//! ```
//!
//! **Invariant:** `apply` depends on the tables, the command and its time stamp alone: no clock, no randomness, no
//! configuration. **Invariant:** nothing outside `sequence` knows where the order comes from; that is where a
//! consensus protocol slides in. The files are described in `docs/formats/store.md`.

mod applier;
mod backend;
mod command;
mod error;
mod key;
mod machine;
mod sequence;
mod snapshot;
mod state;
mod store;
mod tables;
mod transfer;
mod watch;

pub use error::{Failed, OpenError, ReadError, SubmitError, TransferError};
pub use machine::Machine;
pub use snapshot::{Rows, Snapshot};
pub use state::FORMAT;
pub use store::{Builder, Handle, Store};
pub use tables::Tables;
pub use transfer::{ROW_KEY_BYTES_MAX, ROW_VALUE_BYTES_MAX, SNAPSHOT_FORMAT};

use serde::{Deserialize, Serialize};

/// The largest command, encoded, in bytes.
pub const COMMAND_BYTES_MAX: usize = 1 << 20;

/// How many bytes of commands may wait to be logged; a `submit` beyond waits for room.
pub const PENDING_BYTES_MAX: usize = 64 << 20;

/// How many commands have changed the tables' owner since the state was born, refused ones included.
///
/// It goes with the state: an imported state brings its own. A larger revision is a later state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);
