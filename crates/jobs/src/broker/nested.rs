//! An instance inside a job: `flux broker SCRIPT...`, started as one task on each node of a batch or alloc job.
//!
//! The brokers find each other by PMI, as an MPI program does: rank 0 publishes its socket, and three barriers keep them
//! together. After the first all know the socket; after the second all are connected and the script runs; the third is
//! reached by rank 0 when the script has ended, and so ends the others.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use kiln_log::Volume;
use kiln_types::{JobId, Rank};
use kiln_world::{Clock, RealDisk, Rng};
use pmi::client::{Client as Pmi, ClientError};
use tokio::process::Command;

use super::client::{Jobs, JobsError};
use super::start::{Handle, LeaderSettings, NodeSettings, StartError, start_leader, start_member};
use crate::core::{NodeConfig, exit_code};
use crate::proto::{InfoKey, Reply, Request};
use crate::shell::environment::OF_JOB;
use crate::spec::{BadR, R};

/// Key under which rank 0 publishes its socket.
const SOCKET_KEY: &str = "kiln.leader";
/// Longest path of a unix socket, in bytes, with room for the `.brokers` of the second one.
const SOCKET_PATH_MAX: usize = 107 - 8;
/// How long a member lives without its leader.
const LEADER_PATIENCE: Duration = Duration::from_secs(5);
/// How long the brokers take to end.
const DRAIN: Duration = Duration::from_secs(1);

/// What a nested broker is told.
#[derive(Clone)]
pub struct NestedSettings {
    /// The initial program and its arguments.
    pub program: Vec<String>,
    /// A directory for the front of the tasks' `PATH`, where this instance's `flux` is found.
    pub bin_dir: Option<PathBuf>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where random numbers come from.
    pub rng: Arc<dyn Rng>,
}

