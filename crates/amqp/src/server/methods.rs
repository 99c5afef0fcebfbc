//! What the methods of classes exchange, queue, basic, confirm and tx do.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_auth::Access;

use crate::core::{
    Binding, Changes, Confirms, Credit, Destination, ExchangeKind, ExchangeSpec, Origin, QueueSpec, Refusal,
    ReplyCode, Target,
};
use crate::server::batch::{Delivered, Fate};
use crate::server::broker::{BrokerError, Conditions};
use crate::server::mailbox::Consumer;
use crate::server::names::random_name;
use crate::server::queue::Queue;
use crate::server::routes::Resource;
use crate::server::session::{REPLY_TO, Session};
use crate::server::vhost::{Running, Vhost};
use crate::wire::{
    BasicCancel, BasicCancelOk, BasicConsume, BasicConsumeOk, BasicGet, BasicGetEmpty, BasicQos, BasicQosOk,
    BasicRecoverOk, ChannelFlow, ChannelFlowOk, ConfirmSelectOk, ExchangeBindOk, ExchangeDeclare,
    ExchangeDeclareOk, ExchangeDelete, ExchangeDeleteOk, ExchangeUnbindOk, Method, QueueBindOk, QueueDeclare,
    QueueDeclareOk, QueueDelete, QueueDeleteOk, QueuePurge, QueuePurgeOk, QueueUnbindOk, ShortStr,
    encode_body, encode_get_ok, encode_header,
};

impl From<BrokerError> for Refusal {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Refused(refusal) => refusal,
            other => Self::new(ReplyCode::InternalError, other.to_string()),
        }
    }
}

impl Session {
    /// Acknowledgements are gathered; everything else is carried out at once.
    pub(super) fn acknowledge(&mut self, number: u16, method: &Method) -> Option<Result<(), Refusal>> {
        let (tag, multiple, fate) = match method {
            Method::BasicAck(ack) => (ack.delivery_tag, ack.multiple, Fate::Done),
            Method::BasicNack(nack) => (nack.delivery_tag, nack.multiple, fate(nack.requeue)),
            Method::BasicReject(reject) => (reject.delivery_tag, false, fate(reject.requeue)),
            _ => return None,
        };
        let channel = self.conn.channel(number)?;
        // The common case without a list.
        if !multiple && let Ok(delivery) = channel.unacked.take_one(tag) {
            self.settle_one(delivery, fate);
            return Some(Ok(()));
        }
        let taken = channel.unacked.take(tag, multiple);
        Some(match taken {
            Ok(deliveries) => {
                self.settle(deliveries, fate);
                Ok(())
            }
            Err(unknown) => Err(Refusal::precondition(unknown.to_string())),
        })
    }

    fn settle_one(&mut self, delivery: Delivered, fate: Fate) {
        self.settle(vec![delivery], fate);
    }

