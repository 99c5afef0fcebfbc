//! The journal: every command, in the order in which they were applied.

use std::error::Error;
use std::path::Path;

use kiln_log::{AppendError, Log, Settings, Upto, Volume, batch};
use kiln_types::Offset;

use super::error::{Latch, OpenError};
use crate::core::Errno;
use crate::core::namespace::Command;

const DIR: &str = "journal";
/// First byte of a command. In version 1 no change said to which job it belongs.
const VERSION: u8 = 2;
/// The largest record, in bytes: file data of one message, and room for names and values beside it.
const RECORD_BYTES_MAX: u32 = crate::wire::DATA_BYTES_MAX + (1 << 20);
/// How much is read at once when commands are applied again, in bytes.
const READ_BYTES_MAX: usize = 1 << 20;
/// One part in so many of a file of the journal is filled ahead: a sync that need not change the file takes half the time.
const FILL_SHARE: u64 = 32;
/// Buffers larger than this are not kept for the next command, in bytes.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// The open journal.
pub(super) struct Journal {
    log: Log,
    /// Used again for each command.
    head: Vec<u8>,
    batch: Vec<u8>,
}

/// A command in its place.
pub(super) struct Record {
    pub(super) at: Offset,
    pub(super) command: Command,
    pub(super) bulk: Vec<u8>,
}

impl Journal {
    pub(super) fn open(volume: &Volume, dir: &Path, segment_bytes_max: u64) -> Result<Journal, OpenError> {
        let settings = Settings {
            segment_bytes_max,
            batch_bytes_max: RECORD_BYTES_MAX,
            fill_ahead_bytes: segment_bytes_max / FILL_SHARE,
            ..Settings::default()
        };
        let log = volume.open(&dir.join(DIR), settings).map_err(journal_error)?;
        Ok(Journal { log, head: Vec::new(), batch: Vec::new() })
    }

    /// The journal must hold everything that the table lacks, and reach as far as the table at least: else it would give
    /// new commands places that count as applied already.
    pub(super) fn check_together(&self, applied: Offset) -> Result<(), OpenError> {
        let marks = self.log.watermarks();
        if applied.next() < marks.start || applied.next() > marks.end {
            return Err(OpenError::Apart { applied, start: marks.start, end: marks.end });
        }
        Ok(())
    }

    /// Appends a command to the file; it is not durable yet. `ENOSPC` when there is no room: nothing was appended then.
    pub(super) fn append(&mut self, command: &Command, bulk: &[u8], latch: &Latch) -> Result<Offset, Errno> {
        let mut head = std::mem::take(&mut self.head);
        head.clear();
        head.push(VERSION);
        let head = postcard::to_extend(command, head).map_err(|error| latch.fail(&error))?;
        let millis = command.now.secs.saturating_mul(1000);
        let mut builder = batch::Builder::with_buffer(millis, std::mem::take(&mut self.batch));
        let value = (!bulk.is_empty()).then_some(bulk);
        builder.push(&batch::Record { key: Some(&head), value, headers: &[], time_ms: millis });
        let mut batch = builder.finish();
        let appended = self.log.append(&mut batch, 0).map_err(|error| match error {
            AppendError::Full => Errno::ENOSPC,
            AppendError::TooLarge { .. } => Errno::E2BIG,
            error => latch.fail(&error),
        })?;
        self.head = kept(head);
        self.batch = kept(batch);
        Ok(appended.last)
    }

    /// Some records in their order, beginning with the one at `from`; none when that is the end.
    pub(super) fn read(&self, from: Offset) -> Result<Vec<Record>, OpenError> {
        let mut records = Vec::new();
        if from >= self.log.watermarks().end {
            return Ok(records);
        }
        let bytes = self.log.read(from, Upto::End, READ_BYTES_MAX).map_err(journal_error)?;
        let mut wanted = from;
        for (_, batch) in batch::batches(&bytes) {
            for record in batch::records(batch) {
                let record = record.map_err(journal_error)?;
                if record.offset < from {
                    continue;
                }
                if record.offset != wanted {
                    return Err(journal_error(format!("{} stands where {wanted} should", record.offset)));
                }
                let command = decode(record.key.unwrap_or_default())
                    .map_err(|why| OpenError::Replay { at: wanted, why })?;
                let bulk = record.value.unwrap_or_default().to_vec();
                records.push(Record { at: wanted, command, bulk });
                wanted = wanted.next();
            }
        }
        Ok(records)
    }

    /// What waits until the record at `last`, and all before it, is durable.
    pub(super) fn sync(&self, last: Offset) -> Syncing {
        Syncing { log: self.log.clone(), last }
    }
}

fn kept(buffer: Vec<u8>) -> Vec<u8> {
    if buffer.capacity() > BUFFER_BYTES_MAX { Vec::new() } else { buffer }
}

fn decode(bytes: &[u8]) -> Result<Command, String> {
    match bytes.split_first() {
        None => Err("it is empty".to_owned()),
        Some((&VERSION, body)) => match postcard::take_from_bytes(body) {
            Ok((command, [])) => Ok(command),
            Ok(_) => Err("bytes are left over".to_owned()),
            Err(error) => Err(error.to_string()),
        },
        Some((version, _)) => Err(format!("it has layout {version}, which only another Kiln knows")),
    }
}

fn journal_error(error: impl Into<Box<dyn Error>>) -> OpenError {
    OpenError::Journal(error.into().to_string())
}

/// Waits for the group commit of everything up to a moment.
#[must_use = "nothing is waited for otherwise"]
pub struct Syncing {
    log: Log,
    last: Offset,
}

impl Syncing {
    /// Blocks until it is durable; `EIO` when it never will be.
    pub fn wait(&self) -> Result<(), Errno> {
        self.log.wait_durable(self.last).map_err(|_| Errno::EIO)
    }

    /// Calls `f` when it is durable, or never will be: on the flusher's thread, or at once. It must be quick.
    pub fn then(&self, f: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        self.log.on_durable(self.last, Box::new(move |outcome| f(outcome.map_err(|_| Errno::EIO))));
    }

    /// Lets go of the records up to here, which are in the table durably.
    pub(super) fn trim(&self) -> Result<(), kiln_log::ChangeError> {
        self.log.set_start(self.last.next())
    }
}
