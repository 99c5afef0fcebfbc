//! The store as its owner and the services see it.

use std::io::{Read, Write};
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread;

use kiln_log::Volume;
use redb::Database;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::applier::{self, Applier, Order, Pending, Refused};
use crate::error::{Failed, OpenError, ReadError, SubmitError, TransferError};
use crate::key::row_key;
use crate::machine::{Machine, Outcome, Registry};
use crate::sequence::Sequencer;
use crate::snapshot::{Snapshot, View};
use crate::state::{self, State};
use crate::watch::Watches;
use crate::{COMMAND_BYTES_MAX, PENDING_BYTES_MAX, Revision, Settings};

/// Under the store's directory: the command log.
const LOG_DIR: &str = "commands";

/// What a waiting command takes beside its own bytes, roughly.
const PENDING_OVERHEAD_BYTES: usize = 256;

/// What a store is made of, before it is opened.
pub struct Builder {
    volume: Volume,
    dir: PathBuf,
    registry: Registry,
    settings: Settings,
}

impl Builder {
    /// Adds a service's machine.
    ///
    /// # Panics
    /// If one of the same name is there.
    #[must_use]
    pub fn machine<M: Machine>(mut self, machine: M) -> Builder {
        self.registry.add(machine);
        self
    }

    /// Replaces the settings.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Builder {
        self.settings = settings;
        self
    }

    /// Opens the store, creating it if there is none, and applies what the command log holds beyond the state.
    ///
    /// Every machine that ever logged a command should be there, even if nobody will use its handle. The volume
    /// needs its flusher thread ([`Volume::start`]), or somebody else who calls [`Volume::flush_round`].
    pub fn open(self) -> Result<Store, OpenError> {
        let Builder { volume, dir, registry, settings } = self;
        let state = State::open(&**volume.disk(), &dir)?;
        let sequencer = Sequencer::open(&volume, &dir.join(LOG_DIR), settings.log_segment_bytes);
        let sequencer = sequencer.map_err(|error| OpenError::Log(error.to_string()))?;
        let machines = registry.names().collect();
        let applier = Applier::new(registry, sequencer, state, volume.clock().clone(), settings)?;
        let (orders, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            db: RwLock::new(Some(applier.state().database().clone())),
            orders,
            room: Arc::new(Semaphore::new(PENDING_BYTES_MAX)),
            failed: OnceLock::new(),
            watches: Watches::default(),
            machines,
        });
        let thread = start_thread(applier, inbox, shared.clone())?;
        Ok(Store { shared, thread: Some(thread) })
    }
}

fn start_thread(
    applier: Applier,
    inbox: mpsc::UnboundedReceiver<Order>,
    shared: Arc<Shared>,
) -> Result<thread::JoinHandle<()>, OpenError> {
    let body = move || {
        let guard = FailOnPanic(shared.clone());
        applier::run(applier, inbox, &shared);
        drop(guard);
    };
    Ok(thread::Builder::new().name("kiln-store".to_owned()).spawn(body)?)
}

/// Tells the callers that the applier's thread died of a bug.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(&Failed::new("its thread panicked, which is a bug in the store"));
        }
    }
}

/// What the handles and the applier share.
pub(crate) struct Shared {
    /// Taken out when the store is closed, so that the file is let go even while handles live.
    db: RwLock<Option<Arc<Database>>>,
    orders: mpsc::UnboundedSender<Order>,
    /// One permit for each byte of [`PENDING_BYTES_MAX`]; this is what bounds `orders`.
    room: Arc<Semaphore>,
    failed: OnceLock<Failed>,
    pub(crate) watches: Watches,
    machines: Vec<&'static str>,
}

impl Shared {
    /// Why the store has stopped, if it has.
    pub(crate) fn failed(&self) -> Option<Failed> {
        self.failed.get().cloned()
    }

    /// Latches the first failure; whether this was it.
    pub(crate) fn fail(&self, failed: &Failed) -> bool {
        self.failed.set(failed.clone()).is_ok()
    }

    fn database(&self) -> Option<Arc<Database>> {
        self.db.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn view(&self) -> Result<Arc<View>, ReadError> {
        let db = self.database().ok_or(ReadError::Closed)?;
        state::view(&db).map(Arc::new)
    }

    fn watch(&self, machine: &str, table: &str, key_prefix: &[u8]) -> watch::Receiver<Revision> {
        let now = self.view().map(|view| view.revision).unwrap_or_default();
        self.watches.add(row_key(machine, table, key_prefix), now)
    }

    async fn submit(&self, machine: &'static str, body: Vec<u8>) -> Result<Outcome, Unsubmitted> {
        let share = u32::try_from(body.len() + PENDING_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        let room = self.room.clone().acquire_many_owned(share).await.map_err(|_| Unsubmitted::Closed)?;
        let (answer, outcome) = oneshot::channel();
        let order = Order::Submit(Pending { machine, body, answer, _room: room });
        self.orders.send(order).map_err(|_| self.unsubmitted())?;
        match outcome.await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(refused)) => Err(Unsubmitted::Refused(refused)),
            Err(_) => Err(self.unsubmitted()),
        }
    }

