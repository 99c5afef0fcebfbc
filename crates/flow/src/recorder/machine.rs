//! The flow service's tables in the store: offsets of topic flows, rows and totals of the recorder. See docs/formats/recorder.md.

use super::row::{self, Row, Sighting, Totals};
use crate::core::TaskId;
use kiln_store::{Handle, Machine, ReadError, SubmitError, Tables};
use kiln_types::{Offset, Timestamp};
use serde::{Deserialize, Serialize};

pub(super) const OFFSETS: &str = "offset";
pub(super) const TASKS: &str = "task";
pub(super) const ORDER: &str = "order";
pub(super) const TOTALS: &str = "totals";
/// The only row of `TOTALS`.
pub(super) const ALL: &[u8] = b"all";

/// One reader of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Who reads: the name of a flow, or `#recorder`.
    pub reader: String,
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
}

impl Place {
    pub(super) fn key(&self) -> Vec<u8> {
        format!("{}\0{}\0{}", self.reader, self.topic, self.partition).into_bytes()
    }
}

/// What the tables can be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlowCommand {
    /// A flow has put everything before `next` into its sink.
    Commit {
        /// Which flow and partition.
        place: Place,
        /// The first offset that is still to be read.
        next: Offset,
    },
    /// The recorder has read `from..next`, and this is what it saw there.
    Record {
        /// The partition.
        place: Place,
        /// Where the read began: must be where the last one ended.
        from: Offset,
        /// Where the next one begins.
        next: Offset,
        /// What was seen, in order.
        sightings: Vec<Sighting>,
    },
}

/// These records were recorded already, or some before them were not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the next record to be recorded is at offset {}", expected.0)]
pub struct OutOfOrder {
    /// Where to go on reading.
    pub expected: Offset,
}

/// The flow service's tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct FlowMachine;

impl Machine for FlowMachine {
    const NAME: &'static str = "flow";
    type Command = FlowCommand;
    type Reply = ();
    type Rejection = OutOfOrder;

    fn apply(&self, tables: &mut Tables<'_>, command: FlowCommand, _: Timestamp) -> Result<(), OutOfOrder> {
        match command {
            FlowCommand::Commit { place, next } => tables.put(OFFSETS, &place.key(), &next),
            FlowCommand::Record { place, from, next, sightings } => {
                let expected = tables.get::<Offset>(OFFSETS, &place.key()).unwrap_or_default();
                if expected != from {
                    return Err(OutOfOrder { expected });
                }
                tables.put(OFFSETS, &place.key(), &next);
                record(tables, sightings);
            }
        }
        Ok(())
    }
}

fn record(tables: &mut Tables<'_>, sightings: Vec<Sighting>) {
    let mut totals = tables.get::<Totals>(TOTALS, ALL).unwrap_or_default();
    for sighting in sightings {
        let key = sighting.id().as_str().as_bytes().to_vec();
        let known = tables.get::<Row>(TASKS, &key);
        let is_new = known.is_none();
        let row = row::apply(known, &mut totals, sighting);
        if is_new {
            tables.put::<TaskId>(ORDER, &order_key(row.number), &row.id);
        }
        tables.put(TASKS, &key, &row);
    }
    tables.put(TOTALS, ALL, &totals);
}

/// Newest first, because tables are read forwards.
pub(super) fn order_key(number: u64) -> [u8; 8] {
    (u64::MAX - number).to_be_bytes()
}

/// The offsets of topic flows.
#[derive(Clone)]
pub(crate) struct Offsets(pub(crate) Handle<FlowMachine>);

impl Offsets {
    /// Where the flow goes on; `None` when it has not begun.
    pub(crate) fn committed(
        &self,
        flow: &str,
        topic: &str,
        partition: u32,
    ) -> Result<Option<Offset>, ReadError> {
        let place = Place { reader: flow.to_owned(), topic: topic.to_owned(), partition };
        self.0.read().get(OFFSETS, &place.key())
    }

    /// Durable when it returns.
    pub(crate) async fn commit(
        &self,
        flow: &str,
        topic: &str,
        partition: u32,
        next: Offset,
    ) -> Result<(), String> {
        let place = Place { reader: flow.to_owned(), topic: topic.to_owned(), partition };
        let submitted = self.0.submit(FlowCommand::Commit { place, next }).await;
        submitted.map_err(|error: SubmitError<OutOfOrder>| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ledger;
    use super::*;
    use crate::testing::TestStore;

    fn place() -> Place {
        Place { reader: "#recorder".to_owned(), topic: "tasks".to_owned(), partition: 0 }
    }

    fn logged(number: i64) -> Sighting {
        let id = TaskId::try_from(format!("t-{number}")).unwrap();
        Sighting::Logged {
            id,
            task: "c".to_owned(),
            args: String::new(),
            issued: Timestamp(1),
            logged: Timestamp(2),
        }
    }

    fn record(from: i64, count: i64) -> FlowCommand {
        let sightings = (from..from + count).map(logged).collect();
        FlowCommand::Record { place: place(), from: Offset(from), next: Offset(from + count), sightings }
    }

    #[tokio::test]
    async fn a_record_counts_once_whatever_is_submitted_twice() {
        let store = TestStore::new();
        store.handle().submit(record(0, 3)).await.unwrap();
        for again in [record(0, 3), record(1, 2), record(4, 1)] {
            let Err(SubmitError::Rejected(elsewhere)) = store.handle().submit(again).await else {
                panic!("taken again")
            };
            assert_eq!(elsewhere.expected, Offset(3));
        }
        store.handle().submit(record(3, 1)).await.unwrap();
        let totals = Ledger::new(store.handle()).totals().unwrap();
        assert_eq!((totals.issued, totals.rows, totals.repeats), (4, 4, 0));
    }

    #[tokio::test]
    async fn what_was_recorded_outlives_a_crash() {
        let store = TestStore::new();
        store.handle().submit(record(0, 5)).await.unwrap();
        let TestStore { store, disk } = store;
        drop(store);
        disk.crash();
        let store = TestStore::open(disk);
        assert_eq!(Ledger::new(store.handle()).totals().unwrap().issued, 5);
        assert!(store.handle().submit(record(0, 5)).await.is_err());
    }

    #[test]
    fn offsets_of_different_readers_do_not_meet() {
        let other = Place { reader: "route".to_owned(), ..place() };
        assert_ne!(place().key(), other.key());
    }
}
