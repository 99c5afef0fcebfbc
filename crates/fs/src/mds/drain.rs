//! Empties the OSTs that drain: their objects are copied to other OSTs, file by file, while the files are used.
//!
//! ```text
//! look      nobody else holds the file's data or layout: what was held back is at the OSTs. It is open nowhere
//! spare     an inode without a name gets the new objects (`What::Spare`)
//! copy      without any lock; what is copied is durable on the new OST
//! exchange  nobody else holds the file, it is open nowhere and has not changed: it gets the new objects (`What::Exchange`)
//! forget    the exchange is durable on the MDT; the spare goes, with the old objects
//! ```
//!
//! A file that is open, or changes meanwhile, keeps its objects and is tried again later. Nothing here is remembered: after a
//! restart the inodes are looked through again, and spares that were left behind are orphans, which go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use self::copy::{Copier, CopyError};
use super::MDS_SESSION;
use super::osts::Choice;
use super::serve::{Asker, Attempt, Server, Stop};
use super::state::State;
use crate::core::layout::Stripes;
use crate::core::leases::{OpenMode, Touch};
use crate::core::namespace::{Command, Located, TodoId, What, held};
use crate::core::{Attr, Errno, Ino, Layout, ObjectId, OstIndex};
use crate::wire::mds::{Answer, Ask, DataLease};
use crate::wire::node::{DrainStatus, Kept};

mod copy;

/// How often it is looked whether an OST drains.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Files that stay are tried again after this time; it doubles while none moves.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// The most that it becomes.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(10);
/// Inodes that are looked at under the lock at once.
const LOOK_MAX: usize = if cfg!(test) { 4 } else { 512 };
/// Files whose turn is planned; the inodes are looked through again for more.
const LIST_MAX: usize = 1 << 16;
/// Files that move at once.
const WORKERS: usize = 4;
/// Files that stay and are named, of each OST.
const NAMED_MAX: usize = 100;
/// How often a file that was opened while it was copied is looked at again.
const CLOSED_TRIES: u32 = 5;
/// After this time.
const CLOSED_AFTER: Duration = Duration::from_millis(100);

/// Why a file keeps its objects for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Stay {
    /// A session has it open.
    #[error("it is open")]
    Open,
    /// It has no name, and a session has it open: it goes when that is closed.
    #[error("it is removed, and still open")]
    Removed,
    /// It was changed while it was copied.
    #[error("it was changed while it was copied")]
    Changed,
    /// The other OSTs are full.
    #[error("no other OST has room")]
    NoRoom,
    /// An OST does not answer.
    #[error("an OST that it needs does not answer")]
    Away,
    /// An OST, or the MDT, refused something.
    #[error("failed: {0}")]
    Failed(Errno),
    /// The OST does not drain any more, or the server stops.
    #[error("it is not to move any more")]
    Over,
}

impl From<Stop> for Stay {
    fn from(stop: Stop) -> Stay {
        match stop {
            Stop::Refused(Errno::ESTALE | Errno::EAGAIN) => Stay::Changed,
            Stop::Refused(errno) => Stay::Failed(errno),
            Stop::Busy => Stay::Open,
            Stop::Gone | Stop::Stopping => Stay::Over,
        }
    }
}

impl From<Errno> for Stay {
    fn from(errno: Errno) -> Stay {
        Stop::Refused(errno).into()
    }
}

impl From<CopyError> for Stay {
    fn from(error: CopyError) -> Stay {
        match error {
            CopyError::Away => Stay::Away,
            CopyError::Refused(Errno::ENOSPC) => Stay::NoRoom,
            CopyError::Refused(errno) => Stay::Failed(errno),
            CopyError::Over => Stay::Over,
        }
    }
}

/// A file as it was looked at.
struct Seen {
    attr: Attr,
    layout: Layout,
}

/// How an OST drains.
#[derive(Debug)]
pub(super) struct Drain {
    status: DrainStatus,
    /// Which time it drains.
    time: u64,
    /// What stays, as far as this round has come.
    kept: Vec<Kept>,
    kept_files: u64,
    /// When something moved last, or it began.
    moved_at: Duration,
}

/// What is known of the files that are to move.
#[derive(Default)]
struct Turn {
    /// The OSTs that drain.
    osts: BTreeMap<OstIndex, u64>,
    /// Files that are on them, as far as they are listed.
    files: Vec<Located>,
    /// There are more than these.
    more: bool,
    /// All were looked for.
    counted: bool,
    /// The last pause while none moved.
    again: Duration,
}

