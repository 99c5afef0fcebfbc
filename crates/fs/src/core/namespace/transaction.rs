//! A command from its beginning to its outcome.

use std::ops::Bound;

use super::accounts::{self, Enforced};
use super::command::{Command, Outcome, What};
use super::filesystem::{Counters, Filesystem};
use super::inode::Inode;
use super::rows::{Changes, Each, Over, Row, Rows, load};
use super::todo::{Todo, TodoId};
use super::{
    attributes, data, inode, keys, links, log, make, moving, rename, replies, striping, todo, xattr,
};
use crate::core::{Errno, Ino, ObjectId, OstIndex, SessionId, Time};
use crate::wire::mds::{Act, Answer, Change, Cred};

/// What comes of a command with its bulk, and the rows that it changes.
pub fn apply(rows: &dyn Rows, command: &Command, bulk: &[u8]) -> (Outcome, Changes) {
    let mut transaction = Transaction::new(rows, command.now, bulk);
    match transaction.run(&command.what) {
        Ok(Done { answer, repeated: false }) => transaction.finish(answer),
        Ok(Done { answer, repeated: true }) => {
            (Outcome { repeated: true, ..Outcome::unchanged(Ok(answer)) }, Changes::new())
        }
        Err(errno) => (Outcome::refused(errno), Changes::new()),
    }
}

struct Done {
    answer: Answer,
    repeated: bool,
}

/// What a row will be, and what it was.
pub(super) type ChangedRow<'r> = (Option<&'r [u8]>, Result<Option<Vec<u8>>, Errno>);

/// Who may do everything.
pub(super) const ROOT: u32 = 0;

/// A command under way.
pub(super) struct Transaction<'a> {
    base: &'a dyn Rows,
    changes: Changes,
    pub(super) now: Time,
    pub(super) bulk: &'a [u8],
    /// As they will be; `None` until somebody needs them.
    counters: Option<Counters>,
    victim_open: bool,
    unlinked: Option<Ino>,
    todo: Vec<(TodoId, Todo)>,
}

impl Rows for Transaction<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        self.view().get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], each: &mut Each<'_>) -> Result<(), Errno> {
        self.view().scan(from, to, each)
    }
}

