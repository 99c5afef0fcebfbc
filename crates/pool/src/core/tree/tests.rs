//! The tree against a map, with nodes in memory of which each is accounted for.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Nodes by number.
#[derive(Default)]
struct Memory {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// What [`Nodes::dropped`] told.
    dropped: Vec<(Key, Vec<u8>)>,
    /// Released, but kept, as an older root may lead to them.
    released: Vec<u64>,
    stored: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct NoSuchNode;

fn number(place: &[u8]) -> u64 {
    u64::from_be_bytes(place.try_into().expect("a number"))
}

impl Load for Memory {
    type Error = NoSuchNode;

    fn load(&mut self, place: &[u8]) -> Result<Arc<Node>, NoSuchNode> {
        self.nodes.get(&number(place)).cloned().map(Arc::new).ok_or(NoSuchNode)
    }
}

impl Nodes for Memory {
    fn store(&mut self, node: Node) -> Result<Vec<u8>, NoSuchNode> {
        let bytes = node.entries.stored_bytes();
        assert!(bytes <= NODE_BYTES_MIN && !node.entries.is_empty(), "a node of {bytes} bytes");
        self.nodes.insert(self.next, node);
        self.next += 1;
        self.stored += 1;
        Ok((self.next - 1).to_be_bytes().to_vec())
    }

    fn release(&mut self, place: &[u8]) -> Result<(), NoSuchNode> {
        assert!(!self.released.contains(&number(place)), "a node is released once");
        self.released.push(number(place));
        Ok(())
    }

    fn dropped(&mut self, key: Key, value: &[u8]) -> Result<(), NoSuchNode> {
        self.dropped.push((key, value.to_vec()));
        Ok(())
    }
}

impl Memory {
    fn tree(&mut self) -> Tree<'_, Memory> {
        Tree::new(self, NODE_BYTES_MIN)
    }

    fn apply(&mut self, root: Option<&Root>, edits: &Edits) -> Option<Root> {
        self.tree().apply(root, edits).expect("all nodes are there")
    }

    fn all(&mut self, root: Option<&Root>) -> Vec<(Key, Vec<u8>)> {
        let found =
            self.tree().scan(root, ALL.first, key(u64::MAX), usize::MAX).expect("all nodes are there");
        found.iter().map(|(key, value)| (key, value.to_vec())).collect()
    }

    /// The numbers of the nodes below a root.
    fn reachable(&self, level: u8, place: &[u8], into: &mut Vec<u64>) {
        into.push(number(place));
        let node = &self.nodes[&number(place)];
        assert_eq!(node.level, level);
        for (_, place) in node.entries.iter().filter(|_| level > 0) {
            self.reachable(level - 1, place, into);
        }
    }
}

fn key(object: u64) -> Key {
    Key { object, tag: 1, index: object % 7 }
}

#[test]
fn a_tree_of_many_levels_is_read_and_emptied() {
    const COUNT: u64 = 20_000;
    let mut memory = Memory::default();
    let mut edits = Edits::default();
    for n in 0..COUNT {
        edits.put(key(n * 3), vec![n as u8; 40]);
    }
    let root = memory.apply(None, &edits).expect("it has entries");
    assert!(root.level >= 2, "level {}", root.level);
    for n in [0, 1, 777, COUNT - 1] {
        assert_eq!(memory.tree().get(Some(&root), key(n * 3)), Ok(Some(vec![n as u8; 40])));
        assert_eq!(memory.tree().get(Some(&root), key(n * 3 + 1)), Ok(None));
    }
    let some = memory.tree().scan(Some(&root), key(100), key(200), 5).expect("all nodes are there");
    assert_eq!(some.iter().map(|(key, _)| key.object).collect::<Vec<_>>(), [102, 105, 108, 111, 114]);
    let range = (key(100), key(30_000));
    for (most, found) in
        [(0, Some(102)), (1, Some(105)), (9_000, Some(27_102)), (9_966, Some(30_000)), (9_967, None)]
    {
        let counted = memory.tree().count(Some(&root), range, most).expect("all nodes are there");
        assert_eq!(counted, (most, found.map(key)), "{most} at most");
    }
    assert_eq!(memory.tree().count(Some(&root), range, 20_000), Ok((9_967, None)));
    assert_eq!(memory.tree().count(None, range, 5), Ok((0, None)));
    let mut edits = Edits::default();
    edits.remove(key(0), key(u64::MAX));
    assert_eq!(memory.apply(Some(&root), &edits), None);
    assert_eq!(memory.dropped.len() as u64, COUNT);
    assert_eq!(memory.released.len(), memory.nodes.len(), "no node is left over");
    assert_eq!(memory.all(Some(&root)).len() as u64, COUNT, "the old root still leads to all of it");
}

#[test]
fn a_change_writes_the_nodes_above_it_and_no_others() {
    let mut memory = Memory::default();
    let mut edits = Edits::default();
    (0..20_000).for_each(|n| edits.put(key(n), vec![1; 40]));
    let root = memory.apply(None, &edits).expect("it has entries");
    memory.stored = 0;
    let mut edits = Edits::default();
    edits.put(key(9_000), vec![2; 40]);
    let changed = memory.apply(Some(&root), &edits).expect("it has entries");
    assert_eq!(memory.stored, usize::from(root.level) + 1);
    assert_eq!(memory.dropped, [(key(9_000), vec![1; 40])]);
    memory.stored = 0;
    assert_eq!(memory.apply(Some(&changed), &Edits::default()), Some(changed));
    assert_eq!(memory.stored, 0, "no edits, no nodes");
}

