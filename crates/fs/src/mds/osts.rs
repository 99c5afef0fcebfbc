//! The MDS as a client of the OSTs: their space, where new objects go, and what is to be done there.
//!
//! Each OST has a thread of its own, so that one that hangs holds up nobody else. It looks at the OST's space now and then,
//! and does what the MDT's list has for it until it is done, however long that takes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::core::layout::Stripes;
use crate::core::namespace::{Todo, TodoId};
use crate::core::placement::{Candidate, Placement};
use crate::core::{OstIndex, SessionId};
use crate::wire::mgs::{Address, FsId, Ost};
use crate::wire::oss::Space;

mod target;

use target::{Reach, Target};

/// The session in which the MDS speaks to the OSTs. No client has it, and nobody fences it.
pub const MDS_SESSION: SessionId = SessionId(0);
/// An OST with less than this is full, in bytes.
const FULL_BYTES: u64 = 1 << 20;
/// An OST with less than one of so many parts free is full.
const FULL_SHARE: u64 = 1000;

/// Where the threads get their work.
pub(super) trait Work: Send + Sync + 'static {
    /// Entries for an OST from `from` on; `None` when they cannot be read.
    fn todo(&self, ost: OstIndex, from: TodoId) -> Option<Page>;

    /// These are done.
    fn done(&self, entries: &[(TodoId, Todo)]);

    /// An OST answers that did not.
    fn reached(&self);
}

/// Some of the list.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) entries: Vec<(TodoId, Todo)>,
    /// Where to go on; `None` when there are no more now.
    pub(super) next: Option<TodoId>,
}

/// Where new objects may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// The best first.
    Osts(Vec<OstIndex>),
    /// Nowhere: what there is, is full.
    Full,
    /// It is not known: an OST that matters does not answer.
    Unknown,
}

/// See the module.
pub(super) struct Osts {
    fs: String,
    id: FsId,
    targets: Mutex<BTreeMap<OstIndex, Running>>,
    placement: Mutex<Placement>,
}

struct Running {
    target: Arc<Target>,
    thread: JoinHandle<()>,
}

impl Osts {
    /// No OSTs yet.
    pub(super) fn new(fs: String, id: FsId) -> Osts {
        Osts { fs, id, targets: Mutex::default(), placement: Mutex::default() }
    }

    /// From now on there are these. Returns when the threads of those that are gone have ended.
    pub(super) fn replace(&self, work: &Arc<dyn Work>, osts: &[Ost]) {
        let mut gone = Vec::new();
        {
            let mut targets = self.targets();
            let keeps = |index: &OstIndex| osts.iter().any(|ost| ost.index == *index);
            gone.extend(targets.extract_if(.., |index, _| !keeps(index)).map(|(_, running)| running));
            for ost in osts {
                if let Some(running) = targets.get(&ost.index) {
                    running.target.configure(ost);
                    continue;
                }
                let target = Arc::new(Target::new((self.fs.clone(), self.id), ost.clone()));
                let thread = target::start(&target, Arc::clone(work));
                targets.insert(ost.index, Running { target, thread });
            }
        }
        end(gone);
    }

    /// Ends every thread.
    pub(super) fn stop(&self) {
        let all = std::mem::take(&mut *self.targets());
        end(all.into_values().collect());
    }

    /// Which OSTs there are.
    pub(super) fn indices(&self) -> Vec<OstIndex> {
        self.targets().keys().copied().collect()
    }

    /// Those that drain, each with which time it does.
    pub(super) fn draining(&self) -> BTreeMap<OstIndex, u64> {
        let targets = self.targets();
        targets.iter().filter_map(|(index, running)| Some((*index, running.target.drains()?))).collect()
    }

    /// Whether this one drains.
    pub(super) fn is_draining(&self, ost: OstIndex) -> bool {
        self.targets().get(&ost).is_some_and(|running| running.target.is_draining())
    }

    /// Where its server is.
    pub(super) fn address(&self, ost: OstIndex) -> Option<Address> {
        self.targets().get(&ost).map(|running| running.target.address())
    }

    /// There is something new on the list. Called under the lock under which it was put there.
    pub(super) fn wake(&self, entries: &[(TodoId, Todo)]) {
        let targets = self.targets();
        for entry in entries {
            if let Some(running) = targets.get(&entry.1.ost()) {
                running.target.wake(*entry);
            }
        }
    }

    /// The space of each; `None` for one that does not answer.
    pub(super) fn space(&self) -> Vec<(OstIndex, Option<Space>)> {
        self.targets().iter().map(|(index, running)| (*index, running.target.space())).collect()
    }

    /// Where the objects of a component may go.
    pub(super) fn choose(&self, wanted: Stripes) -> Choice {
        let states: Vec<(OstIndex, Reach, bool)> = {
            let targets = self.targets();
            targets
                .iter()
                .map(|(index, one)| (*index, one.target.reach(), one.target.is_draining()))
                .collect()
        };
        let usable = states.iter().filter(|(_, _, draining)| !draining);
        let candidates: Vec<Candidate> = usable
            .clone()
            .filter_map(|(ost, reach, _)| match reach {
                Reach::Up(space) if has_room(space) => {
                    Some(Candidate { ost: *ost, free_bytes: space.available_bytes })
                }
                _ => None,
            })
            .collect();
        let is_away = |wanted: Option<OstIndex>| {
            usable.clone().any(|(ost, reach, _)| {
                wanted.is_none_or(|wanted| wanted == *ost) && !matches!(reach, Reach::Up(_))
            })
        };
        let is_there = |first: OstIndex| candidates.iter().any(|candidate| candidate.ost == first);
        match wanted.first {
            Some(first) if !is_there(first) && is_away(Some(first)) => Choice::Unknown,
            Some(first) if !is_there(first) => Choice::Full,
            _ if candidates.is_empty() && is_away(None) => Choice::Unknown,
            _ if candidates.is_empty() => Choice::Full,
            _ => {
                let mut placement = self.placement.lock().unwrap_or_else(PoisonError::into_inner);
                Choice::Osts(placement.order(wanted, candidates))
            }
        }
    }

    fn targets(&self) -> MutexGuard<'_, BTreeMap<OstIndex, Running>> {
        // Nothing under this lock can panic halfway.
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn has_room(space: &Space) -> bool {
    space.available_bytes >= FULL_BYTES.max(space.total_bytes / FULL_SHARE) && space.free_inodes > 0
}

fn end(running: Vec<Running>) {
    for one in &running {
        one.target.stop();
    }
    for one in running {
        // It panics nowhere; and if it did, it would be over too.
        let _ = one.thread.join();
    }
}
