//! The broker: what connections share, and what the rest of Kiln calls.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use kiln_auth::Auth;
use kiln_log::Volume;
use kiln_store::Handle;
use kiln_world::Rng;

use crate::core::{
    Binding, Changes, ConnectionId, ExchangeSpec, Limits, Message, Origin, QueueSpec, Refusal,
};
use crate::server::backing::BackingError;
use crate::server::burial::Burials;
use crate::server::listing::Peer;
use crate::server::machine::{AmqpMachine, Recorder};
use crate::server::mailbox::Consumer;
use crate::server::queue::{Followup, Memory, Queue};
use crate::server::timers::Timers;
use crate::server::vhost::Vhost;
use crate::server::vhosts::Vhosts;
use crate::wire::{Properties, ShortStr, Traits};

/// How the broker behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the queues' logs, relative to the volume's disk.
    pub directory: PathBuf,
    /// Messages kept in memory over all queues, in bytes. The bodies of what comes beyond are only in the log.
    pub memory_bytes_max: usize,
    /// Connections at a time.
    pub connections_max: usize,
    /// What is offered to clients.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("amqp"),
            memory_bytes_max: 256 << 20,
            connections_max: 16_384,
            limits: Limits::default(),
        }
    }
}

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The list of virtual hosts or their content does not read.
    #[error("read exchanges and queues: {0}")]
    Store(#[from] kiln_store::ReadError),
    /// What is stored contradicts itself.
    #[error("read exchanges and queues: {0}")]
    Stored(String),
    /// The directory of a virtual host does not read.
    #[error("list the directories of queues: {0}")]
    Io(#[from] std::io::Error),
    /// The messages of a queue do not read.
    #[error("recover queue '{0}': {1}")]
    Queue(String, #[source] BackingError),
}

/// Why an operation from inside Kiln was not carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BrokerError {
    /// The broker's rules forbid it; the text is the protocol's.
    #[error("{0}")]
    Refused(Refusal),
    /// There is no such virtual host.
    #[error("there is no virtual host '{0}'")]
    NoVhost(String),
    /// A name is longer than the protocol allows.
    #[error(transparent)]
    Name(#[from] crate::wire::TooLong),
    /// The change could not be stored.
    #[error("store the change: {0}")]
    Store(String),
    /// The disk is full; nothing was taken.
    #[error("the disk is full; free some space")]
    Full,
    /// A queue is full and refuses new messages.
    #[error("a queue is full and refused the message")]
    QueueFull,
    /// A log has failed.
    #[error(transparent)]
    Log(#[from] kiln_log::Failed),
}

impl From<Refusal> for BrokerError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// The broker. Clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<Inner>,
}

/// A broker that may be gone.
pub(super) struct WeakBroker(Weak<Inner>);

impl WeakBroker {
    pub(super) fn upgrade(&self) -> Option<Broker> {
        self.0.upgrade().map(|inner| Broker { inner })
    }
}

struct Inner {
    volume: Volume,
    store: Handle<AmqpMachine>,
    auth: Auth,
    rng: Arc<dyn Rng>,
    settings: Settings,
    recorder: Recorder,
    vhosts: Vhosts,
    memory: Arc<Memory>,
    timers: Timers,
    burials: Burials,
    next_id: AtomicU64,
    peers: Mutex<HashMap<ConnectionId, Arc<Peer>>>,
    /// Consumers of direct replies by the token in their `reply_to`.
    replies: Mutex<HashMap<ShortStr, Arc<Consumer>>>,
}

impl Broker {
    /// Reads what is stored and recovers every durable queue. Needs a tokio runtime.
    pub async fn start(
        volume: Volume,
        store: Handle<AmqpMachine>,
        auth: Auth,
        rng: Arc<dyn Rng>,
        settings: Settings,
    ) -> Result<Self, StartError> {
        let inner = Inner {
            vhosts: Vhosts::new(&auth),
            recorder: Recorder::start(store.clone()),
            memory: Arc::new(Memory::new(settings.memory_bytes_max)),
            volume,
            store,
            auth,
            rng,
            settings,
            timers: Timers::default(),
            burials: Burials::default(),
            next_id: AtomicU64::new(1),
            peers: Mutex::default(),
            replies: Mutex::default(),
        };
        let broker = Self { inner: Arc::new(inner) };
        broker.start_vhosts().await?;
        broker.watch_timers();
        Ok(broker)
    }

    fn watch_timers(&self) {
        let weak = self.downgrade();
        tokio::spawn(async move {
            while let Some(broker) = weak.upgrade() {
                let due = broker.inner.timers.wait(|| broker.now()).await;
                for queue in due {
                    broker.tick(&queue).await;
                }
            }
        });
    }

    // ---- what connections need

    pub(super) fn volume(&self) -> &Volume {
        &self.inner.volume
    }

    pub(super) fn store(&self) -> &Handle<AmqpMachine> {
        &self.inner.store
    }

    pub(super) fn auth(&self) -> &Auth {
        &self.inner.auth
    }

    pub(super) fn rng(&self) -> &dyn Rng {
        &*self.inner.rng
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(super) fn root(&self) -> &Path {
        &self.inner.settings.directory
    }

    pub(super) fn recorder(&self) -> &Recorder {
        &self.inner.recorder
    }

    pub(super) fn downgrade(&self) -> WeakBroker {
        WeakBroker(Arc::downgrade(&self.inner))
    }

    pub(super) fn burials(&self) -> &Burials {
        &self.inner.burials
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.inner.memory
    }

    pub(super) fn next_id(&self) -> u64 {
        self.inner.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Microseconds since the epoch.
    pub(super) fn now(&self) -> i64 {
        self.inner.volume.clock().now().0
    }

    pub(super) fn peers(&self) -> MutexGuard<'_, HashMap<ConnectionId, Arc<Peer>>> {
        self.inner.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn replies(&self) -> MutexGuard<'_, HashMap<ShortStr, Arc<Consumer>>> {
        self.inner.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn vhosts(&self) -> &Vhosts {
        &self.inner.vhosts
    }

    pub(super) fn running_vhosts(&self) -> Vec<Arc<Vhost>> {
        self.inner.vhosts.all()
    }

    pub(super) fn running_vhost(&self, name: &ShortStr) -> Option<Arc<Vhost>> {
        self.inner.vhosts.get(name)
    }

    /// Sees to it that a queue is looked at when its time has come.
    pub(super) fn arm(&self, queue: &Arc<Queue>) {
        if let Some(at) = queue.first_deadline(self.now()) {
            self.inner.timers.arm(at, queue);
        }
    }

    /// Does what an operation on a queue left to be done.
    pub(super) fn follow_up(&self, queue: &Arc<Queue>, followup: Followup) {
        let Followup { dead, deadline, chore } = followup;
        if let Some(at) = deadline {
            self.inner.timers.arm(at, queue);
        }
        if let Some(chore) = chore {
            tokio::spawn(chore.run());
        }
        if !dead.is_empty() {
            self.bury(queue, dead);
        }
    }

    /// Time has passed for a queue.
    async fn tick(&self, queue: &Arc<Queue>) {
        let (gone, followup) = queue.tick(self.now());
        self.follow_up(queue, followup);
        if gone && let Some(vhost) = self.running_vhost(&queue.vhost) {
            drop(self.delete_queue(&vhost, queue, Conditions::default()).await);
        }
    }

    /// Deletes a queue, unless it is no longer the one of its name.
    pub(super) async fn delete_queue(
        &self,
        vhost: &Arc<Vhost>,
        queue: &Arc<Queue>,
        conditions: Conditions,
    ) -> Result<u32, BrokerError> {
        let (count, recorded) = vhost.change(self, |topology| {
            let name = &queue.spec.name;
            let current = topology.queue(name, Origin::Kiln).map(|view| view.handle.id).ok();
            if current != Some(queue.id) {
                return Ok((None, Changes::new()));
            }
            let count = queue.delete(conditions.if_unused, conditions.if_empty)?;
            let changes = topology.remove_queue(name).map(|(_, changes)| changes).unwrap_or_default();
            Ok((Some(count), changes))
        })?;
        recorded.wait().await.map_err(BrokerError::Store)?;
        if count.is_some() {
            let queue = Arc::clone(queue);
            drop(tokio::task::spawn_blocking(move || queue.remove_files()));
        }
        Ok(count.unwrap_or(0))
    }

    // ---- what the rest of Kiln calls

    /// Declares an exchange, or checks that it is there as declared. Durable on return.
    pub async fn declare_exchange(&self, vhost: &str, spec: ExchangeSpec) -> Result<(), BrokerError> {
        let vhost = self.known_vhost(vhost).await?;
        let ((), recorded) = vhost.change(self, |topology| Ok(((), topology.declare_exchange(spec)?)))?;
        recorded.wait().await.map_err(BrokerError::Store)
    }

    /// Declares a durable queue with these arguments, or checks that it is there as declared. Durable on return.
    pub async fn declare_queue(
        &self,
        vhost: &str,
        name: &str,
        arguments: crate::wire::Table,
    ) -> Result<(), BrokerError> {
        let vhost = self.known_vhost(vhost).await?;
        let spec = QueueSpec { arguments, ..QueueSpec::durable(ShortStr::try_from(name)?, self.now()) };
        self.declare(&vhost, spec, Origin::Kiln).await.map(drop)
    }

    /// Declares a queue for a client or for Kiln.
    pub(super) async fn declare(
        &self,
        vhost: &Arc<Vhost>,
        spec: QueueSpec,
        origin: Origin,
    ) -> Result<Arc<Queue>, BrokerError> {
        let (view, recorded) = vhost.change(self, |topology| {
            topology.declare_queue(spec, origin, |spec, arguments| vhost.make_queue(self, spec, arguments))
        })?;
        recorded.wait().await.map_err(BrokerError::Store)?;
        self.arm(&view.handle);
        Ok(view.handle)
    }

    /// Binds a queue or exchange. Durable on return.
    pub async fn bind(&self, vhost: &str, binding: Binding) -> Result<(), BrokerError> {
        let vhost = self.known_vhost(vhost).await?;
        let ((), recorded) = vhost.change(self, |topology| Ok(((), topology.bind(&binding)?)))?;
        recorded.wait().await.map_err(BrokerError::Store)
    }

    /// Removes a binding. Durable on return; a missing one is no error.
    pub async fn unbind(&self, vhost: &str, binding: Binding) -> Result<(), BrokerError> {
        let vhost = self.known_vhost(vhost).await?;
        let ((), recorded) = vhost.change(self, |topology| Ok(((), topology.unbind(&binding)?)))?;
        recorded.wait().await.map_err(BrokerError::Store)
    }

    /// Deletes a queue with its messages, and gives their number; 0 when there is none.
    pub async fn delete(&self, vhost: &str, queue: &str, conditions: Conditions) -> Result<u32, BrokerError> {
        let vhost = self.known_vhost(vhost).await?;
        let Ok(queue) = find(&vhost, queue) else { return Ok(0) };
        self.delete_queue(&vhost, &queue, conditions).await
    }

    /// Deletes an exchange; a missing one is no error.
    pub async fn delete_exchange(&self, vhost: &str, name: &str, if_unused: bool) -> Result<(), BrokerError> {
        let vhost = self.known_vhost(vhost).await?;
        let name = ShortStr::try_from(name)?;
        let ((), recorded) =
            vhost.change(self, |topology| Ok(((), topology.delete_exchange(&name, if_unused)?)))?;
        recorded.wait().await.map_err(BrokerError::Store)
    }

    /// Drops the ready messages of a queue and gives their number.
    pub fn purge(&self, vhost: &str, queue: &str) -> Result<usize, BrokerError> {
        let name = ShortStr::try_from(vhost)?;
        let vhost = self.running_vhost(&name).ok_or_else(|| BrokerError::NoVhost(vhost.to_owned()))?;
        let (count, chore) = find(&vhost, queue)?.purge(self.now());
        if let Some(chore) = chore {
            tokio::spawn(chore.run());
        }
        Ok(count)
    }

    /// Publishes a message; `exchange` is empty for the default exchange. Resolves with the number of queues it was
    /// routed to, once it is durable in those that keep it; 0 means that nobody will ever see it.
    pub async fn publish(
        &self,
        vhost: &str,
        exchange: &str,
        routing_key: &str,
        properties: &Properties,
        body: Bytes,
    ) -> Result<usize, BrokerError> {
        let vhost = self.known_vhost(vhost).await?;
        let names = (ShortStr::try_from(exchange)?, ShortStr::try_from(routing_key)?);
        let raw = properties.encode();
        // Properties that were just encoded always decode.
        let traits = Traits::scan(&raw).unwrap_or_default();
        let message = Arc::new(Message::new(names, raw, body, &traits)?);
        let keys = [&message.routing_key];
        let queues = vhost.read().route(&message.exchange, &keys, &message.properties)?.queues;
        let mut waiting = Vec::new();
        for queue in &queues {
            let (published, followup) = queue.publish(std::slice::from_ref(&message), self.now());
            self.follow_up(queue, followup);
            let published = published.map_err(|_| BrokerError::Full)?;
            if !published.refused.is_empty() {
                return Err(BrokerError::QueueFull);
            }
            waiting.extend(published.durable);
        }
        for (log, last) in waiting {
            log.durable(last).await?;
        }
        Ok(queues.len())
    }
}

fn find(vhost: &Vhost, queue: &str) -> Result<Arc<Queue>, BrokerError> {
    let name = ShortStr::try_from(queue)?;
    Ok(Arc::clone(&vhost.read().queue(&name, Origin::Kiln)?.handle))
}

/// When a queue may be deleted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions {
    /// Only without consumers.
    pub if_unused: bool,
    /// Only without ready messages.
    pub if_empty: bool,
}