    /// Carries out a method. What was gathered before is flushed already.
    pub(super) async fn method(&mut self, number: u16, method: Method) -> Result<(), Refusal> {
        match method {
            Method::ExchangeDeclare(m) => self.exchange_declare(number, m).await,
            Method::ExchangeDelete(m) => self.exchange_delete(number, m).await,
            Method::ExchangeBind(m) => {
                let destination = Destination { target: Target::Exchange, name: m.destination };
                let binding = Binding {
                    source: m.source,
                    destination,
                    routing_key: m.routing_key,
                    arguments: m.arguments,
                };
                self.bind(number, binding, true, (!m.no_wait).then(|| ExchangeBindOk {}.into())).await
            }
            Method::ExchangeUnbind(m) => {
                let destination = Destination { target: Target::Exchange, name: m.destination };
                let binding = Binding {
                    source: m.source,
                    destination,
                    routing_key: m.routing_key,
                    arguments: m.arguments,
                };
                self.bind(number, binding, false, (!m.no_wait).then(|| ExchangeUnbindOk {}.into())).await
            }
            Method::QueueDeclare(m) => self.queue_declare(number, m).await,
            Method::QueueBind(m) => {
                let (queue, routing_key) = self.bound_queue(number, &m.queue, &m.routing_key)?;
                let destination = Destination { target: Target::Queue, name: queue };
                let binding =
                    Binding { source: m.exchange, destination, routing_key, arguments: m.arguments };
                self.bind(number, binding, true, (!m.no_wait).then(|| QueueBindOk {}.into())).await
            }
            Method::QueueUnbind(m) => {
                let (queue, routing_key) = self.bound_queue(number, &m.queue, &m.routing_key)?;
                let destination = Destination { target: Target::Queue, name: queue };
                let binding =
                    Binding { source: m.exchange, destination, routing_key, arguments: m.arguments };
                self.bind(number, binding, false, Some(QueueUnbindOk {}.into())).await
            }
            Method::QueuePurge(m) => self.queue_purge(number, &m),
            Method::QueueDelete(m) => self.queue_delete(number, m).await,
            Method::BasicQos(m) => self.qos(number, &m),
            Method::BasicConsume(m) => self.consume(number, &m),
            Method::BasicCancel(m) => self.cancel(number, m).await,
            Method::BasicGet(m) => self.get(number, &m),
            Method::BasicRecover(m) => {
                self.recover(number, m.requeue)?;
                self.put(number, BasicRecoverOk {});
                Ok(())
            }
            Method::BasicRecoverAsync(m) => self.recover(number, m.requeue),
            Method::ConfirmSelect(m) => {
                if let Some(channel) = self.conn.channel(number) {
                    channel.confirms.get_or_insert_with(Confirms::default);
                }
                if !m.no_wait {
                    self.put(number, ConfirmSelectOk {});
                }
                Ok(())
            }
            Method::ChannelFlow(ChannelFlow { active: true }) => {
                self.put(number, ChannelFlowOk { active: true });
                Ok(())
            }
            Method::ChannelFlow(_) => Err(Refusal::new(ReplyCode::NotImplemented, "active=false")),
            Method::ChannelFlowOk(_) | Method::BasicCancelOk(_) => Ok(()),
            Method::TxSelect(_) => self.tx_select(number),
            Method::TxCommit(_) | Method::TxRollback(_) => {
                Err(Refusal::precondition("channel is not transactional"))
            }
            _ => Err(Refusal::new(ReplyCode::CommandInvalid, "unimplemented method")),
        }
    }

    fn tx_select(&mut self, number: u16) -> Result<(), Refusal> {
        if self.conn.channel(number).is_some_and(|channel| channel.confirms.is_some()) {
            return Err(Refusal::precondition("cannot switch from confirm to tx mode"));
        }
        let detail = "transactions are not supported: use publisher confirms (confirm.select) instead";
        Err(Refusal::new(ReplyCode::NotImplemented, detail))
    }

    // ---- names and rights

    fn vhost(&self) -> Result<Arc<Vhost>, Refusal> {
        Ok(Arc::clone(&self.place()?.vhost))
    }

    fn check(&self, access: Access, resource: Resource, name: &ShortStr) -> Result<(), Refusal> {
        self.place()?.check(&self.broker, access, resource, name)
    }

    fn origin(&self) -> Origin {
        Origin::Connection(self.id)
    }

    /// An empty name means the queue last declared on the channel.
    fn named(&mut self, number: u16, name: &ShortStr) -> Result<ShortStr, Refusal> {
        if !name.is_empty() {
            return Ok(name.detached());
        }
        let last = self.conn.channel(number).and_then(|channel| channel.last_queue.clone());
        last.ok_or_else(|| Refusal::new(ReplyCode::NotFound, "no previously declared queue"))
    }

    /// Queue and routing key of a binding; both empty means the last queue's name for both (specification,
    /// `queue.bind`).
    fn bound_queue(
        &mut self,
        number: u16,
        queue: &ShortStr,
        routing_key: &ShortStr,
    ) -> Result<(ShortStr, ShortStr), Refusal> {
        let both_empty = queue.is_empty() && routing_key.is_empty();
        let queue = self.named(number, queue)?;
        let routing_key = if both_empty { queue.clone() } else { routing_key.detached() };
        Ok((queue, routing_key))
    }

    fn queue(&self, vhost: &Vhost, name: &ShortStr) -> Result<Arc<Queue>, Refusal> {
        Ok(Arc::clone(&vhost.read().queue(name, self.origin())?.handle))
    }

    // ---- exchanges

