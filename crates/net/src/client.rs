//! The calling side of a connection.

use std::collections::HashMap;
use std::io;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, ToSocketAddrs, UnixStream};
use tokio::sync::{mpsc, watch};

use crate::connection::{FrameReader, FrameSender, frame_queue, write_frames};
use crate::listen::Stream;
use crate::wire::{Frame, Kind, Limits, STREAM_WINDOW_BYTES, Status, window_cost};

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The connection is gone; whether the server acted on the request is not known.
    #[error("the connection to the server is closed")]
    Closed,
    /// No answer within the deadline of the call.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The server refused or failed.
    #[error("{text}")]
    Refused {
        /// What kind of refusal.
        status: Status,
        /// The server's words.
        text: String,
    },
    /// The answer is not of the expected type.
    #[error("the answer cannot be read: {0}")]
    Decode(postcard::Error),
    /// The request cannot be encoded, or is over the frame limit.
    #[error("the request cannot be sent: {0}")]
    Encode(String),
    /// The server ended the call without an answer.
    #[error("the server ended the call without an answer")]
    Empty,
}

/// What a caller may add to a call.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// Bytes sent beside the encoded request.
    pub bulk: Bytes,
    /// Longest time to wait; the server is told and gives up too.
    pub deadline: Option<Duration>,
}

type Answer = Result<Frame, CallError>;

/// What the reader keeps for a call.
struct Waiting {
    answers: mpsc::UnboundedSender<Answer>,
    /// Bytes received and not yet consumed. **Invariant:** `outstanding <= STREAM_WINDOW_BYTES`, or the server broke
    /// the protocol; it is what bounds the unbounded channel.
    outstanding: Arc<AtomicU32>,
}

struct Shared {
    calls: Mutex<Option<HashMap<u64, Waiting>>>,
    next_call: AtomicU64,
    sender: FrameSender,
    limits: Limits,
    closed: watch::Sender<bool>,
}

impl Shared {
    fn calls(&self) -> MutexGuard<'_, Option<HashMap<u64, Waiting>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let waiting = self.calls().take();
        for (_, waiting) in waiting.into_iter().flatten() {
            let _ = waiting.answers.send(Err(CallError::Closed));
        }
        self.closed.send_replace(true);
    }

    /// Hands a frame to its call; `false` when the server broke the protocol.
    fn deliver(&self, frame: Frame) -> bool {
        let mut calls = self.calls();
        let Some(calls) = calls.as_mut() else { return false };
        let Some(waiting) = calls.get(&frame.call) else { return true };
        let cost = window_cost(frame.body.len(), frame.bulk.len());
        match frame.kind {
            Kind::Item => {
                let before = waiting.outstanding.fetch_add(cost, Ordering::AcqRel);
                if before.saturating_add(cost) > STREAM_WINDOW_BYTES {
                    return false;
                }
                let _ = waiting.answers.send(Ok(frame));
            }
            Kind::Last | Kind::End => {
                let call = frame.call;
                let _ = waiting.answers.send(Ok(frame));
                calls.remove(&call);
            }
            Kind::Error => {
                let text = String::from_utf8_lossy(&frame.body).into_owned();
                let _ = waiting
                    .answers
                    .send(Err(CallError::Refused { status: Status::from_code(frame.detail), text }));
                calls.remove(&frame.call);
            }
            Kind::Request | Kind::Cancel | Kind::Credit | Kind::Lend => return false,
        }
        true
    }
}

