//! The thread that starts tasks: their directory, their files and pipes, and why one does not start.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use nix::errno::Errno;
use nix::sched::CpuSet;
use nix::sys::resource::{Resource, getrlimit, rlim_t};

use super::environment;
use super::spawn::{self, Child, Limit, Order};
use super::template::TaskNames;
use crate::spec::JobFile;

/// The job's directory when its own cannot be entered, as Flux has it.
const FALLBACK_CWD: &str = "/tmp";

/// Where a task's standard output or standard error goes.
#[derive(Clone, Debug)]
pub(crate) enum Sink {
    /// Through the broker, to the job's output log or a file that tasks share.
    Pipe,
    /// Straight into a file of its own.
    File {
        /// Which.
        path: PathBuf,
        /// Whether it is added to and not begun anew.
        append: bool,
    },
}

/// Where a task's standard input comes from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// From the client, through the broker.
    Pipe,
    /// From a file.
    File(PathBuf),
}

/// One task to start.
#[derive(Debug)]
pub(crate) struct TaskPlan {
    pub(crate) names: TaskNames,
    pub(crate) command: Vec<String>,
    pub(crate) stdout: Sink,
    pub(crate) stderr: Sink,
    /// The processors it may use; empty: all.
    pub(crate) processors: Vec<u32>,
}

/// Everything to start on this node for a job.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) host: String,
    pub(crate) tmpdir: PathBuf,
    pub(crate) files: Vec<JobFile>,
    pub(crate) cwd: String,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) rlimits: Vec<(String, Option<u64>)>,
    pub(crate) input: Source,
    pub(crate) pmi: bool,
    pub(crate) tasks: Vec<TaskPlan>,
}

/// A task that runs.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) task: u32,
    pub(crate) child: Child,
    /// Our ends of its pipes; none where it has a file.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// Our end of the task's PMI socket.
    pub(crate) pmi: Option<UnixStream>,
}

/// Why a task did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("task {task} (host {host}): start failed: {what}: {reason}")]
pub(crate) struct StartError {
    pub(crate) task: u32,
    pub(crate) host: String,
    /// What was tried: the command, or a file.
    pub(crate) what: String,
    pub(crate) reason: String,
    /// The exit code that a shell gives.
    pub(crate) code: i32,
}

/// What came of a plan. Tasks before the one that failed run.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) started: Vec<Started>,
    pub(crate) failed: Option<StartError>,
    /// What is worth telling the user.
    pub(crate) warning: Option<String>,
}

/// What the thread is asked to do.
pub(crate) enum Work {
    /// Start a job's tasks.
    Launch(Box<Plan>, Reply<Launched>),
    /// Begin these files anew.
    Truncate(Vec<PathBuf>, Reply<Result<(), String>>),
    /// Remove a job's directory.
    Clean(PathBuf),
}

/// Where a result goes; called on the thread.
pub(crate) type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// Hands work to the thread, which ends when the last sender is dropped.
pub(crate) type Launcher = mpsc::Sender<Work>;

/// Starts the thread. Tasks die with it, since it is their parent.
pub(crate) fn start() -> io::Result<Launcher> {
    let (launcher, work) = mpsc::channel();
    std::thread::Builder::new().name("launcher".into()).spawn(move || {
        for work in work {
            carry_out(work);
        }
    })?;
    Ok(launcher)
}

fn carry_out(work: Work) {
    match work {
        Work::Launch(plan, reply) => reply(launch(&plan)),
        Work::Truncate(paths, reply) => reply(paths.iter().try_for_each(|path| {
            File::create(path).map(drop).map_err(|error| format!("{}: {}", path.display(), reason(&error)))
        })),
        Work::Clean(dir) => match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %dir.display(), %error, "a job's directory stays behind");
            }
            _ => {}
        },
    }
}

fn launch(plan: &Plan) -> Launched {
    let mut launched =
        Launched { started: Vec::with_capacity(plan.tasks.len()), failed: None, warning: None };
    let first = plan.tasks.first().map_or(0, |task| task.names.task);
    if let Err(error) = prepare(plan) {
        launched.failed = Some(failure(plan, first, &Culprit::File(plan.tmpdir.clone()), &error));
        return launched;
    }
    let cwd = match fs::read_dir(&plan.cwd) {
        Ok(_) => plan.cwd.as_str(),
        Err(error) => {
            let reason = reason(&error);
            launched.warning = Some(format!(
                "Could not change dir to {}: {reason}. Going to {FALLBACK_CWD} instead",
                plan.cwd
            ));
            FALLBACK_CWD
        }
    };
    let limits = limits(&plan.rlimits);
    for task in &plan.tasks {
        match launch_task(plan, task, cwd, &limits) {
            Ok(started) => launched.started.push(started),
            Err((culprit, error)) => {
                launched.failed = Some(failure(plan, task.names.task, &culprit, &error));
                break;
            }
        }
    }
    launched
}

/// Makes the job's directory and puts its files there.
fn prepare(plan: &Plan) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).recursive(true).create(&plan.tmpdir)?;
    for file in &plan.files {
        let path = plan.tmpdir.join(&file.name);
        // The descriptor must be closed before exec, or a script is "text file busy"; other forks are on this thread.
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(file.mode & 0o777)
            .open(path)?
            .write_all(file.data.as_bytes())?;
    }
    Ok(())
}