    async fn exchange_declare(&mut self, number: u16, m: ExchangeDeclare) -> Result<(), Refusal> {
        let vhost = self.vhost()?;
        if m.passive {
            vhost.read().exchange(&m.exchange)?;
        } else {
            let Some(kind) = ExchangeKind::from_name(&m.kind) else {
                let detail = format!("invalid exchange type '{}'", m.kind);
                return Err(Refusal::new(ReplyCode::CommandInvalid, detail));
            };
            self.check(Access::Configure, Resource::Exchange, &m.exchange)?;
            let spec = ExchangeSpec {
                name: m.exchange.detached(),
                kind,
                durable: m.durable,
                auto_delete: m.auto_delete,
                internal: m.internal,
                arguments: m.arguments,
            };
            self.change(&vhost, |topology| topology.declare_exchange(spec)).await?;
        }
        if !m.no_wait {
            self.put(number, ExchangeDeclareOk {});
        }
        Ok(())
    }

    async fn exchange_delete(&mut self, number: u16, m: ExchangeDelete) -> Result<(), Refusal> {
        let vhost = self.vhost()?;
        self.check(Access::Configure, Resource::Exchange, &m.exchange)?;
        self.change(&vhost, |topology| topology.delete_exchange(&m.exchange, m.if_unused)).await?;
        if !m.no_wait {
            self.put(number, ExchangeDeleteOk {});
        }
        Ok(())
    }

    /// Changes the topology and waits until the change is durable.
    async fn change(
        &self,
        vhost: &Vhost,
        operation: impl FnOnce(&mut Running) -> Result<Changes, Refusal>,
    ) -> Result<(), Refusal> {
        let ((), recorded) = vhost.change(&self.broker, |topology| Ok(((), operation(topology)?)))?;
        recorded.wait().await.map_err(|error| Refusal::new(ReplyCode::InternalError, error))
    }

    async fn bind(
        &mut self,
        number: u16,
        binding: Binding,
        add: bool,
        answer: Option<Method>,
    ) -> Result<(), Refusal> {
        let vhost = self.vhost()?;
        let target = match binding.destination.target {
            Target::Queue => Resource::Queue,
            Target::Exchange => Resource::Exchange,
        };
        self.check(Access::Write, target, &binding.destination.name)?;
        self.check(Access::Read, Resource::Exchange, &binding.source)?;
        let origin = self.origin();
        let binding = detach(binding);
        let operation = |topology: &mut Running| {
            // Another connection's exclusive queue is locked, whatever the binding.
            match (binding.destination.target, topology.queue(&binding.destination.name, origin)) {
                (Target::Queue, Err(refusal)) if refusal.code == ReplyCode::ResourceLocked => Err(refusal),
                _ if add => topology.bind(&binding),
                _ => topology.unbind(&binding),
            }
        };
        self.change(&vhost, operation).await?;
        if let Some(answer) = answer {
            self.put(number, answer);
        }
        Ok(())
    }

    // ---- queues

    async fn queue_declare(&mut self, number: u16, m: QueueDeclare) -> Result<(), Refusal> {
        let vhost = self.vhost()?;
        if m.queue.as_str() == REPLY_TO {
            self.declared(number, m.queue, (0, 1), m.no_wait);
            return Ok(());
        }
        let queue = if m.passive {
            let name = self.named(number, &m.queue)?;
            self.queue(&vhost, &name)?
        } else {
            self.declare(&vhost, &m).await?
        };
        let name = queue.spec.name.clone();
        if let Some(channel) = self.conn.channel(number) {
            channel.last_queue = Some(name.clone());
        }
        self.declared(number, name, queue.declared(self.broker.now()), m.no_wait);
        Ok(())
    }

    fn declared(
        &mut self,
        number: u16,
        queue: ShortStr,
        (message_count, consumer_count): (u32, u32),
        no_wait: bool,
    ) {
        if !no_wait {
            self.put(number, QueueDeclareOk { queue, message_count, consumer_count });
        }
    }

    async fn declare(&self, vhost: &Arc<Vhost>, m: &QueueDeclare) -> Result<Arc<Queue>, Refusal> {
        let name = if m.queue.is_empty() {
            random_name(self.broker.rng(), "amq.gen-")
        } else {
            vhost.read().check_queue_name(&m.queue)?;
            m.queue.detached()
        };
        self.check(Access::Configure, Resource::Queue, &name)?;
        self.check_dead_letter(m, &name)?;
        let spec = QueueSpec {
            name,
            durable: m.durable,
            auto_delete: m.auto_delete,
            owner: m.exclusive.then_some(self.id),
            arguments: m.arguments.clone(),
            incarnation: self.broker.now(),
        };
        Ok(self.broker.declare(vhost, spec, self.origin()).await?)
    }

