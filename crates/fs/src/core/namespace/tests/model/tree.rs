//! The model: a tree in memory, as simple as can be.

use std::collections::{BTreeMap, BTreeSet};

use super::steps::{Pick, Step};
use crate::core::namespace::tests::INLINE_BYTES;
use crate::core::{Errno, FileKind};
use crate::wire::mds::{Rename, XattrHow};

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) kind: FileKind,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) project: u32,
    /// Of a directory: new entries take its project.
    inherit: bool,
    /// Of a file, all of its bytes.
    pub(super) data: Vec<u8>,
    pub(super) entries: BTreeMap<String, usize>,
    pub(super) xattrs: BTreeMap<String, u8>,
    is_root: bool,
    /// It may get a name although it has none.
    is_unnamed: bool,
}

/// The tree. Nodes are numbered as they are made; one that is gone is `None`.
pub(super) struct Model {
    pub(super) nodes: Vec<Option<Node>>,
}

const MODEL_UID: u32 = 10;
const MODEL_GID: u32 = 20;
pub(super) const UMASK: u16 = 0o022;

impl Model {
    pub(super) fn new() -> Model {
        let mut root = Model::node(FileKind::Directory, 0o755);
        (root.uid, root.gid, root.is_root) = (0, 0, true);
        Model { nodes: vec![Some(root)] }
    }

    fn node(kind: FileKind, mode: u16) -> Node {
        Node {
            kind,
            mode,
            uid: MODEL_UID,
            gid: MODEL_GID,
            project: 0,
            inherit: false,
            data: Vec::new(),
            entries: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            is_root: false,
            is_unnamed: false,
        }
    }

    fn get(&self, pick: Pick) -> Result<&Node, Errno> {
        self.nodes[pick].as_ref().ok_or(Errno::ESTALE)
    }

    fn get_mut(&mut self, pick: Pick) -> Result<&mut Node, Errno> {
        self.nodes[pick].as_mut().ok_or(Errno::ESTALE)
    }

    fn file(&mut self, pick: Pick) -> Result<&mut Node, Errno> {
        let node = self.get_mut(pick)?;
        match node.kind {
            FileKind::Regular => Ok(node),
            FileKind::Directory => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Every place where a node is found.
    fn places(&self, pick: Pick) -> Vec<(usize, String)> {
        let all = self.nodes.iter().enumerate().filter_map(|(at, node)| Some((at, node.as_ref()?)));
        all.flat_map(|(at, node)| node.entries.iter().map(move |(name, to)| (at, name.clone(), *to)))
            .filter(|(_, _, to)| *to == pick)
            .map(|(at, name, _)| (at, name))
            .collect()
    }

    pub(super) fn nlink(&self, pick: Pick) -> usize {
        let Some(node) = &self.nodes[pick] else { return 0 };
        let names = self.places(pick).len();
        if node.kind != FileKind::Directory {
            return names;
        }
        let is_dir =
            |at: &&usize| self.nodes[**at].as_ref().is_some_and(|node| node.kind == FileKind::Directory);
        if names == 0 && !node.is_root { 0 } else { 2 + node.entries.values().filter(is_dir).count() }
    }

    pub(super) fn paths(&self, pick: Pick) -> BTreeSet<String> {
        let Some(node) = &self.nodes[pick] else { return BTreeSet::new() };
        if node.is_root {
            return [String::new()].into();
        }
        let join =
            |above: String, name: &str| if above.is_empty() { name.to_owned() } else { above + "/" + name };
        let places = self.places(pick);
        places
            .iter()
            .flat_map(|(at, name)| self.paths(*at).into_iter().map(move |above| join(above, name)))
            .collect()
    }

    fn directory(&self, pick: Pick) -> Result<&Node, Errno> {
        let node = self.get(pick)?;
        if node.kind != FileKind::Directory {
            return Err(Errno::ENOTDIR);
        }
        if self.nlink(pick) == 0 {
            return Err(Errno::ENOENT);
        }
        Ok(node)
    }

    fn check_name(name: &str) -> Result<(), Errno> {
        if name.len() > 255 {
            return Err(Errno::ENAMETOOLONG);
        }
        if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
            Err(Errno::EINVAL)
        } else {
            Ok(())
        }
    }

    fn find(&self, parent: Pick, name: &str) -> Result<usize, Errno> {
        Model::check_name(name)?;
        self.directory(parent)?.entries.get(name).copied().ok_or(Errno::ENOENT)
    }

    fn is_above(&self, above: usize, mut at: usize) -> bool {
        loop {
            if at == above {
                return true;
            }
            match self.places(at).first() {
                Some((parent, _)) => at = *parent,
                None => return false,
            }
        }
    }

    fn insert(&mut self, parent: Pick, name: &str, node: usize) {
        self.nodes[parent].as_mut().unwrap().entries.insert(name.to_owned(), node);
    }

    /// Takes a name away, and what it led to when it was the last and nobody has it open.
    fn remove(&mut self, parent: Pick, name: &str, open: bool) {
        let node = self.nodes[parent].as_mut().unwrap().entries.remove(name).unwrap();
        if self.places(node).is_empty() && !open {
            self.nodes[node] = None;
        }
    }

    /// Does a step. What it makes is the last node.
    pub(super) fn step(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::Make { parent, name, mode, what, open } => self.make(*parent, name, *mode, *what, *open),
            Step::Unnamed { parent } => {
                self.directory(*parent)?;
                let node = Node { is_unnamed: true, ..Model::node(FileKind::Regular, 0o600) };
                self.nodes.push(Some(self.inherit(*parent, node)));
                Ok(())
            }
            Step::Link { ino, parent, name } => self.link(*ino, *parent, name),
            Step::Unlink { parent, name, open } => {
                let node = self.find(*parent, name)?;
                if self.get(node)?.kind == FileKind::Directory {
                    return Err(Errno::EISDIR);
                }
                self.remove(*parent, name, *open);
                Ok(())
            }
            Step::Rmdir { parent, name, open } => {
                let node = self.get(self.find(*parent, name)?)?;
                match node.kind {
                    FileKind::Directory if node.entries.is_empty() => {}
                    FileKind::Directory => return Err(Errno::ENOTEMPTY),
                    _ => return Err(Errno::ENOTDIR),
                }
                self.remove(*parent, name, *open);
                Ok(())
            }
            Step::Rename { from, to, how, open } => self.rename(*from, *to, *how, *open),
            Step::Forget { ino } => {
                let is_free =
                    self.places(*ino).is_empty() && self.nodes[*ino].as_ref().is_some_and(|n| !n.is_root);
                if is_free {
                    self.nodes[*ino] = None;
                }
                Ok(())
            }
            _ => self.change(step),
        }
    }

