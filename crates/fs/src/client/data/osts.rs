//! Connections to the OSTs, and calls that wait until they are answered.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kiln_net::CallError;
use kiln_net::blocking::{Connection, Waits, waits};

use crate::core::{Errno, OstIndex, SessionId};
use crate::wire;
use crate::wire::mgs::{Address, FsConfig, FsId};
use crate::wire::oss::{Op, Reply, Request};

/// Connections to one OST, and so calls that it has from this mount at once.
const CONNECTIONS_MAX: usize = 8;
/// Calls that one thread has under way at once.
const PIPELINE_MAX: usize = 8;
/// How often a call is made whose bytes arrive damaged, or that is answered `EIO`.
const TRIES_MAX: u32 = 3;
/// How long to wait for a connection, and for an answer, before both are tried again.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
const ANSWER_WAIT: Duration = Duration::from_mins(1);
/// The pause before a call is made again: none at first, then from the one to the other.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The OSTs of a filesystem and the connections to them.
pub struct Osts {
    fs: String,
    id: FsId,
    session: RwLock<SessionId>,
    targets: RwLock<HashMap<OstIndex, Arc<Target>>>,
    /// How often data was asked for or sent.
    moved: AtomicU64,
}

/// A question to an OST, with the bytes that go along; their checksum is made when they are sent.
#[derive(Debug)]
pub(super) struct Ask<'b> {
    pub(super) ost: OstIndex,
    pub(super) op: Op,
    pub(super) bulk: Vec<&'b [u8]>,
}

/// What came of a question.
pub(super) type Answer = Result<(Reply, Bytes), Errno>;

impl Osts {
    /// As `config` says; connects when something is asked.
    pub fn new(config: &FsConfig, session: SessionId) -> Arc<Osts> {
        let osts = Osts {
            fs: config.name.clone(),
            id: config.id,
            session: RwLock::new(session),
            targets: RwLock::new(HashMap::new()),
            moved: AtomicU64::new(0),
        };
        osts.replace(config);
        Arc::new(osts)
    }