impl Server {
    /// Empties what drains, until the server stops.
    pub(super) fn empty_osts(&self) {
        let mut turn = Turn::default();
        let mut pause = LOOK_EVERY;
        while self.pause(pause) {
            let osts = self.osts.draining();
            if osts != turn.osts {
                self.begin_draining(&osts);
                turn = Turn { osts, ..Turn::default() };
            }
            pause = self.empty_some(&mut turn).unwrap_or_else(|errno| {
                tracing::error!(%errno, "what is on the OSTs that drain cannot be looked for");
                AGAIN_AFTER_MAX
            });
        }
    }

    /// Does what there is to do now; when to go on.
    fn empty_some(&self, turn: &mut Turn) -> Result<Duration, Errno> {
        let left: Vec<OstIndex> = {
            let drains = self.drains();
            let is_left = |ost: &&OstIndex| drains.get(ost).is_some_and(|drain| !drain.status.drained);
            turn.osts.keys().filter(is_left).copied().collect()
        };
        if left.is_empty() || turn.counted && turn.files.is_empty() && self.has_todo(&left)? {
            return Ok(LOOK_EVERY);
        }
        if turn.files.is_empty() {
            (turn.files, turn.more) = self.located(&left)?;
            turn.counted = true;
        }
        let before = turn.files.len();
        if before == 0 {
            return Ok(LOOK_EVERY);
        }
        turn.files = self.move_all(&turn.files);
        if turn.files.len() == before {
            turn.again = (turn.again * 2).clamp(AGAIN_AFTER, AGAIN_AFTER_MAX);
            return Ok(turn.again);
        }
        turn.again = Duration::ZERO;
        if turn.more {
            turn.files.clear();
        }
        Ok(if turn.files.is_empty() { Duration::ZERO } else { AGAIN_AFTER })
    }

    /// How the OSTs drain that do.
    pub(super) fn drain_status(&self) -> Vec<DrainStatus> {
        let (now, osts) = (self.now(), self.osts.draining());
        let drains = self.drains();
        let status = osts.into_iter().map(|(ost, time)| match drains.get(&ost) {
            Some(drain) if drain.time == time => {
                let still_secs = now.saturating_sub(drain.moved_at).as_secs();
                DrainStatus { still_secs, ..drain.status.clone() }
            }
            _ => DrainStatus::new(ost),
        });
        status.collect()
    }

    fn drains(&self) -> MutexGuard<'_, BTreeMap<OstIndex, Drain>> {
        self.drains.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_draining(&self, osts: &BTreeMap<OstIndex, u64>) {
        let moved_at = self.now();
        let mut drains = self.drains();
        drains.retain(|ost, drain| osts.get(ost) == Some(&drain.time));
        for (ost, time) in osts {
            drains.entry(*ost).or_insert_with(|| Drain {
                status: DrainStatus::new(*ost),
                time: *time,
                kept: Vec::new(),
                kept_files: 0,
                moved_at,
            });
        }
    }

    /// Looks for files with objects on these OSTs, and whether there are more than are listed. Nothing new is put there any more:
    /// what is not found is not there.
    fn located(&self, osts: &[OstIndex]) -> Result<(Vec<Located>, bool), Errno> {
        let mut files = Vec::new();
        let mut counts: BTreeMap<OstIndex, (u64, u64)> = osts.iter().map(|ost| (*ost, (0, 0))).collect();
        let mut from = Some(Ino(0));
        while let Some(next) = from {
            let (found, further) = self.lock().mdt.located(next, osts, LOOK_MAX)?;
            for one in found {
                let (count, bytes) = counts.entry(one.ost).or_default();
                (*count, *bytes) = (*count + 1, *bytes + one.bytes);
                if files.len() < LIST_MAX {
                    files.push(one);
                }
            }
            from = further;
        }
        let listed = files.len() as u64;
        let is_more = counts.values().map(|(count, _)| count).sum::<u64>() > listed;
        for (ost, (count, bytes)) in counts {
            let drained = count == 0 && !self.has_todo(&[ost])?;
            if let Some(drain) = self.drains().get_mut(&ost) {
                let status = &mut drain.status;
                (status.left_files, status.left_bytes, status.counted) = (count, bytes, true);
                status.drained = drained;
                if drained {
                    tracing::info!(
                        ost = ost.0,
                        moved = status.moved_files,
                        "an OST holds no objects any more"
                    );
                }
            }
        }
        Ok((files, is_more))
    }

    /// Whether an OST is still to destroy or cut objects.
    fn has_todo(&self, osts: &[OstIndex]) -> Result<bool, Errno> {
        for ost in osts {
            let mut next = Some(TodoId(0));
            while let Some(from) = next {
                let page = self.lock().todo(*ost, from)?;
                if !page.entries.is_empty() {
                    return Ok(true);
                }
                next = page.next;
            }
        }
        Ok(false)
    }

