//! Starts a process without copying this one's address space.
//!
//! A fork copies the page tables of the whole broker and lets every page that is written meanwhile be copied, too; that
//! was half of what a small job cost. `posix_spawn` copies nothing, but cannot set the death signal that takes tasks
//! along with their broker. So this does what `posix_spawn` does inside (`clone` with `CLONE_VM` and `CLONE_VFORK`),
//! with a few more steps before the exec. The child borrows our memory until it execs, and the calling thread stands
//! still meanwhile. Therefore everything is prepared before, and [`Start::in_child`] only makes system calls.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc::{self, c_char};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, chdir, getpid, getppid, setpgid};
use tokio::io::{Interest, unix::AsyncFd};

/// Bytes of the child's stack; it calls nothing that goes deep.
const STACK_BYTES: usize = 64 * 1024;
/// Where programs are looked for when the environment has no `PATH`, as in glibc.
const PATH_DEFAULT: &str = "/bin:/usr/bin";
/// What runs a file that is executable and in no format of the kernel's, as `execvp` has it.
const SHELL: &str = "/bin/sh";
/// The first number above the signals.
const SIGNALS_END: i32 = 65;

/// A resource limit, ready to be set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) resource: Resource,
    pub(super) soft: rlim_t,
    pub(super) hard: rlim_t,
}

/// What to start, and how.
#[derive(Debug)]
pub(super) struct Order<'a> {
    /// Program and arguments; not empty.
    pub(super) command: &'a [String],
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) cwd: &'a Path,
    /// Its standard streams.
    pub(super) streams: [OwnedFd; 3],
    /// Stays open in the program under its number.
    pub(super) kept: Option<OwnedFd>,
    pub(super) limits: &'a [Limit],
    pub(super) processors: Option<CpuSet>,
}

/// Starts a process in a group of its own, which dies with the calling thread.
///
/// # Errors
/// Why the program does not run; no process is left then.
pub(super) fn spawn(order: &Order<'_>) -> io::Result<Child> {
    let texts = Texts::new(order)?;
    let mut start = Start::new(order, &texts);
    let blocked = Blocked::new()?;
    let mut stack = vec![0; STACK_BYTES];
    let mut failure = 0;
    let pid = clone(&mut start, &mut stack, &mut failure);
    drop(blocked);
    let pid = pid?;
    if failure != 0 {
        // It has ended, or does so now.
        let _ = waitpid(pid, None);
        return Err(io::Error::from_raw_os_error(failure));
    }
    Child::new(pid)
}

#[expect(unsafe_code, reason = "nix has no safe way to start a process that shares our memory")]
fn clone(start: &mut Start<'_>, stack: &mut [u8], failure: &mut i32) -> io::Result<Pid> {
    // Written by the child, in memory that it shares with us.
    let told: *mut i32 = failure;
    let child = Box::new(move || -> isize {
        let error = start.in_child();
        // SAFETY: the pointer is to the caller's variable, and the caller stands still until we are gone.
        unsafe { told.write_volatile(error as i32) };
        // SAFETY: `_exit` runs no destructors and no exit handlers of the process whose memory this is.
        unsafe { libc::_exit(127) }
    });
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: the child has a stack of its own, which outlives it: with CLONE_VFORK this returns only after its exec or
    // exit. Signals are blocked, so no handler runs in it. It only makes system calls: it takes no lock and does not
    // allocate.
    Ok(unsafe { nix::sched::clone(child, stack, flags, Some(libc::SIGCHLD)) }?)
}

/// No signal reaches this thread while this lives; the child puts the mask away before its exec.
struct Blocked(SigSet);

impl Blocked {
    fn new() -> io::Result<Blocked> {
        let mut before = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before))?;
        Ok(Blocked(before))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }
}

/// Everything that the program is given as text, with zeros at the ends.
struct Texts {
    /// Where the program may be, in order.
    programs: Vec<CString>,
    /// Its name and arguments.
    arguments: Vec<CString>,
    environment: Vec<CString>,
    cwd: CString,
    shell: CString,
}

impl Texts {
    fn new(order: &Order<'_>) -> io::Result<Texts> {
        let [program, ..] = order.command else { return Err(io::ErrorKind::NotFound.into()) };
        let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::from);
        let variable =
            |(name, value): &(OsString, OsString)| text(&[name.as_bytes(), b"=", value.as_bytes()].concat());
        let path =
            order.environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        Ok(Texts {
            programs: programs(program, path.unwrap_or(OsStr::new(PATH_DEFAULT)))?,
            arguments: order.command.iter().map(|word| text(word.as_bytes())).collect::<Result<_, _>>()?,
            environment: order.environment.iter().map(variable).collect::<Result<_, _>>()?,
            cwd: text(order.cwd.as_os_str().as_bytes())?,
            shell: text(SHELL.as_bytes())?,
        })
    }
}

/// Where a program may be.
fn programs(name: &str, path: &OsStr) -> io::Result<Vec<CString>> {
    if name.contains('/') {
        return Ok(vec![CString::new(name)?]);
    }
    if name.is_empty() {
        return Err(Errno::ENOENT.into());
    }
    let in_dir = |dir: &[u8]| {
        let dir = if dir.is_empty() { b"." } else { dir };
        CString::new([dir, b"/", name.as_bytes()].concat()).map_err(io::Error::from)
    };
    path.as_bytes().split(|byte| *byte == b':').map(in_dir).collect()
}

