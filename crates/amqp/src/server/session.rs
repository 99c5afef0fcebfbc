//! One connection: what it shares with the broker, and how its frames and letters are handled.
//!
//! The loop that reads and writes is in `io`; what methods do is in `methods`. Here is what both need: publishing and
//! settling in batches, deliveries, and letting go of channels.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use tokio::time::Instant;

use crate::core::{Connection, ConnectionId, Content, Message, Refusal, Release, ReplyCode};
use crate::server::batch::{Delivered, Fate, Groups, NOBODY, PublishBatch, Settled};
use crate::server::broker::Broker;
use crate::server::listing::Peer;
use crate::server::mailbox::{Consumer, Delivery, Letter, Mailbox, weight};
use crate::server::routes::{Place, Resource, Route, Routes};
use crate::wire::{
    BasicCancel, BasicPublish, Properties, ShortStr, Table, Traits, Value, encode_body, encode_deliver,
    encode_header, encode_method, encode_return,
};
use kiln_auth::Access;

/// Messages times queues gathered before they are pushed, whatever one read of the socket brought.
const BATCH_MAX: usize = 16 * 1024;
/// Bytes to write beyond which no more letters are encoded.
pub(super) const OUT_BYTES_MAX: usize = 512 * 1024;

/// The name under which a client consumes direct replies.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// One connection.
pub(super) struct Session {
    pub(super) broker: Broker,
    pub(super) id: ConnectionId,
    pub(super) conn: Connection<Delivered>,
    pub(super) out: BytesMut,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) peer: Arc<Peer>,
    /// Set when the client has opened its virtual host.
    pub(super) place: Option<Place>,
    pub(super) consumers: HashMap<(u16, ShortStr), Arc<Consumer>>,
    /// Direct replies by channel: the token in `reply_to`.
    pub(super) reply_tokens: HashMap<u16, ShortStr>,
    pub(super) routes: Routes,
    pub(super) publishing: PublishBatch,
    /// The disk is full: when to try again to push `publishing`.
    pub(super) stalled: Option<Instant>,
    settling: Groups<Settled>,
    /// Letters taken from the mailbox and not yet handled.
    letters: VecDeque<Letter>,
    taken: Vec<Letter>,
    /// The client's `connection.close` or our own is done: write what is left, then end.
    pub(super) ended: bool,
}

impl Session {
    pub(super) fn new(
        broker: Broker,
        id: ConnectionId,
        peer: Arc<Peer>,
        conn: Connection<Delivered>,
    ) -> Self {
        Self {
            broker,
            id,
            conn,
            out: BytesMut::new(),
            mailbox: Arc::clone(&peer.mailbox),
            peer,
            place: None,
            consumers: HashMap::new(),
            reply_tokens: HashMap::new(),
            routes: Routes::default(),
            publishing: PublishBatch::default(),
            stalled: None,
            settling: Groups::default(),
            letters: VecDeque::new(),
            taken: Vec::new(),
            ended: false,
        }
    }

    pub(super) fn place(&self) -> Result<&Place, Refusal> {
        self.place.as_ref().ok_or_else(|| Refusal::new(ReplyCode::ChannelError, "no virtual host is open"))
    }

    pub(super) fn put(&mut self, channel: u16, method: impl Into<crate::wire::Method>) {
        encode_method(&mut self.out, channel, &method.into());
    }

    // ---- publishing

    /// Routes a message and gathers it; whether the batch is to be flushed now.
    pub(super) fn publish(&mut self, number: u16, content: Content) -> Result<bool, Refusal> {
        let Content { publish, mut properties, body } = content;
        let traits = Traits::scan(&properties).map_err(|error| {
            Refusal::new(ReplyCode::SyntaxError, format!("cannot decode content properties: {error}"))
        })?;
        let BasicPublish { exchange, routing_key, mandatory, .. } = publish;
        self.check_user(&traits)?;
        if traits.reply_to.as_deref() == Some(REPLY_TO) {
            properties = self.direct_reply_to(number, &properties)?;
        }
        let extra = if traits.headers { extra_keys(&properties) } else { Extra::default() };
        let route = self.route(&exchange, &routing_key, &properties, &extra.keys)?;
        if let Some(stripped) = extra.stripped {
            properties = stripped;
        }
        let message = Message::new((exchange, routing_key), properties, body, &traits)?;
        let replied = message.exchange.is_empty() && self.reply_directly(&message);
        if mandatory && route.is_empty() && !replied {
            self.give_back(number, &message);
        }
        self.peer.published.fetch_add(1, Ordering::Relaxed);
        Ok(self.gather(number, &route, message))
    }

