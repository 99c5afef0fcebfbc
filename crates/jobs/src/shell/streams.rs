//! The streams of a task: pipes read in whole lines, files that tasks share, standard input.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};

/// Most bytes read from a pipe at once; also the longest line that is kept together.
pub(crate) const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a job's output on one node that the leader has not acknowledged; beyond it tasks wait in their write.
pub(crate) const UNACKED_BYTES_MAX: usize = 2 << 20;
/// Bytes of standard input of a job on one node that its tasks have not read.
pub(crate) const STDIN_BYTES_MAX: usize = 64 << 20;
/// Bytes that a piece of output costs of that beside its data, since an empty one is not free either.
pub(crate) const PIECE_BYTES: usize = 64;

/// Keeps the part after the last newline back until its line is whole.
#[derive(Debug, Default)]
struct Lines {
    pending: BytesMut,
}

impl Lines {
    /// What can be passed on now that `pending` has grown.
    fn take(&mut self, unbuffered: bool) -> Option<Bytes> {
        let whole = self.pending.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let length = if unbuffered || (whole == 0 && self.pending.len() >= CHUNK_BYTES_MAX) {
            self.pending.len()
        } else {
            whole
        };
        (length > 0).then(|| self.pending.split_to(length).freeze())
    }
}

/// Reads a pipe to its end and hands each piece on: whole lines, and at the end the rest with `true`. Waits for `window`
/// before each piece, so that a task that writes faster than its output is stored waits in its write.
pub(crate) async fn read_pipe<Delivered: Future<Output = bool>>(
    mut pipe: impl AsyncRead + Unpin,
    unbuffered: bool,
    window: Arc<Semaphore>,
    mut deliver: impl FnMut(Bytes, bool) -> Delivered,
) {
    let mut lines = Lines::default();
    loop {
        lines.pending.reserve(CHUNK_BYTES_MAX.min(4096.max(lines.pending.len())));
        let read = (&mut pipe).take(CHUNK_BYTES_MAX as u64).read_buf(&mut lines.pending).await;
        let ended = !matches!(read, Ok(count) if count > 0);
        let piece = if ended { Some(lines.pending.split().freeze()) } else { lines.take(unbuffered) };
        let Some(piece) = piece else { continue };
        let cost = (piece.len() + PIECE_BYTES) as u32;
        // A closed window means that the job is forgotten: read on and drop, so that nothing hangs in its write.
        if let Ok(permits) = window.acquire_many(cost).await {
            permits.forget();
            if !deliver(piece, ended).await {
                return;
            }
        }
        if ended {
            return;
        }
    }
}

/// A file that several tasks write to, possibly of several nodes: each write adds whole lines at its end.
#[derive(Clone, Debug)]
pub(crate) struct SharedFile {
    file: Arc<File>,
    label: bool,
}

impl SharedFile {
    /// Opens the file, which exists already unless this job has a single node.
    pub(crate) fn open(path: &Path, label: bool) -> io::Result<SharedFile> {
        Ok(SharedFile { file: Arc::new(OpenOptions::new().create(true).append(true).open(path)?), label })
    }

    /// Adds what `task` wrote.
    pub(crate) fn write(&self, task: u32, data: &[u8]) -> io::Result<()> {
        if self.label {
            (&*self.file).write_all(&labelled(task, data))
        } else {
            (&*self.file).write_all(data)
        }
    }
}

/// Puts `task: ` before each line, and a newline after the last one, so that no label stands inside a line.
fn labelled(task: u32, data: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(data.len() + 16);
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        text.extend_from_slice(format!("{task}: ").as_bytes());
        text.extend_from_slice(line);
    }
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text
}

/// Writes what comes to a task's standard input, until the channel ends or the task does not read any more.
pub(crate) async fn write_stdin(mut pipe: impl AsyncWrite + Unpin, mut data: mpsc::UnboundedReceiver<Input>) {
    while let Some(input) = data.recv().await {
        if pipe.write_all(&input.0.0).await.is_err() {
            return;
        }
        drop(input);
    }
}

/// Room for the standard input of a job that its tasks have not read yet.
#[derive(Debug, Default)]
pub(crate) struct StdinRoom {
    waiting: Arc<AtomicUsize>,
}

