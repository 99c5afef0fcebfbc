//! The running flows: a checked chain, its sources and its sinks.

use crate::core::{
    Catalogue, Counts, Definition, Flow, Outlet, Problem, SinkAddress, Source, TaskDefinition, compile,
};
use crate::recorder::{FlowMachine, Offsets};
use crate::sinks::{Ports, Running};
use crate::sources::{Intake, IntakeCounts, Limits, serve_datagrams, serve_stream, topic};
use kiln_net::{AcceptLimits, Listener, Shutdown, ShutdownTrigger, accept_loop, shutdown_pair};
use kiln_store::Handle;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Flows and tasks that were checked together.
#[derive(Debug)]
pub struct Chain {
    /// The flows in the order of their definition.
    pub flows: Vec<Flow>,
    /// The tasks.
    pub catalogue: Arc<Catalogue>,
}

impl Chain {
    /// Checks everything that people wrote; reports every problem.
    pub fn check(flows: &[Definition], tasks: &[TaskDefinition]) -> Result<Chain, Vec<Problem>> {
        let mut problems = Vec::new();
        let catalogue = Arc::new(Catalogue::compile(tasks).unwrap_or_else(|found| {
            let problem = |(name, key, message)| Problem { kind: "task", name, key, message };
            problems.extend(found.into_iter().map(problem));
            Catalogue::default()
        }));
        match compile(flows, &catalogue) {
            Ok(flows) if problems.is_empty() => Ok(Chain { flows, catalogue }),
            Ok(_) => Err(problems),
            Err(found) => {
                problems.extend(found);
                Err(problems)
            }
        }
    }
}

/// Where syslog comes in. Both usually have the same port.
#[derive(Debug, Default)]
pub struct SyslogListeners {
    /// Datagrams.
    pub udp: Option<UdpSocket>,
    /// Plain streams and RELP.
    pub tcp: Option<TcpListener>,
}

/// A flow and its counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowStatus {
    /// Its name.
    pub name: String,
    /// Where it reads: `syslog`, or `topic NAME`.
    pub from: String,
    /// Where it writes, for instance `topic NAME`.
    pub to: String,
    /// Where its failures go.
    pub dead_letter: String,
    /// The counts since the process started.
    pub counts: Counts,
}

/// The running flows.
pub struct Service {
    trigger: ShutdownTrigger,
    flows: Vec<Arc<Running>>,
    intake: Arc<Intake>,
    tasks: Mutex<JoinSet<()>>,
}

impl Service {
    /// Starts all flows. Must be called within a tokio runtime.
    pub fn start(
        chain: Chain,
        listeners: SyslogListeners,
        limits: Limits,
        ports: &Ports,
        store: Handle<FlowMachine>,
    ) -> Service {
        let (trigger, stop) = shutdown_pair();
        let offsets = Offsets(store);
        let flows: Vec<_> = chain.flows.into_iter().map(|flow| Arc::new(Running::new(flow, ports))).collect();
        let of_syslog =
            flows.iter().filter(|running| *running.flow.source() == Source::Syslog).cloned().collect();
        let intake = Arc::new(Intake::new(of_syslog, ports.clone(), limits));
        let mut tasks = JoinSet::new();
        for running in &flows {
            if let Source::Topic(topic) = running.flow.source() {
                let pump =
                    topic::run(running.clone(), topic.clone(), ports.clone(), offsets.clone(), stop.clone());
                tasks.spawn(async {
                    // It ends by being stopped, and by nothing else.
                    let _ = pump.await;
                });
            }
        }
        if let Some(socket) = listeners.udp {
            let (intake, stop) = (intake.clone(), stop.clone());
            tasks.spawn(async move { serve_datagrams(socket, &intake, stop).await });
        }
        if let Some(listener) = listeners.tcp {
            tasks.spawn(accept(listener, intake.clone(), stop));
        }
        Service { trigger, flows, intake, tasks: Mutex::new(tasks) }
    }

    /// Every flow with its counts, in the order of their definition.
    pub fn flows(&self) -> Vec<FlowStatus> {
        self.flows.iter().map(|running| status(running)).collect()
    }

    /// What the syslog listener has seen.
    pub fn intake(&self) -> IntakeCounts {
        self.intake.counts()
    }

    /// Stops reading, finishes what was read, and ends; what is not done after `deadline` is given up, unacknowledged and uncommitted.
    pub async fn drain(&self, deadline: Duration) {
        self.trigger.fire();
        // Held across awaits on purpose: a second call waits for the first.
        let mut tasks = self.tasks.lock().await;
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(deadline, all).await.is_err() {
            tasks.shutdown().await;
        }
    }
}

/// A connection is given this long to finish what it has read.
const CONNECTION_DRAIN: Duration = Duration::from_secs(5);

async fn accept(listener: TcpListener, intake: Arc<Intake>, stop: Shutdown) {
    let limits = AcceptLimits { connections_max: intake.limits.connections_max };
    let connections = accept_loop(Listener::Tcp(listener), stop.clone(), limits, move |stream, _| {
        let (intake, stop) = (intake.clone(), stop.clone());
        intake.connected();
        async move { serve_stream(stream, &intake, stop).await }
    });
    connections.await.drain(CONNECTION_DRAIN).await;
}

fn status(running: &Running) -> FlowStatus {
    let flow = &running.flow;
    let from = match flow.source() {
        Source::Syslog => "syslog".to_owned(),
        Source::Topic(topic) => format!("topic {topic}"),
    };
    let to = match flow.outlet() {
        Outlet::Topic { topic, .. } => format!("topic {topic}"),
        Outlet::Exchange { exchange, .. } => format!("exchange {exchange}"),
        Outlet::Jobs { .. } => "jobs".to_owned(),
        Outlet::Syslog(SinkAddress::Udp(address)) => format!("udp://{address}"),
        Outlet::Syslog(SinkAddress::Tcp(address)) => format!("tcp://{address}"),
        Outlet::Syslog(SinkAddress::Relp(address)) => format!("relp://{address}"),
        Outlet::File(path) => format!("file {path}"),
    };
    let dead_letter = flow.dead_letter().to_owned();
    FlowStatus { name: flow.name().to_owned(), from, to, dead_letter, counts: running.counters.counts() }
}

#[cfg(test)]
mod tests;
