//! Datagrams: one is one message (RFC 5426).

use super::intake::{Intake, Work};
use kiln_net::Shutdown;
use nix::sys::socket::{setsockopt, sockopt};
use std::pin::pin;
use std::time::Duration;
use tokio::net::UdpSocket;

/// Largest datagram.
const DATAGRAM_BYTES_MAX: usize = 65_536;
/// Datagrams taken before the first of them goes on its way.
const GATHER_MAX: usize = 1024;
/// How often the kernel is asked how many it had to drop.
const KERNEL_DROPS_EVERY: Duration = Duration::from_secs(2);
/// Asked of the kernel; it may give less.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Receives until it is time to stop. While one batch is on its way to the disk the next is gathered, up to `datagram_bytes_max`.
pub(crate) async fn serve(socket: UdpSocket, intake: &Intake, mut stop: Shutdown) {
    if let Err(error) = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES) {
        tracing::debug!(%error, "the kernel keeps its own size of receive buffer");
    }
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let inode = nix::sys::stat::fstat(&socket).map(|stat| stat.st_ino).ok();
    let mut asked = tokio::time::interval(KERNEL_DROPS_EVERY);
    let mut gathered = intake.work();
    let mut spare = intake.work();
    loop {
        tokio::select! {
            () = stop.wait() => return,
            received = socket.recv(&mut buffer) => take(intake, received, &buffer, &mut gathered),
            _ = asked.tick() => {
                if let Some(total) = inode.and_then(kernel_drops) {
                    intake.dropped_by_kernel(total);
                }
            }
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

/// Datagrams that did not fit the socket's buffer, by the last column of the kernel's table of sockets (proc(5)).
fn kernel_drops(inode: u64) -> Option<u64> {
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"]
        .map(|path| std::fs::read_to_string(path).unwrap_or_default());
    let inode = inode.to_string();
    let mut lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let line = lines.find(|line| line.split_whitespace().nth(9) == Some(inode.as_str()))?;
    line.split_whitespace().last()?.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_what_it_dropped() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&socket, sockopt::RcvBuf, &2048).unwrap();
        let inode = nix::sys::stat::fstat(&socket).unwrap().st_ino;
        assert_eq!(kernel_drops(inode), Some(0));
        for _ in 0..100 {
            socket.send_to(&[0; 1000], socket.local_addr().unwrap()).unwrap();
        }
        assert!(kernel_drops(inode).unwrap() > 0);
        assert_eq!(kernel_drops(1), None);
    }
}