/// What the child needs, in the form in which the kernel takes it.
struct Start<'a> {
    order: &'a Order<'a>,
    texts: &'a Texts,
    /// A place for [`SHELL`] in front, then the arguments, then null.
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    parent: Pid,
}

impl<'a> Start<'a> {
    fn new(order: &'a Order<'a>, texts: &'a Texts) -> Start<'a> {
        let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr()).collect::<Vec<_>>();
        let mut arguments = vec![texts.shell.as_ptr()];
        arguments.extend(pointers(&texts.arguments));
        arguments.push(std::ptr::null());
        let mut environment = pointers(&texts.environment);
        environment.push(std::ptr::null());
        Start { order, texts, arguments, environment, parent: getpid() }
    }

    /// Becomes the program; returns only with the reason why not.
    fn in_child(&mut self) -> Errno {
        match self.prepare() {
            Ok(()) => self.exec(),
            Err(error) => error,
        }
    }

    fn prepare(&self) -> Result<(), Errno> {
        let Order { streams, kept, limits, processors, .. } = self.order;
        default_handlers();
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        // A broker that died between the clone and the line above sends no signal any more.
        if getppid() != self.parent {
            return Err(Errno::ESRCH);
        }
        setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        for (number, stream) in (0..).zip(streams) {
            duplicate(stream.as_fd(), number)?;
        }
        if let Some(kept) = kept {
            fcntl(kept, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        chdir(self.texts.cwd.as_c_str())?;
        for Limit { resource, soft, hard } in *limits {
            setrlimit(*resource, *soft, *hard)?;
        }
        if let Some(processors) = processors {
            // Cores that this machine does not have are no reason to fail.
            let _ = sched_setaffinity(Pid::from_raw(0), processors);
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
    }

    /// Tries all places, as `execvp` does: a file that may not be run is reported unless another place has one.
    fn exec(&mut self) -> Errno {
        let texts = self.texts;
        let mut worst = Errno::ENOENT;
        for program in &texts.programs {
            match execve(program.as_ptr(), &self.arguments[1..], &self.environment) {
                Errno::ENOEXEC => {
                    self.arguments[1] = program.as_ptr();
                    return execve(texts.shell.as_ptr(), &self.arguments, &self.environment);
                }
                Errno::EACCES => worst = Errno::EACCES,
                Errno::ENOENT | Errno::ENOTDIR => {
                    if texts.programs.len() == 1 {
                        return Errno::last();
                    }
                }
                other => return other,
            }
        }
        worst
    }
}

/// Gives a stream its number without close-on-exec.
#[expect(unsafe_code, reason = "nix's dup2 wants to own the number, which the program will")]
fn duplicate(stream: BorrowedFd<'_>, number: i32) -> Result<(), Errno> {
    // SAFETY: `dup2` only changes this process's own table of descriptors, which the child does not share with us.
    Errno::result(unsafe { libc::dup2(stream.as_raw_fd(), number) }).map(drop)
}

/// Lets no handler of ours run in the child, and gives the program the defaults.
#[expect(unsafe_code, reason = "handlers are set by number, and all of them")]
fn default_handlers() {
    for signal in 1..SIGNALS_END {
        // SAFETY: the table of handlers is the child's own (no CLONE_SIGHAND), and SIG_DFL is always sound. An error is
        // that of a signal that cannot be handled.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

#[expect(unsafe_code, reason = "nix's execve allocates, which the child may not")]
fn execve(program: *const c_char, arguments: &[*const c_char], environment: &[*const c_char]) -> Errno {
    // SAFETY: all three are prepared by `Start::new`: texts with a zero at the end that outlive the call, and arrays of
    // them with a null at the end.
    unsafe { libc::execve(program, arguments.as_ptr(), environment.as_ptr()) };
    Errno::last()
}

/// A process that was started. It is waited for with [`Child::wait`], else it stays as a zombie until the broker ends.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    /// Readable once it has ended.
    ended: OwnedFd,
}

impl Child {
    #[expect(unsafe_code, reason = "nix has no pidfd_open")]
    fn new(pid: Pid) -> io::Result<Child> {
        // SAFETY: the call takes two numbers and gives back a new descriptor, which nobody else owns.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
        // SAFETY: as above.
        Ok(Child { pid, ended: unsafe { OwnedFd::from_raw_fd(fd as i32) } })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Its wait status, once it has ended.
    #[expect(unsafe_code, reason = "tokio has no safe way to wait for a descriptor of another kind")]
    pub(crate) async fn wait(self) -> io::Result<i32> {
        // SAFETY: the descriptor is valid, and `AsyncFd` owns it for as long as it is registered.
        let ended = unsafe { AsyncFd::register_with_interest(self.ended, Interest::READABLE) }?;
        let _ready = ended.readable().await?;
        wait_status(self.pid)
    }
}

/// Takes the wait status of a process that has ended, as the kernel gives it.
#[expect(unsafe_code, reason = "nix takes the status apart, and jobs report it whole")]
fn wait_status(pid: Pid) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: `status` is ours and lives longer than the call.
    Errno::result(unsafe { libc::waitpid(pid.as_raw(), &raw mut status, 0) })?;
    Ok(status)
}
