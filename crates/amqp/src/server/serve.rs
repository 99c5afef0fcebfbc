//! Accepting connections, and shutting down.

use std::net::SocketAddr;
use std::time::Duration;

use kiln_net::{AcceptLimits, Connections, Listener, Shutdown, ShutdownTrigger, accept_loop, shutdown_pair};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::server::broker::Broker;
use crate::server::io;
use crate::server::mailbox::Letter;

/// A running listener.
#[derive(Debug)]
pub struct Handle {
    address: SocketAddr,
    stop: ShutdownTrigger,
    accepting: JoinHandle<Connections>,
    broker: HandleBroker,
}

/// The broker without its insides in `Debug`.
struct HandleBroker(Broker);

impl std::fmt::Debug for HandleBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Broker")
    }
}

impl Broker {
    /// Serves clients from `listener` until `shutdown` fires, or the handle is drained.
    pub fn serve(&self, listener: TcpListener, mut shutdown: Shutdown) -> std::io::Result<Handle> {
        let address = listener.local_addr()?;
        let limits = AcceptLimits { connections_max: self.settings().connections_max };
        let (stop, mut stopped) = shutdown_pair();
        let (end, ended) = shutdown_pair();
        let broker = self.clone();
        let accepting = async move {
            let serve = move |stream, _| io::serve(broker.clone(), stream);
            let accepting = accept_loop(Listener::Tcp(listener), ended, limits, serve);
            let either = async {
                tokio::select! {
                    () = shutdown.wait() => {}
                    () = stopped.wait() => {}
                }
                end.fire();
            };
            tokio::join!(accepting, either).0
        };
        let accepting = tokio::spawn(accepting);
        Ok(Handle { address, stop, accepting, broker: HandleBroker(self.clone()) })
    }
}

impl Handle {
    /// The address listened on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nobody any more, tells every client that the broker shuts down (320), and waits until they are gone or
    /// `deadline` has passed. Whether all are gone.
    pub async fn drain(self, deadline: Duration) -> bool {
        self.stop.fire();
        let connections = match self.accepting.await {
            Ok(connections) => connections,
            Err(error) => {
                tracing::error!(%error, "the AMQP listener failed");
                return false;
            }
        };
        let peers: Vec<_> = self.broker.0.peers().values().cloned().collect();
        for peer in peers {
            peer.mailbox.send(Letter::Close("broker is shutting down".to_owned()));
        }
        connections.drain(deadline).await == 0
    }
}
