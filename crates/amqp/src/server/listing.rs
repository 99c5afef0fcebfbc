//! What `kiln amqp` and the console show.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::core::{Binding, ConnectionId, ExchangeSpec, Target};
use crate::server::broker::Broker;
use crate::server::mailbox::{Letter, Mailbox};

/// A queue and its counts.
#[derive(Debug, Clone, Serialize)]
pub struct QueueInfo {
    /// Its virtual host.
    pub vhost: String,
    /// Its name.
    pub name: String,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Whether it goes with its connection.
    pub exclusive: bool,
    /// Its arguments, as text.
    pub arguments: Vec<(String, String)>,
    /// Messages that wait for a consumer.
    pub ready: usize,
    /// Messages delivered and not acknowledged.
    pub unacked: usize,
    /// Consumers.
    pub consumers: usize,
    /// Bytes of the bodies of ready messages.
    pub ready_bytes: u64,
    /// Bytes in memory.
    pub memory_bytes: usize,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// An exchange.
#[derive(Debug, Clone, Serialize)]
pub struct ExchangeInfo {
    /// Its virtual host.
    pub vhost: String,
    /// Its name; empty for the default exchange.
    pub name: String,
    /// `direct`, `fanout`, `topic` or `headers`.
    pub kind: &'static str,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
}

/// A binding.
#[derive(Debug, Clone, Serialize)]
pub struct BindingInfo {
    /// Its virtual host.
    pub vhost: String,
    /// The exchange that messages come from.
    pub source: String,
    /// `queue` or `exchange`.
    pub destination_type: &'static str,
    /// Where they go.
    pub destination: String,
    /// The routing key or pattern.
    pub routing_key: String,
    /// Its arguments, as text.
    pub arguments: Vec<(String, String)>,
}

/// A connection and its counts.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionInfo {
    /// Its number in this run.
    pub id: u64,
    /// The client's address.
    pub peer: String,
    /// The user.
    pub user: String,
    /// The virtual host.
    pub vhost: String,
    /// What the client calls itself.
    pub client: String,
    /// Open channels.
    pub channels: u64,
    /// Messages it published.
    pub published: u64,
    /// Messages delivered to it.
    pub delivered: u64,
}

/// A consumer.
#[derive(Debug, Clone, Serialize)]
pub struct ConsumerInfo {
    /// Its virtual host.
    pub vhost: String,
    /// Its queue.
    pub queue: String,
    /// Its tag.
    pub tag: String,
    /// Its channel.
    pub channel: u16,
    /// Whether it acknowledges.
    pub acknowledges: bool,
    /// Whether it holds the queue alone.
    pub exclusive: bool,
    /// Its prefetch; 0 is without limit.
    pub prefetch: u32,
    /// Messages it holds.
    pub unacked: u32,
}

/// What others see of a connection.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) login: OnceLock<Login>,
    pub(super) vhost: OnceLock<String>,
    pub(super) channels: AtomicU64,
    pub(super) published: AtomicU64,
    pub(super) delivered: AtomicU64,
    pub(super) mailbox: Arc<Mailbox>,
}

impl Peer {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            login: OnceLock::new(),
            vhost: OnceLock::new(),
            channels: AtomicU64::new(0),
            published: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            mailbox: Arc::default(),
        }
    }
}

/// Who a connection proved to be.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) user: Arc<str>,
    pub(super) client: String,
}

