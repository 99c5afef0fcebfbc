//! Rank 0: every service of the instance in one process.
//!
//! Services start from the bottom up and are drained from the top down, each with its own deadline; what was acknowledged is on disk at every moment,
//! so that draining is a courtesy to clients and never a condition for keeping data.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use kiln_flow::recorder::{FlowMachine, Ledger, Recorder, RecorderTopics};
use kiln_flow::{Limits as SyslogLimits, Ports, Service, SyslogListeners};
use kiln_fs::mgs::MgsMachine;
use kiln_jobs::broker::{LeaderSettings, start_leader};
use kiln_jobs::core::NodeConfig;
use kiln_net::{Listener, ShutdownTrigger, shutdown_pair};
use kiln_types::{Hostlist, Rank};
use tokio::net::TcpListener;

use super::foundations::Foundations;
use super::{DRAIN, Node, agent, broker, fs, listen, secret, stop_requested};
use crate::api::routes::Routes;
use crate::api::server::{Caller, serve};
use crate::fs::admin::Admin;
use crate::fs::mgs::Mgs;
use crate::supervisor::{Listeners, Report};
use crate::wiring::changelogs::Changelogs;
use crate::wiring::exchanges::{AmqpExchanges, declare_task_queues};
use crate::wiring::jobs::FluxJobs;
use crate::wiring::topics::KafkaTopics;
use crate::wiring::{flows, settings};

/// The listeners of the instance.
struct Sockets {
    kafka: Option<TcpListener>,
    amqp: Option<TcpListener>,
    syslog: SyslogListeners,
    console: Option<TcpListener>,
    shown: Listeners,
}

/// The services that hold data.
struct Services {
    kafka: kiln_kafka::Broker,
    amqp: kiln_amqp::Broker,
    jobs: kiln_jobs::broker::Handle,
}

pub(super) async fn run(node: Node) -> anyhow::Result<()> {
    let started = Instant::now();
    let sockets = Sockets::bind(&node).await?;
    let pools = fs::pools(&node);
    let foundations = Foundations::open(&node, &pools).await?;
    secret::provide(&node.data, &foundations.auth, &*foundations.rng).await?;
    let mut services = Services::start(&node, &foundations).await?;
    let chain = flows::chain(&node.config)?;
    let catalogue = Arc::clone(&chain.catalogue);
    let ports = ports(&node, &foundations, &services);
    let store = foundations.store.handle::<FlowMachine>();
    let recorder = Recorder::start(&ports.topics, &store, RecorderTopics::default());
    let syslog_limits = SyslogLimits {
        frame_bytes_max: node.config.syslog.message_size_max.0 as usize,
        ..SyslogLimits::default()
    };
    let flow = Arc::new(Service::start(chain, sockets.syslog, syslog_limits, &ports, store.clone()));

    let mgs = foundations.store.handle::<MgsMachine>();
    let changelogs = {
        let (kafka, clock) = (services.kafka.clone(), Arc::clone(&foundations.clock));
        Changelogs::new(kafka, clock, node.config.fs.changelog)
    };
    let fs = Arc::new(Mgs::new(mgs.clone(), node.data.clone(), changelogs.clone()));
    let fs = fs::start(&node, Some(fs), pools)?;
    let (stop, stopped) = shutdown_pair();
    let kafka = sockets.kafka.map(|listener| services.kafka.serve(listener, stopped.clone()));
    let amqp = sockets.amqp.map(|listener| services.amqp.serve(listener, stopped.clone())).transpose()?;
    let routes = Arc::new(Routes {
        started,
        nodes: node.config.cluster.nodes,
        kafka: services.kafka.clone(),
        amqp: services.amqp.clone(),
        auth: foundations.auth.clone(),
        jobs: kiln_jobs::broker::Jobs::new(node.data.broker_socket(0)),
        flow: Arc::clone(&flow),
        fs: Admin::new(mgs, changelogs, hosts(&node), node.data.clone(), Arc::clone(&foundations.rng)),
        ledger: Ledger::new(store),
        clock: Arc::clone(&foundations.clock),
    });
    let (api, api_stop) = start_api(&node, routes, sockets.console)?;
    let agent = agent::start(&node, catalogue, &foundations.clock);
    broker::online(&node).await;
    Report { listeners: Some(sockets.shown) }.send()?;
    tracing::info!(host = node.host, took = ?started.elapsed(), "ready");

    let ended = tokio::select! {
        asked = stop_requested() => asked,
        error = foundations.failed() => Err(error),
        Some(error) = services.jobs.stopped() => Err(anyhow::Error::from(error)).context("the job manager stopped"),
    };
    api_stop.fire();
    agent::stop(agent).await;
    for served in api {
        let _ = served.await; // it ends by itself, or with the process
    }
    fs::drain(fs).await;
    // A request may still hold the flows; then they end with the process.
    if let Ok(flow) = Arc::try_unwrap(flow) {
        flow.drain(DRAIN).await;
    }
    recorder.drain(DRAIN).await;
    stop.fire();
    if let Some(kafka) = kafka {
        kafka.drain(DRAIN).await;
    }
    if let Some(amqp) = amqp {
        amqp.drain(DRAIN).await;
    }
    services.jobs.drain(DRAIN).await;
    drop((services.kafka, services.amqp));
    foundations.close().await?;
    ended
}

