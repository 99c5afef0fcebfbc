//! The one order of commands. This is the seam where consensus goes in.
//!
//! [`Sequencer`] gives commands their places and returns when those are final. Today the order is a log on this
//! node's disk, and final means durable there. With several nodes it will be the replicated log: `commit` proposes
//! and waits for the quorum, `read` gives the entries that a copy has not applied yet, and `trim` is what a
//! snapshot allows. The applier, the tables and every service stay as they are, because they see nothing of the
//! order but this file.

use std::path::Path;
use std::sync::mpsc;

use kiln_log::{AppendError, ChangeError, Failed, Log, Settings, Upto, Volume, batch};
use kiln_types::Offset;

use crate::command::{BadCommand, Command};

/// The largest batch, in bytes: a round (see `applier`) and the room that its framing takes.
const BATCH_BYTES_MAX: u32 = 16 << 20;

/// How much of the log is read at once when commands are replayed, in bytes.
const READ_BYTES_MAX: usize = 1 << 20;

/// Puts commands in order.
pub(crate) struct Sequencer {
    log: Log,
}

/// Why commands were not put in order.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    /// The disk is full; nothing was logged.
    #[error("the disk is full")]
    Full,
    /// Whether they were logged is not known. Nothing can be logged any more.
    #[error("command log: {0}")]
    Failed(String),
}

/// Why logged commands could not be read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Log(#[from] kiln_log::ReadError),
    #[error(transparent)]
    Failed(#[from] Failed),
    #[error(transparent)]
    Batch(#[from] batch::BadBatch),
    #[error("command {at}: {why}")]
    Command { at: Offset, why: BadCommand },
    #[error("command {found} stands where {wanted} should")]
    Gap { found: Offset, wanted: Offset },
}

impl Sequencer {
    /// Opens the command log in `dir`, which starts a new file at `segment_bytes_max`; trimming lets whole files go.
    pub(crate) fn open(
        volume: &Volume,
        dir: &Path,
        segment_bytes_max: u64,
    ) -> Result<Sequencer, kiln_log::OpenError> {
        let settings =
            Settings { segment_bytes_max, batch_bytes_max: BATCH_BYTES_MAX, ..Settings::default() };
        Ok(Sequencer { log: volume.open(dir, settings)? })
    }

    /// The first place that still has its command.
    pub(crate) fn start(&self) -> Offset {
        self.log.watermarks().start
    }

    /// The place that the next command will get.
    pub(crate) fn end(&self) -> Offset {
        self.log.watermarks().end
    }

    /// Puts `commands`, one after the other, into the order and waits until that is final. Returns the place of
    /// the first.
    pub(crate) fn commit(&self, commands: &[Command]) -> Result<Offset, CommitError> {
        let mut batch = encode(commands).map_err(|error| CommitError::Failed(error.to_string()))?;
        let appended = self.log.append(&mut batch, 0).map_err(|error| match error {
            AppendError::Full => CommitError::Full,
            error => CommitError::Failed(error.to_string()),
        })?;
        self.wait_durable(appended.last).map_err(|error| CommitError::Failed(error.to_string()))?;
        Ok(appended.base)
    }

    /// Waits until everything that is in the log is durable.
    pub(crate) fn settle(&self) -> Result<(), Failed> {
        let marks = self.log.watermarks();
        if marks.durable >= marks.end { Ok(()) } else { self.wait_durable(Offset(marks.end.0 - 1)) }
    }

    /// Some commands in their order, beginning with the one at `from`; none when `from` is the end.
    pub(crate) fn read(&self, from: Offset) -> Result<Vec<Command>, ReadError> {
        let mut commands = Vec::new();
        if from >= self.end() {
            return Ok(commands);
        }
        let bytes = self.log.read(from, Upto::End, READ_BYTES_MAX)?;
        let mut wanted = from;
        for (_, batch) in batch::batches(&bytes) {
            for record in batch::records(batch) {
                let record = record?;
                if record.offset < from {
                    continue;
                }
                if record.offset != wanted {
                    return Err(ReadError::Gap { found: record.offset, wanted });
                }
                let command = Command::decode(record.value.unwrap_or_default());
                commands.push(command.map_err(|why| ReadError::Command { at: wanted, why })?);
                wanted = wanted.next();
            }
        }
        Ok(commands)
    }

    /// Lets go of the commands before `to`, which are in the state durably.
    pub(crate) fn trim(&self, to: Offset) -> Result<(), ChangeError> {
        self.log.set_start(to)?;
        Ok(())
    }

    fn wait_durable(&self, last: Offset) -> Result<(), Failed> {
        let (done, wait) = mpsc::sync_channel(1);
        self.log.on_durable(
            last,
            Box::new(move |result| {
                // The receiver waits below for as long as this can be called.
                let _ = done.send(result);
            }),
        );
        wait.recv().unwrap_or_else(|_| {
            Err(Failed {
                dir: Path::new("").into(),
                reason: "the flusher is gone".into(),
                kind: std::io::ErrorKind::BrokenPipe,
            })
        })
    }
}

/// One record per command, without a key.
fn encode(commands: &[Command]) -> Result<Vec<u8>, postcard::Error> {
    let millis = |command: &Command| command.at.millis();
    let mut builder = batch::Builder::new(commands.first().map_or(0, millis));
    for command in commands {
        let value = command.encode()?;
        builder.push(&batch::Record { value: Some(&value), time_ms: millis(command), ..Default::default() });
    }
    Ok(builder.finish())
}