    /// Moves files, several at once. Those that stay.
    fn move_all(&self, files: &[Located]) -> Vec<Located> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut copier = Copier::new(self.fs.clone(), self.id);
            let mut stay = Vec::new();
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                if self.is_stopping() {
                    break;
                }
                if !self.move_one(&mut copier, file) {
                    stay.push(*file);
                }
            }
            stay
        };
        let mut stay: Vec<Located> = thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS.min(files.len())).map(|_| scope.spawn(work)).collect();
            // One that panicked has said so, and its files are found again.
            workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
        });
        for drain in self.drains().values_mut() {
            drain.status.kept = std::mem::take(&mut drain.kept);
            drain.status.kept_files = std::mem::take(&mut drain.kept_files);
        }
        stay.sort_unstable_by_key(|file| (file.ino, file.ost));
        stay
    }

    /// Moves a file; whether nothing of it is on the OST any more.
    fn move_one(&self, copier: &mut Copier, file: &Located) -> bool {
        let moved = self.try_move(copier, file);
        let path = moved.is_err().then(|| self.path(file.ino));
        let now = self.now();
        let mut drains = self.drains();
        let Some(drain) = drains.get_mut(&file.ost) else { return true };
        let status = &mut drain.status;
        match moved {
            Ok(bytes) => {
                status.left_files = status.left_files.saturating_sub(1);
                status.left_bytes = status.left_bytes.saturating_sub(file.bytes);
                status.moved_files += u64::from(bytes.is_some());
                status.moved_bytes += bytes.unwrap_or(0);
                drain.moved_at = now;
                true
            }
            Err(Stay::Over) => false,
            Err(why) => {
                tracing::debug!(ino = file.ino.0, ost = file.ost.0, %why, "a file stays on an OST that drains");
                drain.kept_files += 1;
                if drain.kept.len() < NAMED_MAX {
                    drain.kept.push(Kept { path: path.unwrap_or_default(), why: why.to_string() });
                }
                false
            }
        }
    }

    /// The paths of the files that have these objects of an OST. Every inode is looked at, some at a time.
    pub(super) fn owners(
        &self,
        ost: OstIndex,
        objects: &BTreeSet<ObjectId>,
    ) -> Result<Vec<(ObjectId, String)>, Errno> {
        let mut owners = Vec::new();
        let mut from = Some(Ino(0));
        while let Some(next) = from {
            let (found, further) = self.lock().mdt.owners(next, ost, objects, LOOK_MAX)?;
            owners.extend(found.into_iter().map(|(object, ino)| (object, self.path(ino))));
            from = further;
        }
        Ok(owners)
    }

    fn path(&self, ino: Ino) -> String {
        let asked = self.lock().mdt.ask(&Ask::Paths { ino, count_max: 1 }).map(|asked| asked.answer);
        match asked {
            Ok(Answer::Paths(paths)) if !paths.is_empty() => String::from_utf8_lossy(&paths[0]).into_owned(),
            _ => crate::core::Fid(ino).to_string(),
        }
    }

    /// Moves what a file has on an OST: how many bytes, or `None` when it has nothing there.
    fn try_move(&self, copier: &mut Copier, file: &Located) -> Result<Option<u64>, Stay> {
        let Located { ino, ost, .. } = *file;
        let Some(seen) = self.see(ino, ost)? else { return Ok(None) };
        let old = held(&seen.layout, seen.attr.size, ost);
        if old.is_empty() {
            return Ok(None);
        }
        let to = match self.osts.choose(Stripes { count: None, first: None }) {
            Choice::Osts(to) => to,
            Choice::Full => return Err(Stay::NoRoom),
            Choice::Unknown => return Err(Stay::Away),
        };
        let spare = self.spare(ino, ost, to)?;
        let moved = self
            .copy(copier, ost, &old, &spare.new)
            .and_then(|bytes| self.exchange(&seen, ost, spare.ino).map(|()| Some(bytes)));
        if moved.is_ok() {
            // The old objects may go when no loss of power brings the old layout back.
            let syncing = self.lock().mdt.sync();
            syncing.wait()?;
        }
        self.forget_spare(spare.ino);
        moved
    }

    /// Waits until nobody else holds the file, and sees what it is. `None` when it is gone.
    fn see(&self, ino: Ino, ost: OstIndex) -> Result<Option<Seen>, Stay> {
        self.alone(ino, ost, |_, state| match is_there(state, ino)? {
            Some(seen) if seen.attr.nlink == 0 => Err(Stay::Removed),
            seen => Ok(seen),
        })
    }

    /// Does something when no session holds the data, the attributes or the layout of a file, and none has it open.
    fn alone<T>(
        &self,
        ino: Ino,
        ost: OstIndex,
        act: impl Fn(&Server, &mut State) -> Result<T, Stay>,
    ) -> Result<T, Stay> {
        let touches = [(ino, Touch::Meta), (ino, Touch::Data(DataLease::Write))];
        let is_over = || !self.osts.is_draining(ost);
        if is_over() {
            return Err(Stay::Over);
        }
        let asker = Asker { session: MDS_SESSION, is_gone: &is_over };
        let done = self.own_turn(&asker, |state, _| {
            if state.sessions.is_recovering() {
                return Ok(Attempt::Wait(Vec::new()));
            }
            if !state.clear(MDS_SESSION, &touches, self.now()) {
                return Ok(Attempt::Wait(touches.to_vec()));
            }
            if is_open(state, ino) || state.is_gated(ino) {
                return Ok(Attempt::Done(Err(Stay::Open)));
            }
            Ok(Attempt::Done(act(self, state)))
        });
        done?
    }

    /// Makes the new objects.
    fn spare(&self, ino: Ino, from: OstIndex, to: Vec<OstIndex>) -> Result<Spare, Stay> {
        let mut state = self.lock();
        let command = Command { now: self.time(), what: What::Spare { ino, from, to } };
        match self.apply(&mut state, &command, &[]).answer {
            Ok(Answer::Opened { attr, layout, .. }) => {
                state.orphans.insert(attr.ino);
                // It stays for as long as it is open.
                if state.leases.open(MDS_SESSION, attr.ino, OpenMode::Write).is_err() {
                    return Err(Stay::Failed(Errno::ENFILE));
                }
                Ok(Spare { ino: attr.ino, new: layout.objects().collect() })
            }
            Ok(_) | Err(Errno::ENODATA | Errno::ESTALE) => Err(Stay::Changed),
            Err(errno) => Err(errno.into()),
        }
    }

    fn copy(
        &self,
        copier: &mut Copier,
        from: OstIndex,
        old: &[(ObjectId, u64)],
        new: &[(OstIndex, ObjectId)],
    ) -> Result<u64, Stay> {
        if old.len() != new.len() {
            return Err(Stay::Changed);
        }
        let mut bytes = 0;
        for ((object, len), to) in old.iter().zip(new) {
            let goes_on = || self.osts.is_draining(from) && !self.is_stopping();
            bytes += copier.copy(&self.osts, (from, *object), *to, *len, &goes_on)?;
        }
        Ok(bytes)
    }

    /// Gives the file its new objects.
    fn exchange(&self, seen: &Seen, from: OstIndex, spare: Ino) -> Result<(), Stay> {
        let ino = seen.attr.ino;
        let (generation, version) = (seen.layout.generation, seen.attr.version);
        let what = What::Exchange { ino, generation, version, from, spare };
        let exchange = |server: &Server, state: &mut State| {
            let command = Command { now: server.time(), what: what.clone() };
            server.apply(state, &command, &[]).answer.map(drop).map_err(Stay::from)
        };
        let mut tries = 0;
        loop {
            tries += 1;
            match self.alone(ino, from, exchange) {
                Err(Stay::Open) if tries < CLOSED_TRIES && self.pause(CLOSED_AFTER) => {}
                done => return done,
            }
        }
    }

    /// The spare goes, with what it has.
    fn forget_spare(&self, spare: Ino) {
        let mut state = self.lock();
        state.leases.close(MDS_SESSION, spare);
        self.bury(&mut state, std::iter::once(spare));
    }
}

/// A file without a name, and its objects.
struct Spare {
    ino: Ino,
    new: Vec<(OstIndex, ObjectId)>,
}

/// Who opened it without saying so has said it, since nobody holds its attributes.
fn is_open(state: &State, ino: Ino) -> bool {
    state.leases.others(MDS_SESSION, ino).open
}

fn is_there(state: &State, ino: Ino) -> Result<Option<Seen>, Stay> {
    let asked = |ask| state.mdt.ask(&ask).map(|asked| asked.answer);
    match (asked(Ask::Getattr { ino }), asked(Ask::Layout { ino })) {
        (Ok(Answer::Attr(attr)), Ok(Answer::Layout(layout))) => Ok(Some(Seen { attr, layout })),
        (Err(Errno::ESTALE), _) | (_, Err(Errno::ESTALE)) => Ok(None),
        (Err(errno), _) | (_, Err(errno)) => Err(Stay::Failed(errno)),
        _ => Err(Stay::Failed(Errno::EIO)),
    }
}
