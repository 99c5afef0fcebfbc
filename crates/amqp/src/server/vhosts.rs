//! Which virtual hosts run: those that are in the list of users and permissions, from when they are in it to when they
//! are not.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use kiln_auth::Auth;
use kiln_store::Revision;
use kiln_types::Timestamp;
use tokio::sync::{Mutex, watch};

use crate::server::broker::{Broker, BrokerError, StartError, WeakBroker};
use crate::server::machine;
use crate::server::mailbox::Letter;
use crate::server::names::file_name;
use crate::server::vhost::{Vhost, deleted};
use crate::wire::ShortStr;

/// A running virtual host, and when it was made: one of the same name that was made later is another.
struct Row {
    created: Timestamp,
    vhost: Arc<Vhost>,
}

/// The running virtual hosts.
pub(super) struct Vhosts {
    running: RwLock<HashMap<ShortStr, Row>>,
    changed: watch::Receiver<Revision>,
    /// The revision of the list that `running` follows; held while it is brought up to date.
    followed: Mutex<Option<Revision>>,
}

impl Vhosts {
    pub(super) fn new(auth: &Auth) -> Self {
        Self { running: RwLock::default(), changed: auth.watch_vhosts(), followed: Mutex::new(None) }
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ShortStr, Row>> {
        self.running.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ShortStr, Row>> {
        self.running.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self, name: &ShortStr) -> Option<Arc<Vhost>> {
        self.read().get(name).map(|row| Arc::clone(&row.vhost))
    }

    pub(super) fn all(&self) -> Vec<Arc<Vhost>> {
        self.read().values().map(|row| Arc::clone(&row.vhost)).collect()
    }
}

impl Broker {
    /// Opens the virtual hosts there are, and goes on to follow the list.
    pub(super) async fn start_vhosts(&self) -> Result<(), StartError> {
        self.follow_vhosts().await?;
        self.forget_unlisted().await?;
        tokio::spawn(follow(self.downgrade(), self.vhosts().changed.clone()));
        Ok(())
    }

    /// A virtual host of the list, be it as new as may be.
    pub(super) async fn vhost(&self, name: &ShortStr) -> Result<Option<Arc<Vhost>>, StartError> {
        self.follow_vhosts().await?;
        Ok(self.vhosts().get(name))
    }

    /// As [`Broker::vhost`], for the rest of Kiln.
    pub(super) async fn known_vhost(&self, name: &str) -> Result<Arc<Vhost>, BrokerError> {
        let short = ShortStr::try_from(name)?;
        let vhost = self.vhost(&short).await.map_err(|error| BrokerError::Store(error.to_string()))?;
        vhost.ok_or_else(|| BrokerError::NoVhost(name.to_owned()))
    }

    /// Ends virtual hosts that are not in the list any more and opens those that are new.
    async fn follow_vhosts(&self) -> Result<(), StartError> {
        let vhosts = self.vhosts();
        let mut followed = vhosts.followed.lock().await;
        let revision = *vhosts.changed.borrow();
        if *followed == Some(revision) {
            return Ok(());
        }
        let mut listed = HashMap::new();
        for (name, row) in self.auth().vhosts()? {
            let name = ShortStr::try_from(name).map_err(|error| StartError::Stored(error.to_string()))?;
            listed.insert(name, row.created);
        }
        let gone: Vec<_> = {
            let running = vhosts.read();
            let gone = running.iter().filter(|(name, row)| listed.get(*name) != Some(&row.created));
            gone.map(|(name, row)| (name.clone(), Arc::clone(&row.vhost))).collect()
        };
        for (name, vhost) in gone {
            vhosts.write().remove(&name);
            self.end_vhost(&vhost).await?;
        }
        for (name, created) in listed {
            if vhosts.get(&name).is_none() {
                let vhost = self.open_vhost(&name).await?;
                vhosts.write().insert(name, Row { created, vhost });
            }
        }
        *followed = Some(revision);
        Ok(())
    }

    async fn open_vhost(&self, name: &ShortStr) -> Result<Arc<Vhost>, StartError> {
        let (broker, name) = (self.clone(), name.clone());
        // Recovery reads from disk.
        let opening = tokio::task::spawn_blocking(move || Vhost::open(&broker, &name));
        let vhost = opening.await.map_err(|error| StartError::Stored(error.to_string()))??;
        for view in vhost.read().queues() {
            self.arm(&view.handle);
        }
        Ok(vhost)
    }

    /// Tells the clients of a deleted virtual host, and removes all it had.
    async fn end_vhost(&self, vhost: &Arc<Vhost>) -> Result<(), StartError> {
        tracing::info!(vhost = %vhost.name, "virtual host deleted");
        let (queues, recorded) = vhost.end(self);
        let peers: Vec<_> = self.peers().values().cloned().collect();
        for peer in peers {
            if peer.vhost.get().is_some_and(|name| **name == *vhost.name) {
                peer.mailbox.send(Letter::Close(deleted(&vhost.name)));
            }
        }
        recorded.wait().await.map_err(StartError::Stored)?;
        let (broker, dir) = (self.clone(), self.root().join(file_name(&vhost.name)));
        let removing = tokio::task::spawn_blocking(move || {
            for queue in queues {
                queue.remove_files();
            }
            broker.remove_directory(&dir);
        });
        removing.await.map_err(|error| StartError::Stored(error.to_string()))
    }

    /// Removes what is left of virtual hosts that were deleted while nobody followed the list.
    async fn forget_unlisted(&self) -> Result<(), StartError> {
        for name in machine::vhosts(self.store())? {
            if self.vhosts().get(&name).is_none() {
                self.recorder().drop_vhost(&name).wait().await.map_err(StartError::Stored)?;
            }
        }
        let known: Vec<String> = self.vhosts().all().iter().map(|vhost| file_name(&vhost.name)).collect();
        for entry in self.volume().disk().list(self.root())? {
            if entry.is_dir && !known.iter().any(|known| entry.name == known.as_str()) {
                self.remove_directory(&self.root().join(entry.name));
            }
        }
        Ok(())
    }

    fn remove_directory(&self, dir: &Path) {
        match self.volume().disk().remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(%error, dir = %dir.display(), "failed to remove what a virtual host left");
            }
            _ => {}
        }
    }
}

/// Follows the list until the store closes or the broker is gone.
async fn follow(broker: WeakBroker, mut changed: watch::Receiver<Revision>) {
    while changed.changed().await.is_ok() {
        let Some(broker) = broker.upgrade() else { return };
        if let Err(error) = broker.follow_vhosts().await {
            tracing::error!(%error, "failed to follow the list of virtual hosts");
        }
    }
}
