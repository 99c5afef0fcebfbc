//! What a mount does in its spare time: it tells the MDS which files are closed and which leases it does not need, what jobs
//! did, and that the session lives; and gives memory back when nobody reads or writes.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::Client;
use super::cache::{Inode, everything};
use super::data::{FileData, Mds};
use super::session::Waiter;
use crate::core::Ino;
use crate::core::segment::free_kept;
use crate::wire::mds::{Ask, Leases, Op};

/// How long the MDS is not told of a closed file: programs open the same files again and again.
const LINGER: Duration = Duration::from_millis(500);
/// How often the MDS is told what jobs did.
const TELL_JOBS: Duration = Duration::from_secs(3);
/// When no data went to or came from an OST for so long, what is kept for the next reads and writes goes.
const QUIET: Duration = Duration::from_secs(10);
/// Files and leases in one message, or jobs.
const BATCH_MAX: usize = 512;

#[derive(Default)]
struct Todo {
    /// Files whose last handle is gone.
    closed: BTreeSet<Ino>,
    /// Files that are closed, with a lease on their data.
    idle: BTreeSet<Ino>,
    /// Inodes that the kernel does not refer to any more.
    dropped: BTreeSet<Ino>,
    ended: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct House {
    todo: Mutex<Todo>,
    more: Condvar,
}

impl House {
    fn todo(&self) -> MutexGuard<'_, Todo> {
        self.todo.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last handle of a file is gone.
    pub(crate) fn closed(&self, ino: Ino) {
        self.todo().closed.insert(ino);
    }

    /// The kernel does not refer to an inode any more.
    pub(crate) fn dropped(&self, ino: Ino) {
        self.todo().dropped.insert(ino);
    }

    pub(crate) fn end(&self) {
        self.todo().ended = true;
        self.more.notify_all();
    }

    /// Tells the MDS at once that a file is closed, if it is: somebody else wants it, and would otherwise share it with a
    /// program that is done with it.
    pub(crate) fn close_now(&self, client: &Client, inode: &Arc<Inode>) {
        if self.todo().closed.remove(&inode.ino) {
            client.tell_closed(&[inode.ino]);
        }
    }

    /// Waits for a while; `false` when the mount ends.
    fn rest(&self) -> bool {
        let waited = self.more.wait_timeout_while(self.todo(), LINGER, |todo| !todo.ended);
        !waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    fn take(&self, of: fn(&mut Todo) -> &mut BTreeSet<Ino>) -> Vec<Ino> {
        std::mem::take(of(&mut self.todo())).into_iter().collect()
    }
}

/// Since when no data went to the OSTs or came from them.
struct Quiet {
    moved: u64,
    since: Instant,
    /// What is kept is gone.
    given_back: bool,
}

impl Quiet {
    fn begin(client: &Client) -> Quiet {
        Quiet { moved: client.osts.moved(), since: Instant::now(), given_back: false }
    }

    /// Gives memory back when it has been quiet for long enough.
    fn look(&mut self, client: &Client) {
        if client.osts.moved() != self.moved {
            *self = Quiet::begin(client);
        } else if !self.given_back && self.since.elapsed() > QUIET {
            self.given_back = true;
            // Nobody has asked for it in so long, and it may lie in memory that connections lend.
            for inode in client.meta.inodes.all() {
                let file = inode.state().file.clone();
                if let Some(file) = file {
                    file.forget_clean();
                }
            }
            client.osts.close_idle();
            free_kept();
            trim_heap();
        }
    }
}

/// What was freed goes back to the system: the allocator keeps it where it lies between what is not free.
fn trim_heap() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "a call of the C library's allocator")]
    // SAFETY: it takes the allocator's own locks, and touches nothing but what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Works until the mount ends.
pub(crate) fn keep_house(client: &Arc<Client>) {
    let mut quiet = Quiet::begin(client);
    let mut pinged = Instant::now();
    let mut told_jobs = Instant::now();
    let mut lapsed = false;
    while client.house.rest() {
        let lapses = client.meta.session.may_be_evicted();
        if lapses {
            // Nothing that is done here could be told to the MDS.
            if !lapsed {
                lapse(client);
            }
            lapsed = true;
            continue;
        }
        lapsed = false;
        for closed in client.house.take(|todo| &mut todo.closed).chunks(BATCH_MAX) {
            client.tell_closed(closed);
        }
        for idle in client.house.take(|todo| &mut todo.idle).chunks(BATCH_MAX) {
            client.give_back(idle, |inode| client.give_up_idle(inode));
        }
        for dropped in client.house.take(|todo| &mut todo.dropped).chunks(BATCH_MAX) {
            // Before any release begins: this may take long, and until a release is done nobody gets the lease again.
            for ino in dropped {
                client.let_go(*ino);
            }
            client.give_back(dropped, |inode| client.give_up_dropped(inode));
        }
        quiet.look(client);
        if told_jobs.elapsed() > TELL_JOBS {
            told_jobs = Instant::now();
            client.tell_jobs();
        }
        let Some(lifetime) = client.meta.session.lifetime() else { continue };
        if pinged.elapsed() > lifetime / 3 {
            pinged = Instant::now();
            // An end of the session ends this thread too.
            let _ = client.meta.session.ping(lifetime / 3);
        }
    }
}

