//! What the tests have in common: a small filesystem in memory.

mod format;
mod invariants;
mod model;
mod moving;
mod posix;
mod quota;
mod storage;

use std::collections::BTreeMap;
use std::ops::Bound;

use super::*;
use crate::core::layout::{PartKind, Stripes};
use crate::core::{Attr, Errno, Ino, OstIndex, SessionId, SetAttr, Spread, Time, Xid};
use crate::wire::mds::{Act, Answer, Ask, Change, Cred, Make, Name, Rename, XattrHow};

/// Rows in memory.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Memory(pub(super) BTreeMap<Vec<u8>, Vec<u8>>);

impl Rows for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        Ok(self.0.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut Each<'_>) -> Result<(), Errno> {
        let range = (Bound::Included(from), Bound::Excluded(to));
        for (key, value) in self.0.range::<[u8], _>(range) {
            if each(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Memory {
    pub(super) fn merge(&mut self, changes: Changes) {
        for (key, change) in changes {
            match change {
                Some(value) => drop(self.0.insert(key, value)),
                None => drop(self.0.remove(&key)),
            }
        }
    }
}

const SESSION: SessionId = SessionId(3);
/// Not a multiple of a page, so that the last one is cut.
const INLINE_BYTES: u64 = 10_000;

/// A filesystem, and somebody who works in it.
pub(super) struct Fs {
    pub(super) rows: Memory,
    pub(super) now: Time,
    pub(super) cred: Cred,
    pub(super) osts: Vec<OstIndex>,
    pub(super) victim_open: bool,
    xid: u64,
}

impl Fs {
    pub(super) fn new() -> Fs {
        let spread = Spread::plain(INLINE_BYTES, 64 << 10, Stripes { count: Some(2), first: None });
        let mut rows = Memory::default();
        rows.merge(format(0, &spread, (0, 0), Time { secs: 1, nanos: 0 }));
        let mut fs = Fs {
            rows,
            now: Time { secs: 100, nanos: 0 },
            cred: Cred { uid: 10, gid: 20, job: String::new() },
            osts: vec![OstIndex(2), OstIndex(0), OstIndex(1)],
            victim_open: false,
            xid: 0,
        };
        fs.command(What::Begin { session: SESSION, host: "host".into() }, &[]).answer.unwrap();
        fs
    }

    pub(super) fn command(&mut self, what: What, bulk: &[u8]) -> Outcome {
        self.now.secs += 1;
        let (outcome, changes) = apply(&self.rows, &Command { now: self.now, what }, bulk);
        if outcome.answer.is_err() {
            assert!(changes.is_empty(), "a refused command changes nothing");
        }
        self.rows.merge(changes);
        outcome
    }

    pub(super) fn outcome(&mut self, act: Act, bulk: &[u8]) -> Outcome {
        self.xid += 1;
        let (xid, done_below) = (Xid(self.xid), Xid(self.xid));
        let change = Change { xid, done_below, cred: self.cred.clone(), act };
        let (osts, victim_open) = (self.osts.clone(), self.victim_open);
        self.command(What::Change { session: SESSION, change, osts, victim_open }, bulk)
    }

    pub(super) fn act(&mut self, act: Act) -> Result<Answer, Errno> {
        self.outcome(act, &[]).answer
    }

    pub(super) fn ask(&self, question: &Ask) -> Result<Answer, Errno> {
        ask(&self.rows, question).map(|asked| asked.answer)
    }

    pub(super) fn make(&mut self, parent: Ino, name: &str, mode: u16, what: Make) -> Result<Attr, Errno> {
        let name = name.as_bytes().to_vec();
        match self.act(Act::Make { parent, name, mode, umask: 0o022, what })? {
            Answer::Entry(attr) | Answer::Opened { attr, .. } => Ok(attr),
            other => panic!("unexpected: {other:?}"),
        }
    }

    pub(super) fn file(&mut self, parent: Ino, name: &str) -> Ino {
        let what = Make::File { spread: None, open: false, exclusive: true };
        self.make(parent, name, 0o644, what).unwrap().ino
    }

    pub(super) fn dir(&mut self, parent: Ino, name: &str) -> Ino {
        self.make(parent, name, 0o755, Make::Directory).unwrap().ino
    }

    pub(super) fn link(&mut self, ino: Ino, parent: Ino, name: &str) -> Result<Answer, Errno> {
        self.act(Act::Link { ino, parent, name: name.into() })
    }

    pub(super) fn unlink(&mut self, parent: Ino, name: &str) -> Outcome {
        self.outcome(Act::Unlink { parent, name: name.into() }, &[])
    }

    pub(super) fn rename(
        &mut self,
        from: (Ino, &str),
        to: (Ino, &str),
        how: Rename,
    ) -> Result<Answer, Errno> {
        let (from, from_name) = (from.0, from.1.into());
        self.act(Act::Rename { from, from_name, to: to.0, to_name: to.1.into(), how })
    }

    pub(super) fn set(&mut self, ino: Ino, set: SetAttr) -> Result<Attr, Errno> {
        match self.act(Act::Setattr { ino, set })? {
            Answer::Attr(attr) => Ok(attr),
            other => panic!("unexpected: {other:?}"),
        }
    }

    pub(super) fn set_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<Answer, Errno> {
        let (name, value) = (name.to_vec(), value.to_vec());
        self.act(Act::SetXattr { ino, name, value, how: XattrHow::Set })
    }

    pub(super) fn write(&mut self, ino: Ino, offset: u64, bytes: &[u8]) -> Result<Answer, Errno> {
        let act = Act::WriteInline { ino, offset, crc: crc32c::crc32c(bytes), mtime: self.now };
        self.outcome(act, bytes).answer
    }

    pub(super) fn read(&self, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
        ask(&self.rows, &Ask::ReadInline { ino, offset, len }).map(|asked| asked.bulk)
    }

    pub(super) fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        match self.ask(&Ask::Getattr { ino })? {
            Answer::Attr(attr) => Ok(attr),
            other => panic!("unexpected: {other:?}"),
        }
    }

    pub(super) fn lookup(&self, parent: Ino, name: &str) -> Result<Ino, Errno> {
        match self.ask(&Ask::Lookup { parent, name: name.into() })? {
            Answer::Entry(attr) => Ok(attr.ino),
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// Reads a directory in pieces of so many bytes.
    pub(super) fn list(&self, ino: Ino, bytes_max: u32) -> Result<Vec<Name>, Errno> {
        let mut all: Vec<Name> = Vec::new();
        loop {
            let after = all.last().map_or(0, |name| name.cursor);
            let Answer::Names { names, end, .. } =
                self.ask(&Ask::Readdir { ino, after, bytes_max, plus: true })?
            else {
                panic!("not names")
            };
            assert!(end || !names.is_empty(), "each piece goes on");
            all.extend(names);
            if end {
                return Ok(all);
            }
        }
    }

    pub(super) fn names(&self, ino: Ino) -> Vec<String> {
        let names = self.list(ino, 100).unwrap();
        names.into_iter().map(|name| String::from_utf8(name.name).unwrap()).collect()
    }

    pub(super) fn paths(&self, ino: Ino) -> Result<Vec<Vec<u8>>, Errno> {
        match self.ask(&Ask::Paths { ino, count_max: 100 })? {
            Answer::Paths(paths) => Ok(paths),
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// A layout of striped parts alone.
fn striped(count: Option<u16>, first: Option<u16>) -> Spread {
    let spread = Spread::plain(0, 64 << 10, Stripes { count, first: first.map(OstIndex) });
    assert!(matches!(spread.parts[0].kind, PartKind::Raid0 { .. }));
    spread
}