#[test]
fn a_damaged_tree_is_refused_and_ends() {
    let mut memory = Memory::default();
    let entries = |of: &[(u64, u64)]| {
        let mut entries = Entries::default();
        for (object, child) in of {
            entries.push(key(*object), &child.to_be_bytes());
        }
        entries
    };
    // A node that is its own child; one without entries; children of which one has keys of the other, before it or behind.
    memory.nodes.insert(0, Node { level: 1, entries: entries(&[(1, 0)]) });
    memory.nodes.insert(1, Node { level: 0, entries: Entries::default() });
    memory.nodes.insert(2, Node { level: 0, entries: entries(&[(1, 0), (9, 0)]) });
    memory.nodes.insert(3, Node { level: 0, entries: entries(&[(0, 0), (6, 0)]) });
    memory.nodes.insert(4, Node { level: 1, entries: entries(&[(1, 2), (5, 3)]) });
    memory.nodes.insert(5, Node { level: 1, entries: entries(&[(1, 3), (7, 3)]) });
    memory.next = 6;
    for (level, place, told) in [(1, 0_u64, 0), (0, 1, 0), (1, 4, 0), (1, 5, 0), (3, 0, 3)] {
        let root = Root { level, place: place.to_be_bytes().to_vec() };
        let mut edits = Edits::default();
        edits.put(key(1), vec![]);
        edits.put(key(8), vec![]);
        let all = (key(0), key(100));
        assert_eq!(
            memory.tree().scan(Some(&root), all.0, all.1, 100),
            Err(TreeError::Malformed { level: told })
        );
        assert_eq!(memory.tree().count(Some(&root), all, 100), Err(TreeError::Malformed { level: told }));
        assert_eq!(memory.tree().apply(Some(&root), &edits), Err(TreeError::Malformed { level: told }));
    }
    let root = Root { level: 0, place: 9_u64.to_be_bytes().to_vec() };
    assert_eq!(memory.tree().get(Some(&root), key(1)), Err(TreeError::Node(NoSuchNode)));
}

/// One edit of the random tests.
#[derive(Clone, Debug)]
enum Step {
    Put(u64, usize),
    PutMany(u64, u64),
    Remove(u64, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3000_u64, 0..VALUE_BYTES_MAX).prop_map(|(at, len)| Step::Put(at, len)),
        2 => (0..3000_u64, 0..400_u64).prop_map(|(at, count)| Step::PutMany(at, count)),
        3 => (0..3000_u64, 0..900_u64).prop_map(|(at, count)| Step::Remove(at, count)),
    ];
    prop::collection::vec(step, 1..8)
}

proptest! {
    #[test]
    fn it_is_a_map(groups in prop::collection::vec(steps(), 1..12)) {
        let mut memory = Memory::default();
        let mut model: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
        let mut root = None;
        for (n, group) in groups.into_iter().enumerate() {
            let before: Vec<(Key, Vec<u8>)> = model.clone().into_iter().collect();
            let mut edits = Edits::default();
            for step in group {
                match step {
                    Step::Put(at, len) => {
                        edits.put(key(at), vec![n as u8; len]);
                        model.insert(key(at), vec![n as u8; len]);
                    }
                    Step::PutMany(at, count) => for at in at..at + count {
                        edits.put(key(at), vec![n as u8; 30]);
                        model.insert(key(at), vec![n as u8; 30]);
                    },
                    Step::Remove(at, count) => {
                        let (first, last) = (Key { index: 0, ..key(at) }, Key { index: 9, ..key(at + count) });
                        edits.remove(first, last);
                        model.retain(|key, _| *key < first || *key > last);
                    }
                }
            }
            memory.dropped.clear();
            memory.released.clear();
            let next = memory.apply(root.as_ref(), &edits);
            let now: Vec<(Key, Vec<u8>)> = model.clone().into_iter().collect();
            prop_assert_eq!(memory.all(next.as_ref()), now);
            prop_assert_eq!(memory.all(root.as_ref()), before.clone(), "the tree before is what it was");
            // What was told as dropped is what was there and is not, or was put again.
            let mut dropped: Vec<Key> = memory.dropped.iter().map(|(key, _)| *key).collect();
            dropped.sort_unstable();
            let put = |key: &Key| edits.puts.contains_key(key);
            let expected: Vec<Key> =
                before.iter().map(|(key, _)| *key).filter(|key| put(key) || !model.contains_key(key)).collect();
            prop_assert_eq!(dropped, expected);
            // Nodes are of the new tree, or released: nothing leaks.
            let (mut old, mut new) = (Vec::new(), Vec::new());
            if let Some(root) = &root {
                memory.reachable(root.level, &root.place, &mut old);
            }
            if let Some(root) = &next {
                memory.reachable(root.level, &root.place, &mut new);
            }
            let released = memory.released.clone();
            prop_assert!(old.iter().all(|node| new.contains(node) != released.contains(node)));
            memory.nodes.retain(|node, _| !released.contains(node));
            prop_assert_eq!(memory.nodes.len(), new.len(), "every node is reached");
            root = next;
        }
    }
}
