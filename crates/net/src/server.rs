//! The answering side: one task per call, bounded per connection.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinHandle};

use crate::connection::{FrameReader, FrameSender, frame_queue, write_frames};
use crate::listen::{
    AcceptLimits, Connections, Listener, Peer, Shutdown, ShutdownTrigger, Stream, accept_loop, shutdown_pair,
};
use crate::wire::{Frame, Kind, Limits, STREAM_WINDOW_BYTES, Status, window_cost};

/// A refusal of a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Fault {
    /// What kind of refusal.
    pub status: Status,
    /// For the person at the other end.
    pub text: String,
}

impl Fault {
    /// A refusal with its words.
    pub fn new(status: Status, text: impl Into<String>) -> Fault {
        Fault { status, text: text.into() }
    }
}

/// Nobody waits for the answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the caller is gone")]
pub struct Gone;

impl From<Gone> for Fault {
    fn from(_: Gone) -> Fault {
        Fault::new(Status::Unavailable, "the caller is gone")
    }
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// The encoded request.
    pub body: Bytes,
    /// Bytes beside it.
    pub bulk: Bytes,
    /// Who asks.
    pub peer: Peer,
}

impl Call {
    /// The request, decoded.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        postcard::from_bytes(&self.body)
            .map_err(|error| Fault::new(Status::BadRequest, format!("the request cannot be read: {error}")))
    }
}

/// Where the answers to one call go.
#[derive(Debug)]
pub struct Replies {
    call: u64,
    sender: FrameSender,
    window: Arc<Semaphore>,
    limits: Limits,
    /// Whether the final frame was sent.
    over: bool,
}

impl Replies {
    /// Sends one of several answers; waits while the caller is slow.
    pub async fn item<T: Serialize>(&mut self, reply: &T, bulk: Bytes) -> Result<(), Fault> {
        self.item_raw(encode(reply)?, bulk).await
    }

    /// As [`Replies::item`] for an answer that is encoded already.
    pub async fn item_raw(&mut self, body: Bytes, bulk: Bytes) -> Result<(), Fault> {
        let permits =
            self.window.acquire_many(window_cost(body.len(), bulk.len())).await.map_err(|_| Gone)?;
        permits.forget();
        self.send(Kind::Item, body, bulk).await
    }

    /// Sends the only or the last answer.
    pub async fn last<T: Serialize>(&mut self, reply: &T, bulk: Bytes) -> Result<(), Fault> {
        self.last_raw(encode(reply)?, bulk).await
    }

    /// As [`Replies::last`] for an answer that is encoded already.
    pub async fn last_raw(&mut self, body: Bytes, bulk: Bytes) -> Result<(), Fault> {
        self.over = true;
        self.send(Kind::Last, body, bulk).await
    }

    async fn send(&mut self, kind: Kind, body: Bytes, bulk: Bytes) -> Result<(), Fault> {
        if body.len() > self.limits.body_bytes_max as usize
            || bulk.len() > self.limits.bulk_bytes_max as usize
        {
            self.over = false;
            return Err(Fault::new(Status::Internal, "the answer is over the limit of a frame"));
        }
        let frame = Frame { kind, call: self.call, detail: 0, body, bulk };
        self.sender.data.send(frame).await.map_err(|_| Gone.into())
    }

    async fn finish(self, outcome: Result<(), Fault>) {
        if self.over {
            return;
        }
        let frame = match outcome {
            Ok(()) => Frame::bare(Kind::End, self.call, 0),
            Err(fault) => error_frame(self.call, &fault),
        };
        let _ = self.sender.data.send(frame).await;
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Bytes, Fault> {
    postcard::to_stdvec(value)
        .map(Bytes::from)
        .map_err(|error| Fault::new(Status::Internal, error.to_string()))
}

fn error_frame(call: u64, fault: &Fault) -> Frame {
    let body = Bytes::copy_from_slice(fault.text.as_bytes());
    Frame { kind: Kind::Error, call, detail: fault.status as u32, body, bulk: Bytes::new() }
}

/// What a server does with a call.
pub trait Service: Send + Sync + 'static {
    /// Answers one call. The future is dropped at an await when the caller cancels, its deadline passes or its
    /// connection ends, so anything that must not stop half way belongs in a task of its own. A call that returns `Ok`
    /// without a last answer ends its stream.
    fn handle(&self, call: Call, replies: &mut Replies) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// Bounds of one server.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// The largest frame.
    pub frame: Limits,
    /// The number of connections.
    pub accept: AcceptLimits,
    /// Calls in flight on one connection; further ones are refused as busy.
    pub calls_max: usize,
}

impl Default for ServeLimits {
    fn default() -> ServeLimits {
        ServeLimits { frame: Limits::default(), accept: AcceptLimits::default(), calls_max: 4096 }
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    trigger: ShutdownTrigger,
    accepting: JoinHandle<Connections>,
}

impl Server {
    /// Stops accepting, tells connections to end once their calls are answered, and waits for that up to `deadline`.
    /// Returns how many connections had to be cut.
    pub async fn drain(self, deadline: Duration) -> usize {
        self.trigger.fire();
        match self.accepting.await {
            Ok(connections) => connections.drain(deadline).await,
            Err(_) => 0,
        }
    }
}

/// Serves `service` on `listener` until drained or dropped. Needs a tokio runtime.
pub fn serve<S: Service>(listener: Listener, limits: ServeLimits, service: Arc<S>) -> Server {
    let (trigger, shutdown) = shutdown_pair();
    let signal = shutdown.clone();
    let accepting = tokio::spawn(accept_loop(listener, shutdown, limits.accept, move |stream, peer| {
        serve_connection(stream, peer, limits, Arc::clone(&service), signal.clone())
    }));
    Server { trigger, accepting }
}

/// The calls of one connection that are not yet answered.
#[derive(Default)]
struct InFlight(Mutex<HashMap<u64, Running>>);

struct Running {
    task: AbortHandle,
    window: Arc<Semaphore>,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// More of a stream may be sent. A credit beyond the window is a lie and is cut to it.
    fn credit(&self, call: u64, bytes: u32) {
        if let Some(running) = self.lock().get(&call) {
            let room = (STREAM_WINDOW_BYTES as usize).saturating_sub(running.window.available_permits());
            running.window.add_permits(room.min(bytes as usize));
        }
    }