impl Sockets {
    async fn bind(node: &Node) -> anyhow::Result<Self> {
        let config = &node.config;
        let known = listen::known(&node.data);
        let kafka = listen::tcp("kafka", &config.kafka.listen, &known.kafka).await?;
        let amqp = listen::tcp("amqp", &config.amqp.listen, &known.amqp).await?;
        let syslog = listen::tcp_and_udp("syslog", &config.syslog.listen, &known.syslog).await?;
        let console = listen::tcp("console", &config.console.listen, &known.console).await?;
        let shown = Listeners {
            kafka: listen::shown(kafka.as_ref())?,
            amqp: listen::shown(amqp.as_ref())?,
            syslog: listen::shown(syslog.tcp.as_ref())?,
            console: listen::shown(console.as_ref())?,
        };
        Ok(Self { kafka, amqp, syslog, console, shown })
    }
}

impl Services {
    async fn start(node: &Node, on: &Foundations) -> anyhow::Result<Self> {
        let parts = kiln_kafka::Parts {
            volume: on.volume.clone(),
            store: on.store.handle(),
            auth: Some(on.auth.clone()),
            rng: Arc::clone(&on.rng),
        };
        let kafka = kiln_kafka::Broker::start(parts, settings::kafka(&node.config))
            .await
            .context("failed to start the event log")?;
        let amqp = kiln_amqp::Broker::start(
            on.volume.clone(),
            on.store.handle(),
            on.auth.clone(),
            Arc::clone(&on.rng),
            settings::amqp(&node.config),
        )
        .await
        .context("failed to start the message broker")?;
        // A task for an excluded node has no queue, and becomes a dead letter that says so.
        let nodes = nodes(node)?;
        let working: Vec<String> = nodes.iter().filter(|n| !n.excluded).map(|n| n.host.clone()).collect();
        declare_task_queues(&amqp, &working).await.context("failed to declare the agents' queues")?;
        let jobs = start_leader(LeaderSettings {
            node: broker::settings(node, &on.clock, &on.rng)?,
            volume: on.volume.clone(),
            dir: "jobs/events".into(),
            nodes,
            attributes: Vec::new(),
        })
        .await
        .context("failed to start the job manager")?;
        Ok(Self { kafka, amqp, jobs })
    }
}

/// Every host of the instance, rank 0 first.
fn hosts(node: &Node) -> Vec<String> {
    let cluster = &node.config.cluster;
    (1..=cluster.nodes).map(|n| format!("{}{n}", cluster.host_prefix)).collect()
}

fn nodes(node: &Node) -> anyhow::Result<Vec<NodeConfig>> {
    let excluded: Hostlist = node.config.cluster.exclude.parse().context("cluster.exclude")?;
    let cores = broker::cores(node.cores);
    let config = |(rank, host): (usize, String)| NodeConfig {
        rank: Rank(rank as u32),
        excluded: excluded.contains(&host),
        host,
        cores: cores.clone(),
    };
    Ok(hosts(node).into_iter().enumerate().map(config).collect())
}

fn ports(node: &Node, on: &Foundations, services: &Services) -> Ports {
    let cwd = node.data.root().display().to_string();
    Ports {
        topics: Arc::new(KafkaTopics::new(services.kafka.clone(), Arc::clone(&on.clock))),
        exchanges: Arc::new(AmqpExchanges(services.amqp.clone())),
        jobs: Arc::new(FluxJobs::new(node.data.broker_socket(0), cwd)),
        clock: Arc::clone(&on.clock),
        files: node.data.root().to_owned(),
    }
}

type Served = Vec<tokio::task::JoinHandle<()>>;

fn start_api(
    node: &Node,
    routes: Arc<Routes>,
    console: Option<TcpListener>,
) -> anyhow::Result<(Served, ShutdownTrigger)> {
    let (trigger, shutdown) = shutdown_pair();
    let control = node.data.control_socket();
    let control = Listener::bind_unix(&control)
        .with_context(|| format!("failed to listen on {}", control.display()))?;
    let mut served = vec![tokio::spawn(serve(Arc::clone(&routes), Caller::Owner, control, shutdown.clone()))];
    if let Some(console) = console {
        served.push(tokio::spawn(serve(routes, Caller::Visitor, Listener::Tcp(console), shutdown)));
    }
    Ok((served, trigger))
}
