//! Random operations on the rows and on a simple tree in memory, which must agree.

mod steps;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use self::steps::{Pick, Step, steps};
use self::tree::{Model, Node, UMASK};
use super::{Fs, INLINE_BYTES, invariants};
use crate::core::namespace::What;
use crate::core::{Errno, FileKind, Ino, SetAttr};
use crate::wire::mds::{Act, Answer, Ask, Make};

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
        let pick = |at: &mut Pick| *at %= count;
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
            | Step::Project { ino, .. }
            | Step::Written { ino, .. }
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
            Step::Project { ino: of, project, inherit } => {
                let (project, project_inherit) = (Some(*project), Some(*inherit));
                let set = SetAttr { project, project_inherit, ..SetAttr::default() };
                return self.by_root(Act::Setattr { ino: self.inos[*of], set });
            }
            Step::Written { ino: of, size, blocks } => {
                let (size, blocks) = (*size, Some(*blocks));
                Act::Written { ino: ino(of), size, mtime: None, blocks, kill_suid_sgid: false }
            }
            Step::Forget { ino: of } => {
                let inos = vec![ino(of)];
                return self.fs.command(What::Forget { inos }, &[]).answer;
            }
        };
        self.fs.act(act)
    }

    fn by_root(&mut self, act: Act) -> Result<Answer, Errno> {
        let cred = std::mem::take(&mut self.fs.cred);
        let answer = self.fs.act(act);
        self.fs.cred = cred;
        answer
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
        assert_eq!(attr.project, node.project, "project of {ino:?}");
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
            let ask = Ask::GetXattr { ino, name: name.as_bytes().to_vec() };
            assert_eq!(self.fs.ask(&ask), Ok(Answer::Bytes(vec![*byte])));
        }
    }
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