/// Ends both tasks of the connection when the last clone of the client is gone.
struct Tasks([tokio::task::AbortHandle; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// A connection on which calls are made. Cheap to clone; closed when the last clone and the last call are dropped.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("closed", &*self.shared.closed.borrow())
            .field("clones", &Arc::strong_count(&self.tasks))
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to a unix socket.
    pub async fn connect_unix(path: impl AsRef<Path>) -> io::Result<Client> {
        Ok(Client::over(Stream::Unix(UnixStream::connect(path).await?), Limits::default()))
    }

    /// Connects over TCP.
    pub async fn connect_tcp(address: impl ToSocketAddrs) -> io::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Client::over(Stream::Tcp(stream), Limits::default()))
    }

    /// Speaks over a socket that is already connected. Needs a tokio runtime.
    pub fn over(stream: Stream, limits: Limits) -> Client {
        let (read, write) = tokio::io::split(stream);
        let (sender, queue) = frame_queue();
        let shared = Arc::new(Shared {
            calls: Mutex::new(Some(HashMap::new())),
            next_call: AtomicU64::new(1),
            sender,
            limits,
            closed: watch::Sender::new(false),
        });
        let writer = tokio::spawn(write_frames(write, queue)).abort_handle();
        let (reading, stop_writer) = (Arc::clone(&shared), writer.clone());
        let reader = tokio::spawn(async move {
            let mut frames = FrameReader::new(read, limits);
            loop {
                match frames.next().await {
                    Ok(Some(frame)) => {
                        if !reading.deliver(frame) {
                            break tracing::warn!("the RPC server broke the protocol");
                        }
                    }
                    Ok(None) => break,
                    Err(error) => break tracing::debug!(%error, "RPC connection ended"),
                }
            }
            reading.close();
            stop_writer.abort();
        });
        Client { shared, tasks: Arc::new(Tasks([reader.abort_handle(), writer])) }
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        *self.shared.closed.borrow()
    }

    /// Returns when the connection is gone.
    pub async fn closed(&self) {
        let _ = self.shared.closed.subscribe().wait_for(|closed| *closed).await;
    }

    /// One request, one answer. Dropping the future cancels the call at the server.
    pub async fn call<Req: Serialize, Rep: DeserializeOwned>(&self, request: &Req) -> Result<Rep, CallError> {
        self.call_with(request, CallOptions::default()).await.map(|(reply, _)| reply)
    }

    /// As [`Client::call`], with bulk bytes both ways and a deadline.
    pub async fn call_with<Req: Serialize, Rep: DeserializeOwned>(
        &self,
        request: &Req,
        options: CallOptions,
    ) -> Result<(Rep, Bytes), CallError> {
        let deadline = options.deadline;
        let once = async {
            self.stream_with::<Req, Rep>(request, options).await?.next().await.ok_or(CallError::Empty)?
        };
        match deadline {
            None => once.await,
            Some(limit) => tokio::time::timeout(limit, once).await.map_err(|_| CallError::Deadline(limit))?,
        }
    }

    /// One request, many answers.
    pub async fn stream<Req: Serialize, Item: DeserializeOwned>(
        &self,
        request: &Req,
    ) -> Result<ItemStream<Item>, CallError> {
        self.stream_with(request, CallOptions::default()).await
    }

    /// As [`Client::stream`], with bulk bytes and a deadline, which here only the server enforces.
    pub async fn stream_with<Req: Serialize, Item: DeserializeOwned>(
        &self,
        request: &Req,
        options: CallOptions,
    ) -> Result<ItemStream<Item>, CallError> {
        let body = postcard::to_stdvec(request).map_err(|error| CallError::Encode(error.to_string()))?;
        self.stream_raw(Bytes::from(body), options).await
    }

    /// As [`Client::stream_with`] for a request that is encoded already: what a broker that forwards calls uses.
    pub async fn stream_raw<Item>(
        &self,
        body: Bytes,
        options: CallOptions,
    ) -> Result<ItemStream<Item>, CallError> {
        self.check_size(&body, &options.bulk)?;
        let call = self.shared.next_call.fetch_add(1, Ordering::Relaxed);
        let (answers, receive) = mpsc::unbounded_channel();
        let outstanding = Arc::new(AtomicU32::new(0));
        match self.shared.calls().as_mut() {
            None => return Err(CallError::Closed),
            Some(calls) => calls.insert(call, Waiting { answers, outstanding: Arc::clone(&outstanding) }),
        };
        let stream = ItemStream {
            client: self.clone(),
            call,
            receive,
            outstanding,
            consumed: 0,
            state: Progress::Open,
            item: PhantomData,
        };
        let detail =
            options.deadline.map_or(0, |limit| u32::try_from(limit.as_millis()).unwrap_or(u32::MAX).max(1));
        let frame = Frame { kind: Kind::Request, call, detail, body, bulk: options.bulk };
        self.shared.sender.data.send(frame).await.map_err(|_| CallError::Closed)?;
        Ok(stream)
    }

    #[cfg(test)]
    pub(crate) fn abort_for_test(self) {
        for task in &self.tasks.0 {
            task.abort();
        }
    }

    fn check_size(&self, body: &Bytes, bulk: &Bytes) -> Result<(), CallError> {
        let limits = self.shared.limits;
        if body.len() > limits.body_bytes_max as usize || bulk.len() > limits.bulk_bytes_max as usize {
            let text = format!("{} + {} bytes are over the limit of a frame", body.len(), bulk.len());
            return Err(CallError::Encode(text));
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Open,
    Over,
}

/// The answers to one call, in order. Dropping it cancels the call.
pub struct ItemStream<Item> {
    client: Client,
    call: u64,
    receive: mpsc::UnboundedReceiver<Answer>,
    outstanding: Arc<AtomicU32>,
    /// Bytes consumed since the last credit was sent.
    consumed: u32,
    state: Progress,
    item: PhantomData<fn() -> Item>,
}

impl<Item> std::fmt::Debug for ItemStream<Item> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ItemStream").field("call", &self.call).finish_non_exhaustive()
    }
}

