//! An MDT on its disk: a journal of commands, and the rows that they made.
//!
//! ```text
//! change:      apply -> append to the journal -> rows in memory           (under the lock; answered then)
//! sync:        wait for the journal's group commit                        (without the lock)
//! checkpoint:  rows in memory -> one durable transaction -> trim journal  (without the lock)
//! ```
//!
//! A change is answered when its command is in the journal's file: a kill -9 does not undo it. What rows it made stays in
//! memory until a checkpoint puts them into the table, many at once and in order, with the place in the journal of the
//! last command among them. A start applies the commands behind that place again; [`crate::core::namespace::apply`] makes
//! the same of them. The files are described in docs/formats/fs-mdt.md, the reasons in docs/decisions/0006-fs-mdt.md.
//!
//! **Invariant:** rows in memory and table together are what the commands in the journal made, each once and in order.
//! **Invariant:** the table holds nothing of a command that is not durable in the journal.

mod checkpoint;
mod error;
mod journal;
mod label;
mod room;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln_log::Volume;
use kiln_types::Offset;
use kiln_world::Disk;

pub use self::checkpoint::Checkpoint;
pub use self::error::OpenError;
pub use self::journal::Syncing;
pub use self::label::Label;

use self::checkpoint::Saving;
use self::error::Latch;
use self::journal::Journal;
use self::room::{Measure, Room};
use self::table::{Table, View};
use crate::core::changelog::Entry;
use crate::core::namespace::{self, Asked, Changes, Command, Outcome, Over, Rows, Todo, TodoId, Touch, What};
use crate::core::quota::Owner;
use crate::core::{Errno, Ino, ObjectId, OstIndex, SessionId, Spread, Time, Xid};
use crate::wire::mds::{Act, Answer, Ask};
use crate::wire::oss::Space;

/// How an MDT behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A checkpoint is due after so many commands. A start applies as many again.
    pub checkpoint_commands: usize,
    /// And when the rows in memory take so many bytes. They never take much more than four times that.
    pub checkpoint_bytes: usize,
    /// And when the oldest of them is of this age.
    pub checkpoint_age: Duration,
    /// Pages of the table that are kept in memory, in bytes.
    pub cache_bytes: usize,
    /// The journal starts a new file at this size in bytes; only whole files are let go.
    pub journal_segment_bytes: u64,
    /// Changes that need space are refused when the disk has less than this: room for checkpoints, and for removing files.
    pub reserve_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            checkpoint_commands: 200_000,
            checkpoint_bytes: 32 << 20,
            checkpoint_age: Duration::from_secs(30),
            cache_bytes: 256 << 20,
            journal_segment_bytes: 32 << 20,
            reserve_bytes: 64 << 20,
        }
    }
}

impl Settings {
    /// The same for a disk of this size: on a small one journal and reserve leave room for files.
    #[must_use]
    fn on_disk_of(self, total_bytes: u64) -> Settings {
        let share = |bytes: u64, of_disk: u64| bytes.min(total_bytes / of_disk);
        Settings {
            checkpoint_bytes: share(self.checkpoint_bytes as u64, CHECKPOINT_SHARE).max(1) as usize,
            journal_segment_bytes: share(self.journal_segment_bytes, JOURNAL_SHARE).max(1),
            reserve_bytes: share(self.reserve_bytes, RESERVE_SHARE),
            ..self
        }
    }
}

/// What a new MDT is, where there is none yet.
#[derive(Clone, Debug)]
pub struct Format {
    /// What it is called.
    pub label: Label,
    /// The layout of new files.
    pub spread: Spread,
    /// The birthday of its root.
    pub now: Time,
}

/// One part in so many of the disk is the most that [`Settings::checkpoint_bytes`] may be.
const CHECKPOINT_SHARE: u64 = 16;
/// The same of a file of the journal.
const JOURNAL_SHARE: u64 = 32;
/// The same of the reserve.
const RESERVE_SHARE: u64 = 4;
/// When the disk is nearly full, a checkpoint is due when the oldest command is of this age.
const SHORT_AGE: Duration = Duration::from_secs(1);
/// What a row takes in memory beside key and value, roughly.
const ROW_OVERHEAD_BYTES: usize = 64;
/// Rows in memory that no checkpoint has begun with take at most so many times [`Settings::checkpoint_bytes`].
const FRESH_SHARE_MAX: usize = 2;
/// What an inode takes of the disk, with its name and roughly: what is free is told in inodes too.
const INODE_BYTES: u64 = 1024;
/// The disk's space is looked at again after so many bytes of rows.
const SPACE_CHECK_BYTES: usize = 1 << 20;

