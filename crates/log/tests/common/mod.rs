//! What the tests of the log share: building and reading batches, and small logs on a simulated disk.

use std::path::Path;
use std::sync::Arc;

use kiln_log::batch::{Builder, Record, batches, records, verify};
use kiln_log::{Log, OpenError, Settings, Volume};
use kiln_types::Timestamp;
use kiln_world::{Disk, SimClock, SimDisk};

/// The directory of the log under test.
pub(crate) const DIR: &str = "plane/t-0";

/// A record as the tests compare it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) offset: i64,
    pub(crate) time_ms: i64,
    pub(crate) value: Vec<u8>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Stored { offset, time_ms, value } = self;
        write!(f, "{offset} at {time_ms}: {} x {:?}", value.len(), value.first())
    }
}

pub(crate) fn batch(values: &[&[u8]], time_ms: i64) -> Vec<u8> {
    let mut builder = Builder::new(time_ms);
    for value in values {
        builder.push(&Record { value: Some(value), time_ms, ..Record::default() });
    }
    builder.finish()
}

/// All records of the batches in `bytes`; each batch is verified.
pub(crate) fn stored(bytes: &[u8]) -> Vec<Stored> {
    let mut out = Vec::new();
    let mut whole = 0;
    for (header, batch) in batches(bytes) {
        assert_eq!(verify(batch).expect("sound batch"), header);
        whole += batch.len();
        for record in records(batch) {
            let record = record.expect("sound record");
            let value = record.value.expect("has a value").to_vec();
            out.push(Stored { offset: record.offset.0, time_ms: record.time_ms, value });
        }
    }
    assert_eq!(whole, bytes.len(), "reads end with a whole batch");
    out
}

/// Everything in the log, read in small steps.
pub(crate) fn everything(log: &Log, limit: kiln_log::Upto) -> Vec<Stored> {
    let marks = log.watermarks();
    let mut out: Vec<Stored> = Vec::new();
    let mut from = marks.start;
    loop {
        let bytes = log.read(from, limit, 700).expect("read");
        let Some(last) = batches(&bytes).last().map(|(header, _)| header.last()) else { return out };
        out.extend(stored(&bytes).into_iter().filter(|record| record.offset >= from.0));
        from = last.next();
    }
}

/// Segments and index so small that all layouts are met.
pub(crate) fn tiny() -> Settings {
    Settings { segment_bytes_max: 1500, index_interval_bytes: 200, ..Settings::default() }
}

/// A volume without a thread on `disk`.
pub(crate) fn volume(disk: &SimDisk) -> Volume {
    let clock = Arc::new(SimClock::new(Timestamp(1_000_000)));
    Volume::manual(Arc::new(disk.clone()) as Arc<dyn Disk>, clock)
}

pub(crate) fn open(volume: &Volume, settings: Settings) -> Result<Log, OpenError> {
    volume.open(Path::new(DIR), settings)
}
