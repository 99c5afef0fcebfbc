use super::*;
use crate::core::{ArgumentDefinition, Extract, Sink};
use crate::replay::{Settings, Transport, replay};
use crate::testing::{TestStore, World, demo_chain};
use kiln_world::RealClock;
use std::net::SocketAddr;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Harness {
    world: Arc<World>,
    store: TestStore,
    service: Service,
    tcp: SocketAddr,
    udp: SocketAddr,
    files: TempDir,
    datagram_bytes_max: usize,
}

async fn start(chain: Chain) -> Harness {
    start_on(chain, Arc::new(World::default()), TestStore::new()).await
}

async fn start_on(chain: Chain, world: Arc<World>, store: TestStore) -> Harness {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addresses = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    let files = tempfile::tempdir().unwrap();
    let listeners = SyslogListeners { tcp: Some(tcp), udp: Some(udp) };
    let datagram_bytes_max = 40_000;
    let limits = Limits { frame_bytes_max: 480, datagram_bytes_max, ..Limits::default() };
    let service = Service::start(chain, listeners, limits, &world.ports(files.path()), store.handle());
    Harness { world, store, service, tcp: addresses.0, udp: addresses.1, files, datagram_bytes_max }
}

fn flow(filter: &str, to: Sink) -> Definition {
    let filter = Some(filter.to_owned());
    Definition { name: "f".to_owned(), from: Source::Syslog, filter, extract: None, to, dead_letter: None }
}

fn to_topic() -> Sink {
    Sink { topic: Some("all".to_owned()), ..Sink::default() }
}

fn chain(definition: Definition) -> Chain {
    Chain::check(&[definition], &[]).unwrap_or_else(|found| panic!("{}", found[0]))
}

async fn send(address: SocketAddr, transport: Transport, lines: &[&str]) -> u64 {
    let settings =
        Settings { address: address.to_string(), transport, rate: None, window: 8, restamp: false };
    let (_trigger, stop) = shutdown_pair();
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    replay(lines.into_iter(), &settings, &RealClock::new(), stop, &mut |_| {}).await.unwrap().acknowledged
}

fn values(world: &World, topic: &str) -> Vec<String> {
    world.topic(topic).into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
}