/// An open MDT. One process has it open at a time, which is seen to by whoever opens the directory.
///
/// Its server keeps it behind one lock: no method waits for the disk, but for [`Mdt::change`] when checkpoints are not run,
/// or do not keep up.
pub struct Mdt {
    label: Label,
    settings: Settings,
    disk: Arc<dyn Disk>,
    journal: Journal,
    table: Table,
    view: View,
    fresh: Fresh,
    /// Rows that a checkpoint is to put, or puts, into the table; they lie between `fresh` and `view`.
    saving: Option<Saving>,
    /// Place in the journal of the last command that was applied.
    applied: Offset,
    latch: Latch,
    /// Bytes of rows until the disk's space is looked at again.
    space_left: usize,
    room: Room,
}

/// Rows that no checkpoint has begun with.
#[derive(Default)]
struct Fresh {
    rows: Changes,
    bytes: usize,
    commands: usize,
    /// The monotonic time at which there was something in it first, as far as it was told.
    since: Option<Duration>,
}

impl Mdt {
    /// Opens the MDT in the directory `dir` of the volume's disk, and applies what its journal holds beyond the table.
    /// Where there is none, it is made. An MDT that is there must be of the filesystem and index that `format` says.
    ///
    /// The volume needs its flusher thread ([`Volume::start`]).
    pub fn open(volume: &Volume, dir: &Path, format: &Format, settings: Settings) -> Result<Mdt, OpenError> {
        let disk = Arc::clone(volume.disk());
        let settings = settings.on_disk_of(disk.space()?.total_bytes);
        let label = label::open(&*disk, dir, &format.label)?;
        // The filesystem is that of whoever serves it, until the root is given to somebody else.
        let owner = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let first = || namespace::format(label.mdt, &format.spread, owner, format.now);
        let (table, applied) = Table::open(&*disk, dir, settings.cache_bytes, &first)?;
        let journal = Journal::open(volume, dir, settings.journal_segment_bytes)?;
        journal.check_together(applied)?;
        let latch = Latch::default();
        let view = table.view(&latch).map_err(|error| OpenError::Rows(error.to_string()))?;
        let mut mdt = Mdt {
            label,
            settings,
            disk,
            journal,
            table,
            view,
            fresh: Fresh::default(),
            saving: None,
            applied,
            latch,
            space_left: 0,
            room: Room::new(settings.reserve_bytes),
        };
        mdt.first_look().map_err(|errno| OpenError::Rows(errno.to_string()))?;
        mdt.count_accounts()?;
        mdt.replay()?;
        Ok(mdt)
    }

    /// Which MDT it is.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Why it answers `EIO` to everything, if it does; its process should end then, and recover at the next start.
    pub fn failed(&self) -> Option<Arc<str>> {
        self.latch.reason()
    }

    /// See [`namespace::ask`].
    pub fn ask(&self, ask: &Ask) -> Result<Asked, Errno> {
        self.read(|rows| namespace::ask(rows, ask))
    }

    /// See [`namespace::touches`].
    pub fn touches(&self, act: &Act) -> Result<Vec<Touch>, Errno> {
        self.read(|rows| namespace::touches(rows, act))
    }

    /// What a session was answered to a change that it asks for again. [`Mdt::change`] finds that out too; this is for who
    /// does not want to call back leases for nothing.
    pub fn reply_to(&self, session: SessionId, xid: Xid) -> Result<Option<Answer>, Errno> {
        self.read(|rows| namespace::reply_to(rows, session, xid))
    }

    /// Every session that began and did not end, with its host's name.
    pub fn sessions(&self) -> Result<Vec<(SessionId, String)>, Errno> {
        self.read(namespace::sessions)
    }

    /// Inodes without a name, at most so many.
    pub fn orphans(&self, count_max: usize) -> Result<Vec<Ino>, Errno> {
        self.read(|rows| namespace::orphans(rows, count_max))
    }

    /// What is to be done at the OSTs, from an entry on, at most so many.
    pub fn todo(&self, from: TodoId, count_max: usize) -> Result<Vec<(TodoId, Todo)>, Errno> {
        self.read(|rows| namespace::todo(rows, from, count_max))
    }

