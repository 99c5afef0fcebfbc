//! Durable exchanges, queues and bindings in the store.
//!
//! A connection decides on the topology in memory, under its lock, and hands the outcome here as [`Change`]s. They
//! are stored in the order in which they were decided, many to a command.

use std::collections::BTreeSet;

use kiln_store::{Handle, Machine, ReadError, Tables};
use kiln_types::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::core::{Binding, Change, ExchangeSpec, Target};
use crate::wire::{ShortStr, Table};

/// Changes that go into one command at most; a change is at most some 128 KiB (a frame).
const CHANGES_PER_COMMAND_MAX: usize = 512;
const COMMAND_BYTES_TARGET: usize = 512 * 1024;

const EXCHANGES: &str = "exchanges";
const QUEUES: &str = "queues";
const BINDINGS: &str = "bindings";

/// The broker's tables: see docs/formats/amqp-queue.md.
#[derive(Debug, Clone, Copy, Default)]
pub struct AmqpMachine;

/// What the machine is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Command {
    /// Store these changes, each in its virtual host.
    Apply(Vec<(ShortStr, Change)>),
    /// Forget everything of a virtual host.
    DropVhost(ShortStr),
}

/// The machine refuses nothing: the rules were applied before.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub enum Rejection {}

/// A stored queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct QueueRow {
    pub(super) name: ShortStr,
    pub(super) auto_delete: bool,
    pub(super) arguments: Table,
    pub(super) incarnation: i64,
}

impl Machine for AmqpMachine {
    const NAME: &'static str = "amqp";
    type Command = Command;
    type Reply = ();
    type Rejection = Rejection;

    fn apply(&self, tables: &mut Tables<'_>, command: Command, _at: Timestamp) -> Result<(), Rejection> {
        match command {
            Command::Apply(changes) => {
                for (vhost, change) in changes {
                    apply_change(tables, &vhost, change);
                }
            }
            Command::DropVhost(vhost) => {
                let prefix = key(&vhost, &[]);
                for table in [EXCHANGES, QUEUES, BINDINGS] {
                    tables.delete_prefix(table, &prefix);
                }
            }
        }
        Ok(())
    }
}

fn apply_change(tables: &mut Tables<'_>, vhost: &ShortStr, change: Change) {
    match change {
        Change::PutExchange(spec) => tables.put(EXCHANGES, &key(vhost, &[&spec.name]), &spec),
        Change::DropExchange(name) => drop(tables.delete(EXCHANGES, &key(vhost, &[&name]))),
        Change::PutQueue { name, auto_delete, arguments, incarnation } => {
            let key = key(vhost, &[&name]);
            tables.put(QUEUES, &key, &QueueRow { name, auto_delete, arguments, incarnation });
        }
        Change::DropQueue(name) => drop(tables.delete(QUEUES, &key(vhost, &[&name]))),
        Change::PutBinding(binding) => tables.put(BINDINGS, &binding_key(vhost, &binding), &binding),
        Change::DropBinding(binding) => drop(tables.delete(BINDINGS, &binding_key(vhost, &binding))),
    }
}

/// Length-prefixed, so that no name is the beginning of another's key.
fn key(vhost: &ShortStr, names: &[&ShortStr]) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    for name in [vhost].into_iter().chain(names.iter().copied()) {
        key.push(u8::try_from(name.len()).expect("a ShortStr holds at most 255 octets"));
        key.extend_from_slice(name.as_bytes());
    }
    key
}

fn binding_key(vhost: &ShortStr, binding: &Binding) -> Vec<u8> {
    let mut key = key(vhost, &[&binding.source, &binding.destination.name, &binding.routing_key]);
    key.push(match binding.destination.target {
        Target::Queue => b'q',
        Target::Exchange => b'e',
    });
    let mut arguments = bytes::BytesMut::new();
    crate::wire::Wire::put(&binding.arguments, &mut arguments);
    key.extend_from_slice(&super::names::fnv64(&arguments).to_be_bytes());
    key
}

/// The virtual hosts that the store holds anything of.
pub(super) fn vhosts(handle: &Handle<AmqpMachine>) -> Result<BTreeSet<ShortStr>, ReadError> {
    let snapshot = handle.read();
    let mut names = BTreeSet::new();
    names.extend(snapshot.scan::<ExchangeSpec>(EXCHANGES, &[])?.iter().filter_map(|(key, _)| vhost_of(key)));
    names.extend(snapshot.scan::<QueueRow>(QUEUES, &[])?.iter().filter_map(|(key, _)| vhost_of(key)));
    names.extend(snapshot.scan::<Binding>(BINDINGS, &[])?.iter().filter_map(|(key, _)| vhost_of(key)));
    Ok(names)
}

/// The virtual host in front of a key.
fn vhost_of(key: &[u8]) -> Option<ShortStr> {
    let (&len, rest) = key.split_first()?;
    ShortStr::from_wire(bytes::Bytes::copy_from_slice(rest.get(..usize::from(len))?))
}

/// What the store holds of one virtual host.
pub(super) struct Stored {
    pub(super) exchanges: Vec<ExchangeSpec>,
    pub(super) queues: Vec<QueueRow>,
    pub(super) bindings: Vec<Binding>,
}