#[tokio::test]
async fn every_transport_reaches_the_topic() {
    let harness = start(chain(flow("true", to_topic()))).await;
    assert_eq!(send(harness.tcp, Transport::Relp, &["<13>relp 1", "<13>relp 2"]).await, 2);
    assert_eq!(values(&harness.world, "all"), ["<13>relp 1", "<13>relp 2"], "acknowledged is stored");
    send(harness.tcp, Transport::TcpCounted, &["<13>counted\nof two lines"]).await;
    harness.world.until("all", 3).await;
    send(harness.tcp, Transport::TcpLines, &["<13>line", "no priority"]).await;
    harness.world.until("all", 5).await;
    send(harness.udp, Transport::Udp, &["<13>datagram\0"]).await;
    harness.world.until("all", 6).await;
    let expected = ["<13>counted\nof two lines", "<13>line", "no priority", "<13>datagram"];
    assert_eq!(values(&harness.world, "all")[2..], expected);
    let mut raw = TcpStream::connect(harness.tcp).await.unwrap();
    raw.write_all(b"<13>python\0<13>unfinished").await.unwrap();
    raw.shutdown().await.unwrap();
    harness.world.until("all", 8).await;
    assert_eq!(harness.service.intake().lines, 8);
    assert_eq!(harness.service.flows()[0].counts.delivered, 8);
    harness.service.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn bytes_that_are_no_utf8_arrive_as_they_were() {
    let harness = start(chain(flow(r#"message.startsWith("caf")"#, to_topic()))).await;
    let mut raw = TcpStream::connect(harness.tcp).await.unwrap();
    raw.write_all(b"<13>caf\xe9\n").await.unwrap();
    harness.world.until("all", 1).await;
    assert_eq!(harness.world.topic("all")[0].value.as_deref(), Some(&b"<13>caf\xe9"[..]));
}

#[tokio::test]
async fn datagrams_are_dropped_and_counted_when_the_disk_does_not_keep_up() {
    let harness = start(chain(flow("true", to_topic()))).await;
    harness.world.fail(u32::MAX);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let line = [b'x'; 400];
    for _ in 0..harness.datagram_bytes_max / line.len() + 10 {
        socket.send_to(&line, harness.udp).await.unwrap();
        tokio::task::yield_now().await;
    }
    harness.world.until_true(|| harness.service.intake().dropped > 0).await;
    harness.world.fail(0);
    harness.world.until_true(|| !harness.world.topic("all").is_empty()).await;
}

#[tokio::test]
async fn a_listener_that_comes_back_gets_what_it_had_not_acknowledged() {
    let first = start(chain(flow("true", to_topic()))).await;
    let lines: Vec<String> = (0..3000).map(|number| format!("<13>{number}")).collect();
    let settings = Settings {
        address: first.tcp.to_string(),
        transport: Transport::Relp,
        rate: None,
        window: 16,
        restamp: false,
    };
    let (_trigger, stop) = shutdown_pair();
    let sent = lines.clone();
    let replayed = tokio::spawn(async move {
        replay(sent.into_iter(), &settings, &RealClock::new(), stop, &mut |_| {}).await.unwrap()
    });
    first.world.until("all", 100).await;
    first.service.drain(Duration::from_secs(5)).await;
    let Harness { world, store, tcp, .. } = first;
    let listener = TcpListener::bind(tcp).await.unwrap();
    let listeners = SyslogListeners { tcp: Some(listener), udp: None };
    let ports = world.ports(std::path::Path::new("/"));
    let again = chain(flow("true", to_topic()));
    let _second = Service::start(again, listeners, Limits::default(), &ports, store.handle());
    assert_eq!(replayed.await.unwrap().acknowledged, 3000);
    let mut seen = values(&world, "all");
    assert!(seen.len() < 3000 + 16 * 2, "no more than the window is repeated");
    let mut first_seen = std::collections::HashSet::new();
    seen.retain(|line| first_seen.insert(line.clone()));
    assert_eq!(seen, lines, "each arrived, and in order");
}

#[tokio::test]
async fn long_lines_are_cut_and_counted() {
    let harness = start(chain(flow("true", to_topic()))).await;
    send(harness.tcp, Transport::Relp, &[&"x".repeat(600)]).await;
    assert_eq!(values(&harness.world, "all")[0].len(), 480);
    assert_eq!(harness.service.intake().truncated, 1);
}

#[tokio::test]
async fn a_failing_topic_holds_back_and_loses_nothing() {
    let harness = start(chain(flow("true", to_topic()))).await;
    harness.world.fail(3);
    let lines: Vec<String> = (0..50).map(|n| format!("<13>{n}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(send(harness.tcp, Transport::Relp, &lines).await, 50);
    assert_eq!(values(&harness.world, "all"), lines);
    assert!(harness.service.flows()[0].counts.retries >= 3);
}

#[tokio::test]
async fn a_refused_batch_goes_to_the_dead_letters() {
    let to = Sink { topic: Some("refused".to_owned()), ..Sink::default() };
    let harness = start(chain(flow("true", to))).await;
    assert_eq!(send(harness.tcp, Transport::Relp, &["<13>x"]).await, 1);
    let dead = harness.world.topic("f.dead");
    assert_eq!(dead[0].headers[1], ("kiln-reason".to_owned(), b"to: no such topic may be".to_vec()));
    let counts = harness.service.flows()[0].counts;
    assert_eq!((counts.delivered, counts.dead), (0, 1));
}

#[tokio::test]
async fn a_connection_that_breaks_relp_is_closed_and_counted() {
    let harness = start(chain(flow("true", to_topic()))).await;
    let mut raw = TcpStream::connect(harness.tcp).await.unwrap();
    raw.write_all(b"1 open 3 abc\n2 syslog 1 xy\n").await.unwrap();
    let mut answers = Vec::new();
    raw.read_to_end(&mut answers).await.unwrap();
    assert!(answers.starts_with(b"1 rsp "));
    assert_eq!(harness.service.intake().malformed, 1);
}

#[tokio::test]
async fn files_and_forwarding() {
    let target = start(chain(flow("true", to_topic()))).await;
    for (url, count) in [
        (format!("relp://{}", target.tcp), 1),
        (format!("tcp://{}", target.tcp), 2),
        (format!("udp://{}", target.udp), 3),
    ] {
        let source = start(chain(flow("true", Sink { syslog: Some(url), ..Sink::default() }))).await;
        send(source.tcp, Transport::Relp, &["<13>forwarded"]).await;
        target.world.until("all", count).await;
    }
    let harness =
        start(chain(flow("true", Sink { file: Some("out.log".to_owned()), ..Sink::default() }))).await;
    send(harness.tcp, Transport::Relp, &["<13>one\ntwo", "<13>three"]).await;
    let written = std::fs::read_to_string(harness.files.path().join("out.log")).unwrap();
    assert_eq!(written, "<13>one two\n<13>three\n");
}

#[tokio::test]
async fn jobs_are_submitted_straight_from_a_line() {
    let mut definition = flow("true", Sink { job: Some("{task}".to_owned()), ..Sink::default() });
    let regex = r"^RUN (?<id>\S+) (?<task>\S+)(?: (?<args>.*))?$".to_owned();
    definition.extract = Some(Extract { regex: Some(regex), sd: None });
    let task = TaskDefinition {
        name: "echo".to_owned(),
        command: vec!["echo".to_owned(), "{word}".to_owned()],
        arguments: [("word".to_owned(), ArgumentDefinition::default())].into(),
        node: "silicon2".to_owned(),
        time_limit: None,
    };
    let chain = Chain::check(&[definition], &[task]).unwrap();
    let harness = start(chain).await;
    let lines = ["<13>1 - h a - - - RUN j1 echo word=hi", "<13>1 - h a - - - RUN j2 rm"];
    send(harness.tcp, Transport::Relp, &lines).await;
    let jobs = harness.world.jobs.lock().unwrap().clone();
    assert_eq!(
        (jobs.len(), jobs[0].argv.join(" "), jobs[0].host.as_deref()),
        (1, "echo hi".to_owned(), Some("silicon2"))
    );
    assert_eq!(harness.world.topic("f.dead").len(), 1);
}

#[tokio::test]
async fn a_topic_flow_goes_on_where_it_was_also_after_a_crash() {
    let harness = start(demo_chain()).await;
    harness.world.bind("any");
    let line = |n: u32| format!("<134>1 2026-11-22T10:00:00Z h taskd - - - TASK t-{n} checksum path=/x");
    send(harness.tcp, Transport::Relp, &[&line(1), &line(2)]).await;
    harness.world.until_true(|| harness.world.waiting() == 2).await;
    let committed = |store: &TestStore| Offsets(store.handle()).committed("route", "tasks", 0).unwrap();
    harness.world.until_true(|| committed(&harness.store) == Some(kiln_types::Offset(2))).await;
    let Harness { world, store, service, .. } = harness;
    service.drain(Duration::from_secs(5)).await;
    let TestStore { store, disk } = store;
    drop(store);
    disk.crash();
    let harness = start_on(demo_chain(), world, TestStore::open(disk)).await;
    send(harness.tcp, Transport::Relp, &[&line(3)]).await;
    harness.world.until_true(|| harness.world.waiting() == 3).await;
    assert_eq!(harness.service.flows()[1].counts.seen, 1, "the first two are not read again");
}

#[tokio::test]
async fn a_task_for_a_host_without_queue_is_a_dead_letter() {
    let harness = start(demo_chain()).await;
    let line = "<134>1 2026-11-22T10:00:00Z h taskd - - - TASK t-1 checksum path=/x";
    send(harness.tcp, Transport::Relp, &[line]).await;
    harness.world.until("route.dead", 1).await;
    let dead = &harness.world.topic("route.dead")[0];
    assert_eq!(dead.key.as_deref(), Some(&b"t-1"[..]));
    assert!(
        String::from_utf8_lossy(&dead.headers[1].1)
            .contains("no queue of exchange kiln.tasks is bound for `any`")
    );
}

mod loghub;
mod senders;