impl<Item> ItemStream<Item> {
    /// The next answer still encoded, with its bulk bytes; `None` after the last. Cancel safe.
    pub async fn next_raw(&mut self) -> Option<Result<(Bytes, Bytes), CallError>> {
        if self.state == Progress::Over {
            return None;
        }
        let answer = self.receive.recv().await.unwrap_or(Err(CallError::Closed));
        match answer {
            Ok(frame) => {
                match frame.kind {
                    Kind::End => {
                        self.state = Progress::Over;
                        return None;
                    }
                    Kind::Last => self.state = Progress::Over,
                    _ => self.consume(window_cost(frame.body.len(), frame.bulk.len())),
                }
                Some(Ok((frame.body, frame.bulk)))
            }
            Err(error) => {
                self.state = Progress::Over;
                Some(Err(error))
            }
        }
    }

    /// Credits are sent by the half window, so that they are few and the server does not run dry.
    fn consume(&mut self, cost: u32) {
        self.outstanding.fetch_sub(cost, Ordering::AcqRel);
        self.consumed += cost;
        if self.consumed >= STREAM_WINDOW_BYTES / 2 {
            let credit = Frame::bare(Kind::Credit, self.call, self.consumed);
            let _ = self.client.shared.sender.control.send(credit);
            self.consumed = 0;
        }
    }
}

impl<Item: DeserializeOwned> ItemStream<Item> {
    /// The next answer with its bulk bytes; `None` after the last. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<(Item, Bytes), CallError>> {
        let decoded = self.next_raw().await?.and_then(|(body, bulk)| {
            postcard::from_bytes(&body).map(|item| (item, bulk)).map_err(CallError::Decode)
        });
        Some(decoded)
    }
}

impl<Item> Drop for ItemStream<Item> {
    fn drop(&mut self) {
        let unfinished =
            self.client.shared.calls().as_mut().is_some_and(|calls| calls.remove(&self.call).is_some());
        if unfinished {
            let _ = self.client.shared.sender.control.send(Frame::bare(Kind::Cancel, self.call, 0));
        }
    }
}
