//! What a node holds, in memory.

use std::ops::Range;

use super::{ENTRY_HEAD_BYTES, Key, VALUE_BYTES_MAX};

/// Keys with their values. They lie behind one another, so that a node is a few pieces of memory however many entries it has: most of what a
/// change of a tree costs is taking nodes apart and putting them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// **Invariant:** ascending.
    keys: Vec<Key>,
    /// Where the value of each ends. **Invariant:** as many as keys; the last is the length of `values`.
    ends: Vec<u32>,
    values: Vec<u8>,
}

/// A key that does not come behind the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfOrder;

impl Entries {
    /// None, with room for so many that take so many bytes in a node.
    pub fn with_room(count: usize, stored_bytes: usize) -> Entries {
        Entries {
            keys: Vec::with_capacity(count),
            ends: Vec::with_capacity(count),
            values: Vec::with_capacity(stored_bytes.saturating_sub(count * ENTRY_HEAD_BYTES)),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What they take in a node, in bytes.
    pub fn stored_bytes(&self) -> usize {
        self.keys.len() * ENTRY_HEAD_BYTES + self.values.len()
    }

    /// What they take in memory, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.keys.capacity() * size_of::<Key>()
            + self.ends.capacity() * size_of::<u32>()
            + self.values.capacity()
    }

    /// The key of that number.
    ///
    /// # Panics
    ///
    /// When there are not so many.
    pub fn key(&self, at: usize) -> Key {
        self.keys[at]
    }

    /// The value of the key of that number.
    ///
    /// # Panics
    ///
    /// When there are not so many.
    pub fn value(&self, at: usize) -> &[u8] {
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.values[begin as usize..self.ends[at] as usize]
    }

    /// All, in ascending order of keys.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &[u8])> {
        self.iter_from(0)
    }

    /// Those from that number on.
    pub fn iter_from(&self, at: usize) -> impl Iterator<Item = (Key, &[u8])> {
        (at..self.keys.len()).map(|at| (self.keys[at], self.value(at)))
    }

    /// The number of the first whose key is not below this one.
    pub fn first_from(&self, key: Key) -> usize {
        self.keys.partition_point(|other| *other < key)
    }

    /// The number of the first whose key is above this one.
    pub fn first_behind(&self, key: Key) -> usize {
        self.keys.partition_point(|other| *other <= key)
    }

    /// In an inner node, the number of the child that a key belongs to.
    pub fn child_of(&self, key: Key) -> usize {
        self.first_behind(key).saturating_sub(1)
    }

    /// Adds one behind the last.
    pub fn try_push(&mut self, key: Key, value: &[u8]) -> Result<(), OutOfOrder> {
        if self.keys.last().is_some_and(|last| *last >= key) {
            return Err(OutOfOrder);
        }
        self.keys.push(key);
        self.values.extend_from_slice(value);
        self.ends.push(self.values.len() as u32);
        Ok(())
    }

    /// The same where it is known to belong there.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn push(&mut self, key: Key, value: &[u8]) {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        self.try_push(key, value).expect("entries come in the order of their keys");
    }

    /// Adds some of others, which come behind the last.
    ///
    /// # Panics
    ///
    /// When they do not.
    pub(super) fn extend_from(&mut self, others: &Entries, range: Range<usize>) {
        let keys = &others.keys[range.clone()];
        let in_order = self.keys.last().zip(keys.first()).is_none_or(|(last, first)| last < first);
        assert!(in_order, "entries come in the order of their keys");
        let begin = range.start.checked_sub(1).map_or(0, |before| others.ends[before]);
        let moved = self.values.len() as u32;
        let ends = &others.ends[range];
        self.keys.extend_from_slice(keys);
        self.values.extend_from_slice(
            &others.values[begin as usize..ends.last().map_or(begin, |end| *end) as usize],
        );
        self.ends.extend(ends.iter().map(|end| end - begin + moved));
    }

    /// Adds others, which come behind the last.
    pub(super) fn append(&mut self, others: Entries) {
        if self.is_empty() {
            *self = others;
        } else {
            self.extend_from(&others, 0..others.len());
        }
    }

    /// Takes the last one out.
    pub(super) fn pop(&mut self) -> Option<(Key, Vec<u8>)> {
        let key = self.keys.pop()?;
        self.ends.pop();
        let value = self.values.split_off(self.ends.last().map_or(0, |end| *end as usize));
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(object: u64) -> Key {
        Key { object, ..Key::default() }
    }

    #[test]
    fn what_was_put_behind_the_others_is_found() {
        let mut entries = Entries::default();
        for object in [3, 5, 9] {
            entries.push(key(object), &vec![object as u8; object as usize]);
        }
        assert_eq!(entries.try_push(key(9), b"again"), Err(OutOfOrder));
        assert_eq!(entries.stored_bytes(), 3 * ENTRY_HEAD_BYTES + 17);
        assert_eq!([2, 3, 4, 9, 10].map(|object| entries.first_from(key(object))), [0, 0, 1, 2, 3]);
        assert_eq!([2, 3, 4, 9, 10].map(|object| entries.first_behind(key(object))), [0, 1, 1, 3, 3]);
        assert_eq!([2, 3, 4, 9, 10].map(|object| entries.child_of(key(object))), [0, 0, 0, 2, 2]);
        assert_eq!(entries.value(1), [5; 5]);
        assert_eq!(entries.pop(), Some((key(9), vec![9; 9])));
        let mut others = Entries::default();
        for object in [1, 7, 8] {
            others.push(key(object), &vec![object as u8; object as usize]);
        }
        others.append(Entries::default());
        entries.extend_from(&others, 1..2);
        entries.extend_from(&others, 2..2);
        let mut more = Entries::default();
        more.push(key(9), b"");
        entries.append(more);
        let all: Vec<(u64, &[u8])> = entries.iter().map(|(key, value)| (key.object, value)).collect();
        assert_eq!(all, [(3, &[3; 3][..]), (5, &[5; 5]), (7, &[7; 7]), (9, &[])]);
        while entries.pop().is_some() {}
        assert_eq!(entries, Entries::default());
    }
}