    /// A directory that passes its project on takes nothing of another.
    fn check_project(&self, parent: Pick, node: usize) -> Result<(), Errno> {
        let parent = self.get(parent)?;
        let is_other = parent.inherit && parent.project != self.get(node)?.project;
        if is_other { Err(Errno::EXDEV) } else { Ok(()) }
    }

    fn inherit(&self, parent: Pick, mut node: Node) -> Node {
        let parent = self.nodes[parent].as_ref().unwrap();
        if parent.mode & 0o2000 != 0 {
            node.gid = parent.gid;
            node.mode |= if node.kind == FileKind::Directory { 0o2000 } else { 0 };
        }
        if parent.inherit {
            node.project = parent.project;
            node.inherit = node.kind == FileKind::Directory;
        }
        node
    }

    fn make(&mut self, parent: Pick, name: &str, mode: u16, what: FileKind, open: bool) -> Result<(), Errno> {
        Model::check_name(name)?;
        if let Some(node) = self.directory(parent)?.entries.get(name) {
            return match (what, open, self.get(*node)?.kind) {
                (FileKind::Regular, true, FileKind::Regular) => Ok(()),
                (FileKind::Regular, true, FileKind::Directory) => Err(Errno::EISDIR),
                _ => Err(Errno::EEXIST),
            };
        }
        let mode = if what == FileKind::Symlink { 0o777 } else { mode & !UMASK };
        let node = self.inherit(parent, Model::node(what, mode));
        self.nodes.push(Some(node));
        self.insert(parent, name, self.nodes.len() - 1);
        Ok(())
    }

    fn link(&mut self, ino: Pick, parent: Pick, name: &str) -> Result<(), Errno> {
        Model::check_name(name)?;
        self.directory(parent)?;
        let node = self.get(ino)?;
        if node.kind == FileKind::Directory {
            return Err(Errno::EPERM);
        }
        if self.places(ino).is_empty() && !node.is_unnamed {
            return Err(Errno::ENOENT);
        }
        if self.directory(parent)?.entries.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        self.check_project(parent, ino)?;
        self.get_mut(ino)?.is_unnamed = false;
        self.insert(parent, name, ino);
        Ok(())
    }

