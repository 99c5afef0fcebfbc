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

mod entries;

pub use entries::{Entries, OutOfOrder};

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
pub const ENTRY_HEAD_BYTES: usize = 19;
/// Length of a value.
pub const VALUE_BYTES_MAX: usize = 1024;
/// The least that a node may hold at most: a few of the longest entries.
pub const NODE_BYTES_MIN: usize = 4 * (ENTRY_HEAD_BYTES + VALUE_BYTES_MAX);
/// Levels of a tree. With two children for each node that would be more entries than there are numbers.
const LEVELS_MAX: u8 = 64;

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// 0 for a leaf.
    pub level: u8,
    /// In an inner node the key is the lowest key of the child, and the value is where that is. **Invariant:** at least one, except in a tree
    /// without entries, which has no node.
    pub entries: Entries,
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
    fn store(&mut self, node: Node) -> Result<Vec<u8>, Self::Error>;

    /// The node is not part of the tree any more.
    fn release(&mut self, place: &[u8]) -> Result<(), Self::Error>;

    /// An entry is not in the tree any more: it was removed, or has another value now.
    fn dropped(&mut self, key: Key, value: &[u8]) -> Result<(), Self::Error>;
}

/// Why a tree cannot be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError<E> {
    /// A node cannot be read or written.
    #[error(transparent)]
    Node(#[from] E),
    /// A node is not on the level where it must be, is empty, or has keys that belong elsewhere: the tree is damaged.
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

    /// The ranges that do not end before a key.
    fn removals_from(&self, key: Key) -> &[(Key, Key)] {
        &self.removals[self.removals.partition_point(|(_, last)| *last < key)..]
    }

    /// Whether anything changes in a span.
    fn touches(&self, span: Span) -> bool {
        let next = self.removals_from(span.first).first();
        let removes = next.is_some_and(|(first, _)| span.end.is_none_or(|end| *first < end));
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

impl Span {
    /// Whether there are entries, and all are in it.
    fn has(self, entries: &Entries) -> bool {
        let Some(last) = entries.len().checked_sub(1) else { return false };
        entries.key(0) >= self.first && self.end.is_none_or(|end| entries.key(last) < end)
    }
}

/// The children of an inner node, with the keys that belong to each; `span` has the node's. From the child of that number on.
fn children_from(entries: &Entries, span: Span, from: usize) -> impl Iterator<Item = (Span, &[u8])> {
    (from..entries.len()).map(move |at| {
        // Keys below the first child's lowest belong to it too.
        let first = if at == 0 { span.first } else { entries.key(at) };
        let end = if at + 1 < entries.len() { Some(entries.key(at + 1)) } else { span.end };
        (Span { first, end }, entries.value(at))
    })
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
        let found = self.scan(root, key, key, 1)?;
        Ok(found.iter().next().map(|(_, value)| value.to_vec()))
    }

    /// The first entries from `first` to `last`, at most so many.
    pub fn scan(
        &mut self,
        root: Option<&Root>,
        first: Key,
        last: Key,
        count_max: usize,
    ) -> Result<Entries, TreeError<N::Error>> {
        let mut found = Entries::default();
        if let Some(root) = root {
            self.scan_node((root.level, &root.place, ALL), (first, last), count_max, &mut found)?;
        }
        Ok(found)
    }

    /// How many entries there are from `first` to `last`, but no more than `most`; and the key of the one behind those, if there are more.
    pub fn count(
        &mut self,
        root: Option<&Root>,
        (first, last): (Key, Key),
        most: usize,
    ) -> Result<(usize, Option<Key>), TreeError<N::Error>> {
        let mut left = most;
        let Some(root) = root else { return Ok((0, None)) };
        let behind = self.key_behind((root.level, &root.place, ALL), (first, last), &mut left)?;
        Ok((if behind.is_some() { most } else { most - left }, behind))
    }

    fn key_behind(
        &mut self,
        (level, place, span): (u8, &[u8], Span),
        (first, last): (Key, Key),
        left: &mut usize,
    ) -> Result<Option<Key>, TreeError<N::Error>> {
        let entries = &self.load(level, place, span)?.entries;
        if level == 0 {
            let (begin, end) = (entries.first_from(first), entries.first_behind(last));
            let here = end.saturating_sub(begin);
            if *left < here {
                return Ok(Some(entries.key(begin + *left)));
            }
            *left -= here;
            return Ok(None);
        }
        for (span, place) in children_from(entries, span, entries.child_of(first)) {
            if span.first > last {
                break;
            }
            if let Some(found) = self.key_behind((level - 1, place, span), (first, last), left)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn scan_node(
        &mut self,
        (level, place, span): (u8, &[u8], Span),
        (first, last): (Key, Key),
        count_max: usize,
        found: &mut Entries,
    ) -> Result<(), TreeError<N::Error>> {
        let entries = &self.load(level, place, span)?.entries;
        if level == 0 {
            let wanted = entries.iter_from(entries.first_from(first));
            for (key, value) in wanted.take_while(|(key, _)| *key <= last).take(count_max - found.len()) {
                found.push(key, value);
            }
            return Ok(());
        }
        for (span, place) in children_from(entries, span, entries.child_of(first)) {
            if span.first > last || found.len() >= count_max {
                break;
            }
            self.scan_node((level - 1, place, span), (first, last), count_max, found)?;
        }
        Ok(())
    }

    /// The node at a place, whose keys are in a span.
    fn load(&mut self, level: u8, place: &[u8], span: Span) -> Result<Arc<Node>, TreeError<N::Error>> {
        let node = self.nodes.load(place)?;
        let fits = node.level == level && level < LEVELS_MAX && span.has(&node.entries);
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
                let node = self.take(root.level, &root.place, ALL)?;
                (root.level, self.edited(&node, ALL, edits)?)
            }
            None => (0, self.edited(&Node { level: 0, entries: Entries::default() }, ALL, edits)?),
        };
        loop {
            if entries.is_empty() {
                return Ok(None);
            }
            if level > 0 && entries.len() == 1 {
                // A root with one child is not needed.
                return Ok(Some(self.lowest_root(level - 1, entries.value(0).to_vec())?));
            }
            let mut stored = Entries::default();
            self.store_all(level, entries, &mut stored)?;
            if stored.len() == 1 {
                return Ok(Some(Root { level, place: stored.value(0).to_vec() }));
            }
            (level, entries) = (level + 1, stored);
        }
    }

    /// The root of a tree whose top node may have one child only.
    fn lowest_root(&mut self, mut level: u8, mut place: Vec<u8>) -> Result<Root, TreeError<N::Error>> {
        while level > 0 {
            let node = self.load(level, &place, ALL)?;
            if node.entries.len() > 1 {
                break;
            }
            self.nodes.release(&place)?;
            (level, place) = (level - 1, node.entries.value(0).to_vec());
        }
        Ok(Root { level, place })
    }

    /// The entries of a node after the edits of its span.
    fn edited(&mut self, node: &Node, span: Span, edits: &Edits) -> Result<Entries, TreeError<N::Error>> {
        if node.level == 0 {
            self.edited_leaf(node, span, edits)
        } else {
            self.edited_inner(node, span, edits)
        }
    }

    fn edited_leaf(
        &mut self,
        node: &Node,
        span: Span,
        edits: &Edits,
    ) -> Result<Entries, TreeError<N::Error>> {
        let old = &node.entries;
        let mut entries = Entries::with_room(old.len(), old.stored_bytes());
        let mut puts = edits.puts_in(span).peekable();
        let mut removals = edits.removals_from(span.first).iter().peekable();
        let mut at = 0;
        while at < old.len() {
            let (key, value) = (old.key(at), old.value(at));
            while removals.next_if(|(_, last)| *last < key).is_some() {}
            while let Some((put, value)) = puts.next_if(|(put, _)| **put < key) {
                entries.push(*put, value);
            }
            let removed = removals.peek().is_some_and(|(first, _)| *first <= key);
            if let Some((_, new)) = puts.next_if(|(put, _)| **put == key) {
                entries.push(key, new);
            } else if !removed {
                // With it all up to where something changes again.
                let put = puts.peek().map(|(put, _)| **put);
                let change = put.into_iter().chain(removals.peek().map(|(first, _)| *first)).min();
                let end = change.map_or(old.len(), |change| old.first_from(change));
                entries.extend_from(old, at..end);
                at = end;
                continue;
            }
            self.nodes.dropped(key, value)?;
            at += 1;
        }
        puts.for_each(|(put, value)| entries.push(*put, value));
        Ok(entries)
    }

    fn edited_inner(
        &mut self,
        node: &Node,
        span: Span,
        edits: &Edits,
    ) -> Result<Entries, TreeError<N::Error>> {
        let below = node.level - 1;
        let mut children = Entries::with_room(node.entries.len(), node.entries.stored_bytes());
        // What is to be stored as children, before the next one that stays as it is.
        let mut pending = Entries::default();
        for (at, (child, place)) in children_from(&node.entries, span, 0).enumerate() {
            if edits.touches(child) {
                let taken = self.take(below, place, child)?;
                pending.append(self.edited(&taken, child, edits)?);
            } else if !pending.is_empty() && self.is_small(&pending) {
                pending.append(self.take(below, place, child)?.entries.clone());
            } else {
                self.store_all(below, std::mem::take(&mut pending), &mut children)?;
                children.push(node.entries.key(at), place);
            }
        }
        if self.is_small(&pending)
            && !pending.is_empty()
            && let Some((_, last)) = children.pop()
        {
            let before = Span { first: span.first, end: Some(pending.key(0)) };
            let mut joined = self.take(below, &last, before)?.entries.clone();
            joined.append(pending);
            pending = joined;
        }
        self.store_all(below, pending, &mut children)?;
        Ok(children)
    }

    /// Reads a node that will not be part of the tree any more.
    fn take(&mut self, level: u8, place: &[u8], span: Span) -> Result<Arc<Node>, TreeError<N::Error>> {
        let node = self.load(level, place, span)?;
        self.nodes.release(place)?;
        Ok(node)
    }

    /// Whether entries fill less than a quarter of a node.
    fn is_small(&self, entries: &Entries) -> bool {
        entries.stored_bytes() * 4 < self.node_bytes_max
    }

    /// Stores entries in as few nodes as hold them, of about the same size, and adds an entry for each of the nodes to `parents`.
    fn store_all(
        &mut self,
        level: u8,
        entries: Entries,
        parents: &mut Entries,
    ) -> Result<(), TreeError<N::Error>> {
        let mut left = entries.stored_bytes();
        if left <= self.node_bytes_max {
            return if left > 0 { self.store(level, entries, parents) } else { Ok(()) };
        }
        let mut share = left.div_ceil(left.div_ceil(self.node_bytes_max));
        let room = |share: usize| Entries::with_room(entries.len() * share / entries.stored_bytes(), share);
        let mut node = room(share);
        for (key, value) in entries.iter() {
            let (filled, size) = (node.stored_bytes(), ENTRY_HEAD_BYTES + value.len());
            if filled > 0 && (filled >= share || filled + size > self.node_bytes_max) {
                left -= filled;
                share = left.div_ceil(left.div_ceil(self.node_bytes_max).max(1));
                self.store(level, std::mem::replace(&mut node, room(share)), parents)?;
            }
            node.push(key, value);
        }
        self.store(level, node, parents)
    }

    /// Stores a node, of at least one entry.
    fn store(
        &mut self,
        level: u8,
        entries: Entries,
        parents: &mut Entries,
    ) -> Result<(), TreeError<N::Error>> {
        let lowest = entries.key(0);
        let place = self.nodes.store(Node { level, entries })?;
        parents.push(lowest, &place);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
