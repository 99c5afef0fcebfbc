//! The transport over `/dev/fuse`: mounting, and the threads that serve requests.
//!
//! One thread at a time reads requests, and serves what it reads: from the program to the servers and back nobody is woken
//! on the way. A thread that is about to wait for something (an answer, a lock, an MDS that is away) first leaves the reading
//! to another one, and so does one that looks for an answer while requests wait; so the kernel is always heard. Where all
//! wait, another thread is started; threads above what is usual end when the load does.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, InitFlags, KernelConfig, MountOption, SessionACL};

use kiln_net::blocking::{Patience, Waits, on_wait, waits};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::abi::{self, Init};
use super::{Answer, Carrier, Interrupt, Op, Operations, Request};

/// Threads at once; beyond that requests wait in the kernel. Each costs a stack and a buffer that are mostly not touched.
const THREADS_MAX: usize = 1024;
/// Threads that go on waiting for requests beyond those that usually do: to start one takes longer than to serve a request.
const SPARE_THREADS: usize = 5;
/// The stack of a thread, in bytes.
const STACK_BYTES: usize = 512 << 10;
/// The largest write of one request, in bytes; the kernel's own limit is the same unless root has raised it.
const WRITE_BYTES_MAX: u32 = crate::wire::DATA_BYTES_MAX;
/// Requests of the kernel's own (readahead, write-back of mappings) under way at once.
const BACKGROUND_MAX: u16 = 64;
/// `_IOR(229, 0, u32)`: makes a descriptor another one of the same mount.
const FUSE_DEV_IOC_CLONE: libc::c_ulong = 0x8004_e500;

/// How a filesystem is mounted.
#[derive(Clone, Debug)]
pub(crate) struct How {
    /// Other users than the one who mounts may use it.
    pub(crate) allow_other: bool,
    pub(crate) read_only: bool,
    /// What `mount` shows as the source.
    pub(crate) source: String,
    /// Threads that usually wait for requests.
    pub(crate) threads: usize,
}

/// A mount as the kernel sees it.
pub(crate) struct Device {
    /// Descriptors of the mount: with one for each thread, the kernel's bookkeeping of one does not hold up another.
    /// **Invariant:** not empty.
    files: Vec<File>,
    /// One more, which fails when no request is there instead of waiting.
    looking: File,
    session: Mutex<fuser::Session<Handshake>>,
    request_bytes_max: usize,
}

/// Lets fuser mount, and answers INIT.
#[derive(Debug)]
struct Handshake {
    write_bytes: u32,
}

impl fuser::Filesystem for Handshake {
    fn init(&mut self, _request: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let offered = config.capabilities();
        let wanted = InitFlags::from_bits_retain(Init::WANTED) & offered;
        config
            .add_capabilities(wanted)
            .map_err(|_| io::Error::other("the kernel refused what it offered"))?;
        // Each is refused with the nearest value that is possible.
        let _ = config.set_max_write(self.write_bytes);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }
}

