//! What is to be done about the events of one read, for one flow.

use super::task::TaskRun;
use kiln_types::Timestamp;

/// Records on their way to a topic, laid out in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    time: Timestamp,
    /// Where key and value end in `bytes`; the key begins where the previous value ends.
    key_end: usize,
    value_end: usize,
    has_key: bool,
    headers: Vec<(&'static str, String)>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: &'a [u8],
    /// Its headers.
    pub headers: &'a [(&'static str, String)],
    /// When its event was written.
    pub time: Timestamp,
}

impl Records {
    /// Adds a record.
    pub fn push(
        &mut self,
        key: Option<&[u8]>,
        value: &[u8],
        headers: Vec<(&'static str, String)>,
        time: Timestamp,
    ) {
        self.bytes.extend_from_slice(key.unwrap_or_default());
        let key_end = self.bytes.len();
        self.bytes.extend_from_slice(value);
        self.entries.push(Entry {
            time,
            key_end,
            value_end: self.bytes.len(),
            has_key: key.is_some(),
            headers,
        });
    }

    /// The records in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        (0..self.entries.len()).map(|index| self.at(index))
    }

    /// One record, by its place in the order.
    pub fn get(&self, index: usize) -> Option<RecordRef<'_>> {
        (index < self.entries.len()).then(|| self.at(index))
    }

    fn at(&self, index: usize) -> RecordRef<'_> {
        let entry = &self.entries[index];
        let start = index.checked_sub(1).map_or(0, |before| self.entries[before].value_end);
        let key = entry.has_key.then(|| &self.bytes[start..entry.key_end]);
        let value = &self.bytes[entry.key_end..entry.value_end];
        RecordRef { key, value, headers: &entry.headers, time: entry.time }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values together, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Keeps the first `len` records.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
        self.bytes.truncate(self.entries.last().map_or(0, |entry| entry.value_end));
    }

    /// Removes all, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

/// What one flow does about the events of one read.
#[derive(Debug, Default)]
pub struct Batch {
    /// What goes to the sink: records of a topic, bodies of messages, lines.
    pub records: Records,
    /// With an exchange, the routing key of each record.
    pub routes: Vec<String>,
    /// With jobs, what to run for each record.
    pub runs: Vec<TaskRun>,
    /// What goes to the dead-letter topic.
    pub dead: Records,
    /// Events seen.
    pub seen: u64,
    /// Events that the filter took.
    pub matched: u64,
}

impl Batch {
    /// Whether nothing is to be done.
    pub fn is_idle(&self) -> bool {
        self.records.is_empty() && self.dead.is_empty()
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.routes.clear();
        self.runs.clear();
        self.dead.clear();
        self.seen = 0;
        self.matched = 0;
    }

    /// Puts record `index` into the dead letters.
    pub fn bury(&mut self, index: usize, flow: &str, reason: &str) {
        if let Some(record) = self.records.get(index) {
            self.dead.push(record.key, record.value, dead_headers(flow, reason), record.time);
        }
    }
}

/// The headers of a dead letter.
pub(super) fn dead_headers(flow: &str, reason: &str) -> Vec<(&'static str, String)> {
    vec![("kiln-flow", flow.to_owned()), ("kiln-reason", reason.to_owned())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were_put() {
        let mut records = Records::default();
        records.push(Some(b"k"), b"v1", vec![], Timestamp(1));
        records.push(None, b"", vec![("h", "x".to_owned())], Timestamp(2));
        records.push(Some(b""), b"v3", vec![], Timestamp(3));
        let seen: Vec<_> = records.iter().map(|r| (r.key, r.value, r.headers.len(), r.time.0)).collect();
        assert_eq!(seen, [(Some(&b"k"[..]), &b"v1"[..], 0, 1), (None, b"", 1, 2), (Some(b""), b"v3", 0, 3)]);
        assert_eq!((records.len(), records.bytes()), (3, 5));
    }

    #[test]
    fn a_buried_record_keeps_key_and_value() {
        let mut batch = Batch::default();
        batch.records.push(Some(b"a"), b"1", vec![], Timestamp(1));
        batch.records.push(Some(b"b"), b"2", vec![], Timestamp(2));
        batch.bury(1, "f", "why");
        let dead = batch.dead.iter().next().unwrap();
        assert_eq!((dead.key, dead.value), (Some(&b"b"[..]), &b"2"[..]));
        assert_eq!(dead.headers, dead_headers("f", "why"));
    }
}
