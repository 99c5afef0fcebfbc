//! Starting and stopping brokers.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_log::Volume;
use kiln_net::{Listener, ServeLimits, Server, ShutdownTrigger, serve, shutdown_pair};
use kiln_types::{IdSet, Rank};
use kiln_world::{Clock, Rng};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::agent::{Agent, AgentSettings};
use super::desk::{BrokersDesk, LeaderDesk, MemberDesk, ToRunner};
use super::events::{Events, EventsError};
use super::runner::{INPUTS_MAX, Runner, Stopped};
use super::uplink::{Uplink, brokers_socket};
use crate::core::NodeConfig;
use crate::core::{BadRecord, Config, Manager};
use crate::shell::environment::Surroundings;
use crate::shell::{launch, leftovers};

/// Messages between an agent and its uplink.
const UPLINK_QUEUE: usize = 256;
/// How long agents get at a drain to kill what runs.
const AGENT_END: Duration = Duration::from_millis(200);

/// What every broker must know.
#[derive(Clone)]
pub struct NodeSettings {
    /// Its rank; 0 leads.
    pub rank: Rank,
    /// Its host name.
    pub host: String,
    /// The cores that it offers to jobs.
    pub cores: IdSet,
    /// Its unix socket for clients; the directory must exist. The leader's socket for brokers is beside it, with
    /// `.brokers` at the end of its name.
    pub socket: PathBuf,
    /// Where jobs get their directories; no other broker's. What is left there from before is removed.
    pub tmp: PathBuf,
    /// The `libpmi.so` that tasks are told of; none: Open MPI 4 finds no launcher.
    pub pmi_library: Option<PathBuf>,
    /// A directory for the front of the tasks' `PATH`, where this instance's `flux` is found.
    pub bin_dir: Option<PathBuf>,
    /// Ids of the enclosing jobs, as `/ƒ1/ƒ2`; empty at the outermost instance.
    pub jobid_path: String,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Where random numbers come from.
    pub rng: Arc<dyn Rng>,
}