impl Device {
    /// Mounts on `dir` and shakes hands with the kernel; requests wait until [`serve`] is called.
    pub(crate) fn mount(dir: &Path, how: &How) -> io::Result<Device> {
        let write_bytes = write_bytes();
        let session = fuser::Session::new(Handshake { write_bytes }, dir, &config(how))?;
        let main = File::from(session.as_fd().try_clone_to_owned()?);
        let clones: Vec<File> = (1..how.threads).map_while(|_| clone_device(&main).ok()).collect();
        let looking = clone_device(&main)?;
        fcntl(&looking, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))?;
        let files = std::iter::once(main).chain(clones).collect();
        let request_bytes_max = write_bytes as usize + abi::IN_HEADER_BYTES + abi::WRITE_IN_BYTES;
        Ok(Device {
            files,
            looking,
            session: Mutex::new(session),
            request_bytes_max: request_bytes_max + (4 << 10),
        })
    }

    /// Takes the mount away. Fails with `EBUSY` while programs use it.
    pub(crate) fn unmount(&self) -> io::Result<()> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).unmount()
    }

    /// Whether a request waits to be read.
    fn has_request(&self) -> bool {
        let mut file = [PollFd::new(self.looking.as_fd(), PollFlags::POLLIN)];
        poll(&mut file, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Sends the kernel something that it has not asked for.
    pub(super) fn carry_notice(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        self.files[0].carry(parts)
    }
}

impl Carrier for File {
    fn carry(&self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let mut file = self;
        file.write_vectored(parts).map(drop)
    }
}

fn config(how: &How) -> Config {
    let root = nix::unistd::geteuid().is_root();
    let mut options = vec![
        MountOption::FSName(how.source.clone()),
        MountOption::Subtype("kiln".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoAtime,
    ];
    if root {
        options.extend([MountOption::Dev, MountOption::Suid]);
    }
    if how.read_only {
        options.push(MountOption::RO);
    }
    let mut config = Config::default();
    config.mount_options = options;
    config.acl = if how.allow_other { SessionACL::All } else { SessionACL::Owner };
    config
}

/// What one write request may carry, as the kernel's setting allows.
fn write_bytes() -> u32 {
    let limit = std::fs::read_to_string("/proc/sys/fs/fuse/max_pages_limit");
    let pages = limit.ok().and_then(|text| text.trim().parse::<u32>().ok()).unwrap_or(256);
    pages.saturating_mul(4096).clamp(128 << 10, WRITE_BYTES_MAX)
}

/// Another descriptor of the mount that `main` is of.
fn clone_device(main: &File) -> io::Result<File> {
    let clone = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let mut source = main.as_raw_fd() as u32;
    #[expect(
        unsafe_code,
        reason = "std has no ioctl; this one reads a u32 through a pointer that lives on this stack"
    )]
    // SAFETY: both descriptors are open for the whole call, and the argument points to a u32 as the request code says.
    let result = unsafe { libc::ioctl(clone.as_raw_fd(), FUSE_DEV_IOC_CLONE, &raw mut source) };
    if result == 0 { Ok(clone) } else { Err(io::Error::last_os_error()) }
}

/// The threads of a mount.
pub(crate) struct Workers(Arc<Pool>);

/// See the module.
struct Pool {
    device: Arc<Device>,
    operations: Arc<dyn Operations>,
    /// Threads that stay when there is nothing to do.
    usual: usize,
    /// The number of the thread that reads requests; [`NOBODY`] while another is being woken to do so.
    reader: AtomicUsize,
    /// The reader sleeps until a request comes.
    asleep: AtomicBool,
    /// Requests that were read.
    read: AtomicU64,
    /// What was learnt of how soon a request follows another.
    patience: Mutex<Patience>,
    /// Threads that wait to be the reader.
    parked: Mutex<Parked>,
    wanted: Condvar,
    /// What each thread serves. **Invariant:** at most [`THREADS_MAX`].
    serving: Mutex<Vec<Arc<Interrupt>>>,
    ended: Condvar,
    numbers: AtomicUsize,
}

#[derive(Clone, Copy, Default)]
struct Parked {
    count: usize,
    /// The mount is gone.
    gone: bool,
}

/// No thread has this number.
const NOBODY: usize = 0;
/// Who is about to wait leaves the reading to another thread. Where that was forgotten, another one reads when a request has
/// been served for so long,
const STUCK: Duration = Duration::from_millis(10);
/// or so long, after a time without requests.
const STUCK_AT_FIRST: Duration = Duration::from_millis(200);
/// While a request with so many bytes is served, another thread reads what waits.
const LARGE_BYTES: usize = 128 << 10;

thread_local! {
    /// Of which pool this thread is, and which number it has.
    static SEAT: RefCell<Option<(Arc<Pool>, usize)>> = const { RefCell::new(None) };
}

