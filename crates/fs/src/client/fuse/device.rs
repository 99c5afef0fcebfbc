//! The transport over `/dev/fuse`: mounting, and the threads that serve requests.
//!
//! A request is served by the thread that read it. When the last thread that waits for requests gets one, another thread
//! is started, so that requests which wait for something (a lock, a callback that another mount must answer, an MDS that
//! is away) never keep the kernel from being heard; threads above what is usual end when the load does.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use fuser::{Config, InitFlags, KernelConfig, MountOption, SessionACL};

use kiln_net::blocking::Patience;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

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

struct Pool {
    device: Arc<Device>,
    operations: Arc<dyn Operations>,
    /// Threads that wait for requests when there is nothing to do.
    usual: usize,
    /// Threads that wait for a request now.
    idle: AtomicUsize,
    /// A thread looks for requests; the others sleep meanwhile.
    is_looking: AtomicBool,
    /// What each thread serves. **Invariant:** at most [`THREADS_MAX`].
    serving: Mutex<Vec<Arc<Interrupt>>>,
    ended: Condvar,
}

/// Starts the threads. They end when the mount does.
pub(crate) fn serve(device: Arc<Device>, operations: Arc<dyn Operations>, threads: usize) -> Workers {
    let usual = threads.clamp(1, THREADS_MAX);
    let pool = Arc::new(Pool {
        device,
        operations,
        usual,
        idle: AtomicUsize::new(0),
        is_looking: AtomicBool::new(false),
        serving: Mutex::default(),
        ended: Condvar::new(),
    });
    for _ in 0..usual {
        pool.start();
    }
    Workers(pool)
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

    /// Starts a thread, unless there are too many.
    fn start(self: &Arc<Pool>) {
        let interrupt = Arc::new(Interrupt::default());
        let number = {
            let mut serving = self.serving();
            if serving.len() >= THREADS_MAX {
                return;
            }
            serving.push(Arc::clone(&interrupt));
            serving.len()
        };
        self.idle.fetch_add(1, Ordering::Relaxed);
        let pool = Arc::clone(self);
        let mine = Arc::clone(&interrupt);
        let thread = thread::Builder::new().name(format!("fuse-{number}")).stack_size(STACK_BYTES);
        if let Err(error) = thread.spawn(move || pool.run(number, &mine)) {
            tracing::warn!(%error, "no further thread for the requests of the mount");
            self.idle.fetch_sub(1, Ordering::Relaxed);
            self.remove(&interrupt);
        }
    }

    fn remove(&self, interrupt: &Arc<Interrupt>) {
        self.serving().retain(|one| !Arc::ptr_eq(one, interrupt));
        self.ended.notify_all();
    }

    fn run(self: &Arc<Pool>, number: usize, interrupt: &Arc<Interrupt>) {
        let seat = Seat { pool: self, interrupt };
        let file = &self.device.files[number % self.device.files.len()];
        let mut buffer = vec![0; self.device.request_bytes_max];
        let mut patience = Patience::default();
        while let Some((file, len)) = self.next(file, &mut patience, &mut buffer) {
            if self.idle.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.start();
            }
            self.serve(file, &buffer[..len], interrupt);
            // Threads that many waiting requests have called for end when these do.
            if self.idle.fetch_add(1, Ordering::Relaxed) >= self.usual + SPARE_THREADS {
                break;
            }
        }
        self.idle.fetch_sub(1, Ordering::Relaxed);
        drop(seat);
    }

    /// The next request, and where its answer goes; `None` when the mount is gone.
    fn next<'p>(
        &'p self,
        file: &'p File,
        patience: &mut Patience,
        buffer: &mut [u8],
    ) -> Option<(&'p File, usize)> {
        let looking = &self.device.looking;
        loop {
            let found = self.look(|| patience.look(|| read(looking, buffer)));
            let read = found.unwrap_or_else(|| patience.sleep(|| read(file, buffer)));
            match read {
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

    /// Runs `look`, unless another thread looks already.
    fn look<T>(&self, look: impl FnOnce() -> Option<T>) -> Option<T> {
        if self.is_looking.swap(true, Ordering::Acquire) {
            return None;
        }
        let found = look();
        self.is_looking.store(false, Ordering::Release);
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
    pool: &'p Pool,
    interrupt: &'p Arc<Interrupt>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
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
    let sent = super::reply::encode(unique, Err(errno), |parts| file.carry(parts));
    if let Err(error) = sent {
        tracing::debug!(%error, "a refusal was not taken");
    }
}
