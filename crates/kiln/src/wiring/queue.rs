//! An agent's queues, consumed over AMQP from wherever the broker listens.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_amqp::client::{Channel, Client, ClientError, Consumer, Endpoint, Message};
use kiln_amqp::wire::Value;
use kiln_flow::QUEUED_HEADER;
use kiln_flow::ports::{Delivery, DeliveryTag, Pending, PortError, TaskQueue};

use tokio::sync::watch;

use super::exchanges::queues_of;

/// Bits of a delivery tag that are the broker's; above them stands the number of the connection.
const TAG_BITS: u32 = 40;

/// The queue of one host and the queue of all, under one prefetch.
pub(crate) struct AmqpQueue {
    endpoint: Endpoint,
    queues: [String; 2],
    prefetch: u16,
    connections: AtomicU64,
    /// For acknowledgements, which come while [`TaskQueue::next`] waits.
    session: watch::Sender<Option<Arc<Session>>>,
    consumers: tokio::sync::Mutex<Option<[Consumer; 2]>>,
}

struct Session {
    channel: Channel,
    connection: u64,
}

impl AmqpQueue {
    /// The queues of `host` at `endpoint`, at most `prefetch` messages unacknowledged. Connects when it is first asked.
    pub(crate) fn new(endpoint: Endpoint, host: &str, prefetch: u16) -> Self {
        Self {
            endpoint,
            queues: queues_of(host),
            prefetch,
            connections: AtomicU64::new(0),
            session: watch::Sender::new(None),
            consumers: tokio::sync::Mutex::default(),
        }
    }

    /// Returns when both queues are being consumed.
    pub(crate) async fn connected(&self) {
        // The sender is `self`, so this cannot fail.
        let _ = self.session.subscribe().wait_for(Option::is_some).await;
    }

    async fn connect(&self) -> Result<[Consumer; 2], ClientError> {
        let channel = Client::connect(&self.endpoint).await?.channel().await?;
        channel.qos(self.prefetch, true).await?;
        let [own, shared] = &self.queues;
        let consumers = [channel.consume(own, false).await?, channel.consume(shared, false).await?];
        let connection = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        self.set_session(Some(Session { channel, connection }));
        Ok(consumers)
    }

    async fn take(&self) -> Result<Delivery, PortError> {
        let mut consumers = self.consumers.lock().await;
        let [own, shared] = match &mut *consumers {
            Some(consumers) => consumers,
            none => none.insert(self.connect().await.map_err(|e| PortError::Unavailable(e.to_string()))?),
        };
        let next = tokio::select! {
            message = own.next() => message,
            message = shared.next() => message,
        };
        match next {
            Ok(message) => Ok(self.delivery(&message)),
            Err(error) => {
                *consumers = None;
                self.set_session(None);
                Err(PortError::Unavailable(error.to_string()))
            }
        }
    }

    fn delivery(&self, message: &Message) -> Delivery {
        let connection = self.connections.load(Ordering::Relaxed);
        let queued = message.headers().ok().and_then(|headers| match headers.get(QUEUED_HEADER) {
            Some(Value::LongStr(text)) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        });
        let tag = DeliveryTag(connection << TAG_BITS | message.delivery_tag);
        Delivery { tag, body: message.body.to_vec(), queued }
    }

    /// Settles a delivery, unless its connection is gone: the broker gives such a message again by itself.
    fn settle(
        &self,
        tag: DeliveryTag,
        how: impl FnOnce(&Channel, u64) -> Result<(), ClientError>,
    ) -> Result<(), PortError> {
        let session = self.session.borrow().clone();
        let (connection, tag) = (tag.0 >> TAG_BITS, tag.0 & ((1 << TAG_BITS) - 1));
        match session.filter(|session| session.connection == connection) {
            Some(session) => how(&session.channel, tag).map_err(|e| PortError::Refused(e.to_string())),
            None => Ok(()),
        }
    }

    fn set_session(&self, session: Option<Session>) {
        self.session.send_replace(session.map(Arc::new));
    }
}

impl TaskQueue for AmqpQueue {
    fn next(&self) -> Pending<'_, Result<Delivery, PortError>> {
        Box::pin(self.take())
    }

    fn ack(&self, tag: DeliveryTag) -> Pending<'_, Result<(), PortError>> {
        Box::pin(async move { self.settle(tag, |channel, tag| channel.ack(tag, false)) })
    }

    fn requeue(&self, tag: DeliveryTag) -> Pending<'_, Result<(), PortError>> {
        Box::pin(async move { self.settle(tag, |channel, tag| channel.nack(tag, false, true)) })
    }
}
