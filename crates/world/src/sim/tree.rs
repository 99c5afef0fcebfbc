//! The simulated directory tree: names as a program sees them, and names as a crash would leave them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::disk::Entry;
use crate::rng::SimRng;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// A change of names that no `sync_dir` has covered yet.
#[derive(Debug, Clone)]
enum Change {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Change::Add(path, _) | Change::Remove(path) => parent(path) == dir,
            Change::Rename(from, to) => parent(from) == dir || parent(to) == dir,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Change::Add(path, node) => {
                names.insert(path.clone(), *node);
            }
            Change::Remove(path) => {
                names.retain(|name, _| !name.starts_with(path));
            }
            Change::Rename(from, to) => {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
        }
    }
}

/// All names of a disk. Paths are relative; the root is the empty path and always there.
#[derive(Debug, Default)]
pub(super) struct Tree {
    live: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    /// In the order they were made.
    pending: Vec<Change>,
}

impl Tree {
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        if path.as_os_str().is_empty() {
            return Some(Node::Dir);
        }
        self.live.get(path).copied()
    }

    pub(super) fn add_file(&mut self, path: &Path, inode: u64) -> io::Result<()> {
        if self.get(parent(path)) != Some(Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Add(path.to_owned(), Node::File(inode)));
        Ok(())
    }

    pub(super) fn add_dirs(&mut self, dir: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        for path in dir.ancestors() {
            match self.get(path) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
                None => missing.push(path.to_owned()),
            }
        }
        for path in missing.into_iter().rev() {
            self.change(Change::Add(path, Node::Dir));
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        match self.get(from) {
            Some(Node::File(_)) => {}
            Some(Node::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        if self.get(parent(to)) != Some(Node::Dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) {
        self.change(Change::Remove(path.to_owned()));
    }

    pub(super) fn list(&self, dir: &Path) -> Vec<Entry> {
        let inside = self.live.iter().filter(|(path, _)| parent(path) == dir);
        let entry = |(path, node): (&PathBuf, &Node)| Entry {
            name: path.file_name().unwrap_or(OsStr::new("")).to_owned(),
            is_dir: *node == Node::Dir,
        };
        inside.map(entry).collect()
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let pending = std::mem::take(&mut self.pending);
        for change in pending {
            if change.touches(dir) {
                change.apply(&mut self.durable);
            } else {
                self.pending.push(change);
            }
        }
    }

    pub(super) fn sync_all(&mut self) {
        self.pending.clear();
        self.durable.clone_from(&self.live);
    }

    /// Of each unsynced change it is drawn whether the medium has it.
    pub(super) fn lose_power(&mut self, rng: &SimRng) {
        for change in std::mem::take(&mut self.pending) {
            if rng.below(2) == 0 {
                change.apply(&mut self.durable);
            }
        }
        self.lose_orphans();
        self.live.clone_from(&self.durable);
    }

    /// Names whose directory never became durable are lost with it.
    fn lose_orphans(&mut self) {
        let names = std::mem::take(&mut self.durable);
        for (path, node) in names {
            // Ascending order: a directory comes before what is in it.
            if has_dir(&self.durable, parent(&path)) {
                self.durable.insert(path, node);
            }
        }
    }

    /// Whether any name, live or durable, still stands for `inode`.
    pub(super) fn refers_to(&self, inode: u64) -> bool {
        let node = Node::File(inode);
        self.live.values().chain(self.durable.values()).any(|other| *other == node)
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn has_dir(names: &BTreeMap<PathBuf, Node>, dir: &Path) -> bool {
    dir.as_os_str().is_empty() || names.get(dir) == Some(&Node::Dir)
}