    /// Whoever dead-letters must be allowed to read the queue and to write to the exchange.
    fn check_dead_letter(&self, m: &QueueDeclare, name: &ShortStr) -> Result<(), Refusal> {
        let exchange = m.arguments.get("x-dead-letter-exchange").and_then(|value| value.as_text());
        let Some(exchange) = exchange.and_then(|text| ShortStr::try_from(text).ok()) else { return Ok(()) };
        self.check(Access::Read, Resource::Queue, name)?;
        self.check(Access::Write, Resource::Exchange, &exchange)
    }

    fn queue_purge(&mut self, number: u16, m: &QueuePurge) -> Result<(), Refusal> {
        let vhost = self.vhost()?;
        let name = self.named(number, &m.queue)?;
        self.check(Access::Read, Resource::Queue, &name)?;
        let (count, chore) = self.queue(&vhost, &name)?.purge(self.broker.now());
        if let Some(chore) = chore {
            tokio::spawn(chore.run());
        }
        if !m.no_wait {
            self.put(number, QueuePurgeOk { message_count: u32::try_from(count).unwrap_or(u32::MAX) });
        }
        Ok(())
    }

    async fn queue_delete(&mut self, number: u16, m: QueueDelete) -> Result<(), Refusal> {
        let vhost = self.vhost()?;
        let name = self.named(number, &m.queue)?;
        self.check(Access::Configure, Resource::Queue, &name)?;
        let message_count = match self.queue(&vhost, &name) {
            Ok(queue) => {
                let conditions = Conditions { if_unused: m.if_unused, if_empty: m.if_empty };
                self.broker.delete_queue(&vhost, &queue, conditions).await?
            }
            Err(refusal) if refusal.code == ReplyCode::NotFound => 0,
            Err(refusal) => return Err(refusal),
        };
        if !m.no_wait {
            self.put(number, QueueDeleteOk { message_count });
        }
        Ok(())
    }

    // ---- consuming

    fn qos(&mut self, number: u16, m: &BasicQos) -> Result<(), Refusal> {
        if m.prefetch_size != 0 {
            let detail = format!("prefetch_size!=0 ({})", m.prefetch_size);
            return Err(Refusal::new(ReplyCode::NotImplemented, detail));
        }
        if let Some(channel) = self.conn.channel(number) {
            if m.global {
                channel.credit.set_limit(m.prefetch_count.into());
            } else {
                channel.prefetch = m.prefetch_count.into();
            }
        }
        if m.global {
            self.resume_channel(number);
        }
        self.put(number, BasicQosOk {});
        Ok(())
    }

    /// A raised limit lets the channel's consumers take more.
    fn resume_channel(&self, number: u16) {
        let now = self.broker.now();
        for consumer in self.consumers.values().filter(|consumer| consumer.channel == number) {
            if let Some((queue, followup)) = consumer.resume(now) {
                self.broker.follow_up(queue, followup);
            }
        }
    }

    fn consume(&mut self, number: u16, m: &BasicConsume) -> Result<(), Refusal> {
        if m.queue.as_str() == REPLY_TO {
            return self.consume_replies(number, m);
        }
        let vhost = self.vhost()?;
        let name = self.named(number, &m.queue)?;
        self.check(Access::Read, Resource::Queue, &name)?;
        let queue = self.queue(&vhost, &name)?;
        let tag = self.consumer_tag(number, &m.consumer_tag)?;
        let Some(channel) = self.conn.channel(number) else { return Ok(()) };
        let consumer = Arc::new(Consumer {
            tag: tag.clone(),
            channel: number,
            no_ack: m.no_ack,
            exclusive: m.exclusive,
            credit: Credit::new(channel.prefetch, Some(Arc::clone(&channel.credit))),
            mailbox: Arc::clone(&self.mailbox),
            queue: Some(Arc::clone(&queue)),
            key: OnceLock::new(),
            gone: AtomicBool::new(false),
        });
        let followup = queue.consume(&consumer, self.broker.now())?;
        self.consumers.insert((number, tag.clone()), consumer);
        // Before the first delivery: letters are read after this method.
        if !m.no_wait {
            self.put(number, BasicConsumeOk { consumer_tag: tag });
        }
        self.broker.follow_up(&queue, followup);
        Ok(())
    }