/// The MDS has a right to count this mount out: what the kernel keeps may be stale from now on, and is dropped. Data that
/// was not written back stays, in case the session is resumed.
fn lapse(client: &Arc<Client>) {
    tracing::warn!("the MDS was not heard for as long as a session lives: nothing is kept any more");
    let lapsing = Arc::clone(client);
    // On a thread of its own: pages may be waiting for a server.
    let spawned = thread::Builder::new().name("fs-lapse".to_owned()).spawn(move || lapsing.drop_clean());
    if let Err(error) = spawned {
        tracing::error!(%error, "no thread to drop what may be stale");
    }
}

impl Client {
    /// Tells the MDS which files are closed, and keeps those that were opened again.
    fn tell_closed(&self, inos: &[Ino]) {
        let closing: Vec<Arc<Inode>> = inos.iter().filter_map(|ino| self.begin_closing(*ino)).collect();
        if closing.is_empty() {
            return;
        }
        let inos = closing.iter().map(|inode| inode.ino).collect();
        let told = self.meta.session.ask(Ask::Close { inos }, Waiter::MOUNT);
        if let Ok(answered) = told {
            drop(self.meta.absorb(answered.grants, answered.stamp));
        }
        for inode in closing {
            inode.closed();
            self.meta.inodes.tidy(&inode);
        }
    }

    /// Tells the MDS what jobs did. What is not heard is not told again: it would count twice if it was heard after all.
    pub(crate) fn tell_jobs(&self) {
        for deltas in self.jobs.take().chunks(BATCH_MAX) {
            if let Err(errno) = self.meta.session.tell(Op::Jobs(deltas.to_vec())) {
                tracing::debug!(%errno, "the MDS was not told what jobs did");
            }
        }
    }

    fn begin_closing(&self, ino: Ino) -> Option<Arc<Inode>> {
        let inode = self.meta.inodes.find(ino)?;
        let mut state = inode.state();
        if state.opens > 0 || state.closing {
            return None;
        }
        if state.told.is_none() {
            // It was opened without asking, and closed before anybody wanted to know.
            self.house.todo().idle.insert(ino);
            return None;
        }
        state.told = None;
        state.closing = true;
        let unused = state.lookups == 0;
        drop(state);
        let mut todo = self.house.todo();
        if unused {
            todo.dropped.insert(ino)
        } else {
            todo.idle.insert(ino)
        };
        Some(inode)
    }

    /// The kernel has dropped references to an inode.
    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        if self.meta.inodes.forget(ino, count).is_some() {
            self.house.dropped(ino);
        }
    }

    /// Gives leases back, those that `give_up` takes from each inode.
    fn give_back(&self, inos: &[Ino], give_up: impl Fn(&Arc<Inode>) -> Option<Leases>) {
        let releasing: Vec<(Arc<Inode>, Leases)> =
            inos.iter().filter_map(|ino| self.begin_release(*ino, &give_up)).collect();
        if !releasing.is_empty() {
            let leases = releasing.iter().map(|(inode, leases)| (inode.ino, *leases)).collect();
            // The session's end releases them as well.
            let _ = self.meta.session.ask(Ask::Release { leases }, Waiter::MOUNT);
        }
        let ticket = self.meta.session.ticket();
        for (inode, _) in releasing {
            self.meta.inodes.released(inode.ino, ticket);
            self.meta.inodes.tidy(&inode);
        }
    }

    fn begin_release(
        &self,
        ino: Ino,
        give_up: &impl Fn(&Arc<Inode>) -> Option<Leases>,
    ) -> Option<(Arc<Inode>, Leases)> {
        let inode = self.meta.inodes.find(ino)?;
        // Until the release is done no answer about the inode is kept, so that what is noted here stays true.
        self.meta.inodes.releasing(ino);
        if let Some(leases) = give_up(&inode) {
            return Some((inode, leases));
        }
        self.meta.inodes.released(ino, self.meta.session.ticket());
        self.meta.inodes.tidy(&inode);
        None
    }

    /// Writes back what is left of a file that nobody uses any more, unless nobody can ever read it.
    fn let_go(&self, ino: Ino) {
        let Some(inode) = self.meta.inodes.find(ino) else { return };
        let Some(file) = unreferenced(&inode) else { return };
        if !file.holds_back() {
            return;
        }
        match self.meta.attr(inode.ino) {
            // Also without a name: another mount may have it open. One that nobody has open is gone by now.
            Ok(_) => file.flush_unheard(),
            Err(_) => file.discard(),
        }
    }

    /// Takes the lease on the data of a file that is closed, once everything is written back: whoever opens it next need not
    /// call it back, and who removes it need not ask whether it is open. While pages are kept, the lease is too.
    fn give_up_idle(&self, inode: &Arc<Inode>) -> Option<Leases> {
        let file = inode.state().file.clone();
        if file.is_some_and(|file| file.holds_back()) {
            self.house.todo().idle.insert(inode.ino);
            return None;
        }
        everything(inode.state().give_up_data())
    }

    /// Takes the leases from an inode that is not used; `None` when it is, or has none.
    fn give_up_dropped(&self, inode: &Arc<Inode>) -> Option<Leases> {
        if let Some(file) = unreferenced(inode)
            && file.holds_data_back()
        {
            // Since it was let go of it was opened, written and closed again.
            self.house.dropped(inode.ino);
            return None;
        }
        let mut state = inode.state();
        if state.lookups > 0 || state.is_open_at_mds() {
            return None;
        }
        state.file = None;
        everything(state.give_up())
    }
}

/// The data of a file to which nobody refers any more.
fn unreferenced(inode: &Inode) -> Option<Arc<FileData>> {
    let state = inode.state();
    if state.lookups > 0 || state.is_open_at_mds() { None } else { state.file.clone() }
}
