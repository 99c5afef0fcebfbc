//! A running virtual host: its topology under a lock, and the way from the store to it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::core::{Changes, Origin, QueueArguments, QueueSpec, Refusal, ReplyCode, Topology};
use crate::server::broker::{Broker, StartError};
use crate::server::machine::{self, Recorded};
use crate::server::names::file_name;
use crate::server::queue::{Home, Queue};
use crate::wire::ShortStr;

/// The topology of a running virtual host.
pub(super) type Running = Topology<Arc<Queue>>;

/// A running virtual host.
pub(super) struct Vhost {
    pub(super) name: ShortStr,
    topology: RwLock<Running>,
    /// Goes up with every change of the topology: what was found out by routing before is void.
    generation: AtomicU64,
    /// Set under the lock of the topology: it changes no more.
    is_deleted: AtomicBool,
}

impl Vhost {
    /// Reads a virtual host from the store, and its queues' messages from disk.
    pub(super) fn open(broker: &Broker, name: &ShortStr) -> Result<Arc<Self>, StartError> {
        let vhost = Arc::new(Self {
            name: name.clone(),
            topology: RwLock::new(Topology::new(name.clone())),
            generation: AtomicU64::new(0),
            is_deleted: AtomicBool::new(false),
        });
        let stored = machine::load(broker.store(), name)?;
        let present = vhost.directories(broker)?;
        let mut known = HashSet::new();
        let mut topology = vhost.write();
        let refused = |refusal: Refusal| StartError::Stored(refusal.to_string());
        for spec in stored.exchanges {
            topology.declare_exchange(spec).map_err(refused)?;
        }
        for row in stored.queues {
            let spec = QueueSpec {
                auto_delete: row.auto_delete,
                arguments: row.arguments,
                ..QueueSpec::durable(row.name, row.incarnation)
            };
            known.insert(directory(&spec));
            let make = |spec: &Arc<QueueSpec>, arguments| vhost.make_queue(broker, spec, arguments);
            let (view, _) = topology.declare_queue(spec, Origin::Kiln, make).map_err(refused)?;
            if present.contains(&directory(&view.spec)) {
                view.handle
                    .recover()
                    .map_err(|error| StartError::Queue(view.spec.name.to_string(), error))?;
            }
        }
        for binding in stored.bindings {
            topology.bind(&binding).map_err(refused)?;
        }
        drop(topology);
        vhost.remove_orphans(broker, present.difference(&known));
        Ok(vhost)
    }

    /// The names of the directories of queues, from whenever.
    fn directories(&self, broker: &Broker) -> Result<HashSet<String>, StartError> {
        let entries = broker.volume().disk().list(&broker.root().join(file_name(&self.name)))?;
        Ok(entries.into_iter().filter_map(|entry| entry.name.into_string().ok()).collect())
    }

    /// What the last run could not remove, and what was only there to save its memory.
    fn remove_orphans<'n>(&self, broker: &Broker, names: impl Iterator<Item = &'n String>) {
        for name in names {
            let dir = broker.root().join(file_name(&self.name)).join(name);
            if let Err(error) = broker.volume().disk().remove_dir_all(&dir) {
                tracing::warn!(%error, dir = %dir.display(), "failed to remove what a deleted queue left");
            }
        }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Running> {
        self.topology.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Running> {
        self.topology.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The virtual host is deleted: nothing can be declared or routed any more, and the store is told to forget it.
    /// Gives the queues, whose files are to be removed.
    pub(super) fn end(&self, broker: &Broker) -> (Vec<Arc<Queue>>, Recorded) {
        let mut topology = self.write();
        self.is_deleted.store(true, Ordering::Release);
        let queues: Vec<_> = topology.queues().map(|view| Arc::clone(&view.handle)).collect();
        for queue in &queues {
            // Without conditions it is never refused.
            drop(queue.delete(false, false));
        }
        *topology = Topology::new(self.name.clone());
        self.generation.fetch_add(1, Ordering::Release);
        (queues, broker.recorder().drop_vhost(&self.name))
    }

    /// Changes the topology, and hands what must be stored over in the same order.
    pub(super) fn change<T>(
        &self,
        broker: &Broker,
        operation: impl FnOnce(&mut Running) -> Result<(T, Changes), Refusal>,
    ) -> Result<(T, Recorded), Refusal> {
        let mut topology = self.write();
        if self.is_deleted.load(Ordering::Acquire) {
            return Err(Refusal::new(ReplyCode::ConnectionForced, deleted(&self.name)));
        }
        let (outcome, changes) = operation(&mut topology)?;
        self.generation.fetch_add(1, Ordering::Release);
        // Under the lock, so that the store sees changes in the order in which they were made.
        let recorded = broker.recorder().record(&self.name, changes);
        Ok((outcome, recorded))
    }

    /// See [`Vhost::generation`].
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The server's side of a new queue.
    pub(super) fn make_queue(
        &self,
        broker: &Broker,
        spec: &Arc<QueueSpec>,
        arguments: QueueArguments,
    ) -> Arc<Queue> {
        let home = Home {
            id: broker.next_id(),
            vhost: self.name.clone(),
            volume: broker.volume().clone(),
            dir: self.queue_dir(broker, spec),
            memory: Arc::clone(broker.memory()),
        };
        Arc::new(Queue::new(home, Arc::clone(spec), arguments, broker.now()))
    }

    fn queue_dir(&self, broker: &Broker, spec: &QueueSpec) -> PathBuf {
        broker.root().join(file_name(&self.name)).join(directory(spec))
    }
}

/// What clients of a deleted virtual host are told, in `RabbitMQ`'s words.
pub(super) fn deleted(name: &ShortStr) -> String {
    format!("vhost '{name}' is deleted")
}

/// The directory of a queue: its name, and when it was declared.
fn directory(spec: &QueueSpec) -> String {
    format!("{}-{:x}", file_name(&spec.name), spec.incarnation)
}
