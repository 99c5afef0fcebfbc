//! What the callers of a connection and its one task share.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::client::{ClientError, Message};
use crate::wire::{ConnectionClose, Method, ShortStr, encode_method};

/// Bytes to be written beyond which publishers wait.
const OUT_BYTES_MAX: usize = 1 << 20;
/// Bytes of deliveries that consumers have not taken beyond which nothing is read.
const LAG_BYTES_MAX: usize = 16 << 20;

type Reply = oneshot::Sender<Result<Method, ClientError>>;
type Confirm = oneshot::Sender<Result<(), ClientError>>;

/// Deliveries that wait for their consumers, in bytes.
#[derive(Debug, Default)]
pub(super) struct Lag {
    bytes: AtomicUsize,
    eased: Notify,
}

/// What one waiting delivery counts besides its body.
const DELIVERY_OVERHEAD: usize = 128;

impl Lag {
    pub(super) fn came(&self, bytes: usize) {
        self.bytes.fetch_add(bytes + DELIVERY_OVERHEAD, Ordering::AcqRel);
    }

    /// A consumer took `count` deliveries with bodies of `bytes`.
    pub(super) fn took(&self, count: usize, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes + count * DELIVERY_OVERHEAD, Ordering::AcqRel);
        if before > LAG_BYTES_MAX {
            self.eased.notify_one();
        }
    }

    fn now(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    pub(super) fn is_too_much(&self) -> bool {
        self.now() > LAG_BYTES_MAX
    }

    pub(super) async fn eased(&self) {
        self.eased.notified().await;
    }
}

#[derive(Debug, Default)]
struct ChannelState {
    replies: VecDeque<Reply>,
    consumers: HashMap<ShortStr, mpsc::UnboundedSender<Message>>,
    /// Sequence number of the last publish; `None` before `confirm.select`.
    published: Option<u64>,
    /// Ascending sequence numbers and who waits for them.
    confirms: VecDeque<(u64, Option<Confirm>)>,
    /// Why the broker closed it.
    closed: Option<ClientError>,
}

#[derive(Debug, Default)]
struct Inner {
    out: BytesMut,
    channels: HashMap<u16, ChannelState>,
    next_channel: u16,
    over: Option<ClientError>,
    /// Why the last channel was closed, for consumers that end by it.
    last_close: Option<ClientError>,
}

/// State of one connection.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// There is something to write.
    pub(super) wake: Notify,
    drained: Notify,
    lag: Arc<Lag>,
    frame_max: u32,
    channel_max: u16,
    next_tag: AtomicU64,
}

