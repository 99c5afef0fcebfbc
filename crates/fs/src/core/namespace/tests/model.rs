//! Random operations on the rows and on a simple tree in memory, which must agree.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Fs, INLINE_BYTES, invariants};
use crate::core::namespace::What;
use crate::core::{Errno, FileKind, Ino, SetAttr};
use crate::wire::mds::{Act, Answer, Make, Rename, XattrHow};

/// Which of the inodes made so far.
type Pick = usize;

#[derive(Clone, Debug)]
enum Step {
    Make { parent: Pick, name: &'static str, mode: u16, what: FileKind, open: bool },
    Unnamed { parent: Pick },
    Link { ino: Pick, parent: Pick, name: &'static str },
    Unlink { parent: Pick, name: &'static str, open: bool },
    Rmdir { parent: Pick, name: &'static str, open: bool },
    Rename { from: (Pick, &'static str), to: (Pick, &'static str), how: Rename, open: bool },
    Chmod { ino: Pick, mode: u16 },
    Chown { ino: Pick, uid: u32, gid: u32 },
    Truncate { ino: Pick, size: u64 },
    Write { ino: Pick, offset: u64, len: usize, byte: u8 },
    Zero { ino: Pick, offset: u64, len: u64 },
    SetXattr { ino: Pick, name: &'static str, byte: u8, how: XattrHow },
    RemoveXattr { ino: Pick, name: &'static str },
    Forget { ino: Pick },
}

#[derive(Clone, Debug)]
struct Node {
    kind: FileKind,
    mode: u16,
    uid: u32,
    gid: u32,
    /// Of a file, all of its bytes.
    data: Vec<u8>,
    entries: BTreeMap<String, usize>,
    xattrs: BTreeMap<String, u8>,
    is_root: bool,
    /// It may get a name although it has none.
    is_unnamed: bool,
}

/// The tree. Nodes are numbered as they are made; one that is gone is `None`.
struct Model {
    nodes: Vec<Option<Node>>,
}

const MODEL_UID: u32 = 10;
const MODEL_GID: u32 = 20;
const UMASK: u16 = 0o022;

impl Model {
    fn new() -> Model {
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

    fn nlink(&self, pick: Pick) -> usize {
        let Some(node) = &self.nodes[pick] else { return 0 };
        let names = self.places(pick).len();
        if node.kind != FileKind::Directory {
            return names;
        }
        let is_dir =
            |at: &&usize| self.nodes[**at].as_ref().is_some_and(|node| node.kind == FileKind::Directory);
        if names == 0 && !node.is_root { 0 } else { 2 + node.entries.values().filter(is_dir).count() }
    }

    fn paths(&self, pick: Pick) -> BTreeSet<String> {
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
    fn step(&mut self, step: &Step) -> Result<(), Errno> {
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

    fn inherit(&self, parent: Pick, mut node: Node) -> Node {
        let parent = self.nodes[parent].as_ref().unwrap();
        if parent.mode & 0o2000 != 0 {
            node.gid = parent.gid;
            node.mode |= if node.kind == FileKind::Directory { 0o2000 } else { 0 };
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
        match (how, other) {
            (Rename::Exchange, Some(other)) => {
                if is_dir(other) && self.is_above(other, from.0) {
                    return Err(Errno::EINVAL);
                }
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

/// Both, and which inode of the one is which node of the other.
struct Pair {
    fs: Fs,
    model: Model,
    inos: Vec<Ino>,
}

impl Pair {
    fn new() -> Pair {
        Pair { fs: Fs::new(), model: Model::new(), inos: vec![Ino::ROOT] }
    }

    fn step(&mut self, step: &Step) {
        let step = &self.picked(step);
        let said = self.model.step(step);
        let answer = self.real(step);
        assert_eq!(answer.as_ref().map(|_| ()).map_err(|errno| *errno), said, "{step:?}");
        let made = match answer {
            Ok(Answer::Entry(attr)) if !matches!(step, Step::Link { .. }) => Some(attr.ino),
            Ok(Answer::Opened { attr, made: true, .. }) => Some(attr.ino),
            _ => None,
        };
        self.inos.extend(made);
        assert_eq!(self.inos.len(), self.model.nodes.len(), "{step:?} makes the same");
    }

    /// The step with picks among what there is.
    fn picked(&self, step: &Step) -> Step {
        let mut step = step.clone();
        let count = self.inos.len();
        let mut pick = |at: &mut Pick| *at %= count;
        match &mut step {
            Step::Make { parent, .. }
            | Step::Unnamed { parent }
            | Step::Unlink { parent, .. }
            | Step::Rmdir { parent, .. } => pick(parent),
            Step::Link { ino, parent, .. } => {
                pick(ino);
                pick(parent);
            }
            Step::Rename { from, to, .. } => {
                pick(&mut from.0);
                pick(&mut to.0);
            }
            Step::Chmod { ino, .. }
            | Step::Chown { ino, .. }
            | Step::Truncate { ino, .. }
            | Step::Write { ino, .. }
            | Step::Zero { ino, .. }
            | Step::SetXattr { ino, .. }
            | Step::RemoveXattr { ino, .. }
            | Step::Forget { ino } => pick(ino),
        }
        step
    }

    fn real(&mut self, step: &Step) -> Result<Answer, Errno> {
        let ino = |pick: &Pick| self.inos[*pick];
        if let Step::Unlink { open, .. } | Step::Rmdir { open, .. } | Step::Rename { open, .. } = step {
            self.fs.victim_open = *open;
        }
        let act = match step {
            Step::Make { parent, name, mode, what, open } => {
                let what = match what {
                    FileKind::Regular => Make::File { spread: None, open: *open, exclusive: !open },
                    FileKind::Directory => Make::Directory,
                    FileKind::Symlink => Make::Symlink { target: b"x".to_vec() },
                    kind => Make::Node { kind: *kind, rdev: 0 },
                };
                Act::Make { parent: ino(parent), name: (*name).into(), mode: *mode, umask: UMASK, what }
            }
            Step::Unnamed { parent } => Act::MakeUnnamed { parent: ino(parent), mode: 0o600, umask: UMASK },
            Step::Link { ino: of, parent, name } => {
                Act::Link { ino: ino(of), parent: ino(parent), name: (*name).into() }
            }
            Step::Unlink { parent, name, .. } => Act::Unlink { parent: ino(parent), name: (*name).into() },
            Step::Rmdir { parent, name, .. } => Act::Rmdir { parent: ino(parent), name: (*name).into() },
            Step::Rename { from, to, how, .. } => Act::Rename {
                from: ino(&from.0),
                from_name: from.1.into(),
                to: ino(&to.0),
                to_name: to.1.into(),
                how: *how,
            },
            Step::Chmod { ino: of, mode } => {
                Act::Setattr { ino: ino(of), set: SetAttr { mode: Some(*mode), ..SetAttr::default() } }
            }
            Step::Chown { ino: of, uid, gid } => {
                let (uid, gid) = (Some(*uid), Some(*gid));
                let set = SetAttr { uid, gid, kill_suid_sgid: true, ..SetAttr::default() };
                Act::Setattr { ino: ino(of), set }
            }
            Step::Truncate { ino: of, size } => {
                Act::Setattr { ino: ino(of), set: SetAttr { size: Some(*size), ..SetAttr::default() } }
            }
            Step::Write { ino: of, offset, len, byte } => {
                return self.fs.write(self.inos[*of], *offset, &vec![*byte; *len]);
            }
            Step::Zero { ino: of, offset, len } => {
                Act::ZeroInline { ino: ino(of), offset: *offset, len: *len }
            }
            Step::SetXattr { ino: of, name, byte, how } => {
                Act::SetXattr { ino: ino(of), name: (*name).into(), value: vec![*byte], how: *how }
            }
            Step::RemoveXattr { ino: of, name } => Act::RemoveXattr { ino: ino(of), name: (*name).into() },
            Step::Forget { ino: of } => {
                let inos = vec![ino(of)];
                return self.fs.command(What::Forget { inos }, &[]).answer;
            }
        };
        self.fs.act(act)
    }

    fn compare(&self) {
        for (pick, ino) in self.inos.iter().enumerate() {
            let Some(node) = &self.model.nodes[pick] else {
                assert_eq!(self.fs.attr(*ino), Err(Errno::ESTALE));
                continue;
            };
            self.compare_node(pick, *ino, node);
        }
        invariants::check(&self.fs.rows);
    }

    fn compare_node(&self, pick: Pick, ino: Ino, node: &Node) {
        let attr = self.fs.attr(ino).unwrap();
        let real = (attr.kind, attr.mode, attr.uid, attr.gid, attr.nlink as usize);
        assert_eq!(real, (node.kind, node.mode, node.uid, node.gid, self.model.nlink(pick)), "{ino:?}");
        let paths = self.fs.paths(ino).unwrap().into_iter().map(|path| String::from_utf8(path).unwrap());
        assert_eq!(paths.collect::<BTreeSet<_>>(), self.model.paths(pick), "paths of {ino:?}");
        match node.kind {
            FileKind::Regular => {
                assert_eq!(attr.size, node.data.len() as u64);
                let read = self.fs.read(ino, 0, u32::MAX).unwrap();
                assert!(read == node.data[..node.data.len().min(INLINE_BYTES as usize)], "bytes of {ino:?}");
            }
            FileKind::Directory => {
                let names = self.fs.list(ino, 60).unwrap().into_iter();
                let real: BTreeMap<_, _> =
                    names.map(|name| (String::from_utf8(name.name).unwrap(), name.ino)).collect();
                let said = node.entries.iter().map(|(name, at)| (name.clone(), self.inos[*at]));
                assert_eq!(real, said.collect());
            }
            _ => {}
        }
        for (name, byte) in &node.xattrs {
            let ask = crate::wire::mds::Ask::GetXattr { ino, name: name.as_bytes().to_vec() };
            assert_eq!(self.fs.ask(&ask), Ok(Answer::Bytes(vec![*byte])));
        }
    }
}

fn names() -> impl Strategy<Value = &'static str> {
    const LONG: &str = concat!(
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
        "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
        "01234567890123456789012345678901234567890123456789012345678901234567890123456789"
    );
    prop_oneof![
        40 => prop::sample::select(vec!["a", "b", "c", "d"]),
        1 => prop::sample::select(vec!["", ".", "..", "a/b", "a\0", LONG]),
    ]
}

fn picks() -> impl Strategy<Value = Pick> {
    // The first are directories more often than not.
    prop_oneof![2 => 0..5_usize, 1 => 0..40_usize]
}

fn steps() -> impl Strategy<Value = Step> {
    let kinds = prop::sample::select(vec![
        FileKind::Regular,
        FileKind::Regular,
        FileKind::Directory,
        FileKind::Directory,
        FileKind::Symlink,
        FileKind::Fifo,
    ]);
    let how =
        prop::sample::select(vec![Rename::Replace, Rename::Replace, Rename::NoReplace, Rename::Exchange]);
    let xattr_how = prop::sample::select(vec![XattrHow::Set, XattrHow::Create, XattrHow::Replace]);
    let xattrs = || prop::sample::select(vec!["user.a", "user.b", "trusted.c"]);
    let offsets = || prop_oneof![0..INLINE_BYTES + 50, Just(0), Just(4096), Just(8192)];
    prop_oneof![
        8 => (picks(), names(), 0..0o10000_u16, kinds, any::<bool>())
            .prop_map(|(parent, name, mode, what, open)| Step::Make { parent, name, mode, what, open }),
        1 => picks().prop_map(|parent| Step::Unnamed { parent }),
        3 => (picks(), picks(), names()).prop_map(|(ino, parent, name)| Step::Link { ino, parent, name }),
        4 => (picks(), names(), any::<bool>())
            .prop_map(|(parent, name, open)| Step::Unlink { parent, name, open }),
        2 => (picks(), names(), any::<bool>()).prop_map(|(parent, name, open)| Step::Rmdir { parent, name, open }),
        6 => ((picks(), names()), (picks(), names()), how, any::<bool>())
            .prop_map(|(from, to, how, open)| Step::Rename { from, to, how, open }),
        1 => (picks(), 0..0o10000_u16).prop_map(|(ino, mode)| Step::Chmod { ino, mode }),
        1 => (picks(), 0..3_u32, 0..3_u32).prop_map(|(ino, uid, gid)| Step::Chown { ino, uid, gid }),
        2 => (picks(), offsets().prop_map(|at| at * 2)).prop_map(|(ino, size)| Step::Truncate { ino, size }),
        4 => (picks(), offsets(), 0..9000_usize, 1..=255_u8)
            .prop_map(|(ino, offset, len, byte)| Step::Write { ino, offset, len, byte }),
        2 => (picks(), offsets(), 0..9000_u64).prop_map(|(ino, offset, len)| Step::Zero { ino, offset, len }),
        2 => (picks(), xattrs(), any::<u8>(), xattr_how)
            .prop_map(|(ino, name, byte, how)| Step::SetXattr { ino, name, byte, how }),
        1 => (picks(), xattrs()).prop_map(|(ino, name)| Step::RemoveXattr { ino, name }),
        1 => picks().prop_map(|ino| Step::Forget { ino }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn rows_and_model_agree(steps in prop::collection::vec(steps(), 1..80)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
        }
        pair.compare();
    }
}