/// Starts the threads. They end when the mount does.
pub(crate) fn serve(device: Arc<Device>, operations: Arc<dyn Operations>, threads: usize) -> Workers {
    let usual = threads.clamp(1, THREADS_MAX);
    let pool = Arc::new(Pool {
        device,
        operations,
        usual,
        reader: AtomicUsize::new(NOBODY),
        asleep: AtomicBool::new(false),
        read: AtomicU64::new(0),
        patience: Mutex::default(),
        parked: Mutex::default(),
        wanted: Condvar::new(),
        serving: Mutex::default(),
        ended: Condvar::new(),
        numbers: AtomicUsize::new(NOBODY),
    });
    for _ in 0..usual {
        pool.start();
    }
    let watched = Arc::downgrade(&pool);
    let watch = thread::Builder::new().name("fuse-watch".to_owned()).spawn(move || watch(&watched));
    if let Err(error) = watch {
        tracing::warn!(%error, "no thread watches those that serve the mount");
    }
    Workers(pool)
}

/// Sees to it that no request waits behind one that takes long, until the mount is gone.
fn watch(pool: &Weak<Pool>) {
    let (mut seen, mut pause) = ((NOBODY, 0), STUCK_AT_FIRST);
    loop {
        thread::sleep(pause);
        let Some(pool) = pool.upgrade() else { return };
        let now = (pool.reader.load(Ordering::SeqCst), pool.read.load(Ordering::SeqCst));
        if now == seen && !pool.asleep.load(Ordering::SeqCst) {
            pool.leave_reading(now.0);
        }
        pause = if now == seen { STUCK_AT_FIRST } else { STUCK };
        seen = now;
        if pool.parked().gone {
            return;
        }
    }
}

/// What a thread that serves does when it waits.
fn hand_over(how: Waits) {
    SEAT.with_borrow(|seat| {
        if let Some((pool, number)) = seat
            && pool.is_reader(*number)
            && (how == Waits::Asleep || pool.device.has_request())
        {
            pool.leave_reading(*number);
        }
    });
}

