//! What the leader's services stand on: the disk, its logs, the store and the users.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use kiln_amqp::AmqpMachine;
use kiln_auth::{Auth, AuthMachine};
use kiln_flow::recorder::FlowMachine;
use kiln_fs::mgs::MgsMachine;
use kiln_kafka::KafkaMachine;
use kiln_log::Volume;
use kiln_store::Store;
use kiln_world::{Clock, RealClock, RealRng, Rng};

use super::{Node, ground};
use crate::pools::Pools;

/// The foundations of the one process that holds the data directory.
pub(super) struct Foundations {
    /// All logs of the disk.
    pub volume: Volume,
    /// Shared state.
    pub store: Store,
    /// Users, virtual hosts, permissions.
    pub auth: Auth,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
}

impl Foundations {
    /// Opens and recovers everything under the data directory, or on the pool that the logs stand on.
    pub(super) async fn open(node: &Node, pools: &Pools) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let rng: Arc<dyn Rng> = Arc::new(RealRng);
        let volume = Volume::start(ground::open(node, pools)?, Arc::clone(&clock));
        let store = Store::builder(volume.clone(), Path::new("store"))
            .machine(AuthMachine)
            .machine(KafkaMachine)
            .machine(AmqpMachine)
            .machine(FlowMachine)
            .machine(MgsMachine)
            .open()
            .context("failed to open the store")?;
        let auth = Auth::open(store.handle(), Arc::clone(&rng), kiln_auth::Settings::default())
            .await
            .context("failed to read the users")?;
        Ok(Self { volume, store, auth, clock, rng })
    }

    /// Returns when a foundation has failed. The process must end then: what is on disk is sound, and the next start recovers it.
    pub(super) async fn failed(&self) -> anyhow::Error {
        /// A failure is told to every caller at once by the log itself; this only ends the process soon after.
        const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
        loop {
            if let Some(failed) = self.store.failed() {
                return anyhow::anyhow!("the store has failed: {failed}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Applies and flushes what is pending.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        let closing = move || {
            let closed = self.store.close();
            self.volume.close();
            closed
        };
        tokio::task::spawn_blocking(closing).await?.context("failed to close the store")
    }
}