    /// The tag that the client chose, or one of ours; 530 when it is taken.
    fn consumer_tag(&self, number: u16, tag: &ShortStr) -> Result<ShortStr, Refusal> {
        if tag.is_empty() {
            return Ok(random_name(self.broker.rng(), "amq.ctag-"));
        }
        if self.consumers.contains_key(&(number, tag.clone())) {
            let detail = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Refusal::new(ReplyCode::NotAllowed, detail));
        }
        Ok(tag.detached())
    }

    fn consume_replies(&mut self, number: u16, m: &BasicConsume) -> Result<(), Refusal> {
        if !m.no_ack {
            return Err(Refusal::precondition("reply consumer cannot acknowledge"));
        }
        if self.reply_tokens.contains_key(&number) {
            return Err(Refusal::precondition("reply consumer already set"));
        }
        let tag = self.consumer_tag(number, &m.consumer_tag)?;
        let token = random_name(self.broker.rng(), "amq.rabbitmq.reply-to.");
        let consumer = Arc::new(Consumer {
            tag: tag.clone(),
            channel: number,
            no_ack: true,
            exclusive: false,
            credit: Credit::new(0, None),
            mailbox: Arc::clone(&self.mailbox),
            queue: None,
            key: OnceLock::new(),
            gone: AtomicBool::new(false),
        });
        self.broker.replies().insert(token.clone(), Arc::clone(&consumer));
        self.reply_tokens.insert(number, token);
        self.consumers.insert((number, tag.clone()), consumer);
        if !m.no_wait {
            self.put(number, BasicConsumeOk { consumer_tag: tag });
        }
        Ok(())
    }

    async fn cancel(&mut self, number: u16, m: BasicCancel) -> Result<(), Refusal> {
        let key = (number, m.consumer_tag.clone());
        if let Some(consumer) = self.consumers.get(&key).cloned() {
            let unused = self.end_consumer(&consumer);
            // What it was given before goes out before the answer.
            self.read_all_letters();
            consumer.gone.store(true, Ordering::Release);
            self.consumers.remove(&key);
            if consumer.queue.is_none()
                && let Some(token) = self.reply_tokens.remove(&number)
            {
                self.broker.replies().remove(&token);
            }
            self.delete_unused(unused.into_iter().collect()).await;
        }
        if !m.no_wait {
            self.put(number, BasicCancelOk { consumer_tag: m.consumer_tag });
        }
        Ok(())
    }

    fn get(&mut self, number: u16, m: &BasicGet) -> Result<(), Refusal> {
        let vhost = self.vhost()?;
        let name = self.named(number, &m.queue)?;
        self.check(Access::Read, Resource::Queue, &name)?;
        let queue = self.queue(&vhost, &name)?;
        let (got, followup) = queue.get(m.no_ack, self.broker.now());
        self.broker.follow_up(&queue, followup);
        let frame_max = self.conn.frame_max();
        let Some((mut entry, left)) = got else {
            self.put(number, BasicGetEmpty::default());
            return Ok(());
        };
        let (Some(message), Some(channel)) = (entry.message.clone(), self.conn.channel(number)) else {
            return Err(Refusal::new(ReplyCode::InternalError, "the message cannot be read back"));
        };
        let redelivered = entry.redelivered;
        let tag = if m.no_ack {
            channel.unacked.skip()
        } else {
            if entry.is_logged() {
                entry.message = None;
            }
            channel.unacked.push(Delivered { queue, consumer: None, entry })
        };
        let left = u32::try_from(left).unwrap_or(u32::MAX);
        let names = (&message.exchange, &message.routing_key);
        encode_get_ok(&mut self.out, number, tag, redelivered, names, left);
        encode_header(&mut self.out, number, message.body.len() as u64, &message.properties);
        encode_body(&mut self.out, number, &message.body, frame_max);
        Ok(())
    }

    fn recover(&mut self, number: u16, requeue: bool) -> Result<(), Refusal> {
        if !requeue {
            return Err(Refusal::new(ReplyCode::NotImplemented, "requeue=false"));
        }
        if let Some(channel) = self.conn.channel(number) {
            let deliveries = channel.unacked.take_all();
            self.settle(deliveries, Fate::Requeue);
            self.flush_settled();
        }
        Ok(())
    }
}

fn fate(requeue: bool) -> Fate {
    if requeue { Fate::Requeue } else { Fate::Dead }
}

/// The same binding without a read buffer behind its names.
fn detach(binding: Binding) -> Binding {
    let Binding { source, destination: Destination { target, name }, routing_key, arguments } = binding;
    Binding {
        source: source.detached(),
        destination: Destination { target, name: name.detached() },
        routing_key: routing_key.detached(),
        arguments,
    }
}
