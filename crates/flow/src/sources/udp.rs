//! Datagrams: one is one message (RFC 5426).

use super::intake::{Intake, Work};
use kiln_net::Shutdown;
use nix::sys::socket::{setsockopt, sockopt};
use std::pin::pin;
use tokio::net::UdpSocket;

/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Datagrams taken before the first of them goes on its way.
const GATHER_MAX: usize = 1024;
/// Asked of the kernel; it may give less.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Receives until it is time to stop. While one batch is on its way to the disk the next is gathered, up to `datagram_bytes_max`.
pub(crate) async fn serve(socket: UdpSocket, intake: &Intake, mut stop: Shutdown) {
    if let Err(error) = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "the kernel keeps its own size of receive buffer");
    }
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut gathered = intake.work();
    let mut spare = intake.work();
    loop {
        tokio::select! {
            () = stop.wait() => return,
            received = socket.recv(&mut buffer) => take(intake, received, &buffer, &mut gathered),
        }
        for _ in 1..GATHER_MAX {
            let Ok(count) = socket.try_recv(&mut buffer) else { break };
            take(intake, Ok(count), &buffer, &mut gathered);
        }
        // Deliver what there is, gathering more meanwhile, until nothing was gathered.
        while !gathered.is_empty() {
            std::mem::swap(&mut gathered, &mut spare);
            let mut delivered = pin!(intake.deliver(&mut spare, &stop));
            loop {
                tokio::select! {
                    biased;
                    outcome = &mut delivered => match outcome {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    received = socket.recv(&mut buffer) => take(intake, received, &buffer, &mut gathered),
                }
            }
        }
    }
}

fn take(intake: &Intake, received: std::io::Result<usize>, buffer: &[u8], gathered: &mut Work) {
    match received {
        // A sender's port that is closed comes back here as an error of no concern.
        Err(error) => tracing::debug!(%error, "datagram not received"),
        Ok(_) if gathered.bytes() >= intake.limits.datagram_bytes_max => intake.dropped(),
        Ok(0) => {}
        Ok(count) => {
            let cut = count.min(intake.limits.frame_bytes_max);
            intake.line(&buffer[..cut], cut < count, gathered);
        }
    }
}
