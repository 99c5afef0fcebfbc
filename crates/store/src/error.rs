//! What can go wrong, one enum per operation.

use kiln_types::Offset;

/// Why a store stopped taking commands; the same for every caller from then on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store has stopped: {0}")]
pub struct Failed(pub(crate) std::sync::Arc<str>);

impl Failed {
    pub(crate) fn new(why: impl std::fmt::Display) -> Failed {
        Failed(why.to_string().into())
    }
}

/// Why [`crate::Builder::open`] did not open the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The state file was written by a newer Kiln.
    #[error(
        "store format {found} is newer than {known}, the newest this Kiln reads: start it with the version that wrote it, or a later one"
    )]
    Newer {
        /// In the file.
        found: u32,
        /// [`crate::FORMAT`].
        known: u32,
    },
    /// The state file lacks what every state file has.
    #[error("{what} in the state file is missing or damaged: restore the store's directory from a copy")]
    Damaged {
        /// What was looked for.
        what: &'static str,
    },
    /// The disk did not do as it was told.
    #[error("store's disk: {0}")]
    Io(#[from] std::io::Error),
    /// The table file cannot be used.
    #[error("state file: {0}")]
    State(String),
    /// The command log cannot be used.
    #[error("command log: {0}")]
    Log(String),
    /// State file and command log do not belong together.
    #[error(
        "state is at command {applied}, but the log holds {start} up to {end}: both must come from the same store, restore them together"
    )]
    Apart {
        /// The last command in the state; -1 is none.
        applied: Offset,
        /// The log's first command.
        start: Offset,
        /// The number that the log's next command would get.
        end: Offset,
    },
    /// A logged command that is not yet in the state cannot be applied.
    #[error("command {at} of the log: {why}")]
    Replay {
        /// Its place in the order.
        at: Offset,
        /// What is wrong with it.
        why: String,
    },
}

/// Why a submitted command has no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SubmitError<R: std::error::Error> {
    /// The machine refused it; nothing was changed.
    #[error(transparent)]
    Rejected(R),
    /// It is over [`crate::COMMAND_BYTES_MAX`]; nothing was changed.
    #[error("command of {bytes} bytes is over the limit of {max}", max = crate::COMMAND_BYTES_MAX)]
    TooLarge {
        /// Its length, encoded.
        bytes: usize,
    },
    /// It cannot be encoded; nothing was changed.
    #[error("command does not encode: {0}")]
    Encode(postcard::Error),
    /// The disk is full; nothing was changed, and commands are taken again once there is room.
    #[error("no space left on the store's disk: make room and try again")]
    Full,
    /// The store has stopped by an error. Whether the command will be found applied at the next open is not known.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The store was closed before it took the command; nothing was changed.
    #[error("the store is closed")]
    Closed,
}

/// Why a row could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The table file.
    #[error("read the state file: {0}")]
    State(std::sync::Arc<str>),
    /// The row holds something else than asked for.
    #[error("row {key} of table {table} does not decode as {wanted}: {why}")]
    Decode {
        /// The table's name.
        table: String,
        /// The key, escaped.
        key: String,
        /// The type asked for.
        wanted: &'static str,
        /// What the decoder said.
        why: postcard::Error,
    },
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

impl ReadError {
    pub(crate) fn state(error: impl std::fmt::Display) -> ReadError {
        ReadError::State(error.to_string().into())
    }
}

/// Why a state could not be exported or imported. An import that fails has changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The stream itself.
    #[error("snapshot stream: {0}")]
    Io(#[from] std::io::Error),
    /// Not a snapshot at all.
    #[error("this is no Kiln snapshot: it does not start with its mark")]
    Magic,
    /// Written by a newer Kiln.
    #[error(
        "snapshot format {found} is newer than {known}, the newest this Kiln reads: import it with the version that wrote it, or a later one"
    )]
    Newer {
        /// In the stream.
        found: u32,
        /// [`crate::SNAPSHOT_FORMAT`].
        known: u32,
    },
    /// The stream is cut short, altered, or breaks the format's rules.
    #[error("snapshot is damaged: {0}; take a new one")]
    Damaged(&'static str),
    /// Reading or writing the tables.
    #[error("state file: {0}")]
    State(String),
    /// The store has stopped.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}
