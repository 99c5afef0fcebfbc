//! Memory that a client lends to its server: both have it mapped, and what would be copied into a socket and out of it lies there.
//!
//! It has room for what one request carries, used until the answer has come, and a few pieces for what answers bring, each until the client has
//! dropped it. It belongs to one connection: a server that answers late, on a connection that was given up, writes where nobody reads.
//!
//! Two processes that have the same memory trust each other, and take turns by the frames of their connection: a span is the server's from the request that
//! names it until the answer, and the client's at any other time.
#![expect(
    unsafe_code,
    reason = "a mapping is a pointer, and who may use which bytes of it is said by messages"
)]

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bulk parts shorter than this go through the socket, with the frame that they belong to.
pub(super) const SHARED_BYTES_MIN: usize = 64 << 10;
/// The longest bulk part of a request that is put in lent memory.
pub(super) const SENT_BYTES_MAX: usize = 4 << 20;
/// The longest bulk part of an answer that is; longer ones come through the socket.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// Pieces for answers.
pub(super) const PIECES: usize = 4;
/// What a client lends for one connection. Pages that are never used cost nothing.
const LENT_BYTES: usize = SENT_BYTES_MAX + PIECES * PIECE_BYTES;
/// The most that a server takes from one connection.
pub(super) const TAKEN_BYTES_MAX: usize = 64 << 20;
/// The unit in which frames say where something lies.
const PAGE_BYTES: usize = 4096;

/// Memory that is mapped, as long as anybody has a part of it.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is of the process and not of a thread; its bytes are handed out as spans only.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// New memory of zeros, and what another process maps it by.
    fn make(len: usize) -> io::Result<(Memory, OwnedFd)> {
        let file = memfd_create("kiln-rpc", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, len as u64)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok((Memory::map(&file, len)?, file))
    }

    /// The memory of another process, which must be as long as it says and stay so: whoever touched what was cut off would be killed.
    pub(super) fn of(file: &OwnedFd, len: usize) -> io::Result<Memory> {
        let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        if !(1..=TAKEN_BYTES_MAX).contains(&len) {
            return wrong(format!("{len} bytes of memory are lent, not 1 to {TAKEN_BYTES_MAX}"));
        }
        if !fcntl_get_seals(file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK)) {
            return wrong("the memory that is lent could be cut".to_owned());
        }
        let there = rustix::fs::fstat(file)?.st_size;
        if usize::try_from(there) != Ok(len) {
            return wrong(format!("the memory that is lent has {there} bytes, and not {len}"));
        }
        Memory::map(file, len)
    }

    fn map(file: impl AsFd, len: usize) -> io::Result<Memory> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let base = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, file, 0) }?;
        Ok(Memory { base: NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?, len })
    }

    /// What lies at a place that a frame names; `None` when that is not in this memory.
    pub(super) fn span(self: &Arc<Memory>, place: u16, len: usize) -> Option<Span> {
        let at = usize::from(place).checked_sub(1)? * PAGE_BYTES;
        (at + len <= self.len).then(|| Span { memory: Arc::clone(self), at, len })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and nobody has a span of it any more: each holds an Arc of this.
        let unmapped = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok(), "it is a mapping");
    }
}

/// Some of lent memory, for who has its turn.
///
/// **Invariant:** it lies within the memory.
#[derive(Debug)]
pub struct Span {
    memory: Arc<Memory>,
    at: usize,
    len: usize,
}

impl Span {
    /// Keeps the front only.
    pub fn cut(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// As frames name it.
    pub(super) fn place(&self) -> u16 {
        (self.at / PAGE_BYTES + 1) as u16
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl AsRef<[u8]> for Span {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: it is within the mapping, which lives as long as the span; and it is our turn, so nobody writes to it.
        unsafe { std::slice::from_raw_parts(self.memory.base.as_ptr().add(self.at), self.len) }
    }
}

impl AsMut<[u8]> for Span {
    fn as_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and no other span of this process has these bytes while it is our turn.
        unsafe { std::slice::from_raw_parts_mut(self.memory.base.as_ptr().add(self.at), self.len) }
    }
}

/// Whether a request's bulk part of this length is put in lent memory.
pub(super) fn is_shared(len: usize) -> bool {
    (SHARED_BYTES_MIN..=SENT_BYTES_MAX).contains(&len)
}

/// What a client has lent.
#[derive(Debug)]
pub(super) struct Lent {
    memory: Arc<Memory>,
    pieces: Arc<Pieces>,
}

/// The pieces that nobody uses, by their number; the last that came back is the first that is taken, its pages are warm.
#[derive(Debug)]
struct Pieces(Mutex<Vec<usize>>);

/// A piece, with what an answer brought.
#[derive(Debug)]
pub(super) struct Piece {
    span: Span,
    nth: usize,
    home: Arc<Pieces>,
}

impl Lent {
    /// Memory to lend, and the descriptor to send.
    pub(super) fn make() -> io::Result<(Lent, OwnedFd)> {
        let (memory, file) = Memory::make(LENT_BYTES)?;
        let pieces = Arc::new(Pieces(Mutex::new((0..PIECES).rev().collect())));
        Ok((Lent { memory: Arc::new(memory), pieces }, file))
    }

    /// How much it is, in bytes.
    pub(super) fn len(&self) -> usize {
        self.memory.len
    }

    /// Puts a bulk part where the server finds it. **Must hold:** it [is shared](is_shared), and the call before was answered.
    pub(super) fn put(&mut self, parts: &[&[u8]]) -> Span {
        let len = parts.iter().map(|part| part.len()).sum();
        let mut span = self.memory.span(1, len).expect("it is not longer than what it may be");
        let mut into = span.as_mut();
        for part in parts {
            let (now, later) = into.split_at_mut(part.len());
            now.copy_from_slice(part);
            into = later;
        }
        span
    }

    /// A piece for an answer of up to this length; `None` when none is free, or it is too short or too long for one.
    pub(super) fn piece(&self, len: usize) -> Option<Piece> {
        if !(SHARED_BYTES_MIN..=PIECE_BYTES).contains(&len) {
            return None;
        }
        let nth = self.pieces.free().pop()?;
        let place = (SENT_BYTES_MAX + nth * PIECE_BYTES) / PAGE_BYTES + 1;
        let span = self.memory.span(place as u16, len).expect("pieces are within the memory");
        Some(Piece { span, nth, home: Arc::clone(&self.pieces) })
    }
}

impl Pieces {
    fn free(&self) -> MutexGuard<'_, Vec<usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Piece {
    pub(super) fn span(&self) -> &Span {
        &self.span
    }

    /// Keeps the front only.
    pub(super) fn cut(mut self, len: usize) -> Piece {
        self.span.cut(len);
        self
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.span.as_ref()
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.home.free().push(self.nth);
    }
}
