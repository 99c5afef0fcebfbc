//! Data of the servers that is in memory: what was read ahead, and the first bytes that came when the file was opened.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::dirty::clipped;
use super::layout::Extent;

/// The clean data of a file.
#[derive(Debug, Default)]
pub struct Clean {
    /// By their first byte. **Invariant:** none is empty, and they do not overlap.
    entries: BTreeMap<u64, Entry>,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    data: Bytes,
    /// So many bytes are still to be read before it is dropped.
    unread: u64,
}

impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// When an entry goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// As soon as all of it was read.
    UntilRead,
    /// When something else needs the memory.
    Long,
}

impl Clean {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keeps bytes, in place of what is there.
    pub fn insert(&mut self, at: u64, data: Bytes, keep: Keep) {
        self.remove(Extent { start: at, end: at + data.len() as u64 });
        let unread = match keep {
            Keep::UntilRead => data.len() as u64,
            Keep::Long => u64::MAX,
        };
        self.put(at, Entry { data, unread });
    }

    /// A whole range without copying, where one entry has it.
    pub fn slice(&self, extent: Extent) -> Option<Bytes> {
        let (start, entry) = self.entries.range(..=extent.start).next_back()?;
        let (from, to) = (extent.start - start, extent.end - start);
        (to <= entry.data.len() as u64).then(|| entry.data.slice(from as usize..to as usize))
    }

    /// What is there of a range, in order.
    pub fn segments(&self, extent: Extent) -> impl Iterator<Item = (u64, &[u8])> {
        clipped(&self.entries, extent)
    }

    /// A range was read: entries that were read as a whole go.
    pub fn consume(&mut self, extent: Extent) {
        let read: Vec<Extent> = self.segments(extent).map(|(start, data)| extent_of(start, data)).collect();
        for read in read {
            let Some((&start, entry)) = self.entries.range_mut(..=read.start).next_back() else { continue };
            if entry.unread != u64::MAX {
                entry.unread = entry.unread.saturating_sub(read.end - read.start);
            }
            if entry.unread == 0 {
                self.bytes -= entry.data.len() as u64;
                self.entries.remove(&start);
            }
        }
    }

    /// Drops a range.
    pub fn remove(&mut self, extent: Extent) {
        let first = self.entries.range(..=extent.start).next_back().map_or(extent.start, |(start, _)| *start);
        // One that ends before the range stays as it is, with what was read of it.
        let met: Vec<u64> = self
            .entries
            .range(first..extent.end.max(first))
            .filter(|(start, entry)| **start + entry.data.len() as u64 > extent.start)
            .map(|(start, _)| *start)
            .collect();
        for start in met {
            let Some(entry) = self.entries.remove(&start) else { continue };
            self.bytes -= entry.data.len() as u64;
            self.keep_around(start, &entry, extent);
        }
    }

    /// Puts back what an entry has before and behind a range.
    fn keep_around(&mut self, start: u64, entry: &Entry, extent: Extent) {
        let end = start + entry.data.len() as u64;
        for kept in
            [Extent { start, end: extent.start.min(end) }, Extent { start: extent.end.max(start), end }]
        {
            if kept.start < kept.end {
                let data = entry.data.slice((kept.start - start) as usize..(kept.end - start) as usize);
                let unread =
                    if entry.unread == u64::MAX { u64::MAX } else { entry.unread.min(data.len() as u64) };
                self.put(kept.start, Entry { data, unread });
            }
        }
    }

    fn put(&mut self, at: u64, entry: Entry) {
        if !entry.data.is_empty() {
            self.bytes += entry.data.len() as u64;
            self.entries.insert(at, entry);
        }
    }
}

fn extent_of(start: u64, data: &[u8]) -> Extent {
    Extent { start, end: start + data.len() as u64 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: usize = 2000;

    /// The next part of a sequential read comes while the one before it is being read.
    #[test]
    fn what_comes_behind_a_part_does_not_make_it_unread() {
        let mut clean = Clean::default();
        clean.insert(0, vec![1; 100].into(), Keep::UntilRead);
        clean.consume(Extent { start: 0, end: 40 });
        clean.insert(100, vec![2; 100].into(), Keep::UntilRead);
        clean.consume(Extent { start: 40, end: 100 });
        assert_eq!(clean.bytes(), 100, "all of the first was read");
        clean.consume(Extent { start: 100, end: 200 });
        assert_eq!(clean.bytes(), 0);
    }

    proptest! {
        #[test]
        fn it_has_what_was_inserted_and_not_removed(
            steps in prop::collection::vec((any::<bool>(), 0..FILE, 1_usize..300), 1..60),
            wanted in (0..FILE, 1_usize..400),
        ) {
            let mut clean = Clean::default();
            let mut model: Vec<Option<u8>> = vec![None; FILE];
            for (n, (insert, start, len)) in steps.into_iter().enumerate() {
                let end = (start + len).min(FILE);
                let value = insert.then_some(n as u8);
                model[start..end].fill(value);
                match value {
                    Some(value) => clean.insert(start as u64, vec![value; end - start].into(), Keep::Long),
                    None => clean.remove(Extent { start: start as u64, end: end as u64 }),
                }
            }
            let mut seen = vec![None; FILE];
            for (start, data) in clean.segments(Extent { start: 0, end: FILE as u64 }) {
                for (slot, byte) in seen[start as usize..].iter_mut().zip(data) {
                    prop_assert_eq!(slot.replace(*byte), None);
                }
            }
            prop_assert_eq!(&seen, &model);
            prop_assert_eq!(clean.bytes(), model.iter().flatten().count() as u64);
            let end = (wanted.0 + wanted.1).min(FILE);
            if let Some(slice) = clean.slice(Extent { start: wanted.0 as u64, end: end as u64 }) {
                let slice: Vec<_> = slice.iter().copied().map(Some).collect();
                prop_assert_eq!(&slice[..], &model[wanted.0..end]);
            }
        }
    }

    #[test]
    fn what_was_read_as_a_whole_goes_in_whatever_order() {
        let mut clean = Clean::default();
        clean.insert(100, vec![1; 100].into(), Keep::UntilRead);
        clean.insert(300, vec![2; 100].into(), Keep::Long);
        clean.consume(Extent { start: 150, end: 1000 });
        assert_eq!(clean.bytes(), 200);
        clean.consume(Extent { start: 0, end: 150 });
        clean.consume(Extent { start: 300, end: 400 });
        assert_eq!(clean.bytes(), 100, "only what is kept long is left");
    }
}
