//! The job manager's records in their log.
//!
//! One batch per turn of the runner. A record's key is the job's id in the plain F58 form (none for the instance's own
//! records), its value [`FORMAT`] and the [`Stamped`] in postcard.

use std::path::Path;

use kiln_log::batch::{self, Builder};
use kiln_log::{AppendError, Log, OpenError, ReadError, Settings, Upto, Volume};
use kiln_types::{JobId, Offset};

use crate::core::{FORMAT, Stamped};

/// Bytes read from the log at once.
const READ_BYTES: usize = 1 << 20;

/// Bytes of the log, above which old jobs are forgotten until it has three quarters of that.
const LOG_BYTES_MAX: u64 = 1 << 30;

/// Why the job manager's log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// It does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It does not read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It takes no more.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A record is not one of ours, or of a newer version.
    #[error("record {offset} of the job log cannot be read: {reason}")]
    Record {
        /// Which.
        offset: Offset,
        /// Why.
        reason: String,
    },
}

/// The log.
#[derive(Clone)]
pub(crate) struct Events {
    log: Log,
}

impl Events {
    pub(crate) fn open(volume: &Volume, dir: &Path) -> Result<Events, EventsError> {
        Ok(Events { log: volume.open(dir, Settings::default())? })
    }

    /// Appends records as one batch; gives back the offsets of the first and the last. Not durable yet.
    pub(crate) fn append(&self, records: &[Stamped]) -> Result<(Offset, Offset), EventsError> {
        let base = records.first().map_or(0, |stamped| stamped.at.millis());
        let mut builder = Builder::new(base);
        let mut value = Vec::new();
        for stamped in records {
            value.clear();
            value.push(FORMAT);
            value = postcard::to_extend(stamped, value).map_err(|error| EventsError::Record {
                offset: self.log.watermarks().end,
                reason: error.to_string(),
            })?;
            let key = stamped.record.job().map(JobId::to_f58_plain);
            builder.push(&batch::Record {
                key: key.as_deref().map(str::as_bytes),
                value: Some(&value),
                headers: &[],
                time_ms: stamped.at.millis(),
            });
        }
        let appended = self.log.append(&mut builder.finish(), 0)?;
        Ok((appended.base, appended.last))
    }

    /// The first record that there is.
    pub(crate) fn start(&self) -> Offset {
        self.log.watermarks().start
    }

    /// When the log is longer than [`LOG_BYTES_MAX`]: where it should begin.
    pub(crate) fn too_long(&self) -> Option<Offset> {
        let mut left = self.log.bytes();
        if left <= LOG_BYTES_MAX {
            return None;
        }
        let segments = self.log.segments();
        let kept = segments.iter().find(|segment| {
            let fits = left <= LOG_BYTES_MAX / 4 * 3;
            left = left.saturating_sub(segment.bytes);
            fits
        });
        kept.or(segments.last()).map(|segment| segment.base)
    }

    /// Lets the log begin at `start`, a record that is on disk. Blocks.
    pub(crate) fn trim(&self, start: Offset) -> Result<(), kiln_log::ChangeError> {
        self.log.set_start(start)
    }

    /// Resolves when `last` is on disk.
    pub(crate) async fn durable(&self, last: Offset) -> Result<(), kiln_log::Failed> {
        self.log.durable(last).await
    }

    /// Gives each record from `first` on to `take`, which says whether it wants the next. Blocks while it reads.
    pub(crate) fn scan(
        &self,
        first: Offset,
        mut take: impl FnMut(Offset, Stamped) -> Result<bool, EventsError>,
    ) -> Result<(), EventsError> {
        self.each(first, |record| take(record.offset, decode(record.offset, record.value)?))
    }

    fn each(
        &self,
        first: Offset,
        mut take: impl FnMut(&batch::RecordRef<'_>) -> Result<bool, EventsError>,
    ) -> Result<(), EventsError> {
        let mut from = first;
        loop {
            let bytes = self.log.read(from, Upto::End, READ_BYTES)?;
            if bytes.is_empty() {
                return Ok(());
            }
            for (_, batch) in batch::batches(&bytes) {
                for record in batch::records(batch) {
                    let record = record
                        .map_err(|error| EventsError::Record { offset: from, reason: error.to_string() })?;
                    if record.offset < from {
                        continue;
                    }
                    from = record.offset.next();
                    if !take(&record)? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// The records of one job from `first` to `last`. Those of other jobs among them are told by their key and are not
    /// decoded.
    pub(crate) fn span(&self, id: JobId, first: Offset, last: Offset) -> Result<Vec<Stamped>, EventsError> {
        let key = id.to_f58_plain();
        let mut found = Vec::new();
        // The job may have been forgotten since it was asked about.
        self.each(first.max(self.start()), |record| {
            if record.offset <= last && record.key == Some(key.as_bytes()) {
                found.push(decode(record.offset, record.value)?);
            }
            Ok(record.offset < last)
        })?;
        Ok(found)
    }
}

fn decode(offset: Offset, value: Option<&[u8]>) -> Result<Stamped, EventsError> {
    let bad = |reason: String| EventsError::Record { offset, reason };
    let (version, rest) = value.and_then(<[u8]>::split_first).ok_or_else(|| bad("it is empty".into()))?;
    if *version != FORMAT {
        return Err(bad(format!("format {version} is not {FORMAT}; a newer Kiln wrote it")));
    }
    postcard::from_bytes(rest).map_err(|error| bad(error.to_string()))
}
