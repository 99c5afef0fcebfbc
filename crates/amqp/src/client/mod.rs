//! A small client of AMQP 0-9-1 on the same codec: for Kiln's agents, its bridges and its load generator.
//!
//! [`Client::connect`], [`Client::channel`], then declare, publish, consume. A connection that is lost ends every call
//! and every consumer with an error; connecting again is the caller's, who knows what to declare again.

mod driver;
mod state;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::client::state::{Lag, Shared};
use crate::core::{Binding, ExchangeSpec, Target};
use crate::wire::{
    BasicAck, BasicCancel, BasicConsume, BasicNack, BasicPublish, BasicQos, ChannelClose, ChannelOpen,
    ConfirmSelect, ConnectionClose, DecodeError, ExchangeBind, ExchangeDeclare, Method, Properties,
    QueueBind, QueueDeclare, QueueDelete, ShortStr, Table, TooLong, encode_body, encode_header,
    encode_method,
};

/// Where and as whom to connect.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: String,
    /// The virtual host.
    pub vhost: String,
    /// What the broker calls this client in its lists.
    pub name: String,
    /// Seconds between heartbeats; 0 is none.
    pub heartbeat: u16,
    /// How long connecting may take.
    pub timeout: Duration,
}

impl Endpoint {
    /// The broker at `address` as `guest`, in virtual host `/`.
    pub fn guest(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            vhost: "/".to_owned(),
            name: "kiln".to_owned(),
            heartbeat: 30,
            timeout: Duration::from_secs(10),
        }
    }
}

/// Why a call on a connection failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The socket failed, or the broker hung up.
    #[error("the connection to the broker is lost: {0}")]
    Lost(Arc<str>),
    /// The broker closed the connection.
    #[error("the broker closed the connection: {code} {text}")]
    ConnectionClosed {
        /// The reply code.
        code: u16,
        /// The reply text.
        text: ShortStr,
    },
    /// The broker closed the channel.
    #[error("the broker closed the channel: {code} {text}")]
    ChannelClosed {
        /// The reply code.
        code: u16,
        /// The reply text.
        text: ShortStr,
    },
    /// The broker refused to take a message (`basic.nack`).
    #[error("the broker refused the message")]
    Refused,
    /// The broker speaks something else.
    #[error("the broker sent what is not due: {0}")]
    Protocol(Arc<str>),
    /// A name is longer than the protocol allows.
    #[error(transparent)]
    Name(#[from] TooLong),
    /// All channel numbers are taken.
    #[error("no channel is free: close some")]
    NoChannel,
}

impl From<std::io::Error> for ClientError {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(error.to_string().into())
    }
}

/// A connection to a broker. Clones are the same connection; it closes when the last is gone.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _alive: mpsc::Sender<()>,
}

/// A queue as the broker declared it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its name.
    pub queue: ShortStr,
    /// Ready messages.
    pub messages: u32,
    /// Consumers.
    pub consumers: u32,
}

impl Client {
    /// Connects and logs in.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let connecting = driver::connect(endpoint);
        let shared = tokio::time::timeout(endpoint.timeout, connecting).await.map_err(|_| {
            ClientError::Lost(
                format!("no answer from {} within {:?}", endpoint.address, endpoint.timeout).into(),
            )
        })??;
        let (alive, dropped) = mpsc::channel(1);
        let closing = Arc::clone(&shared);
        tokio::spawn(async move {
            let mut dropped = dropped;
            // Nothing is ever sent: this ends with the last clone.
            dropped.recv().await;
            closing.say_goodbye();
        });
        Ok(Self { shared, _alive: alive })
    }

    /// Opens a channel.
    pub async fn channel(&self) -> Result<Channel, ClientError> {
        let number = self.shared.new_channel()?;
        let channel = Channel { client: self.clone(), number };
        channel.call(&ChannelOpen::default().into()).await?;
        Ok(channel)
    }

    /// Closes the connection in good order.
    pub async fn close(self) -> Result<(), ClientError> {
        let text = ShortStr::from_static("goodbye");
        let close = ConnectionClose { code: 200, text, class: 0, method: 0 };
        call(&self.shared, 0, &close.into()).await.map(drop)
    }
}

async fn call(shared: &Arc<Shared>, channel: u16, method: &Method) -> Result<Method, ClientError> {
    let (reply, wait) = oneshot::channel();
    shared.expect_reply(channel, reply)?;
    shared.write(|out| encode_method(out, channel, method))?;
    wait.await.unwrap_or_else(|_| Err(shared.reason()))
}