/// Reads what the store holds of `vhost`.
pub(super) fn load(handle: &Handle<AmqpMachine>, vhost: &ShortStr) -> Result<Stored, ReadError> {
    let snapshot = handle.read();
    let prefix = key(vhost, &[]);
    Ok(Stored {
        exchanges: snapshot.scan(EXCHANGES, &prefix)?.into_iter().map(|(_, row)| row).collect(),
        queues: snapshot.scan(QUEUES, &prefix)?.into_iter().map(|(_, row)| row).collect(),
        bindings: snapshot.scan(BINDINGS, &prefix)?.into_iter().map(|(_, row)| row).collect(),
    })
}

/// What is to be stored.
enum Work {
    Changes(Vec<Change>),
    /// Forget everything of the virtual host.
    Drop,
}

/// Work on its way to the store, and who waits for it.
struct Pending {
    vhost: ShortStr,
    work: Work,
    done: oneshot::Sender<Result<(), String>>,
}

/// Puts changes into the store in the order in which they were recorded.
#[derive(Debug, Clone)]
pub(super) struct Recorder {
    /// Unbounded so that it can be used under the topology's lock; a connection has one change in flight, so it holds
    /// at most one entry for each connection and each auto-deleted queue.
    to: mpsc::UnboundedSender<Pending>,
}

impl Recorder {
    pub(super) fn start(handle: Handle<AmqpMachine>) -> Self {
        let (to, from) = mpsc::unbounded_channel();
        tokio::spawn(record_all(handle, from));
        Self { to }
    }

    /// Queues changes; resolves when they are durable.
    pub(super) fn record(&self, vhost: &ShortStr, changes: Vec<Change>) -> Recorded {
        if changes.is_empty() {
            return Recorded(None);
        }
        self.send(vhost, Work::Changes(changes))
    }

    /// Queues the end of a virtual host, after all its changes; resolves when it is durable.
    pub(super) fn drop_vhost(&self, vhost: &ShortStr) -> Recorded {
        self.send(vhost, Work::Drop)
    }

    fn send(&self, vhost: &ShortStr, work: Work) -> Recorded {
        let (done, wait) = oneshot::channel();
        // When the task is gone, so is `done`, and whoever waits is told.
        drop(self.to.send(Pending { vhost: vhost.clone(), work, done }));
        Recorded(Some(wait))
    }
}

/// A promise that changes are durable.
#[must_use = "nothing is known to be stored before it is awaited"]
pub(super) struct Recorded(Option<oneshot::Receiver<Result<(), String>>>);

impl Recorded {
    /// Waits until the changes are durable; the error is for the log and the client.
    pub(super) async fn wait(self) -> Result<(), String> {
        match self.0 {
            None => Ok(()),
            Some(wait) => wait.await.unwrap_or_else(|_| Err("the store is closed".to_owned())),
        }
    }
}

async fn record_all(handle: Handle<AmqpMachine>, mut from: mpsc::UnboundedReceiver<Pending>) {
    let mut pending = Vec::new();
    while from.recv_many(&mut pending, CHANGES_PER_COMMAND_MAX).await > 0 {
        let mut waiting = Vec::new();
        let mut changes = Vec::new();
        let mut bytes = 0;
        for Pending { vhost, work, done } in pending.drain(..) {
            match work {
                Work::Changes(more) => {
                    bytes += more.iter().map(weight).sum::<usize>();
                    changes.extend(more.into_iter().map(|change| (vhost.clone(), change)));
                    waiting.push(done);
                }
                Work::Drop => {
                    submit_changes(&handle, std::mem::take(&mut changes), &mut waiting).await;
                    submit(&handle, Command::DropVhost(vhost), &mut vec![done]).await;
                }
            }
            if bytes > COMMAND_BYTES_TARGET {
                bytes = 0;
                submit_changes(&handle, std::mem::take(&mut changes), &mut waiting).await;
            }
        }
        submit_changes(&handle, changes, &mut waiting).await;
    }
}

/// About how many bytes a change takes, encoded.
fn weight(change: &Change) -> usize {
    let arguments = match change {
        Change::PutExchange(spec) => &spec.arguments,
        Change::PutQueue { arguments, .. } => arguments,
        Change::PutBinding(binding) | Change::DropBinding(binding) => &binding.arguments,
        Change::DropExchange(_) | Change::DropQueue(_) => return 300,
    };
    let mut encoded = bytes::BytesMut::new();
    crate::wire::Wire::put(arguments, &mut encoded);
    1000 + 2 * encoded.len()
}

type Waiting = Vec<oneshot::Sender<Result<(), String>>>;

async fn submit_changes(
    handle: &Handle<AmqpMachine>,
    changes: Vec<(ShortStr, Change)>,
    waiting: &mut Waiting,
) {
    if !changes.is_empty() {
        submit(handle, Command::Apply(changes), waiting).await;
    }
}

async fn submit(handle: &Handle<AmqpMachine>, command: Command, waiting: &mut Waiting) {
    let outcome = handle.submit(command).await.map_err(|error| error.to_string());
    if let Err(error) = &outcome {
        tracing::error!(%error, "failed to store a change of exchanges, queues or bindings");
    }
    for done in waiting.drain(..) {
        // Whoever asked may be gone.
        drop(done.send(outcome.clone()));
    }
}
