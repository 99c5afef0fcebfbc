use super::*;
use crate::recorder::{Ledger, Query, Recorder, RecorderTopics, Row, Totals};
use crate::replay::{Settings, Transport, replay};
use crate::testing::{TestStore, World, demo_chain};
use crate::{Limits, Service, SyslogListeners};
use kiln_world::RealClock;
use tokio::net::TcpListener;

/// The whole chain of the demo, with jobs and queues in memory.
struct Chain {
    world: Arc<World>,
    service: Service,
    agent: Agent,
    recorder: Recorder,
    ledger: Ledger,
    address: String,
    _store: TestStore,
}

impl Chain {
    async fn start() -> Chain {
        let world = Arc::new(World::default());
        world.bind("any");
        let store = TestStore::new();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap().to_string();
        let chain = demo_chain();
        let catalogue = chain.catalogue.clone();
        let listeners = SyslogListeners { tcp: Some(tcp), udp: None };
        let files = std::env::temp_dir();
        let service =
            Service::start(chain, listeners, Limits::default(), &world.ports(&files), store.handle());
        let ports =
            AgentPorts { queue: world.clone(), jobs: world.clone(), clock: Arc::new(RealClock::new()) };
        let settings = AgentSettings { host: "silicon2".to_owned(), cores: 2, events_to: address.clone() };
        let agent = Agent::start(settings, catalogue, ports);
        let topics: Arc<dyn crate::ports::Topics> = world.clone();
        let recorder = Recorder::start(&topics, &store.handle(), RecorderTopics::default());
        let ledger = Ledger::new(store.handle());
        Chain { world, service, agent, recorder, ledger, address, _store: store }
    }

    async fn issue(&self, lines: Vec<String>) {
        let settings = Settings {
            address: self.address.clone(),
            transport: Transport::Relp,
            rate: None,
            window: 16,
            restamp: true,
        };
        let (_trigger, stop) = shutdown_pair();
        replay(lines.into_iter(), &settings, &RealClock::new(), stop, &mut |_| {}).await.unwrap();
    }

    async fn until_completed(&self, count: u64) -> Totals {
        self.world.until_true(|| self.ledger.totals().unwrap().completed >= count).await;
        self.ledger.totals().unwrap()
    }

    fn row(&self, id: &str) -> Row {
        self.ledger.get(&TaskId::try_from(id.to_owned()).unwrap()).unwrap().expect("a row")
    }
}

fn line(id: &str) -> String {
    format!("<134>1 2026-11-22T10:00:00Z host taskd - - - TASK {id} checksum path=/etc/hostname")
}

#[tokio::test]
async fn tasks_go_from_a_line_to_a_row() {
    let chain = Chain::start().await;
    chain.issue((0..40).map(|n| line(&format!("t-{n}"))).collect()).await;
    let totals = chain.until_completed(40).await;
    assert_eq!((totals.issued, totals.queued, totals.started, totals.completed), (40, 40, 40, 40));
    assert_eq!((totals.failed, totals.duplicated, totals.outstanding()), (0, 0, 0));
    let row = chain.row("t-7");
    assert_eq!(
        (row.task.as_str(), row.args.as_deref(), row.agent.as_deref()),
        ("checksum", Some("path=/etc/hostname"), Some("silicon2"))
    );
    assert!(row.issued.is_some() && row.logged >= row.issued && row.queued >= row.logged, "{row:?}");
    assert_eq!(row.status, Some(0));
    let listed = chain.ledger.list(Query { count: 3, ..Query::default() }).unwrap();
    assert_eq!(listed.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["t-39", "t-38", "t-37"]);
    let older =
        chain.ledger.list(Query { count: 1, before: Some(listed[2].number), ..Query::default() }).unwrap();
    assert_eq!(older[0].id.as_str(), "t-36");
    assert!(chain.ledger.list(Query { failed: true, ..Query::default() }).unwrap().is_empty());
    chain.world.until_true(|| chain.world.waiting() == 0).await;
    let jobs = chain.world.jobs.lock().unwrap().clone();
    assert_eq!((jobs.len(), jobs[0].host.as_deref()), (40, Some("silicon2")), "pinned to the agent's node");
    assert_eq!(chain.recorder.ignored(), 0);
    chain.agent.drain(Duration::from_secs(5)).await;
    chain.recorder.drain(Duration::from_secs(5)).await;
    chain.service.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_lost_job_is_run_again_and_a_failed_one_is_not() {
    let chain = Chain::start().await;
    let failed = Outcome::Ended { status: 3, at: Timestamp(1_795_341_600_500_000) };
    chain.world.outcomes.lock().unwrap().extend([Outcome::Lost("node down".to_owned()), failed]);
    chain.issue(vec![line("t-1")]).await;
    let totals = chain.until_completed(1).await;
    assert_eq!((totals.completed, totals.failed, totals.duplicated, totals.lost_jobs), (1, 1, 0, 1));
    assert_eq!(chain.row("t-1").status, Some(3));
    chain.world.until_true(|| chain.world.waiting() == 0).await;
    assert_eq!(chain.world.jobs.lock().unwrap().len(), 2);
    assert_eq!(chain.agent.counts(), AgentCounts { taken: 2, completed: 1, refused: 0, lost: 1 });
}

#[tokio::test]
async fn everything_that_fails_for_a_while_is_tried_again() {
    let chain = Chain::start().await;
    chain.world.fail(10);
    chain.issue((0..5).map(|n| line(&format!("t-{n}"))).collect()).await;
    chain.world.fail(5);
    let totals = chain.until_completed(5).await;
    assert_eq!((totals.completed, totals.outstanding()), (5, 0));
}

#[tokio::test]
async fn a_message_that_the_catalogue_refuses_is_told_and_settled() {
    use crate::ports::{Exchanges, Publish};
    let chain = Chain::start().await;
    let forged = br#"{"id":"t-9","task":"rm","args":{},"node":"any","issued":"2026-11-22T10:00:00Z"}"#;
    for body in [&forged[..], b"no json"] {
        let message = Publish { routing_key: "any", message_id: "", headers: &[], body };
        chain.world.publish("kiln.tasks", &[message]).await.unwrap();
    }
    chain.world.until_true(|| chain.ledger.totals().unwrap().refused == 1).await;
    assert!(chain.row("t-9").reason.unwrap().contains("unknown task `rm`"));
    chain.world.until_true(|| chain.world.waiting() == 0).await;
    assert!(chain.world.jobs.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_same_line_twice_is_one_task() {
    let chain = Chain::start().await;
    chain.issue(vec![line("t-1"), line("t-1"), line("t-2")]).await;
    chain.world.until_true(|| chain.ledger.totals().unwrap().repeats >= 1).await;
    let totals = chain.until_completed(2).await;
    assert_eq!(totals.issued, 2);
}