    /// The configuration has changed: OSTs that moved are asked at their new address, also by calls that wait.
    pub fn replace(&self, config: &FsConfig) {
        let mut targets = self.targets.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *targets);
        for ost in &config.osts {
            let same = old.remove(&ost.index).filter(|target| target.address == ost.address);
            targets.insert(ost.index, same.unwrap_or_else(|| Arc::new(Target::new(ost.address.clone()))));
        }
    }

    /// The mount has a new session, after the old one was evicted.
    pub fn renew(&self, session: SessionId) {
        *self.session.write().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// How often data was asked for or sent so far: as long as that stays the same, nobody reads or writes.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Closes the connections that nobody uses; others come when they are needed.
    pub fn close_idle(&self) {
        for target in self.targets.read().unwrap_or_else(PoisonError::into_inner).values() {
            let idle = std::mem::take(&mut target.pool().idle);
            drop(idle);
        }
    }

    /// Asks until it is answered, or `gone` is set (`EIO`).
    pub(super) fn ask(&self, ask: Ask<'_>, gone: &AtomicBool) -> Answer {
        self.ask_all(&[ask], gone).pop().expect("one question has one answer")
    }

    /// Asks all of it, several at once, until everything is answered or `gone` is set (`EIO` then). The answers are in the
    /// order of the questions.
    pub(super) fn ask_all(&self, asks: &[Ask<'_>], gone: &AtomicBool) -> Vec<Answer> {
        self.ask_all_while(asks, gone, || ())
    }

    /// The same; when the first questions are sent, something is done `meanwhile`, once. It may wait for the MDS, but not for
    /// another OST.
    pub(super) fn ask_all_while(
        &self,
        asks: &[Ask<'_>],
        gone: &AtomicBool,
        meanwhile: impl FnOnce(),
    ) -> Vec<Answer> {
        if asks.iter().any(|ask| matches!(ask.op, Op::Read { .. } | Op::Write { .. })) {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        let mut meanwhile = Some(meanwhile);
        let mut calls: Vec<Call<'_>> = asks.iter().map(|ask| Call { ask, tries: 0, answer: None }).collect();
        let mut pause = Duration::ZERO;
        while calls.iter().any(|call| call.answer.is_none()) && !gone.load(Ordering::Relaxed) {
            let open = calls.iter_mut().filter(|call| call.answer.is_none());
            if self.round(open.take(PIPELINE_MAX).collect(), &mut meanwhile) {
                pause = Duration::ZERO;
            } else {
                waits(Waits::Asleep);
                thread::sleep(pause);
                let longer = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                if longer == PAUSE_MAX && pause < PAUSE_MAX {
                    tracing::warn!("an OST does not answer: its files wait until it does");
                }
                pause = longer;
            }
        }
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        calls.into_iter().map(|call| call.answer.unwrap_or(Err(Errno::EIO))).collect()
    }

    /// Sends what can be sent and receives the answers; `false` when a server did not answer. It waits for a free connection
    /// only while it has none: two threads cannot wait for each other's.
    fn round<'c, 'b>(&self, calls: Vec<&'c mut Call<'b>>, meanwhile: &mut Option<impl FnOnce()>) -> bool {
        let mut well = true;
        let mut sent: Vec<(Slot, &'c mut Call<'b>)> = Vec::with_capacity(calls.len());
        for call in calls {
            let Some(target) = self.target(call.ask.ost) else {
                well = false;
                continue;
            };
            let Some(mut slot) = Target::slot(&target, sent.is_empty()) else { break };
            match slot.send(self.request(call.ask), &call.ask.bulk) {
                Ok(()) => sent.push((slot, call)),
                Err(error) => well &= call.failed(error),
            }
        }
        if let Some(meanwhile) = meanwhile.take() {
            meanwhile();
        }
        for (mut slot, call) in sent {
            match slot.receive() {
                Ok((reply, bulk)) => call.judge(reply, bulk),
                Err(error) => well &= call.failed(error),
            }
        }
        well
    }

    fn request(&self, ask: &Ask<'_>) -> Request {
        let session = *self.session.read().unwrap_or_else(PoisonError::into_inner);
        Request { fs: self.fs.clone(), id: self.id, ost: ask.ost, session, op: ask.op.clone() }
    }

    fn target(&self, ost: OstIndex) -> Option<Arc<Target>> {
        self.targets.read().unwrap_or_else(PoisonError::into_inner).get(&ost).cloned()
    }
}

/// A question on its way to its answer.
struct Call<'b> {
    ask: &'b Ask<'b>,
    tries: u32,
    answer: Option<Answer>,
}

impl Call<'_> {
    /// Takes a reply as the answer, or not: then it is asked again.
    fn judge(&mut self, reply: Reply, bulk: Bytes) {
        let damaged = matches!(reply, Reply::Data { crc: Some(crc) } if crc != crc32c::crc32c(&bulk));
        let answer = match reply {
            _ if damaged => Err(Errno::EIO),
            Reply::Refused(errno) => Err(errno),
            reply => Ok((reply, bulk)),
        };
        self.tries += 1;
        if answer.as_ref().is_err_and(|errno| *errno == Errno::EIO) && self.tries < TRIES_MAX {
            tracing::warn!(ost = self.ask.ost.0, op = ?self.ask.op, damaged, "asking an OST again");
            return;
        }
        self.answer = Some(answer);
    }

    /// Nobody answered; `true` when asking again would not help, which is the answer then.
    fn failed(&mut self, error: CallError) -> bool {
        match error {
            CallError::Encode(_) | CallError::Decode(_) => {
                tracing::error!(ost = self.ask.ost.0, %error, "an OST is not understood");
                self.answer = Some(Err(Errno::EIO));
                true
            }
            error => {
                tracing::debug!(ost = self.ask.ost.0, %error, "an OST does not answer");
                false
            }
        }
    }
}

/// One OST.
struct Target {
    address: Address,
    pool: Mutex<Pool>,
    returned: Condvar,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Connection>,
    /// Slots that are handed out. **Invariant:** with `idle`, at most [`CONNECTIONS_MAX`].
    out: usize,
    /// Goes up when the server was lost: connections from before are of no use.
    losses: u64,
}

/// The right to one connection to an OST.
struct Slot {
    target: Arc<Target>,
    connection: Option<Connection>,
    losses: u64,
}

impl Target {
    fn new(address: Address) -> Target {
        Target { address, pool: Mutex::default(), returned: Condvar::new() }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slot; `None` when none is free and `wait` is not wanted.
    fn slot(target: &Arc<Target>, wait: bool) -> Option<Slot> {
        let mut pool = target.pool();
        while pool.out >= CONNECTIONS_MAX {
            if !wait {
                return None;
            }
            waits(Waits::Asleep);
            pool = target.returned.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
        pool.out += 1;
        let (connection, losses) = (pool.idle.pop(), pool.losses);
        Some(Slot { target: Arc::clone(target), connection, losses })
    }

    fn connect(&self) -> Result<Connection, CallError> {
        let connected = match &self.address {
            Address::Unix(path) => Connection::connect_unix(path),
            Address::Tcp(address) => Connection::connect_tcp(address, CONNECT_WAIT),
        };
        let timed = connected.and_then(|mut connection| {
            connection.set_timeout(Some(ANSWER_WAIT))?;
            Ok(connection)
        });
        timed.map_err(|error: io::Error| {
            tracing::debug!(address = ?self.address, %error, "no connection to an OST");
            CallError::Closed
        })
    }
}

impl Slot {
    fn send(&mut self, mut request: Request, bulk: &[&[u8]]) -> Result<(), CallError> {
        if self.connection.is_none() {
            let mut connection = self.target.connect()?;
            greet(&mut connection, &request)?;
            self.connection = Some(connection);
        }
        let connection = self.connection.as_mut().expect("it was connected above");
        let sent = match &mut request.op {
            Op::Read { len, .. } => {
                let len = *len as usize;
                connection.send_asking(&wire::Request::Oss(request), len)
            }
            op => {
                if let Op::Write { crc, .. } = op {
                    *crc = checksum(connection, bulk);
                }
                connection.send(&wire::Request::Oss(request), bulk)
            }
        };
        self.lose_if_failed(sent)
    }

    fn receive(&mut self) -> Result<(Reply, Bytes), CallError> {
        let connection = self.connection.as_mut().ok_or(CallError::Closed)?;
        let received = connection.receive();
        let lent = connection.came_lent();
        match self.lose_if_failed(received)? {
            // What travels has a checksum.
            (Reply::Data { crc: None }, bulk) if !lent && !bulk.is_empty() => {
                Ok((Reply::Refused(Errno::EIO), Bytes::new()))
            }
            (Reply::Refused(Errno::ENODEV), _) => {
                Err(self.lost(CallError::Closed)) // It does not serve the OST now: it will, or another one does.
            }
            answer => Ok(answer),
        }
    }

    fn lose_if_failed<T>(&mut self, outcome: Result<T, CallError>) -> Result<T, CallError> {
        outcome.map_err(|error| self.lost(error))
    }

    /// The server is gone, and with it every connection of its time.
    fn lost(&mut self, error: CallError) -> CallError {
        self.connection = None;
        let mut pool = self.target.pool();
        if pool.losses == self.losses {
            pool.losses += 1;
            pool.idle.clear();
        }
        error
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut pool = self.target.pool();
        pool.out -= 1;
        let fresh = pool.losses == self.losses;
        pool.idle.extend(self.connection.take().filter(|_| fresh));
        drop(pool);
        self.target.returned.notify_one();
    }
}

/// The checksum of what is sent; none where it does not travel.
fn checksum(connection: &Connection, bulk: &[&[u8]]) -> Option<u32> {
    let len = bulk.iter().map(|part| part.len()).sum();
    let sums = !connection.lends(len);
    sums.then(|| bulk.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part)))
}

/// Makes sure that the server speaks this version, and lends it memory.
fn greet(connection: &mut Connection, request: &Request) -> Result<(), CallError> {
    let hello = Request { op: Op::Hello { version: wire::VERSION }, ..request.clone() };
    match connection.call(&wire::Request::Oss(hello), &[])? {
        // A session that is fenced hears so again with its request.
        (Reply::Done | Reply::Refused(Errno::ESTALE), _) => connection.lend(),
        (reply, _) => {
            tracing::warn!(ost = request.ost.0, ?reply, "the server of an OST does not want this client");
            Err(CallError::Closed)
        }
    }
}
