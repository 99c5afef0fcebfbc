//! A B+tree that is never changed in place.
//!
//! Its nodes are records somewhere ([`Nodes`]); a change writes new nodes from the leaves up to a new root, and the old root, with all that is
//! below, is the tree as it was. All edits of a transaction group are applied in one pass in the order of keys, so each node is written once,
//! however many of its entries change.
//!
//! An inner node has an entry for each child: the lowest key that may be in it, and where it is. New nodes that would be small join a
//! neighbour; nodes that would be large become several of the same size.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What an entry is found by: an object, what of it, and which one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The object.
    pub object: u64,
    /// What of it.
    pub tag: u8,
    /// Which one.
    pub index: u64,
}

/// What an entry takes in a node besides its value, in bytes.
const ENTRY_HEAD_BYTES: usize = 19;
/// Length of a value.
pub const VALUE_BYTES_MAX: usize = 1024;
/// The least that a node may hold at most: a few of the longest entries.
pub const NODE_BYTES_MIN: usize = 4 * (ENTRY_HEAD_BYTES + VALUE_BYTES_MAX);
/// Levels of a tree. With two children for each node that would be more entries than there are numbers.
const LEVELS_MAX: u8 = 64;

/// A key with what it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key; in an inner node, the lowest key of the child.
    pub key: Key,
    /// The value; in an inner node, where the child is.
    pub value: Vec<u8>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// 0 for a leaf.
    pub level: u8,
    /// In ascending order of keys. **Invariant:** at least one, except in a tree without entries, which has no node.
    pub entries: Vec<Entry>,
}

/// Where nodes are read.
pub trait Load {
    /// Why a node cannot be read or written.
    type Error;

    /// The node at a place.
    fn load(&mut self, place: &[u8]) -> Result<Arc<Node>, Self::Error>;
}

/// Where nodes are written too.
pub trait Nodes: Load {
    /// Writes a node to a new place, which is told in at most [`VALUE_BYTES_MAX`] bytes.
    fn store(&mut self, node: &Node) -> Result<Vec<u8>, Self::Error>;

    /// The node is not part of the tree any more.
    fn release(&mut self, place: &[u8]) -> Result<(), Self::Error>;

    /// An entry is not in the tree any more: it was removed, or has another value now.
    fn dropped(&mut self, entry: Entry) -> Result<(), Self::Error>;
}

/// Why a tree cannot be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError<E> {
    /// A node cannot be read or written.
    #[error(transparent)]
    Node(#[from] E),
    /// A node is not on the level where it must be, is empty, or not in order: the tree is damaged.
    #[error("a node that cannot be in this tree, on level {level}")]
    Malformed {
        /// Where it was to be.
        level: u8,
    },
}

/// Where a tree begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Of the root's node.
    pub level: u8,
    /// Where that is.
    pub place: Vec<u8>,
}

/// What is to change. Removals come first: what is put into a range that is removed is there afterwards.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// First and last of ranges that do not overlap, ascending.
    removals: Vec<(Key, Key)>,
    puts: BTreeMap<Key, Vec<u8>>,
}

impl Edits {
    /// Removes what there is from `first` to `last`, and what was put there before.
    pub fn remove(&mut self, first: Key, last: Key) {
        if last < first {
            return;
        }
        let put: Vec<Key> = self.puts.range(first..=last).map(|(key, _)| *key).collect();
        for key in put {
            self.puts.remove(&key);
        }
        let from = self.removals.partition_point(|(_, end)| *end < first);
        let to = self.removals.partition_point(|(begin, _)| *begin <= last);
        let merged = self.removals[from..to]
            .iter()
            .fold((first, last), |(low, high), (begin, end)| (low.min(*begin), high.max(*end)));
        self.removals.splice(from..to, [merged]);
    }

    /// Gives a key a value.
    ///
    /// # Panics
    ///
    /// For one of more than [`VALUE_BYTES_MAX`] bytes.
    pub fn put(&mut self, key: Key, value: Vec<u8>) {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        self.puts.insert(key, value);
    }

    fn removes(&self, key: Key) -> bool {
        let next = self.removals.partition_point(|(_, last)| *last < key);
        self.removals.get(next).is_some_and(|(first, _)| *first <= key)
    }

    /// Whether anything changes in a span.
    fn touches(&self, span: Span) -> bool {
        let next = self.removals.partition_point(|(_, last)| *last < span.first);
        let removes =
            self.removals.get(next).is_some_and(|(first, _)| span.end.is_none_or(|end| *first < end));
        removes || self.puts_in(span).next().is_some()
    }

    fn puts_in(&self, span: Span) -> impl Iterator<Item = (&Key, &Vec<u8>)> {
        self.puts.range(span.first..).take_while(move |(key, _)| span.end.is_none_or(|end| **key < end))
    }
}

