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

pub use backend::DiskBackend;
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

/// When the store makes its tables durable, and lets the log before that go.
///
/// A checkpoint costs two flushes of the disk. What was applied after the last one is applied again at the next
/// start, and pages that were replaced since are free only after the next one; each limit bounds one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// After so many commands.
    pub checkpoint_commands: usize,
    /// After so many bytes of commands.
    pub checkpoint_bytes: usize,
    /// After so many transactions, in each of which any number of commands may share.
    pub checkpoint_rounds: usize,
    /// The command log starts a new file at this size in bytes; only whole files are let go.
    pub log_segment_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            checkpoint_commands: 10_000,
            checkpoint_bytes: 16 << 20,
            checkpoint_rounds: 1_000,
            log_segment_bytes: 4 << 20,
        }
    }
}

/// How many commands were applied since the state was born, refused ones included.
///
/// It goes with the state: an imported state brings its own. A larger revision is a later state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision(pub u64);
