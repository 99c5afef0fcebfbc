//! How far a scrub is, and what it found: so that it goes on when the pool is opened again, and is known when it has ended.

use super::bytes::Reader;
use super::{DatasetId, RecordError, Txg};
use crate::core::tree::Key;

/// Damaged records that are named; more are counted.
pub const DAMAGED_MAX: usize = 10_000;
const MAGIC: [u8; 8] = *b"KILNSCR\0";
const VERSION: u32 = 1;

/// The last scrub of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubRecord {
    /// How it is.
    pub state: ScrubState,
    /// When it began, in seconds since 1970.
    pub began_secs: u64,
    /// For how long it ran, without pauses, in milliseconds.
    pub ran_ms: u64,
    /// The most that it looks at in a second, in bytes; 0 for no limit.
    pub rate: u64,
    /// What was committed when it began: snapshots that were made later do not matter.
    pub began: Txg,
    /// Where it goes on.
    pub position: ScrubPosition,
    /// What it found so far.
    pub report: ScrubReport,
}

/// How a scrub is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ScrubState {
    /// Under way.
    Running = 0,
    /// It rests until somebody lets it go on.
    Paused = 1,
    /// It has looked at everything.
    Finished = 2,
    /// It was stopped. One that has failed goes on when the pool is opened again, and stands as under way.
    Stopped = 3,
}

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Records that were looked at.
    pub records: u64,
    /// What they have, in all their places, without parity.
    pub bytes: u64,
    /// Copies and columns that were not right, and are now.
    pub mended: u64,
    /// Records that are damaged beyond repair, all of them.
    pub damaged_records: u64,
    /// The first [`DAMAGED_MAX`] of them.
    pub damaged: Vec<DamagedRecord>,
}

/// A record that nothing can mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedRecord {
    /// Of which dataset; `None` for what leads to the datasets.
    pub dataset: Option<DatasetId>,
    /// Of which object; `None` for a node, with which many may be lost.
    pub object: Option<u64>,
    /// Where in the object it begins, in bytes.
    pub offset: u64,
}

/// Where a scrub goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubPosition {
    /// In the tree of datasets.
    Datasets(Key),
    /// In a tree of the dataset of this number, or of the next one of that sort that is there.
    In(DatasetSort, u64, DatasetPart, Key),
    /// Nowhere.
    Done,
}

/// The order in which datasets are looked at. A snapshot that is destroyed meanwhile leaves what it shared to the one after it, which so
/// must come later; within each sort the numbers are in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetSort {
    /// Those that cannot be changed.
    Snapshots,
    /// Those that can.
    Live,
}

/// A tree of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatasetPart {
    /// Its objects.
    Objects,
    /// What it does not lead to any more, and its snapshots do.
    Dead,
}

impl ScrubRecord {
    /// Its bytes. **Must hold:** the report names at most [`DAMAGED_MAX`] records.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_be_bytes());
        out.push(self.state as u8);
        let report = &self.report;
        for number in [self.began_secs, self.ran_ms, self.rate, self.began.0] {
            out.extend(number.to_be_bytes());
        }
        put_position(&mut out, self.position);
        for number in [report.records, report.bytes, report.mended, report.damaged_records] {
            out.extend(number.to_be_bytes());
        }
        out.extend((report.damaged.len() as u32).to_be_bytes());
        for record in &report.damaged {
            out.push(u8::from(record.dataset.is_some()) | u8::from(record.object.is_some()) << 1);
            let dataset = record.dataset.map_or(0, |dataset| dataset.0);
            for number in [dataset, record.object.unwrap_or(0), record.offset] {
                out.extend(number.to_be_bytes());
            }
        }
        out
    }

    /// The scrub that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<ScrubRecord, RecordError> {
        let mut reader = Reader::new(bytes);
        let record = read_scrub(&mut reader);
        // What stands where nothing is told is damage too.
        let record = record.filter(|record| record.encode() == bytes);
        record.ok_or(RecordError::Malformed)
    }
}

fn put_position(out: &mut Vec<u8>, position: ScrubPosition) {
    use DatasetPart::{Dead, Objects};
    use DatasetSort::{Live, Snapshots};
    let (tree, dataset, key) = match position {
        ScrubPosition::Datasets(key) => (0, 0, key),
        ScrubPosition::In(Snapshots, dataset, Objects, key) => (1, dataset, key),
        ScrubPosition::In(Snapshots, dataset, Dead, key) => (2, dataset, key),
        ScrubPosition::In(Live, dataset, Objects, key) => (3, dataset, key),
        ScrubPosition::In(Live, dataset, Dead, key) => (4, dataset, key),
        ScrubPosition::Done => (5, 0, Key::default()),
    };
    out.push(tree);
    out.extend(u64::to_be_bytes(dataset));
    out.extend(key.object.to_be_bytes());
    out.push(key.tag);
    out.extend(key.index.to_be_bytes());
}

