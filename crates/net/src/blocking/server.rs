//! The answering side: one thread for each connection.

use std::collections::HashMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::CONNECTION;
use super::frames::{Bulk, Incoming, Outgoing, ReadError, SendError};
use super::memory::{Memory, Span};
use super::socket::{Listener, Socket};
use crate::listen::Peer;
use crate::server::{Fault, Gone};
use crate::wire::{Header, Kind, Limits, Status};

/// Pause after an accept that failed for want of descriptors or memory, so that the loop does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// The stack of a connection's thread, in bytes; what is not used of it costs nothing.
const STACK_BYTES: usize = 2 << 20;

/// A connection of a server; never used again by that server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// The encoded request.
    pub body: Bytes,
    /// Bytes beside it. They may lie in memory of the caller, which it uses for something else once it is answered: what is to be kept must be
    /// copied.
    pub bulk: Bytes,
    /// They do: they have not travelled.
    pub lent: bool,
    /// Who asks.
    pub peer: Peer,
    /// On which connection.
    pub conn: ConnId,
}

impl Call {
    /// The request, decoded.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        postcard::from_bytes(&self.body)
            .map_err(|error| Fault::new(Status::BadRequest, format!("the request cannot be read: {error}")))
    }
}

/// What a server does with a call.
pub trait Service: Send + Sync + 'static {
    /// Answers one call, on the thread of its connection; may wait as long as it needs. `Ok` without a last answer ends a
    /// stream. A panic ends the connection, and nothing else.
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault>;

    /// Whether a peer may lend memory, in which the bulk parts of its calls lie then. It must be trusted not to change them while it waits.
    fn takes_memory(&self, peer: Peer) -> bool {
        let _ = peer;
        false
    }

    /// The connection is gone; none of its calls is under way, and none will come.
    fn closed(&self, conn: ConnId) {
        let _ = conn;
    }
}

/// Bounds of one server.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// The largest frame.
    pub frame: Limits,
    /// Connections, and so threads, at once; further ones are told that the server is busy, and are closed.
    pub connections_max: usize,
}

impl Default for ServeLimits {
    fn default() -> ServeLimits {
        ServeLimits { frame: Limits::default(), connections_max: 4096 }
    }
}

/// Where the answers to one call go.
#[derive(Debug)]
pub struct Replies {
    socket: Arc<Socket>,
    outgoing: Outgoing,
    call: u64,
    /// What the caller has lent, and where in it there is room for the bulk part of the answer.
    lent: Option<Arc<Memory>>,
    room: u16,
    /// The final frame was sent.
    over: bool,
    /// A frame was not sent, or not to its end: nothing further can be.
    broken: bool,
}

impl Replies {
    fn new(socket: Arc<Socket>, limits: Limits) -> Replies {
        let outgoing = Outgoing::new(limits);
        Replies { socket, outgoing, call: 0, lent: None, room: 0, over: false, broken: false }
    }

    /// Sends one of several answers; waits while the caller is slow.
    pub fn item<T: Serialize>(&mut self, reply: &T, bulk: &[&[u8]]) -> Result<(), Fault> {
        self.send(Kind::Item, reply, Bulk::Behind(bulk))
    }

    /// Sends the only or the last answer.
    pub fn last<T: Serialize>(&mut self, reply: &T, bulk: &[&[u8]]) -> Result<(), Fault> {
        self.send(Kind::Last, reply, Bulk::Behind(bulk))?;
        self.over = true;
        Ok(())
    }

    /// Room in the caller's memory for the bulk part of the answer, for [`Replies::last_in`]; `None` where it gave none. It is asked for once.
    pub fn room(&mut self, bulk_len: usize) -> Option<Span> {
        let place = std::mem::take(&mut self.room);
        self.lent.as_ref()?.span(place, bulk_len)
    }

    /// As [`Replies::last`], with a bulk part that lies in the caller's memory already.
    pub fn last_in<T: Serialize>(&mut self, reply: &T, bulk: Span) -> Result<(), Fault> {
        let (place, len) = (bulk.place(), bulk.len());
        // It is the caller's from here on.
        drop(bulk);
        self.send(Kind::Last, reply, Bulk::Lent(place, len))?;
        self.over = true;
        Ok(())
    }

    /// Whether the caller has closed, or the server stops. A call that waits for something to tell asks now and then.
    pub fn is_closed(&self) -> bool {
        self.broken || self.socket.is_closed()
    }

