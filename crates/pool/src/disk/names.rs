//! The names of a disk's files, as they are in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use kiln_world::Entry;

use crate::format::{NameSlot, PATH_BYTES_MAX};

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// The number of its object, also that of its slot.
    pub(super) object: u64,
    pub(super) is_dir: bool,
}

/// All names. Paths are relative; the root is the empty path and always there.
#[derive(Debug, Default)]
pub(super) struct Names {
    named: BTreeMap<PathBuf, Named>,
    /// Numbers below `next` that nothing has.
    free: BTreeSet<u64>,
    /// A number that was never given, less one.
    last: u64,
    /// Of the name that was given last.
    order: u64,
    /// Files that have no name any more, or may not have one soon, and are open so many times.
    open: BTreeMap<u64, usize>,
}

impl Names {
    /// The names of slots by their number, and the numbers of slots that hold nothing any more: their path was given again later.
    pub(super) fn of(slots: impl Iterator<Item = (u64, NameSlot)>, count: u64) -> (Names, Vec<u64>) {
        let mut newest: BTreeMap<PathBuf, (u64, Named)> = BTreeMap::new();
        let mut over = Vec::new();
        for (object, slot) in slots {
            let named = Named { object, is_dir: slot.is_dir };
            match newest.get_mut(&slot.path) {
                Some(known) if known.0 > slot.order => over.push(object),
                Some(known) => {
                    over.push(known.1.object);
                    *known = (slot.order, named);
                }
                None => {
                    newest.insert(slot.path, (slot.order, named));
                }
            }
        }
        let order = newest.values().map(|(order, _)| *order).max().unwrap_or(0);
        let named: BTreeMap<PathBuf, Named> =
            newest.into_iter().map(|(path, (_, named))| (path, named)).collect();
        let taken: BTreeSet<u64> = named.values().map(|named| named.object).collect();
        let free = (1..count).filter(|number| !taken.contains(number)).collect();
        let last = count.saturating_sub(1);
        (Names { named, free, last, order, open: BTreeMap::new() }, over)
    }

    pub(super) fn get(&self, path: &Path) -> Option<Named> {
        if path.as_os_str().is_empty() {
            Some(Named { object: 0, is_dir: true })
        } else {
            self.named.get(path).copied()
        }
    }

    /// The objects that have a name.
    pub(super) fn objects(&self) -> BTreeSet<u64> {
        self.named.values().map(|named| named.object).collect()
    }

    pub(super) fn list(&self, dir: &Path) -> Vec<Entry> {
        let below = self.named.range::<Path, _>((std::ops::Bound::Excluded(dir), std::ops::Bound::Unbounded));
        let below = below.take_while(|(path, _)| path.starts_with(dir));
        let entries = below.filter(|(path, _)| path.parent() == Some(dir)).filter_map(|(path, named)| {
            Some(Entry { name: path.file_name()?.to_owned(), is_dir: named.is_dir })
        });
        entries.collect()
    }

    /// A path with all that lies below it, the deepest last.
    pub(super) fn below(&self, dir: &Path) -> Vec<(PathBuf, Named)> {
        let all = self.named.range(dir.to_owned()..).take_while(|(path, _)| path.starts_with(dir));
        all.map(|(path, named)| (path.clone(), *named)).collect()
    }

    /// What is to stand in the slot of a new file or directory, with its number. It has the name when [`Names::enter`] is told so.
    pub(super) fn new_name(&mut self, path: &Path, is_dir: bool) -> io::Result<(u64, NameSlot)> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.get(parent).is_none_or(|parent| !parent.is_dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let slot = self.slot(path, is_dir)?;
        let object = self.free.first().copied().unwrap_or(self.last + 1);
        Ok((object, slot))
    }

    /// What is to stand in a slot that gets a name.
    pub(super) fn slot(&self, path: &Path, is_dir: bool) -> io::Result<NameSlot> {
        if !(1..=PATH_BYTES_MAX).contains(&path.as_os_str().len()) {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        Ok(NameSlot { path: path.to_owned(), is_dir, order: self.order + 1 })
    }

    /// A slot was written.
    pub(super) fn enter(&mut self, object: u64, slot: NameSlot) {
        self.free.remove(&object);
        self.last = self.last.max(object);
        self.order = slot.order;
        self.named.insert(slot.path, Named { object, is_dir: slot.is_dir });
    }

    /// A path has no name any more; whether its object is not needed either, because nobody has it open.
    pub(super) fn leave(&mut self, path: &Path) -> Option<u64> {
        let named = self.named.remove(path)?;
        (!self.open.contains_key(&named.object)).then_some(named.object)
    }

    /// A path has no name any more, and its object another one.
    pub(super) fn forget(&mut self, path: &Path) {
        self.named.remove(path);
    }

    /// An object is destroyed, and its number may be given again.
    pub(super) fn give_back(&mut self, object: u64) {
        self.free.insert(object);
    }

    /// Somebody opens a file.
    pub(super) fn hold(&mut self, object: u64) {
        *self.open.entry(object).or_default() += 1;
    }

    /// Somebody is done with a file; whether its object is not needed any more, because it has no name.
    pub(super) fn release(&mut self, object: u64) -> bool {
        if let Some(count) = self.open.get_mut(&object) {
            *count -= 1;
            if *count > 0 {
                return false;
            }
            self.open.remove(&object);
        }
        !self.named.values().any(|named| named.object == object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(path: &str, order: u64) -> NameSlot {
        NameSlot { path: path.into(), is_dir: false, order }
    }

    #[test]
    fn of_two_slots_with_one_path_the_later_holds() {
        let slots = [(1, slot("a", 5)), (2, slot("b", 3)), (3, slot("a", 9)), (4, slot("b", 1))];
        let (names, over) = Names::of(slots.into_iter(), 6);
        assert_eq!(over, [1, 4]);
        assert_eq!(names.get(Path::new("a")), Some(Named { object: 3, is_dir: false }));
        assert_eq!(names.get(Path::new("b")), Some(Named { object: 2, is_dir: false }));
        assert_eq!(names.free, BTreeSet::from([1, 4, 5]));
        assert_eq!(names.slot(Path::new("c"), false).map(|slot| slot.order).ok(), Some(10));
    }

    #[test]
    fn a_number_is_given_again_when_nothing_has_it() {
        let (mut names, _) = Names::of(std::iter::empty(), 0);
        let make = |names: &mut Names, path: &str| {
            let (object, slot) = names.new_name(Path::new(path), false).expect("its parent is there");
            names.enter(object, slot);
            object
        };
        assert_eq!((make(&mut names, "a"), make(&mut names, "b")), (1, 2));
        names.hold(1);
        assert_eq!(names.leave(Path::new("a")), None, "it is open");
        assert_eq!(make(&mut names, "c"), 3);
        assert!(names.release(1));
        names.give_back(1);
        assert_eq!(make(&mut names, "d"), 1);
        names.hold(1);
        assert!(!names.release(1), "it has a name");
        assert!(names.new_name(Path::new("no/such"), false).is_err());
        assert!(names.new_name(Path::new("a/b"), false).is_err(), "a file is no directory");
    }
}