/// The keys that belong to a node.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: Key,
    /// The first that does not; `None` in the last node of a level.
    end: Option<Key>,
}

const ALL: Span = Span { first: Key { object: 0, tag: 0, index: 0 }, end: None };

/// A tree whose nodes are in `nodes` and hold at most so many bytes.
#[derive(Debug)]
pub struct Tree<'n, N> {
    nodes: &'n mut N,
    node_bytes_max: usize,
}

impl<'n, N: Load> Tree<'n, N> {
    /// # Panics
    ///
    /// When nodes could not hold [`NODE_BYTES_MIN`].
    pub fn new(nodes: &'n mut N, node_bytes_max: usize) -> Tree<'n, N> {
        assert!(node_bytes_max >= NODE_BYTES_MIN, "nodes of {node_bytes_max} bytes");
        Tree { nodes, node_bytes_max }
    }

    /// The value of a key.
    pub fn get(&mut self, root: Option<&Root>, key: Key) -> Result<Option<Vec<u8>>, TreeError<N::Error>> {
        let mut found = self.scan(root, key, key, 1)?;
        Ok(found.pop().map(|entry| entry.value))
    }

    /// The first entries from `first` to `last`, at most so many.
    pub fn scan(
        &mut self,
        root: Option<&Root>,
        first: Key,
        last: Key,
        count_max: usize,
    ) -> Result<Vec<Entry>, TreeError<N::Error>> {
        let mut found = Vec::new();
        if let Some(root) = root {
            self.scan_node(root.level, &root.place, (first, last), count_max, &mut found)?;
        }
        Ok(found)
    }

    fn scan_node(
        &mut self,
        level: u8,
        place: &[u8],
        (first, last): (Key, Key),
        count_max: usize,
        found: &mut Vec<Entry>,
    ) -> Result<(), TreeError<N::Error>> {
        let node = self.load(level, place)?;
        if level == 0 {
            let begin = node.entries.partition_point(|entry| entry.key < first);
            let wanted = node.entries[begin..].iter().take_while(|entry| entry.key <= last);
            found.extend(wanted.take(count_max - found.len()).cloned());
            return Ok(());
        }
        // The child before the first that begins behind `first` may have it.
        let begin = node.entries.partition_point(|entry| entry.key <= first).saturating_sub(1);
        for entry in node.entries[begin..].iter().take_while(|entry| entry.key <= last) {
            if found.len() >= count_max {
                break;
            }
            self.scan_node(level - 1, &entry.value, (first, last), count_max, found)?;
        }
        Ok(())
    }

    fn load(&mut self, level: u8, place: &[u8]) -> Result<Arc<Node>, TreeError<N::Error>> {
        let node = self.nodes.load(place)?;
        let in_order = node.entries.is_sorted_by(|a, b| a.key < b.key);
        let fits = node.level == level && level < LEVELS_MAX && !node.entries.is_empty() && in_order;
        if fits { Ok(node) } else { Err(TreeError::Malformed { level }) }
    }
}

impl<N: Nodes> Tree<'_, N> {
    /// The tree after the edits; `None` when nothing is left. The nodes that it does not share with the one before are released, but
    /// nothing of theirs is written over. After an error nothing holds that was told until then:
    /// the tree is what it was, nothing was released or dropped, and nodes that were stored are nobody's.
    pub fn apply(&mut self, root: Option<&Root>, edits: &Edits) -> Result<Option<Root>, TreeError<N::Error>> {
        let (mut level, mut entries) = match root {
            Some(root) if !edits.touches(ALL) => return Ok(Some(root.clone())),
            Some(root) => {
                let node = self.take(root.level, &root.place)?;
                (root.level, self.edited(node, ALL, edits)?)
            }
            None => (0, self.edited(Node { level: 0, entries: Vec::new() }, ALL, edits)?),
        };
        loop {
            if entries.is_empty() {
                return Ok(None);
            }
            if level > 0 && entries.len() == 1 {
                // A root with one child is not needed.
                return Ok(Some(self.lowest_root(level - 1, entries.remove(0).value)?));
            }
            let mut stored = self.store_all(level, entries)?;
            if stored.len() == 1 {
                return Ok(Some(Root { level, place: stored.remove(0).value }));
            }
            (level, entries) = (level + 1, stored);
        }
    }

    /// The root of a tree whose top node may have one child only.
    fn lowest_root(&mut self, mut level: u8, mut place: Vec<u8>) -> Result<Root, TreeError<N::Error>> {
        while level > 0 {
            let node = self.load(level, &place)?;
            let [only] = &node.entries[..] else { break };
            self.nodes.release(&place)?;
            (level, place) = (level - 1, only.value.clone());
        }
        Ok(Root { level, place })
    }