impl Shared {
    pub(super) fn new(frame_max: u32, channel_max: u16) -> Self {
        let inner = Inner { next_channel: 1, ..Inner::default() };
        Self {
            inner: Mutex::new(inner),
            wake: Notify::new(),
            drained: Notify::new(),
            lag: Arc::default(),
            frame_max,
            channel_max,
            next_tag: AtomicU64::new(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn frame_max(&self) -> u32 {
        self.frame_max
    }

    pub(super) fn lag(&self) -> &Arc<Lag> {
        &self.lag
    }

    pub(super) fn new_tag(&self) -> Result<ShortStr, ClientError> {
        let number = self.next_tag.fetch_add(1, Ordering::Relaxed);
        Ok(ShortStr::try_from(format!("kiln-{number}"))?)
    }

    /// Why the connection, or the channel that was closed last, is over.
    pub(super) fn reason(&self) -> ClientError {
        let inner = self.lock();
        let reason = inner.over.clone().or_else(|| inner.last_close.clone());
        reason.unwrap_or_else(|| ClientError::Lost("the consumer was cancelled by the broker".into()))
    }

    // ---- writing

    /// Appends frames and wakes the task.
    pub(super) fn write(&self, fill: impl FnOnce(&mut BytesMut)) -> Result<(), ClientError> {
        let mut inner = self.lock();
        if let Some(error) = &inner.over {
            return Err(error.clone());
        }
        self.fill(&mut inner, fill);
        Ok(())
    }

    fn fill(&self, inner: &mut Inner, fill: impl FnOnce(&mut BytesMut)) {
        let was_empty = inner.out.is_empty();
        fill(&mut inner.out);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Appends a publish and, with confirms on, counts it.
    pub(super) fn publish(
        &self,
        number: u16,
        confirm: Option<Confirm>,
        fill: impl FnOnce(&mut BytesMut),
    ) -> Result<(), ClientError> {
        let mut inner = self.lock();
        if let Some(error) = &inner.over {
            return Err(error.clone());
        }
        let Some(channel) = inner.channels.get_mut(&number) else { return Err(ClientError::NoChannel) };
        if let Some(error) = &channel.closed {
            return Err(error.clone());
        }
        if let Some(published) = &mut channel.published {
            *published += 1;
            channel.confirms.push_back((*published, confirm));
        }
        self.fill(&mut inner, fill);
        Ok(())
    }

    /// Waits until there is room to write.
    pub(super) async fn room(&self) -> Result<(), ClientError> {
        loop {
            let drained = self.drained.notified();
            {
                let inner = self.lock();
                if let Some(error) = &inner.over {
                    return Err(error.clone());
                }
                if inner.out.len() < OUT_BYTES_MAX {
                    return Ok(());
                }
            }
            drained.await;
        }
    }

    /// Moves what is to be written into `out`.
    pub(super) fn take_out(&self, out: &mut BytesMut) {
        let mut inner = self.lock();
        if inner.out.is_empty() {
            return;
        }
        if out.is_empty() {
            std::mem::swap(out, &mut inner.out);
        } else {
            out.extend_from_slice(&inner.out);
            inner.out.clear();
        }
        drop(inner);
        self.drained.notify_waiters();
    }

    /// The last handle is gone: says goodbye without waiting.
    pub(super) fn say_goodbye(&self) {
        let close =
            ConnectionClose { code: 200, text: ShortStr::from_static("goodbye"), class: 0, method: 0 };
        // A connection that is over needs no goodbye.
        drop(self.write(|out| encode_method(out, 0, &close.into())));
    }

    // ---- channels

    pub(super) fn new_channel(&self) -> Result<u16, ClientError> {
        let mut inner = self.lock();
        let highest = if self.channel_max == 0 { u16::MAX } else { self.channel_max };
        for _ in 0..highest {
            let number = inner.next_channel;
            inner.next_channel = if number >= highest { 1 } else { number + 1 };
            if let Entry::Vacant(free) = inner.channels.entry(number) {
                free.insert(ChannelState::default());
                return Ok(number);
            }
        }
        Err(ClientError::NoChannel)
    }

    /// The caller's handle is gone; whether the broker is to be told.
    pub(super) fn forget_channel(&self, number: u16) -> bool {
        let mut inner = self.lock();
        let is_open = inner.over.is_none();
        match inner.channels.get_mut(&number) {
            Some(channel) if channel.closed.is_none() && is_open => {
                // Its number is free again when the broker has answered.
                let lost = ClientError::Lost("the channel was dropped".into());
                channel.closed = Some(lost);
                channel.consumers.clear();
                true
            }
            _ => {
                inner.channels.remove(&number);
                false
            }
        }
    }

    pub(super) fn expect_reply(&self, number: u16, reply: Reply) -> Result<(), ClientError> {
        let mut inner = self.lock();
        if let Some(error) = &inner.over {
            return Err(error.clone());
        }
        let channel = inner.channels.entry(number).or_default();
        if let Some(error) = &channel.closed {
            return Err(error.clone());
        }
        channel.replies.push_back(reply);
        Ok(())
    }

    pub(super) fn count_confirms(&self, number: u16) {
        if let Some(channel) = self.lock().channels.get_mut(&number) {
            channel.published.get_or_insert(0);
        }
    }

    pub(super) fn add_consumer(&self, number: u16, tag: ShortStr, to: mpsc::UnboundedSender<Message>) {
        if let Some(channel) = self.lock().channels.get_mut(&number) {
            channel.consumers.insert(tag, to);
        }
    }

    pub(super) fn remove_consumer(&self, number: u16, tag: &ShortStr) {
        if let Some(channel) = self.lock().channels.get_mut(&number) {
            channel.consumers.remove(tag);
        }
    }

    // ---- what comes from the broker

    pub(super) fn reply(&self, number: u16, method: Method) {
        let mut inner = self.lock();
        let Some(channel) = inner.channels.get_mut(&number) else { return };
        let waiting = channel.replies.pop_front();
        if matches!(method, Method::ChannelCloseOk(_)) {
            inner.channels.remove(&number);
        }
        if let Some(waiting) = waiting {
            // Whoever asked may have given up.
            drop(waiting.send(Ok(method)));
        }
    }

    /// Messages for one consumer; looked up once for a run of them.
    pub(super) fn consumer(&self, number: u16, tag: &ShortStr) -> Option<mpsc::UnboundedSender<Message>> {
        self.lock().channels.get(&number)?.consumers.get(tag).cloned()
    }

    pub(super) fn confirmed(&self, number: u16, tag: u64, multiple: bool, ok: bool) {
        let mut inner = self.lock();
        let Some(channel) = inner.channels.get_mut(&number) else { return };
        let done: Vec<_> = if multiple {
            let count = channel.confirms.partition_point(|(sequence, _)| *sequence <= tag);
            channel.confirms.drain(..count).collect()
        } else {
            let at = channel.confirms.binary_search_by_key(&tag, |(sequence, _)| *sequence);
            at.ok().and_then(|at| channel.confirms.remove(at)).into_iter().collect()
        };
        drop(inner);
        for confirm in done.into_iter().filter_map(|(_, confirm)| confirm) {
            let outcome = if ok { Ok(()) } else { Err(ClientError::Refused) };
            // Nobody may be waiting.
            drop(confirm.send(outcome));
        }
    }

    pub(super) fn channel_closed(&self, number: u16, error: &ClientError) {
        let mut inner = self.lock();
        inner.last_close = Some(error.clone());
        let Some(channel) = inner.channels.get_mut(&number) else { return };
        fail(channel, error);
    }

    /// The connection is over: everybody who waits is told.
    pub(super) fn end(&self, error: &ClientError) {
        let mut inner = self.lock();
        inner.over.get_or_insert_with(|| error.clone());
        let error = inner.over.clone().unwrap_or_else(|| error.clone());
        inner.channels.values_mut().for_each(|channel| fail(channel, &error));
        drop(inner);
        self.drained.notify_waiters();
    }
}

fn fail(channel: &mut ChannelState, error: &ClientError) {
    channel.closed = Some(error.clone());
    channel.consumers.clear();
    for reply in channel.replies.drain(..) {
        drop(reply.send(Err(error.clone())));
    }
    for confirm in channel.confirms.drain(..).filter_map(|(_, confirm)| confirm) {
        drop(confirm.send(Err(error.clone())));
    }
}