impl Workers {
    /// Waits until the mount is gone and the last request is answered.
    pub(crate) fn wait(&self) {
        let serving = self.0.serving();
        let ended = self.0.ended.wait_while(serving, |serving| !serving.is_empty());
        drop(ended.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Pool {
    fn serving(&self) -> MutexGuard<'_, Vec<Arc<Interrupt>>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parked(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn patience(&self) -> MutexGuard<'_, Patience> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread, unless there are too many.
    fn start(self: &Arc<Pool>) {
        let interrupt = Arc::new(Interrupt::default());
        {
            let mut serving = self.serving();
            if serving.len() >= THREADS_MAX {
                return;
            }
            serving.push(Arc::clone(&interrupt));
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let (pool, mine) = (Arc::clone(self), Arc::clone(&interrupt));
        let thread = thread::Builder::new().name(format!("fuse-{number}")).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || pool.run(number, &mine)) {
            tracing::warn!(%error, "no further thread for the requests of the mount");
            self.remove(&interrupt);
        }
    }

    fn remove(&self, interrupt: &Arc<Interrupt>) {
        self.serving().retain(|one| !Arc::ptr_eq(one, interrupt));
        self.ended.notify_all();
    }

    fn run(self: &Arc<Pool>, number: usize, interrupt: &Arc<Interrupt>) {
        let seat = Seat { pool: self, interrupt, number };
        SEAT.set(Some((Arc::clone(self), number)));
        on_wait(hand_over);
        let file = &self.device.files[number % self.device.files.len()];
        let mut buffer = vec![0; self.device.request_bytes_max];
        while self.is_reader(number) || self.become_reader(number) {
            let Some((file, len)) = self.next(file, &mut buffer) else {
                self.parked().gone = true;
                self.wanted.notify_all();
                break;
            };
            self.read.fetch_add(1, Ordering::SeqCst);
            if len >= LARGE_BYTES {
                waits(Waits::Looking);
            }
            self.serve(file, &buffer[..len], interrupt);
        }
        SEAT.set(None);
        drop(seat);
    }

    fn is_reader(&self, number: usize) -> bool {
        self.reader.load(Ordering::SeqCst) == number
    }

    fn change_reader(&self, from: usize, to: usize) -> bool {
        self.reader.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Waits until this thread is to read; `false` when it is not needed any more.
    fn become_reader(&self, number: usize) -> bool {
        let mut parked = self.parked();
        loop {
            if parked.gone {
                return false;
            }
            if self.change_reader(NOBODY, number) {
                return true;
            }
            if parked.count >= self.usual + SPARE_THREADS {
                return false;
            }
            parked.count += 1;
            parked = self.wanted.wait(parked).unwrap_or_else(PoisonError::into_inner);
            parked.count -= 1;
        }
    }

    /// This thread reads no more for now: another one does.
    fn leave_reading(self: &Arc<Pool>, number: usize) {
        if number == NOBODY || !self.change_reader(number, NOBODY) {
            return;
        }
        let Parked { count, gone } = *self.parked();
        if count > 0 {
            self.wanted.notify_one();
        } else if !gone {
            self.start();
        }
    }

    /// The next request, and where its answer goes; `None` when the mount is gone.
    fn next<'p>(&'p self, file: &'p File, buffer: &mut [u8]) -> Option<(&'p File, usize)> {
        loop {
            let found = self.look(buffer).unwrap_or_else(|| self.sleep(file, buffer));
            match found {
                Ok(read) => return Some(read),
                Err(error) => match error.raw_os_error() {
                    // The request was given up before it was read, or a signal came.
                    Some(libc::ENOENT | libc::EINTR | libc::EAGAIN) => {}
                    Some(libc::ENODEV | libc::ECONNABORTED) => return None,
                    _ => {
                        tracing::warn!(%error, "the mount's device cannot be read");
                        return None;
                    }
                },
            }
        }
    }

    /// Looks for a request for a while.
    fn look<'p>(&'p self, buffer: &mut [u8]) -> Option<io::Result<(&'p File, usize)>> {
        self.patience().look(|| read(&self.device.looking, buffer))
    }

    /// Sleeps until there is a request.
    fn sleep<'p>(&self, file: &'p File, buffer: &mut [u8]) -> io::Result<(&'p File, usize)> {
        let begun = Instant::now();
        self.asleep.store(true, Ordering::SeqCst);
        let found = read(file, buffer);
        self.asleep.store(false, Ordering::SeqCst);
        self.patience().slept(begun.elapsed());
        found
    }

    fn serve(&self, file: &File, bytes: &[u8], interrupt: &Interrupt) {
        let request = match Request::decode(bytes) {
            Ok(request) => request,
            Err(errno) => return refuse(file, bytes, errno),
        };
        if let Op::Interrupt { unique } = request.op {
            if !self.serving().iter().any(|one| one.raise(unique)) {
                // Another thread is about to serve it, or it is done: the kernel asks again in the first case.
                refuse(file, bytes, crate::core::Errno::EAGAIN);
            }
            return;
        }
        interrupt.begin(request.unique);
        self.operations.serve(&request, Answer::new(file, &request, interrupt));
        interrupt.begin(0);
    }
}

/// A thread's place among those that serve, also when it panics.
struct Seat<'p> {
    pool: &'p Arc<Pool>,
    interrupt: &'p Arc<Interrupt>,
    number: usize,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.pool.leave_reading(self.number);
        self.pool.remove(self.interrupt);
    }
}

/// Reads a request; its answer goes where it was read.
fn read<'f>(mut file: &'f File, buffer: &mut [u8]) -> io::Result<(&'f File, usize)> {
    let from = file;
    file.read(buffer).map(|len| (from, len))
}

/// Answers a request that is not served.
fn refuse(file: &File, bytes: &[u8], errno: crate::core::Errno) {
    let Some(unique) = bytes.get(8..16).and_then(|field| field.try_into().ok()).map(u64::from_ne_bytes)
    else {
        return;
    };
    let sent = super::reply::encode(unique, super::Tree::MOUNTED, Err(errno), |parts| file.carry(parts));
    if let Err(error) = sent {
        tracing::debug!(%error, "a refusal was not taken");
    }
}
