//! The two halves of a connection: a reader that yields frames and a writer task that batches them.

use std::io::{self, IoSlice};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::wire::{self, Frame, HEADER_BYTES, Limits, WireError};

/// Frames queued for writing on one connection before senders wait.
pub(crate) const WRITE_QUEUE_FRAMES: usize = 256;
/// Bytes read at once; also the step in which a buffer grows toward a large frame, so that memory follows what arrived
/// and not what was claimed.
const READ_STEP_BYTES: usize = 64 * 1024;
/// Frames gathered into one write.
const GATHER_FRAMES: usize = 64;
/// A part of a frame up to this length is copied into the write buffer; longer ones are written from where they are.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection ended inside a frame")]
    Truncated,
}

pub(crate) struct FrameReader<R> {
    source: R,
    buffer: BytesMut,
    limits: Limits,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(source: R, limits: Limits) -> FrameReader<R> {
        FrameReader { source, buffer: BytesMut::with_capacity(READ_STEP_BYTES), limits }
    }

    /// The next frame; `None` when the peer closed between frames. Cancel safe: what was read stays in the buffer.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>, ReadError> {
        loop {
            let lacking = match wire::decode(&mut self.buffer, &self.limits)? {
                Ok(frame) => return Ok(Some(frame)),
                Err(lacking) => lacking,
            };
            if self.buffer.capacity() - self.buffer.len() < lacking.min(READ_STEP_BYTES) {
                self.buffer.reserve(READ_STEP_BYTES);
            }
            if self.source.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() { Ok(None) } else { Err(ReadError::Truncated) };
            }
        }
    }
}

/// Where frames for the peer go. `data` waits when the peer is slow; `control` never waits and is bounded by the number
/// of calls, since each call sends at most one cancel and one credit per half window.
#[derive(Clone, Debug)]
pub(crate) struct FrameSender {
    pub(crate) data: mpsc::Sender<Frame>,
    pub(crate) control: mpsc::UnboundedSender<Frame>,
}

pub(crate) struct FrameQueue {
    data: mpsc::Receiver<Frame>,
    control: mpsc::UnboundedReceiver<Frame>,
}

pub(crate) fn frame_queue() -> (FrameSender, FrameQueue) {
    let (data, data_out) = mpsc::channel(WRITE_QUEUE_FRAMES);
    let (control, control_out) = mpsc::unbounded_channel();
    (FrameSender { data, control }, FrameQueue { data: data_out, control: control_out })
}

impl FrameQueue {
    /// Takes what is queued, at least one frame; `false` when every sender is gone.
    async fn gather(&mut self, into: &mut Vec<Frame>) -> bool {
        let first = tokio::select! {
            biased;
            Some(frame) = self.control.recv() => Some(frame),
            Some(frame) = self.data.recv() => Some(frame),
            else => None,
        };
        let Some(first) = first else { return false };
        into.push(first);
        while into.len() < GATHER_FRAMES {
            let Ok(frame) = self.control.try_recv().or_else(|_| self.data.try_recv()) else { break };
            into.push(frame);
        }
        true
    }
}

/// Writes queued frames until every sender is gone or the peer is.
pub(crate) async fn write_frames(mut sink: impl AsyncWrite + Unpin, mut queue: FrameQueue) -> io::Result<()> {
    let mut frames = Vec::with_capacity(GATHER_FRAMES);
    let mut copied = BytesMut::with_capacity(READ_STEP_BYTES);
    while queue.gather(&mut frames).await {
        for frame in frames.drain(..) {
            frame.header().encode(&mut copied);
            for part in [frame.body, frame.bulk] {
                if part.len() <= COPY_BYTES_MAX {
                    copied.extend_from_slice(&part);
                } else {
                    write_both(&mut sink, &copied, &part).await?;
                    copied.clear();
                }
            }
            if copied.len() > READ_STEP_BYTES - HEADER_BYTES - 2 * COPY_BYTES_MAX {
                sink.write_all(&copied).await?;
                copied.clear();
            }
        }
        if !copied.is_empty() {
            sink.write_all(&copied).await?;
            copied.clear();
        }
        sink.flush().await?;
    }
    sink.shutdown().await
}

async fn write_both(sink: &mut (impl AsyncWrite + Unpin), first: &[u8], second: &[u8]) -> io::Result<()> {
    let mut both = Buf::chain(first, second);
    while both.has_remaining() {
        let mut slices = [IoSlice::new(&[]); 2];
        let count = both.chunks_vectored(&mut slices);
        match sink.write_vectored(&slices[..count]).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => both.advance(written),
        }
    }
    Ok(())
}