    fn check_user(&self, traits: &Traits) -> Result<(), Refusal> {
        match (&traits.user_id, &self.place) {
            (Some(claimed), Some(place)) if **claimed != *place.user => Err(Refusal::precondition(format!(
                "user_id property set to '{claimed}' but authenticated user was '{}'",
                place.user
            ))),
            _ => Ok(()),
        }
    }

    fn route(
        &mut self,
        exchange: &ShortStr,
        key: &ShortStr,
        properties: &bytes::Bytes,
        extra: &[ShortStr],
    ) -> Result<Route, Refusal> {
        let place = self.place.as_ref().ok_or_else(|| Refusal::new(ReplyCode::ChannelError, "not open"))?;
        if !self.routes.is_allowed(exchange) {
            place.check(&self.broker, Access::Write, Resource::Exchange, exchange)?;
            self.routes.allow(exchange);
        }
        let generation = place.vhost.generation();
        if extra.is_empty()
            && let Some(route) = self.routes.get(generation, exchange, key)
        {
            return Ok(route);
        }
        let keys: Vec<&ShortStr> = [key].into_iter().chain(extra).collect();
        let topology = place.vhost.read();
        if !exchange.is_empty() && topology.exchange(exchange)?.spec.internal {
            let detail =
                format!("cannot publish to internal exchange '{exchange}' in vhost '{}'", place.vhost.name);
            return Err(Refusal::access(detail));
        }
        let routed = topology.route(exchange, &keys, properties)?;
        drop(topology);
        let mut queues = routed.queues;
        if !extra.is_empty() {
            // The default exchange may name one queue twice.
            queues.sort_unstable_by_key(|queue| queue.id);
            queues.dedup_by_key(|queue| queue.id);
        }
        let route: Route = queues.into();
        if routed.by_key_alone && extra.is_empty() && !key.starts_with(REPLY_TO) {
            self.routes.put(exchange, key, &route);
        }
        Ok(route)
    }

    fn give_back(&mut self, number: u16, message: &Message) {
        let frame_max = self.conn.frame_max();
        let names = (&message.exchange, &message.routing_key);
        encode_return(&mut self.out, number, (312, "NO_ROUTE"), names);
        encode_header(&mut self.out, number, message.body.len() as u64, &message.properties);
        encode_body(&mut self.out, number, &message.body, frame_max);
    }

    fn gather(&mut self, number: u16, route: &Route, message: Message) -> bool {
        let confirms = self.conn.channel(number).and_then(|channel| channel.confirms.as_mut());
        let sequence = confirms.map_or(0, crate::core::Confirms::count);
        if sequence > 0 && !self.publishing.confirming.contains(&number) {
            self.publishing.confirming.push(number);
        }
        let message = Arc::new(message);
        self.publishing.bytes += message.footprint() * route.len();
        for queue in &**route {
            let group = self.publishing.groups.of(queue);
            group.messages.push(Arc::clone(&message));
            group.origins.push(if sequence > 0 { (number, sequence) } else { NOBODY });
        }
        self.publishing.count += route.len().max(1);
        self.publishing.count >= BATCH_MAX
    }

    // ---- direct replies

    /// Puts this channel's token into `reply_to`.
    fn direct_reply_to(&self, number: u16, properties: &bytes::Bytes) -> Result<bytes::Bytes, Refusal> {
        let token = self.reply_tokens.get(&number);
        let token = token.ok_or_else(|| Refusal::precondition("fast reply consumer does not exist"))?;
        let mut decoded = Properties::decode(properties)
            .map_err(|error| Refusal::new(ReplyCode::SyntaxError, error.to_string()))?;
        decoded.reply_to = Some(token.clone());
        Ok(decoded.encode())
    }

    /// Hands a reply straight to the consumer whose token is the routing key.
    fn reply_directly(&self, message: &Message) -> bool {
        if !message.routing_key.starts_with(REPLY_TO) {
            return false;
        }
        let consumer = self.broker.replies().get(&message.routing_key).cloned();
        let Some(consumer) = consumer else { return false };
        let entry = crate::core::Entry {
            position: 0,
            offset: crate::core::UNLOGGED,
            expires_at: crate::core::NEVER,
            size: message.body.len() as u32,
            priority: 0,
            redelivered: false,
            message: Some(Arc::new(message.clone())),
        };
        matches!(consumer.offer(entry), crate::core::Offer::Taken)
    }

    // ---- settling

    /// Gathers the fate of deliveries.
    pub(super) fn settle(&mut self, deliveries: Vec<Delivered>, fate: Fate) {
        for Delivered { queue, consumer, entry } in deliveries {
            self.settling.of(&queue).add(consumer.as_ref(), entry, fate);
        }
    }

