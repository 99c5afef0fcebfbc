//! `flux broker`: the instance inside a batch or alloc job.
//!
//! The enclosing job starts one of these on each of its nodes. They find each other by PMI, the first one leads and
//! runs the script, and all of them end with it.

use super::{
    connect::{Broker, unexpected},
    fail::{Code, Fail},
    resource,
};
use kiln_jobs::{
    broker::{Handle, LeaderSettings, NodeSettings, start_leader, start_member},
    core::{NodeConfig, exit_code},
    proto::{InfoKey, Reply, Request},
    spec::R,
};
use kiln_log::Volume;
use kiln_types::{JobId, Rank};
use kiln_world::{Clock, RealClock, RealDisk, RealRng};
use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::{FromRawFd, OwnedFd},
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

const PROGRAM: &str = "flux-broker";

/// The key under which the leader tells its socket.
const LEADER_KEY: &str = "kiln.leader";

/// The longest PMI answer, in bytes.
const ANSWER_BYTES_MAX: u64 = 8192;

/// How long the leader waits for the other brokers before the script starts.
const QUORUM: Duration = Duration::from_mins(1);

/// Pause between looks at who is there.
const LOOK: Duration = Duration::from_millis(10);

/// How long calls in flight get when the instance ends.
const DRAIN: Duration = Duration::from_secs(2);

/// Variables of the enclosing job that are not true inside the instance.
const FOREIGN: [&str; 13] = [
    "FLUX_JOB_ID",
    "FLUX_JOB_ID_PATH",
    "FLUX_JOB_SIZE",
    "FLUX_JOB_NNODES",
    "FLUX_JOB_TMPDIR",
    "FLUX_JOB_CC",
    "FLUX_TASK_RANK",
    "FLUX_TASK_LOCAL_ID",
    "FLUX_KVS_NAMESPACE",
    "FLUX_PMI_LIBRARY_PATH",
    "PMI_FD",
    "PMI_RANK",
    "PMI_SIZE",
];

/// `flux broker SCRIPT [ARGS]`, inside a job.
pub(super) async fn broker(words: &[String]) -> Result<Code, Fail> {
    let words: Vec<String> = words.iter().skip_while(|word| word.starts_with('-')).cloned().collect();
    let error = |text: String| Fail::plain(PROGRAM, text);
    let (Some(around), false) = (Around::from_environment(), words.is_empty()) else {
        return Err(error("runs inside of jobs only; `kiln up` starts an instance on this machine".into()));
    };
    let r = around.resources().await?;
    let dir = tempfile::Builder::new()
        .prefix("flux-")
        .tempdir()
        .map_err(|e| error(format!("temporary directory: {e}")))?;
    let socket = dir.path().join(format!("local-{}", around.rank));
    let mut pmi = Pmi::open().map_err(|e| error(format!("PMI: {e}")))?;
    let leader =
        pmi.meet((around.rank == 0).then_some(socket.as_path())).map_err(|e| error(format!("PMI: {e}")))?;
    let node = around.node_settings(&r, &socket, dir.path())?;
    let ended = if around.rank == 0 {
        lead(&around, &r, node, dir.path(), &words, pmi).await
    } else {
        follow(node, &leader, pmi).await
    };
    ended.map_err(error)
}

/// What the enclosing job says about this broker.
struct Around {
    job: JobId,
    rank: u32,
    parent_uri: String,
    jobid_path: String,
    pmi_library: Option<PathBuf>,
}

impl Around {
    fn from_environment() -> Option<Self> {
        env::var_os("PMI_FD")?;
        Some(Self {
            job: env::var("FLUX_JOB_ID").ok()?.parse().ok()?,
            rank: env::var("PMI_RANK").ok()?.parse().ok()?,
            parent_uri: env::var("FLUX_URI").ok()?,
            jobid_path: env::var("FLUX_JOB_ID_PATH").unwrap_or_default(),
            pmi_library: env::var_os("FLUX_PMI_LIBRARY_PATH").map(PathBuf::from),
        })
    }