    /// See [`namespace::located`].
    pub fn located(
        &self,
        from: Ino,
        osts: &[OstIndex],
        look_max: usize,
    ) -> Result<(Vec<namespace::Located>, Option<Ino>), Errno> {
        self.read(|rows| namespace::located(rows, from, osts, look_max))
    }

    /// See [`namespace::owners`].
    pub fn owners(
        &self,
        from: Ino,
        ost: OstIndex,
        objects: &BTreeSet<ObjectId>,
        look_max: usize,
    ) -> Result<(Vec<namespace::Owned>, Option<Ino>), Errno> {
        self.read(|rows| namespace::owners(rows, from, ost, objects, look_max))
    }

    /// Records of the changelog that are not where its readers are, at most so many.
    pub fn records(&self, count_max: usize) -> Result<Vec<Entry>, Errno> {
        self.read(|rows| namespace::records(rows, count_max))
    }

    /// See [`namespace::backlog`].
    pub fn backlog(&self) -> Result<(u64, u64), Errno> {
        self.read(namespace::backlog)
    }

    /// What it holds.
    pub fn usage(&self) -> Result<namespace::Usage, Errno> {
        self.read(namespace::usage)
    }

    /// How much more space an owner may use, in bytes; `None` without a limit.
    pub fn room(&self, owner: Owner, now: Time) -> Result<Option<u64>, Errno> {
        self.read(|rows| namespace::room(rows, owner, now))
    }

    /// The space of its disk, with what is free in the table's file; objects are inodes here.
    pub fn space(&self) -> Result<Space, Errno> {
        let disk = self.disk.space().map_err(|error| Errno::from(&error))?;
        let inodes = self.usage()?.inodes;
        let with_reusable = |bytes: u64| (bytes + self.room.reusable_bytes()).min(disk.total_bytes);
        let available_bytes = with_reusable(disk.available_bytes);
        let free_inodes = available_bytes / INODE_BYTES;
        Ok(Space {
            total_bytes: disk.total_bytes,
            free_bytes: with_reusable(disk.free_bytes),
            available_bytes,
            inodes: inodes + free_inodes,
            free_inodes,
        })
    }

    /// Makes a change. When this returns, no kill -9 undoes it; [`Mdt::sync`] makes it outlive a loss of power.
    ///
    /// A full disk refuses with `ENOSPC` what needs space. A refused command changed nothing.
    pub fn change(&mut self, command: &Command, bulk: &[u8]) -> Outcome {
        self.try_change(command, bulk).unwrap_or_else(Outcome::refused)
    }

    /// What waits until everything changed so far is durable. Let go of the MDT's lock before waiting.
    pub fn sync(&self) -> Syncing {
        self.journal.sync(self.applied)
    }

    /// A checkpoint, if one is due at the monotonic time `now` and none is under way. When the disk is nearly full, one may be
    /// due with nothing to save: to find out what is free in the table's file.
    pub fn checkpoint_due(&mut self, now: Duration) -> Option<Checkpoint> {
        self.absorb().ok()?;
        let measure = self.room.is_measure_due(now);
        let fresh = &mut self.fresh;
        let is_due = if fresh.commands > 0 {
            let since = *fresh.since.get_or_insert(now);
            let (commands, age) = if self.room.is_short() {
                (self.room.short_commands() / 2, SHORT_AGE.min(self.settings.checkpoint_age))
            } else {
                (self.settings.checkpoint_commands, self.settings.checkpoint_age)
            };
            fresh.commands >= commands
                || fresh.bytes >= self.settings.checkpoint_bytes
                || now.saturating_sub(since) >= age
        } else {
            measure || self.saving.is_some()
        };
        if !is_due {
            return None;
        }
        let checkpoint = self.checkpoint_of(measure);
        if measure && checkpoint.is_some() {
            self.room.measuring(now);
        }
        checkpoint
    }

    /// A checkpoint of all there is, unless one is under way or there is nothing. To be [run](Checkpoint::run) without the
    /// MDT's lock; one that is dropped instead is begun again by the next call.
    pub fn checkpoint(&mut self) -> Option<Checkpoint> {
        self.absorb().ok()?;
        self.checkpoint_of(false)
    }

