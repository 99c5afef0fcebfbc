//! One connection: reads frames, starts their work, and writes the answers in the order of the requests.
//!
//! Reading and answering are two loops of one task. Batches are appended as soon as their frame is read, so that
//! requests that a producer has in flight share one flush; everything else waits for its turn to be answered, and so
//! sees what the requests before it did.

use super::dispatch::{Pending, dispatch};
use crate::broker::{Broker, kibibytes};
use crate::wire::WireError;
use crate::wire::frame::{LENGTH_BYTES, Reply, frame_len};
use bytes::{Buf, BytesMut};
use kiln_auth::Identity;
use kiln_net::Shutdown;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes asked of the socket when no frame is under way.
const READ_BYTES: usize = 64 << 10;

/// A frame's buffer grows to this at once; beyond it, only as bytes arrive.
const GROW_BYTES: usize = 4 << 20;

/// A buffer above this is not kept for the next frame.
const KEEP_BYTES: usize = 4 << 20;

/// Frames above this count against [`crate::Settings::requests_bytes_max`].
const SMALL_FRAME_BYTES: usize = 64 << 10;

/// A frame must come at this rate, after [`crate::Settings::stall_max`]: it holds room that others wait for.
const BYTES_PER_SECOND_MIN: usize = 256 << 10;

/// Parts of replies that one system call writes at most.
const SLICES_MAX: usize = 64;

/// Failed logins after which the connection is closed.
const LOGINS_MAX: u32 = 3;

/// Why a connection ends before its peer ends it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Close {
    /// What came is not a request.
    #[error("not a Kafka request: {0}")]
    Wire(#[from] WireError),
    /// This version is not served, and the client cannot be told in words that it knows.
    #[error("{api:?} version {version} is not served")]
    Version {
        /// Which request.
        api: crate::wire::Api,
        /// In which version.
        version: i16,
    },
    /// The client must log in first.
    #[error("a request before the login")]
    LoginRequired,
    /// The login failed too often.
    #[error("too many failed logins")]
    LoginsFailed,
    /// A producer that wants no answers could not be served; only the end of the connection tells it.
    #[error("a batch without acknowledgement was refused")]
    Unacknowledged,
    /// The socket failed, or the peer stopped in the middle of a message.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// What is known of the client at the other end.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) broker: Broker,
    pub(super) peer: Option<IpAddr>,
    /// The address that the client connected to.
    pub(super) local: Option<SocketAddr>,
    pub(super) shutdown: Shutdown,
    login: Arc<Mutex<Login>>,
}

#[derive(Default)]
struct Login {
    /// A mechanism has been chosen.
    is_started: bool,
    identity: Option<Identity>,
    failures: u32,
}

impl Session {
    pub(super) fn new(
        broker: Broker,
        peer: Option<IpAddr>,
        local: Option<SocketAddr>,
        shutdown: Shutdown,
    ) -> Self {
        Self { broker, peer, local, shutdown, login: Arc::default() }
    }

    fn login(&self) -> std::sync::MutexGuard<'_, Login> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether requests beyond the login are answered.
    pub(super) fn is_open(&self) -> bool {
        !self.broker.inner.settings.login_required || self.login().identity.is_some()
    }

    pub(super) fn start_login(&self) {
        self.login().is_started = true;
    }

    pub(super) fn is_login_started(&self) -> bool {
        self.login().is_started
    }

    pub(super) fn logged_in(&self, identity: Identity) {
        self.login().identity = Some(identity);
    }

    /// Notes a failed login; an error if there were too many.
    pub(super) fn login_failed(&self) -> Result<(), Close> {
        let mut login = self.login();
        login.failures += 1;
        if login.failures >= LOGINS_MAX { Err(Close::LoginsFailed) } else { Ok(()) }
    }
}

/// Why the reading loop ended.
enum End {
    /// The peer has closed its side; nobody waits for answers.
    Closed,
    /// The listener is being drained: what was asked is still answered.
    Drain,
}

/// Serves a connection to its end.
pub(super) async fn serve_stream<R, W>(session: Session, read: R, write: W)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let peer = session.peer;
    match run(session, read, write).await {
        Ok(()) => {}
        Err(Close::Io(error)) => tracing::debug!(?peer, %error, "connection lost"),
        Err(reason) => tracing::info!(?peer, %reason, "closing the connection"),
    }
}

async fn run<R, W>(session: Session, read: R, write: W) -> Result<(), Close>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let settings = session.broker.inner.settings.clone();
    let (queue, pending) = mpsc::channel(settings.requests_in_flight_max);
    let unanswered = AtomicUsize::new(0);
    let answering = answer_loop(pending, write, settings.stall_max, &unanswered);
    tokio::pin!(answering);
    let end = tokio::select! {
        end = read_loop(&session, read, queue, &unanswered) => end?,
        answered = &mut answering => return answered,
    };
    match end {
        End::Closed => Ok(()),
        End::Drain => answering.await,
    }
}

