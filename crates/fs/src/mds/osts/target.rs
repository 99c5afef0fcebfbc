//! The thread of one OST.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kiln_net::blocking::{Closer, Connection};

use super::{MDS_SESSION, Page, Work};
use crate::core::namespace::{Todo, TodoId};
use crate::core::{Errno, ObjectId};
use crate::wire::mgs::{Address, FsId, Ost};
use crate::wire::oss::{Op, Reply, Request, Space};
use crate::wire::{self, VERSION};

/// Space is looked at so often.
const SPACE_EVERY: Duration = Duration::from_secs(1);
/// After a failure it is tried again so much later: targets that begin at the same time are there in a moment.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// The pause doubles up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_millis(250);
/// An OST that does not answer for so long is taken to be away.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A connection is made within this time, or not.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// Objects that are destroyed in one request.
const DESTROY_MAX: usize = 256;
/// Entries that are kept in memory; further ones stay on the list until there is room.
const QUEUE_MAX: usize = 4096;

/// Whether an OST answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// It was not tried yet, or does not.
    Away,
    /// It does, and has this space.
    Up(Space),
}

/// One OST, as the MDS sees it.
pub(super) struct Target {
    fs: String,
    id: FsId,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    ost: Ost,
    /// How often it began to drain; see [`Target::drains`].
    drains: u64,
    reach: Reach,
    /// What is to be done. **Invariant:** at most `QUEUE_MAX`, but for entries that somebody waits for.
    queue: BTreeMap<TodoId, Todo>,
    /// Where to read on in the list; `None` when its end was seen, and nothing is new.
    next: Option<TodoId>,
    stopping: bool,
    /// Ends a call that is under way.
    closer: Option<Closer>,
}