    fn checkpoint_of(&mut self, measure: bool) -> Option<Checkpoint> {
        if self.saving.is_none() && (self.fresh.commands > 0 || measure) {
            let fresh = std::mem::take(&mut self.fresh);
            self.saving = Some(Saving::new(fresh.rows, self.applied));
        }
        let saving = self.saving.as_mut()?;
        saving.begin(&self.table, &self.journal, &self.latch, measure)
    }

    /// Whether all that was changed is in the table, durably.
    pub fn is_saved(&self) -> bool {
        self.fresh.commands == 0 && self.saving.as_ref().is_none_or(Saving::is_done)
    }

    /// Ends it in good order: with a checkpoint, so that nothing is left in the journal.
    pub fn close(mut self) -> Result<(), Errno> {
        loop {
            match self.checkpoint() {
                Some(checkpoint) => checkpoint.run(),
                None if self.saving.is_some() => self.wait_saved()?,
                None => return self.latch.check(),
            }
        }
    }

    fn try_change(&mut self, command: &Command, bulk: &[u8]) -> Result<Outcome, Errno> {
        self.latch.check()?;
        self.absorb()?;
        self.make_room()?;
        let (outcome, changes) = self.read(|rows| Ok(namespace::apply(rows, command, bulk)))?;
        if changes.is_empty() {
            return Ok(outcome);
        }
        self.check_space(&command.what)?;
        self.applied = self.journal.append(command, bulk, &self.latch)?;
        let written = self.fresh.merge(changes);
        self.space_left = self.space_left.saturating_sub(written);
        Ok(outcome)
    }

    /// Reads rows. What was said because rows could not be read is not passed on.
    fn read<T>(&self, f: impl FnOnce(&dyn Rows) -> Result<T, Errno>) -> Result<T, Errno> {
        self.latch.check()?;
        let answer = match &self.saving {
            None => f(&Over { changes: &self.fresh.rows, base: &self.view }),
            Some(saving) => {
                let saved = Over { changes: saving.rows(), base: &self.view };
                f(&Over { changes: &self.fresh.rows, base: &saved })
            }
        };
        self.latch.check()?;
        answer
    }

    /// Takes notice of a checkpoint that is done.
    fn absorb(&mut self) -> Result<(), Errno> {
        if let Some(saving) = self.saving.take_if(|saving| saving.is_done()) {
            self.room.saved(saving.measured());
            self.view = self.table.view(&self.latch).map_err(|error| self.latch.fail(&error))?;
        }
        self.latch.check()
    }

    /// Waits until the rows in memory are few enough to take more.
    fn make_room(&mut self) -> Result<(), Errno> {
        while self.fresh.bytes >= self.settings.checkpoint_bytes * FRESH_SHARE_MAX
            || self.room.is_short() && self.fresh.commands >= self.room.short_commands()
        {
            match self.checkpoint() {
                Some(checkpoint) => checkpoint.run(),
                None => self.wait_saved()?,
            }
        }
        Ok(())
    }

    /// Waits for the checkpoint that somebody runs.
    fn wait_saved(&mut self) -> Result<(), Errno> {
        if let Some(saving) = &self.saving {
            saving.wait();
        }
        self.absorb()
    }

    /// Refuses what needs space when the reserve begins.
    fn check_space(&mut self, what: &What) -> Result<(), Errno> {
        if self.space_left > 0 && !self.room.is_short() {
            return Ok(());
        }
        let mut available = self.look_at_space()?;
        if frees(what) {
            return Ok(());
        }
        if self.room.is_compaction_due(available) {
            self.compact(available)?;
            available = self.look_at_space()?;
        }
        let fits =
            if is_data(what) { self.room.takes_data(available) } else { self.room.takes_more(available) };
        if fits { Ok(()) } else { Err(Errno::ENOSPC) }
    }

    /// Looks at what the disk has.
    fn look_at_space(&mut self) -> Result<u64, Errno> {
        let available = self.disk.space().map_err(|error| self.latch.fail(&error))?.available_bytes;
        self.space_left = SPACE_CHECK_BYTES;
        self.room.look(available);
        Ok(available)
    }

    /// A full MDT knows its room before it refuses anything, and applies its journal in small checkpoints.
    fn first_look(&mut self) -> Result<(), Errno> {
        self.look_at_space()?;
        if self.room.is_short() {
            let measure = self.measure()?;
            self.room.saved(Some(measure));
        }
        Ok(())
    }