    fn cancel(&self, call: u64) {
        if let Some(running) = self.lock().remove(&call) {
            running.task.abort();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        for running in self.lock().values() {
            running.task.abort();
        }
    }
}

async fn serve_connection<S: Service>(
    stream: Stream,
    peer: Peer,
    limits: ServeLimits,
    service: Arc<S>,
    mut shutdown: Shutdown,
) {
    let (read, write) = tokio::io::split(stream);
    let (sender, queue) = frame_queue();
    let mut writer = tokio::spawn(write_frames(write, queue));
    let calls = Arc::new(InFlight::default());
    let mut frames = FrameReader::new(read, limits.frame);
    let connection = Connection { peer, limits, service, calls: Arc::clone(&calls), sender };
    loop {
        let next = tokio::select! {
            next = frames.next() => next,
            () = shutdown.wait() => break,
            // The peer does not take our answers any more.
            _ = &mut writer => return abort_all(&calls),
        };
        match next {
            Ok(Some(frame)) => {
                if !connection.accept(frame) {
                    tracing::warn!(?peer, "RPC client broke the protocol");
                    abort_all(&calls);
                    break;
                }
            }
            Ok(None) => {
                abort_all(&calls);
                break;
            }
            Err(error) => {
                tracing::debug!(?peer, %error, "RPC connection ended");
                abort_all(&calls);
                break;
            }
        }
    }
    // The writer ends when the last call has dropped its sender, that is, when everything was answered.
    drop(connection);
    let _ = writer.await;
}

fn abort_all(calls: &InFlight) {
    for (_, running) in calls.lock().drain() {
        running.task.abort();
    }
}

struct Connection<S> {
    peer: Peer,
    limits: ServeLimits,
    service: Arc<S>,
    calls: Arc<InFlight>,
    sender: FrameSender,
}

impl<S: Service> Connection<S> {
    /// Acts on a frame; `false` when the client broke the protocol.
    fn accept(&self, frame: Frame) -> bool {
        match frame.kind {
            Kind::Request => self.begin(frame),
            Kind::Cancel => self.calls.cancel(frame.call),
            Kind::Credit => self.calls.credit(frame.call, frame.detail),
            Kind::Item | Kind::Last | Kind::End | Kind::Error | Kind::Lend => return false,
        }
        true
    }

    fn begin(&self, frame: Frame) {
        let mut calls = self.calls.lock();
        if calls.len() >= self.limits.calls_max || calls.contains_key(&frame.call) {
            let fault = Fault::new(Status::Busy, "too many calls in flight on this connection");
            // A client that floods and does not read gets no answer rather than a queue without end.
            let _ = self.sender.data.try_send(error_frame(frame.call, &fault));
            return;
        }
        let window = Arc::new(Semaphore::new(STREAM_WINDOW_BYTES as usize));
        let replies = Replies {
            call: frame.call,
            sender: self.sender.clone(),
            window: Arc::clone(&window),
            limits: self.limits.frame,
            over: false,
        };
        let deadline = (frame.detail > 0).then(|| Duration::from_millis(u64::from(frame.detail)));
        let id = frame.call;
        let call = Call { body: frame.body, bulk: frame.bulk, peer: self.peer };
        let answered =
            answer(Arc::clone(&self.service), call, replies, deadline, Arc::downgrade(&self.calls));
        calls.insert(id, Running { task: tokio::spawn(answered).abort_handle(), window });
    }
}

/// Runs one call to its final frame and takes it off the list of its connection.
async fn answer<S: Service>(
    service: Arc<S>,
    call: Call,
    mut replies: Replies,
    deadline: Option<Duration>,
    calls: std::sync::Weak<InFlight>,
) {
    let id = replies.call;
    let handled = service.handle(call, &mut replies);
    let outcome = match deadline {
        None => handled.await,
        Some(limit) => tokio::time::timeout(limit, handled).await.unwrap_or_else(|_| {
            Err(Fault::new(Status::DeadlineExceeded, format!("no answer within {limit:?}")))
        }),
    };
    replies.finish(outcome).await;
    if let Some(calls) = calls.upgrade() {
        calls.lock().remove(&id);
    }
}