    /// The entries of a node after the edits of its span.
    fn edited(&mut self, node: Node, span: Span, edits: &Edits) -> Result<Vec<Entry>, TreeError<N::Error>> {
        if node.level == 0 {
            self.edited_leaf(node, span, edits)
        } else {
            self.edited_inner(node, span, edits)
        }
    }

    fn edited_leaf(
        &mut self,
        node: Node,
        span: Span,
        edits: &Edits,
    ) -> Result<Vec<Entry>, TreeError<N::Error>> {
        let mut puts = edits.puts_in(span).peekable();
        let mut entries = Vec::with_capacity(node.entries.len());
        let entry_of = |(key, value): (&Key, &Vec<u8>)| Entry { key: *key, value: value.clone() };
        for entry in node.entries {
            while let Some(put) = puts.next_if(|(key, _)| **key < entry.key) {
                entries.push(entry_of(put));
            }
            if let Some(put) = puts.next_if(|(key, _)| **key == entry.key) {
                entries.push(entry_of(put));
                self.nodes.dropped(entry)?;
            } else if edits.removes(entry.key) {
                self.nodes.dropped(entry)?;
            } else {
                entries.push(entry);
            }
        }
        entries.extend(puts.map(entry_of));
        Ok(entries)
    }

    fn edited_inner(
        &mut self,
        node: Node,
        span: Span,
        edits: &Edits,
    ) -> Result<Vec<Entry>, TreeError<N::Error>> {
        let below = node.level - 1;
        let mut children: Vec<Entry> = Vec::with_capacity(node.entries.len());
        // What is to be stored as children, before the next one that stays as it is.
        let mut pending: Vec<Entry> = Vec::new();
        let ends: Vec<Option<Key>> =
            node.entries.iter().skip(1).map(|entry| Some(entry.key)).chain([span.end]).collect();
        for (at, (child, end)) in node.entries.into_iter().zip(ends).enumerate() {
            // Keys below the first child's lowest belong to it too.
            let first = if at == 0 { span.first } else { child.key };
            let child_span = Span { first, end };
            if edits.touches(child_span) {
                let taken = self.take(below, &child.value)?;
                pending.extend(self.edited(taken, child_span, edits)?);
            } else if !pending.is_empty() && self.is_small(&pending) {
                pending.extend(self.take(below, &child.value)?.entries);
            } else {
                children.extend(self.store_all(below, std::mem::take(&mut pending))?);
                children.push(child);
            }
        }
        if self.is_small(&pending)
            && !pending.is_empty()
            && let Some(last) = children.pop()
        {
            let mut joined = self.take(below, &last.value)?.entries;
            joined.append(&mut pending);
            pending = joined;
        }
        children.extend(self.store_all(below, pending)?);
        Ok(children)
    }

    /// Reads a node that will not be part of the tree any more.
    fn take(&mut self, level: u8, place: &[u8]) -> Result<Node, TreeError<N::Error>> {
        let node = self.load(level, place)?;
        self.nodes.release(place)?;
        Ok(Arc::unwrap_or_clone(node))
    }

    /// Whether entries fill less than a quarter of a node.
    fn is_small(&self, entries: &[Entry]) -> bool {
        entries.iter().map(size_of).sum::<usize>() * 4 < self.node_bytes_max
    }

    /// Stores entries in as few nodes as hold them, of about the same size. An entry for each of the nodes.
    fn store_all(&mut self, level: u8, entries: Vec<Entry>) -> Result<Vec<Entry>, TreeError<N::Error>> {
        let mut left: usize = entries.iter().map(size_of).sum();
        let mut stored = Vec::new();
        let mut node = Node { level, entries: Vec::new() };
        let mut filled = 0;
        let mut share = left.div_ceil(left.div_ceil(self.node_bytes_max).max(1));
        for entry in entries {
            let size = size_of(&entry);
            if filled > 0 && (filled >= share || filled + size > self.node_bytes_max) {
                stored.push(self.store(&node)?);
                node.entries.clear();
                left -= filled;
                share = left.div_ceil(left.div_ceil(self.node_bytes_max).max(1));
                filled = 0;
            }
            filled += size;
            node.entries.push(entry);
        }
        if !node.entries.is_empty() {
            stored.push(self.store(&node)?);
        }
        Ok(stored)
    }

    fn store(&mut self, node: &Node) -> Result<Entry, TreeError<N::Error>> {
        let value = self.nodes.store(node)?;
        assert!(value.len() <= VALUE_BYTES_MAX, "a place of {} bytes", value.len());
        Ok(Entry { key: node.entries[0].key, value })
    }
}

fn size_of(entry: &Entry) -> usize {
    ENTRY_HEAD_BYTES + entry.value.len()
}

#[cfg(test)]
mod tests;
