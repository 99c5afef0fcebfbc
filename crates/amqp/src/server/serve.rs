//! Accepting connections, and shutting down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::server::broker::Broker;
use crate::server::io;
use crate::server::mailbox::Letter;

/// The pause after a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running listener.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    broker: HandleBroker,
    permits: Arc<Semaphore>,
    connections_max: u32,
}

/// The broker without its insides in `Debug`.
struct HandleBroker(Broker);

impl std::fmt::Debug for HandleBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

impl Broker {
    /// Serves clients from `listener` until `shutdown` becomes true or its sender is gone, or the handle is drained.
    pub fn serve(&self, listener: TcpListener, shutdown: watch::Receiver<bool>) -> std::io::Result<Handle> {
        let address = listener.local_addr()?;
        let connections_max = u32::try_from(self.settings().connections_max).unwrap_or(u32::MAX);
        let permits = Arc::new(Semaphore::new(connections_max as usize));
        let (stop, stopped) = watch::channel(false);
        let accepting = accept(self.clone(), listener, shutdown, stopped, Arc::clone(&permits));
        let accepting = tokio::spawn(accepting);
        let broker = HandleBroker(self.clone());
        Ok(Handle { address, stop, accepting, broker, permits, connections_max })
    }
}

async fn accept(
    broker: Broker,
    listener: TcpListener,
    mut shutdown: watch::Receiver<bool>,
    mut stopped: watch::Receiver<bool>,
    permits: Arc<Semaphore>,
) {
    loop {
        // The permit comes first: beyond the limit, clients wait in the kernel's backlog.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => return,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok((stream, _)) => spawn(&broker, stream, permit),
            Err(error) => {
                tracing::warn!(%error, "failed to accept an AMQP connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn spawn(broker: &Broker, stream: TcpStream, permit: tokio::sync::OwnedSemaphorePermit) {
    let broker = broker.clone();
    tokio::spawn(async move {
        io::serve(broker, stream).await;
        drop(permit);
    });
}

impl Handle {
    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nobody any more, tells every client that the broker shuts down (320), and waits until they are gone or
    /// `deadline` has passed. Whether all are gone.
    pub async fn drain(self, deadline: Duration) -> bool {
        self.stop.send_replace(true);
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the AMQP listener failed");
        }
        let peers: Vec<_> = self.broker.0.peers().values().cloned().collect();
        for peer in peers {
            peer.mailbox.send(Letter::Close("broker is shutting down".to_owned()));
        }
        let all = self.permits.acquire_many(self.connections_max);
        tokio::time::timeout(deadline, all).await.is_ok()
    }
}