fn read_position(reader: &mut Reader<'_>) -> Option<ScrubPosition> {
    use DatasetPart::{Dead, Objects};
    use DatasetSort::{Live, Snapshots};
    let (tree, dataset) = (reader.u8()?, reader.u64()?);
    let key = Key { object: reader.u64()?, tag: reader.u8()?, index: reader.u64()? };
    Some(match tree {
        0 => ScrubPosition::Datasets(key),
        1 => ScrubPosition::In(Snapshots, dataset, Objects, key),
        2 => ScrubPosition::In(Snapshots, dataset, Dead, key),
        3 => ScrubPosition::In(Live, dataset, Objects, key),
        4 => ScrubPosition::In(Live, dataset, Dead, key),
        5 => ScrubPosition::Done,
        _ => return None,
    })
}

fn read_scrub(reader: &mut Reader<'_>) -> Option<ScrubRecord> {
    if reader.take(MAGIC.len())? != MAGIC || reader.u32()? != VERSION {
        return None;
    }
    let state = match reader.u8()? {
        0 => ScrubState::Running,
        1 => ScrubState::Paused,
        2 => ScrubState::Finished,
        3 => ScrubState::Stopped,
        _ => return None,
    };
    let (began_secs, ran_ms, rate, began) = (reader.u64()?, reader.u64()?, reader.u64()?, Txg(reader.u64()?));
    let position = read_position(reader)?;
    let (records, bytes, mended) = (reader.u64()?, reader.u64()?, reader.u64()?);
    let damaged_records = reader.u64()?;
    let named = reader.u32().filter(|named| *named as usize <= DAMAGED_MAX)?;
    let damaged = (0..named).map(|_| read_damaged(reader)).collect::<Option<Vec<_>>>()?;
    let report = ScrubReport { records, bytes, mended, damaged_records, damaged };
    Some(ScrubRecord { state, began_secs, ran_ms, rate, began, position, report })
}

fn read_damaged(reader: &mut Reader<'_>) -> Option<DamagedRecord> {
    let told = reader.u8().filter(|told| *told < 4)?;
    let dataset = Some(DatasetId(reader.u64()?)).filter(|_| told & 1 > 0);
    let object = Some(reader.u64()?).filter(|_| told & 2 > 0);
    Some(DamagedRecord { dataset, object, offset: reader.u64()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> ScrubRecord {
        let key = Key { object: 3, tag: 2, index: 4 };
        let damaged = vec![
            DamagedRecord { dataset: Some(DatasetId(7)), object: Some(16), offset: 4096 },
            DamagedRecord { dataset: None, object: None, offset: 0 },
        ];
        ScrubRecord {
            state: ScrubState::Paused,
            began_secs: 0x6543,
            ran_ms: 1500,
            rate: 1 << 20,
            began: Txg(9),
            position: ScrubPosition::In(DatasetSort::Live, 7, DatasetPart::Objects, key),
            report: ScrubReport { records: 5, bytes: 6, mended: 1, damaged_records: 2, damaged },
        }
    }

    #[test]
    fn golden_bytes() {
        let numbers = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
        let golden = [
            &b"KILNSCR\0\0\0\0\x01\x01"[..],
            &numbers(&[0x6543, 1500, 1 << 20, 9]),
            &[3],
            &numbers(&[7, 3]),
            &[2],
            &numbers(&[4, 5, 6, 1, 2]),
            &[0, 0, 0, 2, 3],
            &numbers(&[7, 16, 4096]),
            &[0],
            &numbers(&[0, 0, 0]),
        ]
        .concat();
        assert_eq!(example().encode(), golden);
        assert_eq!(ScrubRecord::decode(&golden), Ok(example()));
    }

    #[test]
    fn every_position_is_read_as_it_was() {
        let key = Key { object: 1, tag: 3, index: u64::MAX };
        let sorts = [DatasetSort::Snapshots, DatasetSort::Live];
        let parts = [DatasetPart::Objects, DatasetPart::Dead];
        let trees = sorts.iter().flat_map(|sort| parts.iter().map(move |part| (*sort, *part)));
        let within = trees.map(|(sort, part)| ScrubPosition::In(sort, 2, part, key));
        for position in within.chain([ScrubPosition::Datasets(key), ScrubPosition::Done]) {
            let record = ScrubRecord { position, ..example() };
            assert_eq!(ScrubRecord::decode(&record.encode()), Ok(record));
        }
    }

    #[test]
    fn what_is_no_scrub_is_told() {
        let whole = example().encode();
        for len in 0..whole.len() {
            assert_eq!(ScrubRecord::decode(&whole[..len]), Err(RecordError::Malformed), "{len} bytes");
        }
        for at in [0, 11, 12, 45] {
            let mut odd = whole.clone();
            odd[at] = 9;
            assert_eq!(ScrubRecord::decode(&odd), Err(RecordError::Malformed), "byte {at}");
        }
        let mut many = whole;
        let at = many.len() - 2 * 25 - 4;
        many[at..at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(ScrubRecord::decode(&many), Err(RecordError::Malformed));
    }
}