    /// Gives back to the disk what is free in the table's file, if it is still as much as it seems, and the disk has so much.
    /// Everybody waits for it.
    fn compact(&mut self, available: u64) -> Result<(), Errno> {
        self.wait_saved()?;
        // A checkpoint that nobody runs has to be in the table first, since its rows lie over the view.
        if self.saving.is_some() {
            return Ok(());
        }
        let before = self.measure()?;
        self.room.saved(Some(before));
        if !self.room.is_compaction_due(available) {
            return Ok(());
        }
        let compacted = self.table.compact(&mut self.view).map_err(|error| self.latch.fail(&error))?;
        if compacted {
            let after = self.measure()?;
            self.room.compacted(after);
            tracing::info!(?before, ?after, "the MDT's table gave space back to its disk");
        }
        Ok(())
    }

    fn measure(&self) -> Result<Measure, Errno> {
        self.table.measure().map_err(|error| self.latch.fail(&error))
    }

    /// A table of before there were accounts gets them, as they were at its place in the journal.
    fn count_accounts(&mut self) -> Result<(), OpenError> {
        let counted = self.read(namespace::recount);
        let counted = counted.map_err(|errno| OpenError::Rows(errno.to_string()))?;
        if let Some(accounts) = counted {
            self.fresh.merge(accounts);
        }
        Ok(())
    }

    /// Applies what the journal holds beyond the table.
    fn replay(&mut self) -> Result<(), OpenError> {
        loop {
            let records = self.journal.read(self.applied.next())?;
            if records.is_empty() {
                return Ok(());
            }
            for record in records {
                self.redo(&record)?;
            }
        }
    }

    fn redo(&mut self, record: &journal::Record) -> Result<(), OpenError> {
        let rows_error = |latch: &Latch| OpenError::Rows(latch.reason().unwrap_or_default().to_string());
        self.make_room().map_err(|_| rows_error(&self.latch))?;
        let applied = self.read(|rows| Ok(namespace::apply(rows, &record.command, &record.bulk)));
        let (outcome, changes) = applied.map_err(|_| rows_error(&self.latch))?;
        // Only what was done is in the journal.
        if let Err(errno) = outcome.answer {
            return Err(OpenError::Replay { at: record.at, why: errno.to_string() });
        }
        let written = self.fresh.merge(changes);
        self.applied = record.at;
        self.space_left = self.space_left.saturating_sub(written);
        if self.space_left == 0 {
            self.look_at_space().map_err(|_| rows_error(&self.latch))?;
        }
        Ok(())
    }
}

/// Whether a command gives space back, or needs none worth mentioning: it is done also when the disk is nearly full.
fn frees(what: &What) -> bool {
    let What::Change { change, .. } = what else { return true };
    match change.act {
        Act::Unlink { .. }
        | Act::Rmdir { .. }
        | Act::Rename { .. }
        | Act::Setattr { .. }
        | Act::RemoveXattr { .. }
        | Act::ZeroInline { .. }
        | Act::Written { .. }
        | Act::SetQuota { .. } => true,
        Act::Make { .. }
        | Act::MakeUnnamed { .. }
        | Act::Link { .. }
        | Act::SetXattr { .. }
        | Act::WriteInline { .. }
        | Act::Place { .. }
        | Act::SetLayout { .. }
        | Act::SetDefault { .. }
        | Act::SwapLayouts { .. } => false,
    }
}

/// Whether it is data of a file that is there, or makes room for such.
fn is_data(what: &What) -> bool {
    matches!(what, What::Change { change, .. } if matches!(change.act, Act::WriteInline { .. } | Act::Place { .. }))
}

impl Fresh {
    /// Lays the changes of one command over those of earlier ones; returns the bytes that are in them.
    fn merge(&mut self, changes: Changes) -> usize {
        let bytes_of = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
        let mut written = 0;
        for (key, change) in changes {
            let fixed = key.len() + ROW_OVERHEAD_BYTES;
            let bytes = bytes_of(&change);
            if change.is_none()
                && namespace::is_written_once(&key)
                && let Some(old) = self.rows.remove(&key)
            {
                self.bytes -= fixed + bytes_of(&old);
                continue;
            }
            written += fixed + bytes;
            self.bytes += bytes;
            match self.rows.insert(key, change) {
                Some(old) => self.bytes -= bytes_of(&old),
                None => self.bytes += fixed,
            }
        }
        self.commands += 1;
        written
    }
}