/// What the leader must know beside.
#[derive(Clone)]
pub struct LeaderSettings {
    /// As for every broker.
    pub node: NodeSettings,
    /// The disk of the job log.
    pub volume: Volume,
    /// The job log's directory on it, such as `jobs/events`.
    pub dir: PathBuf,
    /// Every node of the instance, its own among them.
    pub nodes: Vec<NodeConfig>,
    /// More attributes for `flux getattr`.
    pub attributes: Vec<(String, String)>,
}

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A socket cannot be listened on.
    #[error("listen on {path}: {error}")]
    Listen {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The job log cannot be read.
    #[error(transparent)]
    Log(#[from] EventsError),
    /// The job log says what cannot be.
    #[error("replay of the job log: {0}")]
    Replay(#[from] BadRecord),
    /// The thread that starts tasks cannot be started.
    #[error("start of the launcher thread: {0}")]
    Thread(io::Error),
}

/// A running broker. Dropping it stops it without waiting.
pub struct Handle {
    servers: Vec<Server>,
    stop_agent: ShutdownTrigger,
    agent: JoinHandle<()>,
    runner: Option<JoinHandle<Result<(), Stopped>>>,
    connection: Connection,
}

impl Handle {
    /// Returns once the leader has welcomed this broker's agent; `false` when that will never be.
    pub async fn connected(&self) -> bool {
        self.connection.clone().wait_for(Option::is_some).await.is_ok()
    }

    /// Returns once the leader is away.
    pub async fn disconnected(&self) {
        let _ = self.connection.clone().wait_for(Option::is_none).await;
    }

    /// Returns when the leader cannot go on, with the reason; never for a member. The process should end then and be
    /// started again: everything that was promised is in the log.
    pub async fn stopped(&mut self) -> Option<Stopped> {
        match &mut self.runner {
            None => std::future::pending().await,
            Some(runner) => match runner.await {
                Ok(outcome) => outcome.err(),
                Err(_) => None,
            },
        }
    }

    /// Stops: kills the tasks of this node, lets calls in flight end up to `deadline`.
    pub async fn drain(self, deadline: Duration) {
        self.stop_agent.fire();
        let _ = tokio::time::timeout(AGENT_END, self.agent).await;
        for server in self.servers {
            server.drain(deadline).await;
        }
        if let Some(mut runner) = self.runner
            && tokio::time::timeout(deadline, &mut runner).await.is_err()
        {
            // So that whoever opens the log next is alone with it.
            runner.abort();
            let _ = runner.await;
        }
    }
}

fn listen(path: &Path) -> Result<Listener, StartError> {
    Listener::bind_unix(path).map_err(|error| StartError::Listen { path: path.to_owned(), error })
}

/// Starts the leader: the job manager, its sockets, and the agent of its own node.
pub async fn start_leader(settings: LeaderSettings) -> Result<Handle, StartError> {
    let LeaderSettings { node, volume, dir, nodes, attributes } = settings;
    let owner = nix::unistd::geteuid().as_raw();
    let mut config = Config { nodes, owner, attributes, ..Config::default() };
    config.attributes.extend(own_attributes(&node));
    config.attributes.extend(leader_attributes(&node, owner, &config.nodes));
    config.attributes.push(("instance-level".into(), node.jobid_path.matches('/').count().to_string()));
    let (manager, events) = replay(config, &volume, &dir)?;
    let (inputs, told) = mpsc::channel(INPUTS_MAX);
    let to_runner = ToRunner::new(inputs);
    let brokers = brokers_socket(&node.socket);
    let limits = ServeLimits::default();
    let servers = vec![
        serve(listen(&node.socket)?, limits, Arc::new(LeaderDesk(to_runner.clone()))),
        serve(listen(&brokers)?, limits, Arc::new(BrokersDesk { to_runner, owner })),
    ];
    let runner = tokio::spawn(Runner::new(manager, events, Arc::clone(&node.clock), told).run());
    let (agent, stop_agent, connection) = start_agent(&node, brokers)?;
    Ok(Handle { servers, stop_agent, agent, runner: Some(runner), connection })
}

/// Starts the broker of another rank, which connects to the leader's socket at `leader` for ever.
pub async fn start_member(node: NodeSettings, leader: &Path) -> Result<Handle, StartError> {
    let listener = listen(&node.socket)?;
    let (agent, stop_agent, connection) = start_agent(&node, brokers_socket(leader))?;
    let desk = MemberDesk { connection: connection.clone(), attributes: own_attributes(&node) };
    let servers = vec![serve(listener, ServeLimits::default(), Arc::new(desk))];
    Ok(Handle { servers, stop_agent, agent, runner: None, connection })
}

fn replay(config: Config, volume: &Volume, dir: &Path) -> Result<(Manager, Events), StartError> {
    let events = Events::open(volume, dir)?;
    let mut manager = Manager::new(config);
    let mut bad = None;
    let start = events.start();
    manager.begin_at(start);
    events.scan(start, |offset, stamped| match manager.replay(offset, stamped) {
        Ok(()) => Ok(true),
        Err(error) => {
            bad = Some(error);
            Ok(false)
        }
    })?;
    bad.map_or_else(|| manager.replayed(), Err)?;
    Ok((manager, events))
}

/// What is the same whichever broker is asked.
fn leader_attributes(node: &NodeSettings, owner: u32, nodes: &[NodeConfig]) -> Vec<(String, String)> {
    let hosts: kiln_types::Hostlist = nodes.iter().map(|node| node.host.as_str()).collect();
    vec![
        ("security.owner".to_owned(), owner.to_string()),
        ("broker.starttime".to_owned(), format!("{:.2}", node.clock.now().seconds_f64())),
        ("hostlist".to_owned(), hosts.to_string()),
    ]
}

fn own_attributes(node: &NodeSettings) -> Vec<(String, String)> {
    [
        ("rank", node.rank.to_string()),
        ("hostname", node.host.clone()),
        ("local-uri", format!("local://{}", node.socket.display())),
        ("broker.pid", std::process::id().to_string()),
        ("jobid-path", if node.jobid_path.is_empty() { "/".into() } else { node.jobid_path.clone() }),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

type Connection = watch::Receiver<Option<kiln_net::Client>>;

fn start_agent(
    node: &NodeSettings,
    leader: PathBuf,
) -> Result<(JoinHandle<()>, ShutdownTrigger, Connection), StartError> {
    if let Err(error) = leftovers::sweep(&node.tmp) {
        tracing::warn!(%error, tmp = %node.tmp.display(), "what an earlier broker left behind stays");
    }
    let launcher = launch::start().map_err(StartError::Thread)?;
    let rng = Arc::clone(&node.rng);
    let random = move || {
        let mut bytes = [0; 8];
        rng.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    let settings = AgentSettings {
        rank: node.rank,
        host: node.host.clone(),
        cores: node.cores.clone(),
        boot: random(),
        tmp: node.tmp.clone(),
        around: surroundings(node),
        clock: Arc::clone(&node.clock),
    };
    let (to_agent, from_uplink) = mpsc::channel(UPLINK_QUEUE);
    let (to_uplink, from_agent) = mpsc::channel(1);
    let (connection, connected) = watch::channel(None);
    let uplink =
        Uplink { path: leader, rank: node.rank, to_agent, from_agent, connection, random: Box::new(random) };
    tokio::spawn(uplink.run());
    let (stop, stopping) = shutdown_pair();
    let agent = Agent::new(settings, launcher, from_uplink, to_uplink);
    Ok((tokio::spawn(agent.run(stopping)), stop, connected))
}

fn surroundings(node: &NodeSettings) -> Surroundings {
    let text =
        |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    Surroundings {
        socket: node.socket.display().to_string(),
        pmi_library: text(&node.pmi_library),
        bin_dir: text(&node.bin_dir),
        jobid_path: node.jobid_path.clone(),
        root: nix::unistd::geteuid().is_root(),
    }
}