    /// The resources of the enclosing job.
    async fn resources(&self) -> Result<R, Fail> {
        let request = Request::Info { id: self.job, key: InfoKey::R };
        let failed = |text: String| Fail::plain(PROGRAM, format!("resources of job {}: {text}", self.job));
        match Broker::open(PROGRAM).await?.ask_again(&request).await {
            Ok(Reply::Document(text)) => R::parse(&text).map_err(|bad| failed(bad.to_string())),
            Ok(other) => Err(failed(unexpected(&other).text)),
            Err(failure) => Err(failed(failure.text)),
        }
    }

    fn node_settings(&self, r: &R, socket: &Path, dir: &Path) -> Result<NodeSettings, Fail> {
        let missing =
            || Fail::plain(PROGRAM, format!("rank {} has no node in the job's resources", self.rank));
        let own = r.nodes.get(self.rank as usize).ok_or_else(missing)?;
        Ok(NodeSettings {
            rank: Rank(self.rank),
            host: own.host.clone(),
            cores: own.cores.clone(),
            socket: socket.to_owned(),
            tmp: dir.to_owned(),
            pmi_library: self.pmi_library.clone(),
            bin_dir: None,
            jobid_path: self.jobid_path.clone(),
            clock: Arc::new(RealClock::new()),
            rng: Arc::new(RealRng),
        })
    }
}

/// Leads the instance, runs the script in it, and gives its exit code.
async fn lead(
    around: &Around,
    r: &R,
    node: NodeSettings,
    dir: &Path,
    words: &[String],
    pmi: Pmi,
) -> Result<Code, String> {
    let socket = node.socket.clone();
    let handle = start(around, r, node, dir).await?;
    let ended = match wait_for_all(&socket).await {
        Ok(()) => run_script(words, &socket).await,
        Err(problem) => Err(problem),
    };
    handle.drain(DRAIN).await;
    pmi.end().await;
    let status = ended?;
    let code = exit_code(status.into_raw());
    if code != 0 {
        eprintln!("broker.err[0]: rc2.0: {} Exited (rc={code})", words.join(" "));
    }
    Ok(code as Code)
}