impl<'a> Transaction<'a> {
    fn new(base: &'a dyn Rows, now: Time, bulk: &'a [u8]) -> Transaction<'a> {
        Transaction {
            base,
            changes: Changes::new(),
            now,
            bulk,
            counters: None,
            victim_open: false,
            unlinked: None,
            todo: Vec::new(),
        }
    }

    fn view(&self) -> Over<'_> {
        Over { changes: &self.changes, base: self.base }
    }

    fn run(&mut self, what: &What) -> Result<Done, Errno> {
        let mut answer = Answer::Done;
        match what {
            What::Begin { session, host } => replies::begin(self, *session, host)?,
            What::End { session } => replies::end(self, *session)?,
            What::Evict { session, osts } => {
                replies::end(self, *session)?;
                for ost in osts {
                    self.plan(Todo::Fence { ost: *ost, session: *session })?;
                }
            }
            What::Change { session, change, osts, victim_open } => {
                self.victim_open = *victim_open;
                return self.change(*session, change, osts);
            }
            What::Forget { inos } => inos.iter().try_for_each(|ino| links::forget(self, *ino))?,
            What::Trim { inos } => inos.iter().try_for_each(|ino| data::trim(self, *ino))?,
            What::Done { todo } => todo.iter().for_each(|id| todo::done(self, *id)),
            What::Record { on } => log::set_recording(self, *on)?,
            What::Closed { session, inos } => log::closed(self, *session, inos)?,
            What::Recorded { below } => log::recorded(self, *below)?,
            What::Spare { ino, from, to } => answer = moving::spare(self, *ino, *from, to)?,
            What::Exchange { ino, generation, version, from, spare } => {
                let seen = moving::Seen { ino: *ino, generation: *generation, version: *version };
                answer = moving::exchange(self, &seen, *from, *spare)?;
            }
        }
        accounts::settle(self, Enforced::NOTHING)?;
        Ok(Done { answer, repeated: false })
    }

    /// A session's change, unless it was made before.
    fn change(&mut self, session: SessionId, change: &Change, osts: &[OstIndex]) -> Result<Done, Errno> {
        let row = replies::check(self, session, change)?;
        if let Some(answer) = row.reply(change.xid)? {
            return Ok(Done { answer, repeated: true });
        }
        let pen = log::pen(self, &change.act)?;
        let answer = self.act(&change.act, &change.cred, osts)?;
        accounts::settle(self, Enforced::of(&change.act, &change.cred))?;
        if !self.changes.is_empty() {
            replies::remember(self, &row, session, change, &answer)?;
            if let Some(pen) = pen {
                log::changed(self, pen, (session, row.host()), change, &answer);
            }
        }
        Ok(Done { answer, repeated: false })
    }

    fn act(&mut self, act: &Act, cred: &Cred, osts: &[OstIndex]) -> Result<Answer, Errno> {
        match act {
            Act::Make { parent, name, mode, umask, what } => {
                let new = make::New { parent: *parent, mode: *mode, umask: *umask, cred };
                make::make(self, &new, name, what)
            }
            Act::MakeUnnamed { parent, mode, umask } => {
                let new = make::New { parent: *parent, mode: *mode, umask: *umask, cred };
                make::make_unnamed(self, &new)
            }
            Act::Link { ino, parent, name } => links::link(self, *ino, *parent, name),
            Act::Unlink { parent, name } => links::unlink(self, *parent, name),
            Act::Rmdir { parent, name } => links::rmdir(self, *parent, name),
            Act::Rename { from, from_name, to, to_name, how } => {
                rename::rename(self, (*from, from_name), (*to, to_name), *how)
            }
            Act::Setattr { ino, set } => attributes::set(self, *ino, set, cred),
            Act::SetXattr { ino, name, value, how } => xattr::set(self, *ino, name, value, *how),
            Act::RemoveXattr { ino, name } => xattr::remove(self, *ino, name),
            Act::WriteInline { ino, offset, crc, mtime } => {
                data::write(self, *ino, *offset, *crc, *mtime, cred)
            }
            Act::ZeroInline { ino, offset, len } => data::zero(self, *ino, *offset, *len),
            Act::Written { ino, size, mtime, blocks, kill_suid_sgid } => {
                let written = data::Written { size: *size, mtime: *mtime, blocks: *blocks };
                data::written(self, *ino, &written, *kill_suid_sgid)
            }
            Act::Place { ino, offset } => striping::place(self, *ino, *offset, osts),
            Act::SetLayout { ino, spread } => striping::set_layout(self, *ino, spread),
            Act::SetDefault { ino, spread } => striping::set_default(self, *ino, spread.as_ref()),
            Act::SwapLayouts { one, other } => striping::swap(self, *one, *other),
            Act::SetQuota { kind, set } => accounts::set(self, *kind, set, cred),
        }
    }

    fn finish(mut self, answer: Answer) -> (Outcome, Changes) {
        if let Some(counters) = self.counters.take() {
            self.put(keys::COUNTERS, counters.encode());
        }
        let Transaction { unlinked, todo, changes, .. } = self;
        (Outcome { answer: Ok(answer), unlinked, todo, repeated: false }, changes)
    }

    pub(super) fn put(&mut self, key: &[u8], value: Vec<u8>) {
        self.changes.insert(key.to_vec(), Some(value));
    }

    pub(super) fn delete(&mut self, key: &[u8]) {
        self.changes.insert(key.to_vec(), None);
    }

    /// Deletes every row of a range.
    pub(super) fn delete_all(&mut self, (from, to): &keys::Range) -> Result<(), Errno> {
        let mut found = Vec::new();
        self.scan(from, to, &mut |key, _| {
            found.push(key.to_vec());
            std::ops::ControlFlow::Continue(())
        })?;
        self.changes.extend(found.into_iter().map(|key| (key, None)));
        Ok(())
    }

    /// Rows of a range that are changed: what they will be, and what they were.
    pub(super) fn changed_rows(&self, (from, to): &keys::Range) -> impl Iterator<Item = ChangedRow<'_>> {
        let range = (Bound::Included(from.as_slice()), Bound::Excluded(to.as_slice()));
        let changed = self.changes.range::<[u8], _>(range);
        changed.map(|(key, after)| (after.as_deref(), self.base.get(key)))
    }

    pub(super) fn inode(&self, ino: Ino) -> Result<Inode, Errno> {
        inode::get(self, ino)
    }

    pub(super) fn save(&mut self, inode: &Inode) {
        self.put(&keys::inode(inode.attr.ino), inode.encode());
    }

    pub(super) fn filesystem(&self) -> Result<Filesystem, Errno> {
        load(self, keys::FILESYSTEM)?.ok_or(Errno::EIO)
    }

    pub(super) fn counters(&mut self) -> Result<&mut Counters, Errno> {
        if self.counters.is_none() {
            self.counters = Some(load(self.base, keys::COUNTERS)?.ok_or(Errno::EIO)?);
        }
        self.counters.as_mut().ok_or(Errno::EIO)
    }

    /// A number for a new inode, which is counted.
    pub(super) fn new_ino(&mut self) -> Result<Ino, Errno> {
        let counters = self.counters()?;
        let ino = Ino::new(counters.mdt, counters.ino_next);
        counters.ino_next += 1;
        counters.inodes += 1;
        Ok(ino)
    }

    pub(super) fn new_object(&mut self) -> Result<ObjectId, Errno> {
        let counters = self.counters()?;
        let object = ObjectId(counters.object_next);
        counters.object_next += 1;
        Ok(object)
    }

    /// Puts something on the to-do list.
    pub(super) fn plan(&mut self, todo: Todo) -> Result<(), Errno> {
        let counters = self.counters()?;
        let id = TodoId(counters.todo_next);
        counters.todo_next += 1;
        self.put(&keys::todo(id), todo.encode());
        self.todo.push((id, todo));
        Ok(())
    }

    /// What has lost its last name by this.
    pub(super) fn unlinked(&self) -> Option<Ino> {
        self.unlinked
    }

    /// An inode has lost its last name; whether it stays until it is closed.
    pub(super) fn lost_last_name(&mut self, ino: Ino) -> bool {
        self.unlinked = Some(ino);
        self.victim_open
    }
}