impl Target {
    pub(super) fn new((fs, id): (String, FsId), ost: Ost) -> Target {
        let state = State {
            drains: u64::from(ost.draining),
            ost,
            reach: Reach::Away,
            queue: BTreeMap::new(),
            next: Some(TodoId(0)),
            stopping: false,
            closer: None,
        };
        Target { fs, id, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Its address, or whether it drains, may be another now.
    pub(super) fn configure(&self, ost: &Ost) {
        let mut state = self.lock();
        if state.ost.address != ost.address {
            close(&mut state);
        }
        state.drains += u64::from(ost.draining && !state.ost.draining);
        state.ost = ost.clone();
        self.changed.notify_all();
    }

    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        close(&mut state);
        self.changed.notify_all();
    }

    /// There is a new entry on the list.
    pub(super) fn wake(&self, (id, todo): (TodoId, Todo)) {
        let mut state = self.lock();
        match todo {
            // Somebody waits for it: it does not wait for the list.
            Todo::Cut { .. } | Todo::Fence { .. } => {
                state.queue.insert(id, todo);
            }
            Todo::Destroy { .. } => state.next = Some(state.next.map_or(id, |next| next.min(id))),
        }
        self.changed.notify_all();
    }

    pub(super) fn reach(&self) -> Reach {
        self.lock().reach
    }

    pub(super) fn is_draining(&self) -> bool {
        self.lock().ost.draining
    }

    /// Which time it drains, if it does: in between it may have got new objects.
    pub(super) fn drains(&self) -> Option<u64> {
        let state = self.lock();
        state.ost.draining.then_some(state.drains)
    }

    pub(super) fn address(&self) -> Address {
        self.lock().ost.address.clone()
    }

    pub(super) fn space(&self) -> Option<Space> {
        match self.reach() {
            Reach::Up(space) => Some(space),
            Reach::Away => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is something to do, or so long; `false` when it stops.
    fn pause(&self, until: Instant, for_work: bool) -> bool {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if state.stopping {
                return false;
            }
            if now >= until || for_work && (!state.queue.is_empty() || state.next.is_some()) {
                return true;
            }
            let waited = self.changed.wait_timeout(state, until - now);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn close(state: &mut State) {
    if let Some(closer) = state.closer.take() {
        closer.close();
    }
}

/// Starts the thread.
pub(super) fn start(target: &Arc<Target>, work: Arc<dyn Work>) -> JoinHandle<()> {
    let index = target.lock().ost.index;
    let target = Arc::clone(target);
    let worker = Worker { target, work, connection: None, space_at: None };
    let name = format!("mds-ost-{}", index.0);
    thread::Builder::new()
        .name(name)
        .spawn(move || worker.run())
        .expect("a server that starts gets its threads")
}

/// Why something was not done: the OST is away, or said no.
enum Failure {
    Away,
    Refused(Errno),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        tracing::debug!(%error, "an OST is away");
        Failure::Away
    }
}

struct Worker {
    target: Arc<Target>,
    work: Arc<dyn Work>,
    connection: Option<Connection>,
    /// When space was looked at.
    space_at: Option<Instant>,
}

impl Worker {
    fn run(mut self) {
        let mut due = Instant::now();
        let mut retry = RETRY_AFTER;
        let mut failed = false;
        while self.target.pause(due, !failed) {
            failed = match self.round() {
                Ok(()) => {
                    retry = RETRY_AFTER;
                    false
                }
                Err(Failure::Refused(errno)) => {
                    let ost = self.target.lock().ost.index;
                    tracing::warn!(ost = ost.0, %errno, "an OST does not do what is to be done; it is asked again");
                    true
                }
                Err(Failure::Away) => {
                    self.away();
                    true
                }
            };
            due = Instant::now() + if failed { retry } else { SPACE_EVERY };
            if failed {
                retry = (retry * 2).min(RETRY_AFTER_MAX);
            }
        }
    }

    fn away(&mut self) {
        self.connection = None;
        self.space_at = None;
        let mut state = self.target.lock();
        state.closer = None;
        state.reach = Reach::Away;
    }

    /// Looks at the space, and does all there is to do.
    fn round(&mut self) -> Result<(), Failure> {
        if self.space_at.is_none_or(|at| at.elapsed() >= SPACE_EVERY) {
            self.look_at_space()?;
        }
        loop {
            self.read_list()?;
            let batch = self.next_batch();
            if batch.is_empty() {
                // What was destroyed made room, for which nobody should wait.
                return if self.space_at.is_none() { self.look_at_space() } else { Ok(()) };
            }
            self.carry_out(&batch)?;
            self.work.done(&batch);
            self.space_at = None;
            let mut state = self.target.lock();
            for (id, _) in &batch {
                state.queue.remove(id);
            }
        }
    }

    fn look_at_space(&mut self) -> Result<(), Failure> {
        let Reply::Space(space) = self.call(Op::Statfs)? else { return Err(Failure::Away) };
        self.space_at = Some(Instant::now());
        let before = std::mem::replace(&mut self.target.lock().reach, Reach::Up(space));
        if before == Reach::Away {
            self.work.reached();
        }
        Ok(())
    }

    /// Fills the queue from the list.
    fn read_list(&self) -> Result<(), Failure> {
        let (index, from) = {
            let mut state = self.target.lock();
            let full = state.queue.len() >= QUEUE_MAX;
            let Some(next) = state.next.take_if(|_| !full) else { return Ok(()) };
            (state.ost.index, next)
        };
        // Without the lock: the list has one of its own, under which new entries are announced here.
        let read = self.work.todo(index, from);
        let is_read = read.is_some();
        let page = read.unwrap_or(Page { entries: Vec::new(), next: Some(from) });
        let mut state = self.target.lock();
        state.queue.extend(page.entries);
        state.next = state.next.into_iter().chain(page.next).min();
        if is_read { Ok(()) } else { Err(Failure::Refused(Errno::EIO)) }
    }

    /// What is done next: who was evicted is kept out before anything else, and cuts are waited for.
    fn next_batch(&self) -> Vec<(TodoId, Todo)> {
        let state = self.target.lock();
        let all = || state.queue.iter().map(|(id, todo)| (*id, *todo));
        let fence = all().find(|(_, todo)| matches!(todo, Todo::Fence { .. }));
        let cut = || all().find(|(_, todo)| matches!(todo, Todo::Cut { .. }));
        match fence.or_else(cut) {
            Some(entry) => vec![entry],
            None => all().take(DESTROY_MAX).collect(),
        }
    }

    fn carry_out(&mut self, batch: &[(TodoId, Todo)]) -> Result<(), Failure> {
        let op = match batch {
            [(_, Todo::Fence { session, .. })] => Op::Fence { session: *session },
            [(_, Todo::Cut { object, len, .. })] => Op::Truncate { object: *object, len: *len },
            destroy => {
                Op::Destroy { objects: destroy.iter().filter_map(|(_, todo)| destroyed(todo)).collect() }
            }
        };
        self.call(op).map(|_| ())
    }

    fn call(&mut self, op: Op) -> Result<Reply, Failure> {
        let request = self.request(op);
        let answer: Result<(Reply, _), _> = self.connection()?.call(&request, &[]);
        match answer {
            Ok((Reply::Refused(Errno::ENODEV), _)) => Err(Failure::Away),
            Ok((Reply::Refused(errno), _)) => Err(Failure::Refused(errno)),
            Ok((reply, _)) => Ok(reply),
            Err(error) => {
                tracing::debug!(%error, "an OST is away");
                Err(Failure::Away)
            }
        }
    }

    fn request(&self, op: Op) -> wire::Request {
        let ost = self.target.lock().ost.index;
        let (fs, id) = (self.target.fs.clone(), self.target.id);
        wire::Request::Oss(Request { fs, id, ost, session: MDS_SESSION, op })
    }

    fn connection(&mut self) -> Result<&mut Connection, Failure> {
        if self.connection.as_ref().is_none_or(Connection::is_closed) {
            self.connection = Some(self.connect()?);
        }
        self.connection.as_mut().ok_or(Failure::Away)
    }

    fn connect(&mut self) -> Result<Connection, Failure> {
        let address = self.target.lock().ost.address.clone();
        let mut connection = match &address {
            Address::Unix(path) => Connection::connect_unix(path)?,
            Address::Tcp(address) => Connection::connect_tcp(address, CONNECT_WITHIN)?,
        };
        connection.set_timeout(Some(ANSWER_WITHIN))?;
        let closer = connection.shutdown_handle()?;
        {
            let mut state = self.target.lock();
            if state.stopping || state.ost.address != address {
                return Err(Failure::Away);
            }
            state.closer = Some(closer);
        }
        match connection.call(&self.request(Op::Hello { version: VERSION }), &[]) {
            Ok((Reply::Done, _)) => Ok(connection),
            Ok((Reply::Refused(errno), _)) => {
                tracing::warn!(%errno, "an OST refuses the MDS");
                Err(Failure::Away)
            }
            _ => Err(Failure::Away),
        }
    }
}

fn destroyed(todo: &Todo) -> Option<ObjectId> {
    match todo {
        Todo::Destroy { object, .. } => Some(*object),
        Todo::Cut { .. } | Todo::Fence { .. } => None,
    }
}
