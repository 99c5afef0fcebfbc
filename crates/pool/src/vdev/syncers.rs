//! Threads that make the disks of a vdev durable at the same time, so that it takes as long as the slowest of them. They stay: to start one
//! takes longer than a flush of flash.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::Leaf;

/// The threads that have nothing to do.
#[derive(Debug, Default)]
pub(super) struct Syncers(Mutex<Vec<Syncer>>);

/// A thread; it ends when this is dropped.
#[derive(Debug)]
struct Syncer {
    leaves: Sender<Arc<Leaf>>,
    /// Whether the leaf has everything.
    synced: Receiver<bool>,
}

impl Syncers {
    /// Makes leaves durable; whether each is.
    pub(super) fn sync_all(&self, leaves: &[&Arc<Leaf>]) -> Vec<bool> {
        let Some((own, others)) = leaves.split_first() else { return Vec::new() };
        let under_way: Vec<Option<Syncer>> = others.iter().map(|leaf| self.begin(leaf)).collect();
        let mut outcomes = vec![own.sync()];
        for (syncer, leaf) in under_way.into_iter().zip(others) {
            outcomes.push(match syncer {
                // A thread that panicked has not told that it did.
                Some(syncer) => syncer.synced.recv().inspect(|_| self.idle().push(syncer)).unwrap_or(false),
                None => leaf.sync(),
            });
        }
        outcomes
    }

    /// Has a thread begin with a leaf; `None` when there is none to be had.
    fn begin(&self, leaf: &Arc<Leaf>) -> Option<Syncer> {
        let idle = self.idle().pop();
        let syncer = idle.or_else(Syncer::start)?;
        syncer.leaves.send(Arc::clone(leaf)).ok()?;
        Some(syncer)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Syncer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Syncer {
    fn start() -> Option<Syncer> {
        let (leaves, to_sync) = channel::<Arc<Leaf>>();
        let (outcomes, synced) = channel();
        let work = move || {
            // Until nobody has it any more.
            while let Ok(leaf) = to_sync.recv() {
                if outcomes.send(leaf.sync()).is_err() {
                    return;
                }
            }
        };
        let started = thread::Builder::new().name("pool-sync".to_owned()).spawn(work);
        started.is_ok().then_some(Syncer { leaves, synced })
    }
}