    fn send<T: Serialize>(&mut self, kind: Kind, reply: &T, bulk: Bulk<'_>) -> Result<(), Fault> {
        assert!(!self.over, "an answer after the last one");
        if self.broken {
            return Err(Gone.into());
        }
        let sent = self.outgoing.send(&self.socket, (kind, self.call, 0), reply, bulk);
        sent.map_err(|error| match error {
            SendError::Io(error) => {
                tracing::debug!(%error, "RPC answer not sent");
                self.broken = true;
                Gone.into()
            }
            error => Fault::new(Status::Internal, format!("the answer cannot be sent: {error}")),
        })
    }

    /// Sends the final frame, where the service has not; `false` when the connection is of no further use.
    fn finish(&mut self, outcome: &Result<(), Fault>) -> bool {
        if !self.over && !self.broken {
            let (kind, detail, text) = match outcome {
                Ok(()) => (Kind::End, 0, ""),
                Err(fault) => (Kind::Error, fault.status as u32, fault.text.as_str()),
            };
            let sent = self.outgoing.send_raw(&self.socket, (kind, self.call, detail), text.as_bytes());
            self.broken = sent.is_err();
        }
        !self.broken
    }
}

/// What the threads of a server share.
#[derive(Debug)]
struct Shared {
    limits: ServeLimits,
    stopping: AtomicBool,
    /// The connections whose threads run. **Invariant:** at most `limits.connections_max`.
    open: Mutex<HashMap<ConnId, Arc<Socket>>>,
    /// Notified when a connection is gone.
    gone: Condvar,
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<ConnId, Arc<Socket>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Nothing is entered or read any more. Calls that are under way are answered.
    fn stop(&self) {
        let open = self.open();
        self.stopping.store(true, Ordering::SeqCst);
        open.values().for_each(|socket| socket.close_reading());
    }

    /// Takes a new connection on the list; `false` when there is no room, or the server stops.
    fn enter(&self, conn: ConnId, socket: &Arc<Socket>) -> bool {
        let mut open = self.open();
        if self.stopping() || open.len() >= self.limits.connections_max {
            return false;
        }
        open.insert(conn, Arc::clone(socket));
        true
    }

    fn leave(&self, conn: ConnId) {
        self.open().remove(&conn);
        self.gone.notify_all();
    }
}

/// A running server. Dropping it stops it without waiting.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// Closed when the accepting thread and the server are gone, however long a connection's thread lives.
    listener: Arc<Listener>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Closes the listener, lets the calls that are under way be answered for up to `deadline`, and closes what is left.
    /// Returns how many connections were cut; the thread of such a one ends when its call returns.
    pub fn stop(mut self, deadline: Duration) -> usize {
        self.stop_taking();
        if let Some(accepting) = self.accepting.take() {
            // It panics nowhere; and if it did, it would be over too.
            let _ = accepting.join();
        }
        let waited =
            self.shared.gone.wait_timeout_while(self.shared.open(), deadline, |open| !open.is_empty());
        let (open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        open.values().for_each(|socket| socket.close());
        open.len()
    }

    fn stop_taking(&self) {
        self.shared.stop();
        self.listener.close();
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.shared.open().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop_taking();
    }
}

/// Serves `service` on `listener` until the server is stopped or dropped.
///
/// # Panics
///
/// When the system has no thread for it.
pub fn serve<S: Service>(listener: Listener, limits: ServeLimits, service: Arc<S>) -> Server {
    let listener = Arc::new(listener);
    let shared = Arc::new(Shared {
        limits,
        stopping: AtomicBool::new(false),
        open: Mutex::new(HashMap::new()),
        gone: Condvar::new(),
    });
    let (of_thread, accepted) = (Arc::clone(&shared), Arc::clone(&listener));
    let accepting = thread::Builder::new()
        .name("rpc-accept".to_owned())
        .spawn(move || accept(&accepted, &of_thread, &service))
        .expect("a server that starts gets a thread");
    Server { shared, listener, accepting: Some(accepting) }
}

fn accept<S: Service>(listener: &Listener, shared: &Arc<Shared>, service: &Arc<S>) {
    for number in 1.. {
        match listener.accept() {
            _ if shared.stopping() => return,
            Ok((socket, peer)) => begin(shared, service, &Arc::new(socket), peer, ConnId(number)),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                thread::sleep(ACCEPT_RETRY);
            }
        }
    }
}

