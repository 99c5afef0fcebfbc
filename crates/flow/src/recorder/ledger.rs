//! Reading the recorder's rows.

use super::machine::{ALL, FlowMachine, ORDER, TASKS, TOTALS};
use super::row::{Row, Totals};
use crate::core::TaskId;
use kiln_store::{Handle, ReadError, Revision};
use tokio::sync::watch;

/// Most rows of one answer.
pub const LIST_ROWS_MAX: usize = 10_000;
/// Most rows that are looked at for one answer.
const SCAN_ROWS_MAX: usize = 100_000;

/// Which rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// At most this many, the newest; no more than [`LIST_ROWS_MAX`].
    pub count: usize,
    /// Only those with a smaller number: the next page goes before the last row of this one.
    pub before: Option<u64>,
    /// Only tasks that ended with another status than 0, or were refused.
    pub failed: bool,
    /// Only tasks that have not ended.
    pub outstanding: bool,
}

impl Default for Query {
    fn default() -> Query {
        Query { count: 50, before: None, failed: false, outstanding: false }
    }
}

impl Query {
    fn takes(&self, row: &Row) -> bool {
        let refused = row.status.is_none() && row.reason.is_some() && row.started.is_none();
        let failed = row.status.is_some_and(|status| status != 0) || refused;
        (!self.failed || failed) && (!self.outstanding || row.completed.is_none())
    }
}

/// A reader of the rows; cheap to clone.
#[derive(Clone)]
pub struct Ledger(Handle<FlowMachine>);

impl Ledger {
    /// Reads through this handle.
    pub fn new(handle: Handle<FlowMachine>) -> Ledger {
        Ledger(handle)
    }

    /// Counts over all rows.
    pub fn totals(&self) -> Result<Totals, ReadError> {
        Ok(self.0.read().get(TOTALS, ALL)?.unwrap_or_default())
    }

    /// One row.
    pub fn get(&self, id: &TaskId) -> Result<Option<Row>, ReadError> {
        self.0.read().get(TASKS, id.as_str().as_bytes())
    }

    /// Rows that match, the newest first. Looks at no more than 100,000 rows from `before` on.
    pub fn list(&self, query: Query) -> Result<Vec<Row>, ReadError> {
        let snapshot = self.0.read();
        let count = query.count.min(LIST_ROWS_MAX);
        let from = query.before.map(|before| (u64::MAX - before).saturating_add(1).to_be_bytes());
        let mut rows = Vec::new();
        let ids = snapshot.rows_from::<TaskId>(ORDER, from.as_ref().map_or(&[], |key| &key[..]))?;
        for id in ids.take(SCAN_ROWS_MAX) {
            if rows.len() >= count {
                break;
            }
            let (_, id) = id?;
            let row = snapshot.get::<Row>(TASKS, id.as_str().as_bytes())?;
            rows.extend(row.filter(|row| query.takes(row)));
        }
        Ok(rows)
    }

    /// Changes whenever a row does.
    pub fn watch(&self) -> watch::Receiver<Revision> {
        self.0.watch(TASKS, &[])
    }
}