    fn rename(&mut self, from: (Pick, &str), to: (Pick, &str), how: Rename, open: bool) -> Result<(), Errno> {
        Model::check_name(to.1)?;
        let moved = self.find(from.0, from.1)?;
        let other = self.directory(to.0)?.entries.get(to.1).copied();
        match (how, other) {
            (Rename::NoReplace, Some(_)) => return Err(Errno::EEXIST),
            (Rename::Exchange, None) => return Err(Errno::ENOENT),
            (_, Some(other)) if other == moved => return Ok(()),
            _ => {}
        }
        let is_dir = |at: usize| self.nodes[at].as_ref().is_some_and(|node| node.kind == FileKind::Directory);
        if is_dir(moved) && self.is_above(moved, to.0) {
            return Err(Errno::EINVAL);
        }
        self.check_project(to.0, moved)?;
        match (how, other) {
            (Rename::Exchange, Some(other)) => {
                if is_dir(other) && self.is_above(other, from.0) {
                    return Err(Errno::EINVAL);
                }
                self.check_project(from.0, other)?;
                self.insert(from.0, from.1, other);
            }
            (_, Some(victim)) => {
                match (is_dir(moved), is_dir(victim)) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) if !self.get(victim)?.entries.is_empty() => return Err(Errno::ENOTEMPTY),
                    _ => {}
                }
                self.remove(to.0, to.1, open);
                self.nodes[from.0].as_mut().unwrap().entries.remove(from.1);
            }
            (_, None) => drop(self.nodes[from.0].as_mut().unwrap().entries.remove(from.1)),
        }
        self.insert(to.0, to.1, moved);
        Ok(())
    }

    /// What changes one node alone.
    fn change(&mut self, step: &Step) -> Result<(), Errno> {
        match step {
            Step::Chmod { ino, mode } => {
                let node = self.get_mut(*ino)?;
                if node.kind == FileKind::Symlink {
                    return Err(Errno::EOPNOTSUPP);
                }
                node.mode = *mode;
            }
            Step::Chown { ino, uid, gid } => {
                let node = self.get_mut(*ino)?;
                (node.uid, node.gid) = (*uid, *gid);
                node.mode = without_set_id(node.kind, node.mode);
            }
            Step::Project { ino, project, inherit } => {
                let node = self.get_mut(*ino)?;
                node.project = *project;
                node.inherit = *inherit && node.kind == FileKind::Directory;
            }
            Step::Written { ino, size, .. } => {
                let data = &mut self.file(*ino)?.data;
                data.resize(data.len().max(*size as usize), 0);
            }
            Step::Truncate { ino, size } => self.file(*ino)?.data.resize(*size as usize, 0),
            Step::Write { ino, offset, len, byte } => {
                let end = *offset as usize + len;
                let node = self.file(*ino)?;
                if end as u64 > INLINE_BYTES {
                    return Err(Errno::EINVAL);
                }
                node.data.resize(node.data.len().max(end), 0);
                node.data[*offset as usize..end].fill(*byte);
                node.mode = without_set_id(node.kind, node.mode);
            }
            Step::Zero { ino, offset, len } => {
                let data = &mut self.file(*ino)?.data;
                let end = (offset + len).min(INLINE_BYTES).min(data.len() as u64) as usize;
                data[(*offset as usize).min(end)..end].fill(0);
            }
            Step::SetXattr { ino, name, byte, how } => {
                let xattrs = &mut self.get_mut(*ino)?.xattrs;
                match (xattrs.contains_key(*name), how) {
                    (true, XattrHow::Create) => return Err(Errno::EEXIST),
                    (false, XattrHow::Replace) => return Err(Errno::ENODATA),
                    _ => drop(xattrs.insert((*name).to_owned(), *byte)),
                }
            }
            Step::RemoveXattr { ino, name } => {
                self.get_mut(*ino)?.xattrs.remove(*name).ok_or(Errno::ENODATA)?;
            }
            other => unreachable!("{other:?} is done elsewhere"),
        }
        Ok(())
    }
}

fn without_set_id(kind: FileKind, mode: u16) -> u16 {
    match kind {
        FileKind::Directory => mode,
        _ if mode & 0o010 != 0 => mode & !0o6000,
        _ => mode & !0o4000,
    }
}