/// Gives a connection its thread, or tells it that there is none.
fn begin<S: Service>(shared: &Arc<Shared>, service: &Arc<S>, socket: &Arc<Socket>, peer: Peer, conn: ConnId) {
    if !shared.enter(conn, socket) {
        return refuse(socket, peer);
    }
    let served = ServedConnection {
        service: Arc::clone(service),
        peer,
        conn,
        incoming: Incoming::new(shared.limits.frame),
        replies: Replies::new(Arc::clone(socket), shared.limits.frame),
    };
    let (of_thread, name) = (Arc::clone(shared), format!("rpc-{}", conn.0));
    let started = thread::Builder::new().name(name).stack_size(STACK_BYTES).spawn(move || {
        served.run(&of_thread);
        of_thread.leave(conn);
    });
    if let Err(error) = started {
        tracing::warn!(%error, ?peer, "no thread for an RPC connection");
        refuse(socket, peer);
        shared.leave(conn);
    }
}

fn refuse(socket: &Socket, peer: Peer) {
    tracing::warn!(?peer, "RPC connection refused: there are too many");
    let head = (Kind::Error, CONNECTION, Status::Busy as u32);
    let text = b"the server has as many connections as it takes; try again later";
    // The buffer of a new socket has room for it.
    let _ = Outgoing::new(Limits::default()).send_raw(socket, head, text);
    socket.close();
}

struct ServedConnection<S> {
    service: Arc<S>,
    peer: Peer,
    conn: ConnId,
    incoming: Incoming,
    replies: Replies,
}

impl<S: Service> ServedConnection<S> {
    /// Serves calls until the peer is gone, the server stops, or either side broke something.
    fn run(mut self, shared: &Shared) {
        while !shared.stopping() {
            match self.serve_frame() {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::debug!(peer = ?self.peer, %error, "RPC connection ended");
                    break;
                }
            }
        }
        self.replies.socket.close();
        self.service.closed(self.conn);
    }

    /// Reads a frame and does what it says; `false` at the end of the connection.
    fn serve_frame(&mut self) -> Result<bool, ReadError> {
        let Replies { socket, lent, .. } = &self.replies;
        let Some(header) = self.incoming.header(socket)? else { return Ok(false) };
        let body = self.incoming.part(socket, header.body_len)?;
        let bulk = self.incoming.bulk(socket, &header, lent.as_ref())?;
        Ok(match header.kind {
            Kind::Request => self.answer(header, body, bulk),
            Kind::Lend => self.borrow(&header),
            // Of a peer that speaks the asynchronous form: the call is over already.
            Kind::Cancel | Kind::Credit => true,
            Kind::Item | Kind::Last | Kind::End | Kind::Error => {
                tracing::warn!(peer = ?self.peer, "RPC client broke the protocol");
                false
            }
        })
    }

    fn answer(&mut self, header: Header, body: Bytes, bulk: Bytes) -> bool {
        (self.replies.call, self.replies.over) = (header.call, false);
        self.replies.room = if bulk.is_empty() { header.place } else { 0 };
        let lent = header.place != 0 && !bulk.is_empty();
        let call = Call { body, bulk, lent, peer: self.peer, conn: self.conn };
        let (service, replies) = (&self.service, &mut self.replies);
        // Nothing of `replies` is used after a panic but its socket.
        let Ok(outcome) = catch_unwind(AssertUnwindSafe(|| service.handle(call, replies))) else {
            tracing::error!(peer = ?self.peer, "an RPC handler panicked; its connection is closed");
            return false;
        };
        self.replies.finish(&outcome)
    }

    /// Takes the memory that the peer lends, where it may, and says whether it did.
    fn borrow(&mut self, header: &Header) -> bool {
        (self.replies.call, self.replies.over) = (header.call, false);
        let outcome = self.take_memory(header.detail as usize);
        if let Err(fault) = &outcome {
            tracing::debug!(peer = ?self.peer, "memory not taken: {}", fault.text);
        }
        let outcome = outcome.and_then(|()| self.replies.last(&(), &[]));
        self.replies.finish(&outcome)
    }

    fn take_memory(&mut self, len: usize) -> Result<(), Fault> {
        let denied = |text: String| Err(Fault::new(Status::Denied, text));
        let Replies { socket, lent, .. } = &self.replies;
        let may = matches!(**socket, Socket::Unix(_)) && self.service.takes_memory(self.peer);
        if !may || lent.is_some() || self.incoming.is_ahead() {
            return denied("memory is not taken here".to_owned());
        }
        // The descriptor comes by itself, when it is asked for: reading ahead would lose it.
        self.replies.item(&(), &[])?;
        let socket = &self.replies.socket;
        let taken = socket.receive_descriptor().and_then(|file| match file {
            Some(file) => Memory::of(&file, len),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "no descriptor came")),
        });
        match taken {
            Ok(memory) => self.replies.lent = Some(Arc::new(memory)),
            Err(error) => return denied(error.to_string()),
        }
        Ok(())
    }
}