    pub(super) fn flush_settled(&mut self) {
        if self.settling.is_empty() {
            return;
        }
        for (queue, Settled { done, requeue, dead, resumed }) in self.settling.take() {
            let now = self.broker.now();
            if !requeue.is_empty() {
                self.broker.follow_up(&queue, queue.requeue(requeue, &[], now));
            }
            if !dead.is_empty() {
                self.broker.follow_up(&queue, queue.reject(dead, &[], now));
            }
            self.broker.follow_up(&queue, queue.settle(&done, &resumed, now));
        }
    }

    // ---- letters

    /// Whether there are letters that were taken and not handled.
    pub(super) fn has_letters(&self) -> bool {
        !self.letters.is_empty()
    }

    /// Handles letters until there are none, or enough to write.
    pub(super) fn read_letters(&mut self) {
        while self.out.len() < OUT_BYTES_MAX {
            if self.letters.is_empty() {
                self.mailbox.take(&mut self.taken);
                if self.taken.is_empty() {
                    return;
                }
                self.letters.extend(self.taken.drain(..));
            }
            self.read_some();
        }
    }

    /// Handles every letter, however much there is to write: what was sent to a consumer before it is cancelled
    /// reaches the client before `cancel-ok`. The mailbox is bounded.
    pub(super) fn read_all_letters(&mut self) {
        loop {
            self.mailbox.take(&mut self.taken);
            if self.letters.is_empty() && self.taken.is_empty() {
                return;
            }
            self.letters.extend(self.taken.drain(..));
            while !self.letters.is_empty() {
                self.read_some();
            }
        }
    }

    fn read_some(&mut self) {
        let mut encoded = 0;
        let mut count = 0;
        while let Some(letter) = self.letters.pop_front() {
            match letter {
                Letter::Deliver(delivery) => {
                    encoded += weight(&delivery.entry);
                    count += 1;
                    self.deliver(delivery);
                }
                Letter::Flushed { tickets, ok } => self.flushed(&tickets, ok),
                Letter::QueueGone(consumer) => self.queue_gone(&consumer),
                Letter::Close(reason) => self.close(&reason),
            }
            if self.out.len() >= OUT_BYTES_MAX {
                break;
            }
        }
        if count > 0 {
            self.peer.delivered.fetch_add(count, Ordering::Relaxed);
        }
        if encoded > 0 && self.mailbox.encoded(encoded) {
            self.resume_all();
        }
    }

    fn resume_all(&self) {
        let now = self.broker.now();
        for consumer in self.consumers.values() {
            if let Some((queue, followup)) = consumer.resume(now) {
                self.broker.follow_up(queue, followup);
            }
        }
    }

    fn deliver(&mut self, delivery: Delivery) {
        let Delivery { consumer, mut entry } = delivery;
        let frame_max = self.conn.frame_max();
        let channel = if consumer.is_gone() { None } else { self.conn.channel(consumer.channel) };
        let (Some(channel), Some(message)) = (channel, entry.message.clone()) else {
            self.undelivered(Delivery { consumer, entry });
            return;
        };
        let redelivered = entry.redelivered;
        let tag = match &consumer.queue {
            Some(queue) if !consumer.no_ack => {
                if entry.is_logged() {
                    // It can be read back; memory is for what waits to be delivered.
                    entry.message = None;
                }
                let queue = Arc::clone(queue);
                channel.unacked.push(Delivered { queue, consumer: Some(Arc::clone(&consumer)), entry })
            }
            _ => channel.unacked.skip(),
        };
        let number = consumer.channel;
        let names = (&message.exchange, &message.routing_key);
        encode_deliver(&mut self.out, number, &consumer.tag, tag, redelivered, names);
        encode_header(&mut self.out, number, message.body.len() as u64, &message.properties);
        encode_body(&mut self.out, number, &message.body, frame_max);
    }

    /// A message on its way to a consumer that is gone goes back, unless it counted as delivered.
    fn undelivered(&mut self, delivery: Delivery) {
        let Delivery { consumer, entry } = delivery;
        if let (Some(queue), false) = (&consumer.queue, consumer.no_ack) {
            let queue = Arc::clone(queue);
            self.settle(vec![Delivered { queue, consumer: Some(consumer), entry }], Fate::Requeue);
            self.flush_settled();
        }
    }

    fn queue_gone(&mut self, consumer: &Arc<Consumer>) {
        if consumer.gone.swap(true, Ordering::AcqRel) {
            return;
        }
        self.consumers.remove(&(consumer.channel, consumer.tag.clone()));
        if self.conn.capabilities().consumer_cancel_notify && self.conn.channel(consumer.channel).is_some() {
            let consumer_tag = consumer.tag.clone();
            self.put(consumer.channel, BasicCancel { consumer_tag, no_wait: true });
        }
    }

    fn close(&mut self, reason: &str) {
        if !self.conn.is_closing() {
            let refusal = Refusal::new(ReplyCode::ConnectionForced, reason);
            let refusal = refusal.blaming(crate::wire::MethodId::NONE);
            let released = self.conn.refuse(0, &refusal, &mut self.out);
            for (number, channel) in released {
                drop(self.release(number, *channel));
            }
        }
    }