async fn start(around: &Around, r: &R, node: NodeSettings, dir: &Path) -> Result<Handle, String> {
    let clock: Arc<dyn Clock> = Arc::clone(&node.clock);
    let disk = RealDisk::new(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let config = |(rank, node): (u32, &kiln_jobs::spec::RNode)| NodeConfig {
        rank: Rank(rank),
        host: node.host.clone(),
        cores: node.cores.clone(),
        excluded: false,
    };
    let settings = LeaderSettings {
        node,
        volume: Volume::start(Arc::new(disk), clock),
        dir: PathBuf::from("jobs"),
        nodes: (0..).zip(&r.nodes).map(config).collect(),
        attributes: vec![
            ("jobid".into(), around.job.to_string()),
            ("parent-uri".into(), around.parent_uri.clone()),
            ("rundir".into(), dir.display().to_string()),
        ],
    };
    start_leader(settings).await.map_err(|error| error.to_string())
}

/// Waits until every broker is connected.
async fn wait_for_all(socket: &Path) -> Result<(), String> {
    let broker = Broker::at(socket).await.map_err(|error| format!("own socket: {error}"))?;
    let began = Instant::now();
    loop {
        let rows = resource::rows(&broker).await.map_err(|failure| failure.text)?;
        let away: Vec<&str> = rows.iter().filter(|row| !row.online).map(|row| row.host.as_str()).collect();
        if away.is_empty() {
            return Ok(());
        }
        if began.elapsed() > QUORUM {
            return Err(format!("no broker came up on {}", away.join(",")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn run_script(words: &[String], socket: &Path) -> Result<ExitStatus, String> {
    let mut command = Command::new(&words[0]);
    command
        .args(&words[1..])
        .env("FLUX_URI", format!("local://{}", socket.display()))
        .stdin(Stdio::inherit());
    for name in FOREIGN {
        command.env_remove(name);
    }
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", words[0]))?;
    let waited = tokio::task::spawn_blocking(move || child.wait()).await;
    waited.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Serves this node until the leader ends.
async fn follow(node: NodeSettings, leader: &Path, pmi: Pmi) -> Result<Code, String> {
    let handle = start_member(node, leader).await.map_err(|error| error.to_string())?;
    pmi.end().await;
    handle.drain(DRAIN).await;
    Ok(0)
}

/// A client of the shell's PMI-1 server (RFC 13).
struct Pmi {
    read: BufReader<UnixStream>,
    write: UnixStream,
    kvsname: String,
}

impl Pmi {
    fn open() -> io::Result<Self> {
        let number = env::var("PMI_FD").ok().and_then(|fd| fd.parse().ok());
        let fd = number.filter(|fd| *fd > 2).ok_or_else(|| io::Error::other("PMI_FD is not a descriptor"))?;
        Self::over(inherited(fd)?)
    }

    fn over(stream: UnixStream) -> io::Result<Self> {
        let mut pmi =
            Self { read: BufReader::new(stream.try_clone()?), write: stream, kvsname: String::new() };
        pmi.ask("cmd=init pmi_version=1 pmi_subversion=1")?;
        let answer = pmi.ask("cmd=get_my_kvsname")?;
        word(&answer, "kvsname").unwrap_or_default().clone_into(&mut pmi.kvsname);
        Ok(pmi)
    }

    /// The leader tells where its socket is, the others learn it.
    fn meet(&mut self, own: Option<&Path>) -> io::Result<PathBuf> {
        let name = self.kvsname.clone();
        if let Some(socket) = own {
            self.ask(&format!("cmd=put kvsname={name} key={LEADER_KEY} value={}", socket.display()))?;
        }
        self.ask("cmd=barrier_in")?;
        let answer = self.ask(&format!("cmd=get kvsname={name} key={LEADER_KEY}"))?;
        let value = answer.split_once("value=").map(|(_, value)| PathBuf::from(value));
        value.ok_or_else(|| io::Error::other("the leader did not say where it is"))
    }

    /// Waits until every broker is at its end.
    async fn end(mut self) {
        let end = move || {
            // When the connection is gone the job is over anyway.
            let _ = self.ask("cmd=barrier_in").and_then(|_| self.ask("cmd=finalize"));
        };
        let _ = tokio::task::spawn_blocking(end).await;
    }

    fn ask(&mut self, line: &str) -> io::Result<String> {
        self.write.write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        io::Read::take(&mut self.read, ANSWER_BYTES_MAX).read_line(&mut answer)?;
        match word(&answer, "rc") {
            Some("0") | None if answer.ends_with('\n') => Ok(answer.trim_end().to_owned()),
            _ => Err(io::Error::other(format!("'{line}' was answered '{}'", answer.trim_end()))),
        }
    }
}

fn word<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

#[expect(unsafe_code, reason = "a descriptor inherited by number can be taken over in no other way")]
fn inherited(fd: i32) -> io::Result<UnixStream> {
    if std::fs::read_link(format!("/proc/self/fd/{fd}")).is_err() {
        return Err(io::Error::other(format!("PMI_FD names {fd}, which is not open")));
    }
    // SAFETY: the descriptor is open, it was made for this process by the shell that set PMI_FD, and nothing else in
    // this process uses it.
    Ok(UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each line with the next of `answers`, and gives back the lines.
    fn serve(stream: UnixStream, answers: &'static [&str]) -> std::thread::JoinHandle<Vec<String>> {
        std::thread::spawn(move || {
            let mut write = stream.try_clone().unwrap();
            let lines = BufReader::new(stream).lines();
            let pairs = lines.zip(answers);
            pairs
                .map(|(line, answer)| {
                    write.write_all(format!("{answer}\n").as_bytes()).unwrap();
                    line.unwrap()
                })
                .collect()
        })
    }

    #[test]
    fn the_leader_tells_where_it_is() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let server = serve(
            theirs,
            &[
                "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1",
                "cmd=my_kvsname rc=0 kvsname=k",
                "cmd=put_result rc=0",
                "cmd=barrier_out rc=0",
                "cmd=get_result rc=0 value=/tmp/flux-x/local-0",
            ],
        );
        let mut pmi = Pmi::over(ours).unwrap();
        assert_eq!(
            pmi.meet(Some(Path::new("/tmp/flux-x/local-0"))).unwrap(),
            Path::new("/tmp/flux-x/local-0")
        );
        drop(pmi);
        assert_eq!(server.join().unwrap()[2], "cmd=put kvsname=k key=kiln.leader value=/tmp/flux-x/local-0");
    }

    #[test]
    fn a_refusal_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        serve(theirs, &["cmd=response_to_init rc=-1"]);
        assert!(Pmi::over(ours).is_err());
    }
}