/// A channel. It closes when it is dropped.
#[derive(Debug)]
pub struct Channel {
    client: Client,
    number: u16,
}

impl Channel {
    async fn call(&self, method: &Method) -> Result<Method, ClientError> {
        call(&self.client.shared, self.number, method).await
    }

    fn send(&self, method: &Method) -> Result<(), ClientError> {
        self.client.shared.write(|out| encode_method(out, self.number, method))
    }

    /// Declares an exchange.
    pub async fn declare_exchange(&self, spec: &ExchangeSpec) -> Result<(), ClientError> {
        let declare = ExchangeDeclare {
            exchange: spec.name.clone(),
            kind: ShortStr::from_static(spec.kind.name()),
            durable: spec.durable,
            auto_delete: spec.auto_delete,
            internal: spec.internal,
            arguments: spec.arguments.clone(),
            ..ExchangeDeclare::default()
        };
        self.call(&declare.into()).await.map(drop)
    }

    /// Declares a queue; an empty name lets the broker choose one.
    pub async fn declare_queue(&self, declare: QueueDeclare) -> Result<Declared, ClientError> {
        match self.call(&declare.into()).await? {
            Method::QueueDeclareOk(ok) => {
                Ok(Declared { queue: ok.queue, messages: ok.message_count, consumers: ok.consumer_count })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Declares a durable queue without arguments.
    pub async fn declare_durable(&self, name: &str) -> Result<Declared, ClientError> {
        let queue = ShortStr::try_from(name)?;
        self.declare_queue(QueueDeclare { queue, durable: true, ..QueueDeclare::default() }).await
    }

    /// Deletes a queue and gives the number of messages that were in it.
    pub async fn delete_queue(&self, name: &str) -> Result<u32, ClientError> {
        let queue = ShortStr::try_from(name)?;
        match self.call(&QueueDelete { queue, ..QueueDelete::default() }.into()).await? {
            Method::QueueDeleteOk(ok) => Ok(ok.message_count),
            other => Err(unexpected(&other)),
        }
    }

    /// Binds a queue or exchange.
    pub async fn bind(&self, binding: &Binding) -> Result<(), ClientError> {
        let Binding { source, destination, routing_key, arguments } = binding.clone();
        let method: Method = match destination.target {
            Target::Queue => {
                let queue = destination.name;
                QueueBind { queue, exchange: source, routing_key, arguments, ..QueueBind::default() }.into()
            }
            Target::Exchange => {
                let destination = destination.name;
                ExchangeBind { destination, source, routing_key, arguments, ..ExchangeBind::default() }.into()
            }
        };
        self.call(&method).await.map(drop)
    }

    /// Sets the prefetch: of each consumer begun from now on, or with `global` of the whole channel.
    pub async fn qos(&self, prefetch_count: u16, global: bool) -> Result<(), ClientError> {
        self.call(&BasicQos { prefetch_size: 0, prefetch_count, global }.into()).await.map(drop)
    }

    /// Turns publisher confirms on, which [`Channel::publish_confirmed`] needs.
    pub async fn confirm_select(&self) -> Result<(), ClientError> {
        self.client.shared.count_confirms(self.number);
        self.call(&ConfirmSelect::default().into()).await.map(drop)
    }

    /// Publishes without waiting for anything but room to write.
    pub async fn publish(
        &self,
        exchange: &ShortStr,
        routing_key: &ShortStr,
        properties: &[u8],
        body: &[u8],
    ) -> Result<(), ClientError> {
        self.client.shared.room().await?;
        self.put_publish(exchange, routing_key, properties, body, None)
    }

    /// Publishes on a channel in confirm mode; the future it gives resolves when the broker has taken the message: on
    /// disk, if message and queue are durable. The order of publishing is the order of calls.
    pub async fn publish_confirmed(
        &self,
        exchange: &ShortStr,
        routing_key: &ShortStr,
        properties: &[u8],
        body: &[u8],
    ) -> Result<impl Future<Output = Result<(), ClientError>> + Send + use<>, ClientError> {
        self.client.shared.room().await?;
        let (confirm, wait) = oneshot::channel();
        self.put_publish(exchange, routing_key, properties, body, Some(confirm))?;
        let shared = Arc::clone(&self.client.shared);
        Ok(async move { wait.await.unwrap_or_else(|_| Err(shared.reason())) })
    }

    fn put_publish(
        &self,
        exchange: &ShortStr,
        routing_key: &ShortStr,
        properties: &[u8],
        body: &[u8],
        confirm: Option<oneshot::Sender<Result<(), ClientError>>>,
    ) -> Result<(), ClientError> {
        let publish = BasicPublish {
            exchange: exchange.clone(),
            routing_key: routing_key.clone(),
            ..BasicPublish::default()
        };
        let frame_max = self.client.shared.frame_max();
        self.client.shared.publish(self.number, confirm, |out| {
            encode_method(out, self.number, &publish.into());
            encode_header(out, self.number, body.len() as u64, properties);
            encode_body(out, self.number, body, frame_max);
        })
    }

    /// Begins to consume a queue.
    pub async fn consume(&self, queue: &str, no_ack: bool) -> Result<Consumer, ClientError> {
        let queue = ShortStr::try_from(queue)?;
        let tag = self.client.shared.new_tag()?;
        let (deliveries, receive) = mpsc::unbounded_channel();
        self.client.shared.add_consumer(self.number, tag.clone(), deliveries);
        let consume = BasicConsume { queue, consumer_tag: tag.clone(), no_ack, ..BasicConsume::default() };
        self.call(&consume.into()).await?;
        Ok(Consumer {
            tag,
            receive,
            lag: Arc::clone(self.client.shared.lag()),
            shared: Arc::clone(&self.client.shared),
        })
    }

    /// Ends a consumer. What was delivered to it and not acknowledged stays with the channel.
    pub async fn cancel(&self, consumer: &Consumer) -> Result<(), ClientError> {
        let cancel = BasicCancel { consumer_tag: consumer.tag.clone(), no_wait: false };
        self.call(&cancel.into()).await?;
        self.client.shared.remove_consumer(self.number, &consumer.tag);
        Ok(())
    }

    /// Acknowledges a delivery, with `multiple` all up to it.
    pub fn ack(&self, delivery_tag: u64, multiple: bool) -> Result<(), ClientError> {
        self.send(&BasicAck { delivery_tag, multiple }.into())
    }

    /// Gives a delivery back, or with `requeue` false drops it (to the dead-letter exchange).
    pub fn nack(&self, delivery_tag: u64, multiple: bool, requeue: bool) -> Result<(), ClientError> {
        self.send(&BasicNack { delivery_tag, multiple, requeue }.into())
    }

    /// Closes the channel in good order.
    pub async fn close(self) -> Result<(), ClientError> {
        self.call(&goodbye()).await.map(drop)
    }
}

fn goodbye() -> Method {
    ChannelClose { code: 200, text: ShortStr::from_static("goodbye"), class: 0, method: 0 }.into()
}

impl Drop for Channel {
    fn drop(&mut self) {
        if self.client.shared.forget_channel(self.number) {
            // The answer is not waited for; a lost connection needs none.
            drop(self.send(&goodbye()));
        }
    }
}

fn unexpected(method: &Method) -> ClientError {
    ClientError::Protocol(format!("{:?} is no answer to what was asked", method.id()).into())
}

/// A message delivered to a consumer.
#[derive(Debug, Clone)]
pub struct Message {
    /// For the acknowledgement, on the same channel.
    pub delivery_tag: u64,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// The exchange it was published to.
    pub exchange: ShortStr,
    /// The routing key it was published with.
    pub routing_key: ShortStr,
    /// The body.
    pub body: Bytes,
    raw_properties: Bytes,
}

impl Message {
    /// The properties, decoded.
    pub fn properties(&self) -> Result<Properties, DecodeError> {
        Properties::decode(&self.raw_properties)
    }

    /// Its header table, decoded.
    pub fn headers(&self) -> Result<Table, DecodeError> {
        crate::wire::Traits::header_table(&self.raw_properties)
    }
}

/// The deliveries of one consumer.
#[derive(Debug)]
pub struct Consumer {
    tag: ShortStr,
    receive: mpsc::UnboundedReceiver<Message>,
    lag: Arc<Lag>,
    shared: Arc<Shared>,
}

impl Consumer {
    /// The next message. An error when connection, channel or queue is gone.
    pub async fn next(&mut self) -> Result<Message, ClientError> {
        match self.receive.recv().await {
            Some(message) => {
                self.lag.took(1, message.body.len());
                Ok(message)
            }
            None => Err(self.shared.reason()),
        }
    }

    /// Waits for at least one message and takes all that are there, up to `max`.
    pub async fn next_many(&mut self, into: &mut Vec<Message>, max: usize) -> Result<usize, ClientError> {
        let before = into.len();
        let count = self.receive.recv_many(into, max).await;
        if count == 0 {
            return Err(self.shared.reason());
        }
        self.lag.took(count, into[before..].iter().map(|message| message.body.len()).sum());
        Ok(count)
    }
}