async fn read_loop<R: AsyncRead + Unpin>(
    session: &Session,
    read: R,
    queue: mpsc::Sender<Pending>,
    unanswered: &AtomicUsize,
) -> Result<End, Close> {
    let mut frames = Frames::new(session, read);
    let mut shutdown = session.shutdown.clone();
    loop {
        let next = tokio::select! {
            next = frames.next() => next?,
            () = shutdown.wait() => return Ok(End::Drain),
        };
        let (frame, room) = match next {
            Next::Frame(frame, room) => (frame, room),
            // A client that waits for us is not idle: a rebalance may take longer than that.
            Next::Idle if unanswered.load(Ordering::Relaxed) > 0 => continue,
            Next::Closed | Next::Idle => return Ok(End::Closed),
        };
        if let Some(pending) = dispatch(session, frame, room)? {
            unanswered.fetch_add(1, Ordering::Relaxed);
            if queue.send(pending).await.is_err() {
                return Ok(End::Closed); // the answering loop has failed, and says why
            }
        }
    }
}

/// What comes from the socket.
enum Next {
    /// A request, and the room in memory that it takes if it is large.
    Frame(BytesMut, Option<OwnedSemaphorePermit>),
    /// The peer has closed its side between two requests.
    Closed,
    /// Nothing has come for [`crate::Settings::idle_max`].
    Idle,
}

/// Cuts a stream of bytes into requests.
struct Frames<R> {
    read: R,
    buffer: BytesMut,
    request_bytes_max: usize,
    stall_max: Duration,
    idle_max: Duration,
    room: Arc<Semaphore>,
    room_max: u32,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    fn new(session: &Session, read: R) -> Self {
        let inner = &session.broker.inner;
        Self {
            read,
            buffer: BytesMut::new(),
            request_bytes_max: inner.settings.request_bytes_max,
            stall_max: inner.settings.stall_max,
            idle_max: inner.settings.idle_max,
            room: inner.request_room.clone(),
            room_max: kibibytes(inner.settings.requests_bytes_max),
        }
    }

    async fn next(&mut self) -> Result<Next, Close> {
        if self.buffer.is_empty() {
            match timeout(self.idle_max, self.fill(READ_BYTES)).await {
                Err(_) => return Ok(Next::Idle),
                Ok(Ok(false)) => return Ok(Next::Closed),
                Ok(filled) => filled.map(drop)?,
            }
        }
        let deadline = Instant::now() + self.stall_max;
        while self.buffer.len() < LENGTH_BYTES {
            self.more(READ_BYTES, deadline).await?;
        }
        let mut prefix = [0; LENGTH_BYTES];
        prefix.copy_from_slice(&self.buffer[..LENGTH_BYTES]);
        let len = frame_len(prefix, self.request_bytes_max)?;
        let room = if len > SMALL_FRAME_BYTES { Some(self.take_room(len).await?) } else { None };
        let deadline =
            Instant::now() + self.stall_max + Duration::from_secs((len / BYTES_PER_SECOND_MIN) as u64);
        while self.buffer.len() < LENGTH_BYTES + len {
            let missing = LENGTH_BYTES + len - self.buffer.len();
            self.more(missing.min(GROW_BYTES.max(self.buffer.len())), deadline).await?;
        }
        self.buffer.advance(LENGTH_BYTES);
        let frame = self.buffer.split_to(len);
        if self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Ok(Next::Frame(frame, room))
    }

    /// Reads once, in the middle of a frame.
    async fn more(&mut self, reserve: usize, deadline: Instant) -> Result<(), Close> {
        match timeout_at(deadline, self.fill(reserve)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
        }
    }

    /// Reads once into the buffer, growing it by `reserve` bytes if it is full; false at the end of the stream.
    async fn fill(&mut self, reserve: usize) -> io::Result<bool> {
        if self.buffer.capacity() == self.buffer.len() || self.buffer.is_empty() {
            self.buffer.reserve(reserve);
        }
        Ok(self.read.read_buf(&mut self.buffer).await? > 0)
    }

    async fn take_room(&self, len: usize) -> Result<OwnedSemaphorePermit, Close> {
        let wanted = kibibytes(len).min(self.room_max);
        let permit = self.room.clone().acquire_many_owned(wanted).await;
        Ok(permit.map_err(|_| io::Error::from(io::ErrorKind::ConnectionAborted))?)
    }
}

/// Finishes what is pending, in order, and writes the answers. Ends when the reading loop has.
async fn answer_loop<W: AsyncWrite + Unpin>(
    mut pending: mpsc::Receiver<Pending>,
    mut write: W,
    stall_max: Duration,
    unanswered: &AtomicUsize,
) -> Result<(), Close> {
    while let Some(pending) = pending.recv().await {
        let (reply, _room) = match pending {
            Pending::Ready(reply) => (reply, None),
            Pending::Later(work) => work.await?,
        };
        write_reply(&mut write, &reply, stall_max).await?;
        unanswered.fetch_sub(1, Ordering::Relaxed);
    }
    write.shutdown().await?;
    Ok(())
}

async fn write_reply<W: AsyncWrite + Unpin>(
    write: &mut W,
    reply: &Reply,
    stall_max: Duration,
) -> Result<(), Close> {
    let mut slices: Vec<IoSlice<'_>> = reply.parts().iter().map(|part| IoSlice::new(part)).collect();
    let mut rest = &mut slices[..];
    while !rest.is_empty() {
        let batch = rest.len().min(SLICES_MAX);
        let written = timeout(stall_max, write.write_vectored(&rest[..batch])).await;
        let written = written.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if written == 0 {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}
