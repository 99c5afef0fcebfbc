//! Quotas, as a mount keeps to them.
//!
//! With the attributes of a file the MDS says how much space its owner has left, and does not refuse what is written back
//! later: so it is here that a program is told `EDQUOT`, before its data is taken. What was written and not yet told to the
//! MDS is the owner's debt. Up to a quarter of what is left may be held back; what goes beyond is written through and told at
//! once, until nothing is left. So one mount never takes more than there is but for what several threads write at the same
//! moment, and several mounts together no more than a quarter each of what was left when they asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::file::State;
use super::{FileData, Mode};
use crate::core::quota::{BLOCK_BYTES, Owner};
use crate::core::{Errno, Extent, Ino};

/// What part of the space that is left may be held back: one in so many.
const SHARE: u64 = 4;
/// The space that the first byte of a piece takes.
const PIECE_BYTES: u64 = 4096;

/// What owners may have used without the MDS knowing it.
#[derive(Default)]
pub(super) struct Debts(Mutex<HashMap<Owner, Debt>>);

#[derive(Default)]
struct Debt {
    bytes: u64,
    /// Whose data it is. **Invariant:** not empty while there is a debt.
    files: HashMap<Ino, Weak<FileData>>,
}

impl Debts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Owner, Debt>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is untold of a file has changed, or who owns it.
    pub(super) fn change(&self, ino: Ino, file: &Weak<FileData>, old: (Owner, u64), new: (Owner, u64)) {
        let mut debts = self.lock();
        if old.1 > 0
            && let Some(debt) = debts.get_mut(&old.0)
        {
            debt.bytes = debt.bytes.saturating_sub(old.1);
            if new.1 == 0 || new.0 != old.0 {
                debt.files.remove(&ino);
            }
            if debt.files.is_empty() {
                debts.remove(&old.0);
            }
        }
        if new.1 > 0 {
            let debt = debts.entry(new.0).or_default();
            debt.bytes = debt.bytes.saturating_add(new.1);
            debt.files.entry(ino).or_insert_with(|| Weak::clone(file));
        }
    }

    fn bytes(&self, owner: Owner) -> u64 {
        self.lock().get(&owner).map_or(0, |debt| debt.bytes)
    }

    /// The files of some owners that the MDS does not know all of.
    pub(super) fn files(&self, of: impl Fn(Owner) -> bool) -> Vec<Arc<FileData>> {
        let debts = self.lock();
        let theirs = debts.iter().filter(|(owner, _)| of(**owner));
        theirs.flat_map(|(_, debt)| debt.files.values().filter_map(Weak::upgrade)).collect()
    }
}

impl FileData {
    /// As [`FileData::write`], where the owner of the file has the space; `EDQUOT` where not.
    pub fn write_within_quota(&self, offset: u64, data: &[u8], mode: Mode, sync: bool) -> Result<(), Errno> {
        let at_once = self.afford(offset, data.len() as u64)?;
        self.write(offset, data, mode, sync)?;
        if at_once { self.flush() } else { Ok(()) }
    }

    /// As [`FileData::fallocate`], where the owner of the file has the space; `EDQUOT` where not.
    pub fn fallocate_within_quota(&self, bits: i32, offset: u64, len: u64, mode: Mode) -> Result<(), Errno> {
        let takes_space = bits & !libc::FALLOC_FL_KEEP_SIZE == 0;
        let at_once = takes_space && self.afford(offset, len)?;
        self.fallocate(bits, offset, len, mode)?;
        if at_once { self.flush() } else { Ok(()) }
    }

    /// Who pays for the file.
    pub fn owner(&self) -> Owner {
        self.lock().told.owner
    }

    /// Whether the owner has space for so much; and whether the MDS is to be told of it at once.
    fn afford(&self, offset: u64, len: u64) -> Result<bool, Errno> {
        let extent = Extent { start: offset, end: offset.saturating_add(len) };
        let (owner, cost) = {
            let state = self.alive()?;
            (state.told.owner, state.cost(extent))
        };
        if cost == 0 {
            return Ok(false);
        }
        let Some(room) = self.mount.mds.room(owner) else { return Ok(false) };
        if self.mount.debts.bytes(owner).saturating_add(cost) <= room / SHARE {
            return Ok(false);
        }
        self.pay(owner)?;
        // What is written meanwhile by others is counted here; that it is also told by then does no harm but to them.
        let (debt, room) = (self.mount.debts.bytes(owner), self.mount.mds.room(owner));
        match room {
            Some(room) if debt.saturating_add(cost) > room => Err(Errno::EDQUOT),
            Some(room) => Ok(debt.saturating_add(cost) > room / SHARE),
            None => Ok(false),
        }
    }

    /// Tells the MDS all that an owner has used, and asks what he has left.
    fn pay(&self, owner: Owner) -> Result<(), Errno> {
        for file in self.mount.debts.files(|debtor| debtor == owner) {
            file.account();
        }
        let attr = self.heed(self.mount.mds.attr(self.ino))?;
        self.set_size(&attr, None);
        Ok(())
    }

    /// Tells the MDS what the file uses. A failure is told by the next flush.
    pub(super) fn account(&self) {
        let mut state = self.lock();
        // Somebody may be about to tell it; who waits here cannot rely on that.
        state.blocks_due = true;
        drop(state);
        self.write_back_noting_errors();
    }
}

impl State {
    /// The space that a write may take, in bytes; more rather than less.
    pub(super) fn cost(&self, extent: Extent) -> u64 {
        let dense = self.told.blocks >= self.told.size.div_ceil(BLOCK_BYTES);
        let start = if dense { extent.start.max(self.told.size) } else { extent.start };
        let appends = start <= self.size && extent.end > self.size;
        // The rest of the last piece is paid for.
        let first = if appends { start.div_ceil(PIECE_BYTES) } else { start / PIECE_BYTES };
        let end = extent.end.div_ceil(PIECE_BYTES);
        if start >= extent.end { 0 } else { end.saturating_sub(first) * PIECE_BYTES }
    }

    /// Something was written that may take space.
    pub(super) fn owe(&mut self, extent: Extent) {
        self.unaccounted = self.unaccounted.saturating_add(self.cost(extent));
    }
}