fn launch_task(plan: &Plan, task: &TaskPlan, cwd: &str, limits: &[Limit]) -> Result<Started, Failure> {
    let [program, ..] = task.command.as_slice() else {
        return Err((Culprit::Program(String::new()), io::ErrorKind::NotFound.into()));
    };
    let cwd = Path::new(cwd);
    let in_file = |path: &Path| Culprit::File(path.to_owned());
    let in_program = |error| (Culprit::Program(program.clone()), error);
    let (stdin, to_stdin) = match &plan.input {
        Source::Pipe => {
            let (theirs, ours) = io::pipe().map_err(in_program)?;
            (OwnedFd::from(theirs), Some(OwnedFd::from(ours)))
        }
        Source::File(path) => {
            (File::open(cwd.join(path)).map_err(|error| (in_file(path), error))?.into(), None)
        }
    };
    let stdout_file = open(&task.stdout, cwd)?;
    // Both streams into one file share its position, so that neither overwrites the other.
    let stderr_file = match (&task.stdout, &task.stderr, &stdout_file) {
        (Sink::File { path: out, .. }, Sink::File { path: err, .. }, Some(file)) if out == err => {
            Some(file.try_clone().map_err(|error| (in_file(err), error))?)
        }
        _ => open(&task.stderr, cwd)?,
    };
    let (from_stdout, stdout) = output(stdout_file).map_err(in_program)?;
    let (from_stderr, stderr) = output(stderr_file).map_err(in_program)?;
    let (ours, theirs) = plan.pmi.then(UnixStream::pair).transpose().map_err(in_program)?.unzip();
    let fd = theirs.as_ref().map(std::os::fd::AsRawFd::as_raw_fd);
    let mut environment: BTreeMap<OsString, OsString> =
        plan.environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
    environment.extend(
        environment::of_task(task.names, fd).into_iter().map(|(name, value)| (name.into(), value.into())),
    );
    let child = spawn::spawn(&Order {
        command: &task.command,
        environment: environment.into_iter().collect(),
        cwd,
        streams: [stdin, stdout, stderr],
        kept: theirs.map(OwnedFd::from),
        limits,
        processors: processors(&task.processors),
    });
    let child = child.map_err(in_program)?;
    Ok(Started {
        task: task.names.task,
        child,
        stdin: to_stdin,
        stdout: from_stdout,
        stderr: from_stderr,
        pmi: ours,
    })
}

/// Our end and the task's end of an output: a pipe, unless it goes to a file.
fn output(file: Option<File>) -> io::Result<(Option<OwnedFd>, OwnedFd)> {
    match file {
        Some(file) => Ok((None, file.into())),
        None => io::pipe().map(|(ours, theirs)| (Some(ours.into()), theirs.into())),
    }
}

fn open(sink: &Sink, cwd: &Path) -> Result<Option<File>, Failure> {
    let Sink::File { path, append } = sink else { return Ok(None) };
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    let opened = options.open(cwd.join(path)).and_then(|file| {
        if !append {
            file.set_len(0).or_else(|error| if is_no_file(&file) { Ok(()) } else { Err(error) })?;
        }
        Ok(file)
    });
    opened.map(Some).map_err(|error| (Culprit::File(path.clone()), error))
}

/// Whether this is a device such as /dev/null, which cannot be cut.
fn is_no_file(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| !metadata.is_file())
}

/// Resolves limits before the fork, and leaves out those that hold already.
fn limits(wanted: &[(String, Option<u64>)]) -> Vec<Limit> {
    let known = wanted.iter().filter_map(|(name, soft)| Some((resource(name)?, soft.unwrap_or(rlim_t::MAX))));
    known
        .filter_map(|(resource, soft)| {
            let (now, hard) = getrlimit(resource).ok()?;
            let soft = soft.min(hard);
            (soft != now).then_some(Limit { resource, soft, hard })
        })
        .collect()
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "stack" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// The set of these processors; none when it is empty or beyond what the kernel counts.
fn processors(wanted: &[u32]) -> Option<CpuSet> {
    let mut set = CpuSet::new();
    let set_any = wanted.iter().filter(|processor| set.set(**processor as usize).is_ok()).count() > 0;
    set_any.then_some(set)
}

/// What was tried when a task did not start.
#[derive(Debug)]
enum Culprit {
    Program(String),
    File(PathBuf),
}

type Failure = (Culprit, io::Error);

fn failure(plan: &Plan, task: u32, culprit: &Culprit, error: &io::Error) -> StartError {
    let (what, code) = match culprit {
        Culprit::Program(program) => (program.clone(), exec_code(error)),
        Culprit::File(path) => (path.display().to_string(), 1),
    };
    StartError { task, host: plan.host.clone(), what, reason: reason(error), code }
}

/// The exit code that a shell gives when a command does not start.
fn exec_code(error: &io::Error) -> i32 {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => 127,
        Some(Errno::EACCES | Errno::EPERM | Errno::ENOEXEC) => 126,
        _ if error.kind() == io::ErrorKind::NotFound => 127,
        _ => 1,
    }
}

/// The error as C programs word it, without the number that std adds.
fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned())
}
