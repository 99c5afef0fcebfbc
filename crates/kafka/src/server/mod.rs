//! Sockets: accepts connections, reads requests, answers them in order.

mod admin;
mod configs;
mod connection;
mod convert;
mod dispatch;
mod fetch;
mod groups;
mod login;
mod metadata;
mod offsets;
mod produce;

use crate::broker::Broker;
use connection::{Session, serve_stream};
use kiln_net::{AcceptLimits, Connections, Listener, Peer, Shutdown, ShutdownTrigger, Stream, accept_loop};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A listener at work.
#[derive(Debug)]
pub struct Handle {
    stop: ShutdownTrigger,
    accepting: JoinHandle<Connections>,
    address: Option<SocketAddr>,
}

impl Handle {
    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Accepts no more, answers what was asked, and closes every connection within `deadline`. Returns how many
    /// connections had to be cut.
    pub async fn drain(self, deadline: Duration) -> usize {
        self.stop.fire();
        match self.accepting.await {
            Ok(connections) => connections.drain(deadline).await,
            Err(_) => 0, // the runtime is going down, and the connections with it
        }
    }
}

impl Broker {
    /// Serves clients on `listener` until the handle is drained or `shutdown` fires.
    pub fn serve(&self, listener: TcpListener, mut shutdown: Shutdown) -> Handle {
        let address = listener.local_addr().ok();
        let (stop, stopped) = kiln_net::shutdown_pair();
        let limits = AcceptLimits { connections_max: self.inner.settings.connections_max };
        let broker = self.clone();
        let serve = {
            let stopped = stopped.clone();
            move |stream: Stream, peer| serve_one(broker.clone(), stream, peer, stopped.clone())
        };
        let accepting = tokio::spawn(async move {
            let (inner, inner_signal) = kiln_net::shutdown_pair();
            let mut stopped = stopped;
            let watcher = tokio::spawn(async move {
                tokio::select! {
                    () = shutdown.wait() => {}
                    () = stopped.wait() => {}
                }
                inner.fire();
            });
            let connections = accept_loop(Listener::Tcp(listener), inner_signal, limits, serve).await;
            watcher.abort();
            connections
        });
        Handle { stop, accepting, address }
    }
}

async fn serve_one(broker: Broker, stream: Stream, peer: Peer, shutdown: Shutdown) {
    let Stream::Tcp(stream) = stream else { return };
    let peer: Option<IpAddr> = if let Peer::Remote(address) = peer { Some(address.ip()) } else { None };
    let local = stream.local_addr().ok();
    let session = Session::new(broker, peer, local, shutdown);
    let (read, write) = stream.into_split();
    serve_stream(session, read, write).await;
}