fn arguments(table: &crate::wire::Table) -> Vec<(String, String)> {
    table.0.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn exchange_info(vhost: &str, spec: &ExchangeSpec) -> ExchangeInfo {
    ExchangeInfo {
        vhost: vhost.to_owned(),
        name: spec.name.to_string(),
        kind: spec.kind.name(),
        durable: spec.durable,
        auto_delete: spec.auto_delete,
        internal: spec.internal,
    }
}

fn binding_info(vhost: &str, binding: &Binding) -> BindingInfo {
    BindingInfo {
        vhost: vhost.to_owned(),
        source: binding.source.to_string(),
        destination_type: match binding.destination.target {
            Target::Queue => "queue",
            Target::Exchange => "exchange",
        },
        destination: binding.destination.name.to_string(),
        routing_key: binding.routing_key.to_string(),
        arguments: arguments(&binding.arguments),
    }
}

impl Broker {
    /// Every queue, by virtual host and name.
    pub fn queues(&self) -> Vec<QueueInfo> {
        let mut out = Vec::new();
        for vhost in self.running_vhosts() {
            for view in vhost.read().queues() {
                let counts = view.handle.counts();
                out.push(QueueInfo {
                    vhost: vhost.name.to_string(),
                    name: view.spec.name.to_string(),
                    durable: view.spec.durable,
                    auto_delete: view.spec.auto_delete,
                    exclusive: view.spec.owner.is_some(),
                    arguments: arguments(&view.spec.arguments),
                    ready: counts.ready,
                    unacked: counts.unacked,
                    consumers: counts.consumers,
                    ready_bytes: counts.ready_bytes,
                    memory_bytes: counts.memory_bytes,
                    disk_bytes: counts.disk_bytes,
                });
            }
        }
        out.sort_by(|a, b| (&a.vhost, &a.name).cmp(&(&b.vhost, &b.name)));
        out
    }

    /// Every exchange, by virtual host and name.
    pub fn exchanges(&self) -> Vec<ExchangeInfo> {
        let mut out = Vec::new();
        for vhost in self.running_vhosts() {
            out.extend(vhost.read().exchanges().map(|exchange| exchange_info(&vhost.name, &exchange.spec)));
        }
        out.sort_by(|a, b| (&a.vhost, &a.name).cmp(&(&b.vhost, &b.name)));
        out
    }

    /// Every binding, with those of the default exchange.
    pub fn bindings(&self) -> Vec<BindingInfo> {
        let mut out = Vec::new();
        for vhost in self.running_vhosts() {
            out.extend(vhost.read().bindings().iter().map(|binding| binding_info(&vhost.name, binding)));
        }
        out.sort_by(|a, b| {
            (&a.vhost, &a.source, &a.destination, &a.routing_key).cmp(&(
                &b.vhost,
                &b.source,
                &b.destination,
                &b.routing_key,
            ))
        });
        out
    }

    /// Every consumer of a queue.
    pub fn consumers(&self) -> Vec<ConsumerInfo> {
        let mut out = Vec::new();
        for vhost in self.running_vhosts() {
            for view in vhost.read().queues() {
                out.extend(view.handle.consumers().iter().map(|consumer| ConsumerInfo {
                    vhost: vhost.name.to_string(),
                    queue: view.spec.name.to_string(),
                    tag: consumer.tag.to_string(),
                    channel: consumer.channel,
                    acknowledges: !consumer.no_ack,
                    exclusive: consumer.exclusive,
                    prefetch: consumer.credit.limit(),
                    unacked: consumer.credit.used(),
                }));
            }
        }
        out
    }

    /// Every connection that was let in.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let mut out: Vec<ConnectionInfo> = self
            .peers()
            .iter()
            .filter_map(|(id, peer)| {
                let (login, vhost) = (peer.login.get()?, peer.vhost.get()?);
                Some(ConnectionInfo {
                    id: id.0,
                    peer: peer.address.to_string(),
                    user: login.user.to_string(),
                    vhost: vhost.clone(),
                    client: login.client.clone(),
                    channels: peer.channels.load(Ordering::Relaxed),
                    published: peer.published.load(Ordering::Relaxed),
                    delivered: peer.delivered.load(Ordering::Relaxed),
                })
            })
            .collect();
        out.sort_by_key(|connection| connection.id);
        out
    }

    /// Closes a connection with 320 and this reason; `false` when there is none of that number.
    pub fn close_connection(&self, id: u64, reason: &str) -> bool {
        let peer = self.peers().get(&ConnectionId(id)).cloned();
        let Some(peer) = peer else { return false };
        peer.mailbox.send(Letter::Close(reason.to_owned()));
        true
    }
}