    /// Why the applier is gone.
    fn unsubmitted(&self) -> Unsubmitted {
        self.failed().map_or(Unsubmitted::Closed, |failed| Unsubmitted::Refused(Refused::Failed(failed)))
    }
}

/// [`SubmitError`] without the machine's rejection.
enum Unsubmitted {
    Refused(Refused),
    Closed,
}

impl<R: std::error::Error> From<Unsubmitted> for SubmitError<R> {
    fn from(unsubmitted: Unsubmitted) -> SubmitError<R> {
        match unsubmitted {
            Unsubmitted::Closed => SubmitError::Closed,
            Unsubmitted::Refused(Refused::Full) => SubmitError::Full,
            Unsubmitted::Refused(Refused::Failed(failed)) => SubmitError::Failed(failed),
        }
    }
}

/// An open store. Dropping it closes it.
pub struct Store {
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Store {
    /// A store in the directory `dir` of the volume's disk. Only one process may have it open.
    pub fn builder(volume: Volume, dir: impl AsRef<Path>) -> Builder {
        Builder {
            volume,
            dir: dir.as_ref().to_owned(),
            registry: Registry::default(),
            settings: Settings::default(),
        }
    }

    /// What the service of machine `M` works with.
    ///
    /// # Panics
    /// If the store was opened without `M`.
    pub fn handle<M: Machine>(&self) -> Handle<M> {
        assert!(self.shared.machines.contains(&M::NAME), "the store has no machine {:?}", M::NAME);
        Handle { shared: self.shared.clone(), machine: PhantomData }
    }

    /// The revision of the newest change under a machine's `table` and `key_prefix`, each time there is one.
    ///
    /// A receiver sees the newest value only, and starts at the present revision. It may also be told of changes
    /// that came in the same round, so a snapshot must be asked what is different. When the store closes, so does
    /// the channel.
    pub fn watch(&self, machine: &str, table: &str, key_prefix: &[u8]) -> watch::Receiver<Revision> {
        self.shared.watch(machine, table, key_prefix)
    }

    /// Why the store takes no more commands, if so; the process should end then, and recover at its next start.
    pub fn failed(&self) -> Option<Failed> {
        self.shared.failed()
    }

    /// Writes the whole state, as it is now, to `out`; commands go on meanwhile. Returns its revision.
    ///
    /// Blocks on `out` and on the disk.
    pub fn export(&self, out: &mut dyn Write) -> Result<Revision, TransferError> {
        let db = self.shared.database().ok_or(TransferError::Closed)?;
        state::export(&db, out)
    }

    /// Puts the state that [`Store::export`] wrote in the place of this one, in one durable step. Commands wait
    /// meanwhile. Every watch is told.
    pub async fn import(&self, stream: impl Read + Send + 'static) -> Result<(), TransferError> {
        let (answer, done) = oneshot::channel();
        let order = Order::Import(Box::new(stream), answer);
        let gone = || self.failed().map_or(TransferError::Closed, TransferError::Failed);
        self.shared.orders.send(order).map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }

    /// Takes no more commands, applies those that wait, makes the state durable and lets go of the files.
    ///
    /// Blocks on the disk.
    pub fn close(mut self) -> Result<(), Failed> {
        self.stop();
        self.shared.failed().map_or(Ok(()), Err)
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        // If it cannot be sent, the thread is at its end already.
        let _ = self.shared.orders.send(Order::Stop);
        if thread.join().is_err() {
            self.shared.fail(&Failed::new("its thread panicked"));
        }
        self.shared.room.close();
        self.shared.watches.close();
        self.shared.db.write().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One service's way to its tables. Cloning is cheap.
pub struct Handle<M> {
    shared: Arc<Shared>,
    machine: PhantomData<fn() -> M>,
}

impl<M> Clone for Handle<M> {
    fn clone(&self) -> Handle<M> {
        Handle { shared: self.shared.clone(), machine: PhantomData }
    }
}

impl<M: Machine> Handle<M> {
    /// Gives `command` to the machine and returns its answer, once the command is durable and applied: a snapshot
    /// taken after that has its effect.
    ///
    /// Waits while [`PENDING_BYTES_MAX`] are under way. Dropping the future does not take the command back once it
    /// was sent.
    pub async fn submit(&self, command: M::Command) -> Result<M::Reply, SubmitError<M::Rejection>> {
        let body = postcard::to_stdvec(&command).map_err(SubmitError::Encode)?;
        drop(command);
        if body.len() > COMMAND_BYTES_MAX {
            return Err(SubmitError::TooLarge { bytes: body.len() });
        }
        let outcome = self.shared.submit(M::NAME, body).await?;
        let Ok(answer) = outcome.answer.downcast::<Result<M::Reply, M::Rejection>>() else {
            unreachable!("the machine of this name is M")
        };
        answer.map_err(SubmitError::Rejected)
    }

    /// The machine's tables as they are now.
    pub fn read(&self) -> Snapshot {
        Snapshot::new(M::NAME, self.shared.view())
    }

    /// [`Store::watch`] for this machine's own tables.
    pub fn watch(&self, table: &str, key_prefix: &[u8]) -> watch::Receiver<Revision> {
        self.shared.watch(M::NAME, table, key_prefix)
    }
}
