//! Looking at everything: every copy and all parity of what is committed, and mending what is not right.

use super::store::{Reading, StoreError, Verified, pointer_of};
use super::{DatasetId, PoolError, Shared, Pool};
use crate::core::tree::{Load, Root};
use crate::format::{Pointer, Txg, is_record};

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Records that were looked at.
    pub records: u64,
    /// What they have, in all their places, without parity.
    pub bytes: u64,
    /// Copies and columns that were not right, and are now.
    pub mended: u64,
    /// Objects with records that are damaged beyond repair, each with the numbers of sectors at which they begin.
    pub damaged: Vec<DamagedRecord>,
}

/// A record that nothing can mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamagedRecord {
    /// Of which dataset; `None` for what leads to the datasets.
    pub dataset: Option<DatasetId>,
    /// Of which object; `None` for a node, with which many may be lost.
    pub object: Option<u64>,
    /// Where in the object it begins, in bytes.
    pub offset: u64,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scrub {
    /// Everything.
    All,
    /// What was written in or after a transaction group: what a disk that missed it may lack.
    Since(Txg),
}

impl Pool {
    /// Reads every copy and all parity of what is committed, and mends what is not right. What is written meanwhile may be looked at or
    /// not. Objects may be read and written in the meantime, but nothing is committed: for `between`, which is called after each
    /// dataset, that is long.
    pub fn scrub(&self, what: Scrub) -> Result<ScrubReport, PoolError> {
        let mut report = ScrubReport::default();
        let shared = &*self.shared;
        let roots = shared.roots();
        let since = match what {
            Scrub::All => Txg(0),
            Scrub::Since(txg) => txg,
        };
        let mut walk = Walk { shared, since, report: &mut report };
        if let Some(root) = &roots.tree {
            walk.tree(None, root);
        }
        for (id, dataset) in &roots.datasets {
            if let Some(root) = &dataset.root {
                walk.tree(Some(DatasetId(*id)), root);
            }
        }
        Ok(report)
    }
}

struct Walk<'w> {
    shared: &'w Shared,
    since: Txg,
    report: &'w mut ScrubReport,
}

impl Walk<'_> {
    fn tree(&mut self, dataset: Option<DatasetId>, root: &Root) {
        let Ok(pointer) = pointer_of(&root.place) else {
            self.damaged(dataset, None, 0);
            return;
        };
        // Nothing below a node is younger than it.
        if pointer.birth < self.since {
            return;
        }
        if !self.record(&pointer) {
            self.damaged(dataset, None, 0);
            return;
        }
        let Ok(node) = Reading(&self.shared.store).load(&root.place) else {
            self.damaged(dataset, None, 0);
            return;
        };
        for entry in &node.entries {
            match root.level.checked_sub(1) {
                Some(level) => self.tree(dataset, &Root { level, place: entry.value.clone() }),
                None if dataset.is_some() && is_record(entry.key) => {
                    let right = match pointer_of(&entry.value) {
                        Ok(pointer) => pointer.birth < self.since || self.record(&pointer),
                        Err(_) => false,
                    };
                    if !right {
                        self.damaged(dataset, Some(entry.key.object), entry.key.index);
                    }
                }
                None => {}
            }
        }
    }

    /// Whether a record is right now.
    fn record(&mut self, pointer: &Pointer) -> bool {
        self.report.records += 1;
        match self.shared.store.verify(pointer) {
            Ok(Verified { bytes, mended }) => {
                self.report.bytes += bytes;
                self.report.mended += mended;
                true
            }
            Err(StoreError::Damaged(_) | StoreError::Malformed(_) | StoreError::NoSpace | StoreError::NotWritten) => {
                false
            }
        }
    }

    fn damaged(&mut self, dataset: Option<DatasetId>, object: Option<u64>, sector: u64) {
        let offset = sector * crate::vdev::SECTOR_BYTES as u64;
        self.report.damaged.push(DamagedRecord { dataset, object, offset });
    }
}