impl StdinRoom {
    /// A piece to pass on; none when [`STDIN_BYTES_MAX`] would be passed.
    pub(crate) fn hold(&self, data: Vec<u8>) -> Option<Input> {
        let length = data.len();
        let before = self.waiting.fetch_add(length, Ordering::AcqRel);
        let held = Held { waiting: Arc::clone(&self.waiting), length };
        (before + length <= STDIN_BYTES_MAX).then(|| Input(Arc::new((data, held))))
    }
}

/// Gives its room back when the last task has read the piece.
#[derive(Debug)]
struct Held {
    waiting: Arc<AtomicUsize>,
    length: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.length, Ordering::AcqRel);
    }
}

/// A piece of standard input, shared by the tasks that read it.
#[derive(Clone, Debug)]
pub(crate) struct Input(Arc<(Vec<u8>, Held)>);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    async fn pieces(input: Vec<&'static [u8]>, unbuffered: bool) -> Vec<(Vec<u8>, bool)> {
        let (mut writer, reader) = tokio::io::duplex(1 << 20);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::clone(&seen);
        let window = Arc::new(Semaphore::new(UNACKED_BYTES_MAX));
        let reading = tokio::spawn(read_pipe(reader, unbuffered, window, move |data, eof| {
            store.lock().expect("not poisoned").push((data.to_vec(), eof));
            std::future::ready(true)
        }));
        for part in input {
            writer.write_all(part).await.expect("write");
            tokio::task::yield_now().await;
        }
        drop(writer);
        reading.await.expect("joined");
        let seen = seen.lock().expect("not poisoned");
        seen.clone()
    }

    #[tokio::test]
    async fn lines_are_passed_on_whole() {
        let seen = pieces(vec![b"one\ntw", b"o\nthr", b"ee"], false).await;
        let text: Vec<u8> = seen.iter().flat_map(|(data, _)| data.clone()).collect();
        assert_eq!(text, b"one\ntwo\nthree");
        let (last, before) = seen.split_last().expect("pieces");
        assert_eq!(*last, (b"three".to_vec(), true));
        assert!(before.iter().all(|(data, eof)| data.ends_with(b"\n") && !eof));
    }

    #[tokio::test]
    async fn an_empty_stream_has_an_end() {
        assert_eq!(pieces(vec![], false).await, [(Vec::new(), true)]);
    }

    #[test]
    fn a_line_without_end_is_cut_at_the_limit() {
        let mut lines = Lines { pending: BytesMut::from(&vec![b'x'; CHUNK_BYTES_MAX - 1][..]) };
        assert_eq!(lines.take(false), None);
        lines.pending.extend_from_slice(b"x");
        assert_eq!(lines.take(false).expect("a piece").len(), CHUNK_BYTES_MAX);
        lines.pending.extend_from_slice(b"ab");
        assert_eq!(lines.take(true).as_deref(), Some(b"ab".as_slice()));
    }

    #[tokio::test]
    async fn a_full_window_stops_the_reading() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let window = Arc::new(Semaphore::new(PIECE_BYTES + 2));
        let (tx, mut rx) = mpsc::unbounded_channel();
        tokio::spawn(read_pipe(reader, false, Arc::clone(&window), move |data, _| {
            std::future::ready(tx.send(data).is_ok())
        }));
        writer.write_all(b"a\n").await.expect("write");
        assert_eq!(rx.recv().await.expect("a piece"), "a\n");
        writer.write_all(b"b\n").await.expect("write");
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(rx.try_recv().is_err(), "the window is used up");
        window.add_permits(PIECE_BYTES + 2);
        assert_eq!(rx.recv().await.expect("a piece"), "b\n");
    }

    #[test]
    fn standard_input_has_a_bound_and_gives_room_back() {
        let room = StdinRoom::default();
        let first = room.hold(vec![0; STDIN_BYTES_MAX]).expect("room");
        assert!(room.hold(vec![0]).is_none());
        let shared = first.clone();
        drop(first);
        assert!(room.hold(vec![0]).is_none());
        drop(shared);
        assert!(room.hold(vec![0; STDIN_BYTES_MAX]).is_some());
    }

    #[test]
    fn labels_stand_before_each_line() {
        assert_eq!(labelled(3, b"a\nb\n"), b"3: a\n3: b\n");
        assert_eq!(labelled(0, b"rest"), b"0: rest\n");
        assert_eq!(labelled(0, b""), b"");
    }
}