/// Why a nested instance does not come up.
#[derive(Debug, thiserror::Error)]
pub enum NestedError {
    /// Not started as a task of a job.
    #[error("{0} is not set: `flux broker` runs as a task of a batch or alloc job")]
    Environment(&'static str),
    /// The variable is not what the enclosing instance sets.
    #[error("{name}={value} cannot be understood")]
    Value {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The brokers do not find each other.
    #[error(transparent)]
    Pmi(#[from] ClientError),
    /// Rank 0 published nothing.
    #[error("rank 0 of the job did not publish its socket")]
    NoLeader,
    /// The enclosing instance does not tell the job's resources.
    #[error("the enclosing instance: {0}")]
    Parent(#[from] JobsError),
    /// It tells something else.
    #[error("the enclosing instance: {0}")]
    BadR(#[from] BadR),
    /// The job has another number of nodes than tasks.
    #[error("the job has {nodes} nodes and {tasks} brokers; `flux broker` wants one task on each node")]
    Shape {
        /// Nodes of the job.
        nodes: usize,
        /// Tasks of the job.
        tasks: u32,
    },
    /// A broker does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A directory or file cannot be used.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    /// The initial program does not start.
    #[error("{program}: {error}")]
    Program {
        /// Which.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// The leader of this instance is gone.
    #[error("rank 0 of this instance is gone")]
    LeaderGone,
}

fn variable(name: &'static str) -> Result<String, NestedError> {
    std::env::var(name).map_err(|_| NestedError::Environment(name))
}

/// Takes part in a nested instance until its initial program has ended; gives back the exit code: the program's on rank
/// 0, 0 on the others.
pub async fn nested(settings: NestedSettings) -> Result<u8, NestedError> {
    let pmi = blocking(|| Pmi::from_environment().map_err(NestedError::from)).await?;
    let enclosing = Enclosing::find().await?;
    let place = pmi.rank();
    if enclosing.r.nodes.len() != pmi.size() as usize {
        return Err(NestedError::Shape { nodes: enclosing.r.nodes.len(), tasks: pmi.size() });
    }
    let node = enclosing.node(place, &settings)?;
    if place == 0 { lead(settings, enclosing, node, pmi).await } else { follow(node, pmi).await }
}

/// What the enclosing instance says about this job.
struct Enclosing {
    id: JobId,
    id_path: String,
    uri: String,
    tmpdir: PathBuf,
    r: R,
}

impl Enclosing {
    async fn find() -> Result<Enclosing, NestedError> {
        let (uri, id) = (variable("FLUX_URI")?, variable("FLUX_JOB_ID")?);
        let Some(socket) = uri.strip_prefix("local://") else {
            return Err(NestedError::Value { name: "FLUX_URI", value: uri });
        };
        let id: JobId =
            id.parse().map_err(|_| NestedError::Value { name: "FLUX_JOB_ID", value: id.clone() })?;
        let reply = Jobs::new(socket).ask(&Request::Info { id, key: InfoKey::R }).await?;
        let Reply::Document(text) = reply else { return Err(JobsError::Answer.into()) };
        Ok(Enclosing {
            id,
            id_path: variable("FLUX_JOB_ID_PATH")?,
            uri,
            tmpdir: variable("FLUX_JOB_TMPDIR")?.into(),
            r: R::parse(&text)?,
        })
    }

    /// The settings of the broker at this place in the job: its rank here is its place there.
    fn node(&self, place: u32, settings: &NestedSettings) -> Result<NodeSettings, NestedError> {
        let own = self.r.nodes.get(place as usize).ok_or(NestedError::Shape { nodes: 0, tasks: place })?;
        Ok(NodeSettings {
            rank: Rank(place),
            host: own.host.clone(),
            cores: own.cores.clone(),
            socket: self.socket(place)?,
            tmp: self.tmpdir.clone(),
            pmi_library: std::env::var_os("FLUX_PMI_LIBRARY_PATH").map(PathBuf::from),
            bin_dir: settings.bin_dir.clone(),
            jobid_path: self.id_path.clone(),
            clock: Arc::clone(&settings.clock),
            rng: Arc::clone(&settings.rng),
        })
    }

    /// A socket in the job's directory, or in a directory of a shorter name when the kernel would not take it.
    fn socket(&self, place: u32) -> Result<PathBuf, NestedError> {
        let name = format!("local-{place}");
        let path = self.tmpdir.join(&name);
        if path.as_os_str().len() <= SOCKET_PATH_MAX {
            return Ok(path);
        }
        let short = std::env::temp_dir().join(format!("kiln-{}-{place}", self.id.to_f58_plain()));
        std::fs::create_dir_all(&short).map_err(|error| NestedError::Io(short.clone(), error))?;
        Ok(short.join(name))
    }
}

async fn lead(
    settings: NestedSettings,
    enclosing: Enclosing,
    node: NodeSettings,
    mut pmi: Pmi,
) -> Result<u8, NestedError> {
    let socket = node.socket.clone();
    let state = enclosing.tmpdir.join("state");
    let disk = RealDisk::new(&state).map_err(|error| NestedError::Io(state.clone(), error))?;
    let volume = Volume::start(Arc::new(disk), Arc::clone(&settings.clock));
    let nodes = (0..).zip(&enclosing.r.nodes).map(|(rank, node)| NodeConfig {
        rank: Rank(rank),
        host: node.host.clone(),
        cores: node.cores.clone(),
        excluded: false,
    });
    let attributes = vec![
        ("jobid".to_owned(), enclosing.id.to_string()),
        ("parent-uri".to_owned(), enclosing.uri.clone()),
    ];
    let handle = start_leader(LeaderSettings {
        node,
        volume: volume.clone(),
        dir: "jobs/events".into(),
        nodes: nodes.collect(),
        attributes,
    })
    .await?;
    let published = socket.display().to_string();
    let pmi = blocking(move || {
        let kvsname = pmi.kvsname().to_owned();
        pmi.put(&kvsname, SOCKET_KEY, &published)?;
        pmi.barrier()?;
        Ok(pmi)
    })
    .await?;
    handle.connected().await;
    let pmi = barrier(pmi).await?;
    let ended = run_program(&settings, &socket).await;
    let pmi = barrier(pmi).await;
    handle.drain(DRAIN).await;
    volume.close();
    if let Ok(pmi) = pmi {
        let _ = blocking(move || Ok(pmi.finalize()?)).await;
    }
    ended.map(|status| exit_code(status.into_raw()) as u8)
}

async fn follow(node: NodeSettings, mut pmi: Pmi) -> Result<u8, NestedError> {
    let (pmi, leader) = blocking(move || {
        pmi.barrier()?;
        let kvsname = pmi.kvsname().to_owned();
        let leader = pmi.get(&kvsname, SOCKET_KEY)?.ok_or(NestedError::NoLeader)?;
        Ok((pmi, leader))
    })
    .await?;
    let handle = start_member(node, Path::new(&leader)).await?;
    handle.connected().await;
    let pmi = barrier(pmi).await?;
    let outcome = tokio::select! {
        pmi = barrier(pmi) => pmi.map(Some),
        () = leader_gone(&handle) => Err(NestedError::LeaderGone),
    };
    handle.drain(DRAIN).await;
    if let Some(pmi) = outcome? {
        let _ = blocking(move || Ok(pmi.finalize()?)).await;
    }
    Ok(0)
}

/// Returns when the leader has been away for [`LEADER_PATIENCE`].
async fn leader_gone(handle: &Handle) {
    loop {
        handle.disconnected().await;
        if tokio::time::timeout(LEADER_PATIENCE, handle.connected()).await.is_err() {
            return;
        }
    }
}

/// Runs the initial program with the variables that point to this instance.
async fn run_program(settings: &NestedSettings, socket: &Path) -> Result<ExitStatus, NestedError> {
    let [program, arguments @ ..] = settings.program.as_slice() else {
        return Ok(ExitStatus::default());
    };
    let mut variables: BTreeMap<_, _> = std::env::vars_os().collect();
    for name in OF_JOB {
        variables.remove(std::ffi::OsStr::new(name));
    }
    let mut uri = std::ffi::OsString::from("local://");
    uri.push(socket);
    variables.insert("FLUX_URI".into(), uri);
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(variables).kill_on_drop(true);
    let failed = |error| NestedError::Program { program: program.clone(), error };
    command.spawn().map_err(failed)?.wait().await.map_err(failed)
}

async fn barrier(mut pmi: Pmi) -> Result<Pmi, NestedError> {
    blocking(move || {
        pmi.barrier()?;
        Ok(pmi)
    })
    .await
}

/// Runs a conversation that blocks on a thread of its own: the process may end while it still waits.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NestedError> + Send + 'static,
) -> Result<T, NestedError> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("pmi".into()).spawn(move || {
        let _ = done.send(work());
    });
    thread.map_err(|error| NestedError::Io(PathBuf::from("pmi thread"), error))?;
    outcome.await.unwrap_or(Err(NestedError::LeaderGone))
}