    // ---- letting go

    /// Lets go of a channel: its consumers end and its deliveries go back. Gives the queues that are to be deleted
    /// because their last consumer went.
    pub(super) fn release(
        &mut self,
        number: u16,
        mut channel: crate::core::Channel<Delivered>,
    ) -> Vec<Arc<super::queue::Queue>> {
        let tags: Vec<_> = self.consumers.keys().filter(|(other, _)| *other == number).cloned().collect();
        let mut unused = Vec::new();
        for tag in tags {
            if let Some(consumer) = self.consumers.remove(&tag) {
                unused.extend(self.end_consumer(&consumer));
                consumer.gone.store(true, Ordering::Release);
            }
        }
        if let Some(token) = self.reply_tokens.remove(&number) {
            self.broker.replies().remove(&token);
        }
        self.publishing.forget_channel(number);
        self.settle(channel.unacked.take_all(), Fate::Requeue);
        self.flush_settled();
        unused
    }

    /// Takes a consumer out of its queue; gives the queue when it is to be deleted for that.
    pub(super) fn end_consumer(&self, consumer: &Arc<Consumer>) -> Option<Arc<super::queue::Queue>> {
        let queue = consumer.queue.as_ref()?;
        let (delete, followup) = queue.cancel(consumer, self.broker.now());
        self.broker.follow_up(queue, followup);
        delete.then(|| Arc::clone(queue))
    }

    /// Closes channel or connection as a refusal demands.
    pub(super) async fn refuse(&mut self, number: u16, refusal: &Refusal) {
        // What was published before the error counts.
        self.flush();
        tracing::debug!(peer = %self.peer.address, channel = number, %refusal, "refused");
        let released = self.conn.refuse(number, refusal, &mut self.out);
        self.release_all(released).await;
    }

    pub(super) async fn release_all(&mut self, released: Vec<(u16, Release<Delivered>)>) {
        for (number, channel) in released {
            let unused = self.release(number, *channel);
            self.delete_unused(unused).await;
        }
    }

    pub(super) async fn delete_unused(&self, queues: Vec<Arc<super::queue::Queue>>) {
        let Some(place) = &self.place else { return };
        for queue in queues {
            let conditions = super::broker::Conditions { if_unused: true, if_empty: false };
            // Somebody may have begun to consume it meanwhile.
            drop(self.broker.delete_queue(&place.vhost, &queue, conditions).await);
        }
    }

    /// The connection is over: everything it held goes back.
    pub(super) async fn end(&mut self) {
        self.flush_settled();
        self.push_last();
        let released = self.conn.take_channels();
        self.release_all(released).await;
        for letter in self.mailbox.close().into_iter().chain(std::mem::take(&mut self.letters)) {
            if let Letter::Deliver(delivery) = letter {
                self.undelivered(delivery);
            }
        }
        self.delete_exclusive().await;
        self.broker.peers().remove(&self.id);
    }

    async fn delete_exclusive(&self) {
        let Some(place) = &self.place else { return };
        let owned: Vec<_> = {
            let topology = place.vhost.read();
            let mine = topology.queues().filter(|view| view.spec.owner == Some(self.id));
            mine.map(|view| Arc::clone(&view.handle)).collect()
        };
        for queue in owned {
            drop(self.broker.delete_queue(&place.vhost, &queue, super::broker::Conditions::default()).await);
        }
    }
}

/// Further routing keys of a message, and its properties without `BCC`.
#[derive(Default)]
struct Extra {
    keys: Vec<ShortStr>,
    stripped: Option<bytes::Bytes>,
}

/// Sender-selected distribution: the headers `CC` and `BCC` name further routing keys; `BCC` is not passed on.
fn extra_keys(properties: &bytes::Bytes) -> Extra {
    // A cheap look first: most header tables have neither.
    if !properties.windows(3).any(|window| window == b"\x02CC" || window == b"BCC") {
        return Extra::default();
    }
    let Ok(mut decoded) = Properties::decode(properties) else { return Extra::default() };
    let Some(headers) = &mut decoded.headers else { return Extra::default() };
    let mut keys = listed(headers, "CC");
    let blind = listed(headers, "BCC");
    let before = headers.0.len();
    headers.0.retain(|(name, _)| name.as_str() != "BCC");
    let changed = headers.0.len() != before;
    keys.extend(blind);
    Extra { keys, stripped: changed.then(|| decoded.encode()) }
}

fn listed(headers: &Table, name: &str) -> Vec<ShortStr> {
    let Some(Value::Array(items)) = headers.get(name) else { return Vec::new() };
    items.iter().filter_map(|item| ShortStr::try_from(item.as_text()?).ok()).collect()
}
