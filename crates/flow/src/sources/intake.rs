//! From frames to the batches of all syslog flows. Everything of one read is stored by one wait for the disk.

use crate::backoff::Stopped;
use crate::core::Batch;
use crate::sinks::{Ports, Running};
use crate::syslog::{self, Received};
use kiln_net::Shutdown;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bounds of the listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longer frames are cut, and counted.
    pub frame_bytes_max: usize,
    /// Connections at one time; further ones wait in the kernel.
    pub connections_max: usize,
    /// Bytes of datagrams that wait while the disk is slow; what comes on top is dropped, and counted.
    pub datagram_bytes_max: usize,
    /// Seconds east of UTC in which RFC 3164 timestamps are read.
    pub utc_offset_seconds: i32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            frame_bytes_max: syslog::framing::FRAME_BYTES_MAX,
            connections_max: 1024,
            datagram_bytes_max: 8 << 20,
            utc_offset_seconds: 0,
        }
    }
}

/// What the listener has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntakeCounts {
    /// Lines of all transports.
    pub lines: u64,
    /// Of these, cut to `frame_bytes_max`.
    pub truncated: u64,
    /// Datagrams dropped because the disk did not keep up: here, and in the socket's own buffer, as far as the kernel tells.
    pub dropped: u64,
    /// Connections that broke RELP's rules.
    pub malformed: u64,
    /// Connections accepted.
    pub connections: u64,
}

/// Shared by all transports.
pub(crate) struct Intake {
    pub(crate) flows: Vec<Arc<Running>>,
    pub(crate) ports: Ports,
    pub(crate) limits: Limits,
    lines: AtomicU64,
    truncated: AtomicU64,
    dropped: AtomicU64,
    /// What the kernel has dropped of the datagram socket.
    kernel_dropped: AtomicU64,
    malformed: AtomicU64,
    connections: AtomicU64,
}

/// What the flows want done about the lines taken so far; one batch for each flow.
pub(crate) struct Work {
    batches: Vec<Batch>,
    received: Received,
    lines: u64,
    bytes: usize,
    truncated: u64,
}

impl Intake {
    pub(crate) fn new(flows: Vec<Arc<Running>>, ports: Ports, limits: Limits) -> Intake {
        let zero = AtomicU64::default;
        Intake {
            flows,
            ports,
            limits,
            lines: zero(),
            truncated: zero(),
            dropped: zero(),
            kernel_dropped: zero(),
            malformed: zero(),
            connections: zero(),
        }
    }

    pub(crate) fn work(&self) -> Work {
        let batches = self.flows.iter().map(|_| Batch::default()).collect();
        Work { batches, received: self.received(), lines: 0, bytes: 0, truncated: 0 }
    }

    fn received(&self) -> Received {
        Received { now: self.ports.clock.now(), utc_offset_seconds: self.limits.utc_offset_seconds }
    }

    /// Decides on a line.
    pub(crate) fn line(&self, bytes: &[u8], truncated: bool, work: &mut Work) {
        if work.lines == 0 {
            work.received = self.received();
        }
        work.lines += 1;
        work.bytes += bytes.len();
        work.truncated += u64::from(truncated);
        let end =
            bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n' | 0)).map_or(0, |last| last + 1);
        let raw = &bytes[..end];
        let text = String::from_utf8_lossy(raw);
        let message = syslog::parse(&text, work.received);
        for (running, batch) in self.flows.iter().zip(&mut work.batches) {
            running.flow.take_line(&message, raw, batch);
        }
    }

    /// Stores everything that the lines taken so far led to.
    pub(crate) async fn deliver(&self, work: &mut Work, stop: &Shutdown) -> Result<(), Stopped> {
        let all = self.flows.iter().zip(&mut work.batches).map(|(running, batch)| {
            let mut stop = stop.clone();
            async move { running.deliver(batch, &self.ports, &mut stop).await }
        });
        futures_util::future::try_join_all(all).await?;
        self.lines.fetch_add(work.lines, Relaxed);
        self.truncated.fetch_add(work.truncated, Relaxed);
        (work.lines, work.bytes, work.truncated) = (0, 0, 0);
        Ok(())
    }

    pub(crate) fn dropped(&self) {
        self.dropped.fetch_add(1, Relaxed);
    }

    pub(crate) fn dropped_by_kernel(&self, total: u64) {
        self.kernel_dropped.store(total, Relaxed);
    }

    pub(crate) fn malformed(&self) {
        self.malformed.fetch_add(1, Relaxed);
    }

    pub(crate) fn connected(&self) {
        self.connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn counts(&self) -> IntakeCounts {
        IntakeCounts {
            lines: self.lines.load(Relaxed),
            truncated: self.truncated.load(Relaxed),
            dropped: self.dropped.load(Relaxed) + self.kernel_dropped.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            connections: self.connections.load(Relaxed),
        }
    }
}

impl Work {
    pub(crate) fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// Bytes of the lines taken so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
