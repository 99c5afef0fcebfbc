//! kill -9 of Kiln between and under stock clients: what was acknowledged is there afterwards, once.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiln_tests::{Cluster, wait_until};

/// The numbers from `first`, as the scripts print them.
fn numbers(first: usize, count: usize) -> String {
    (first..first + count).map(|n| n.to_string() + "\n").collect()
}

/// Starts a script that goes on while the test does something, and returns once it has printed a line that begins with `ready`.
fn start_until(command: &mut Command, ready: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the script starts");
    let mut out = BufReader::new(child.stdout.take().expect("its output is piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("a line of output");
    assert!(line.starts_with(ready), "expected {ready:?}, got {line:?}");
    (child, out)
}

#[test]
fn kafka_python_group_survives() {
    let mut cluster = Cluster::start(1);
    let script = "crash/kafka_steps.py";
    let _ = cluster.python(script, &["produce", "t", "0", "500"]).ok();
    assert_eq!(cluster.python(script, &["consume", "t", "g", "200"]).ok().stdout, numbers(0, 200));
    cluster.restart_leader();
    let _ = cluster.python(script, &["produce", "t", "500", "100"]).ok();
    let second = cluster.python(script, &["consume", "t", "g", "400"]).ok();
    assert_eq!(second.stdout, numbers(200, 400), "the group goes on where it had committed");
}

#[test]
fn confluent_kafka_group_survives() {
    let mut cluster = Cluster::start(1);
    let state = cluster.dir().join("state").to_string_lossy().into_owned();
    let _ = cluster.python("kafka/durable.py", &[cluster.address("kafka"), "write", &state]).ok();
    cluster.restart_leader();
    let _ = cluster.python("kafka/durable.py", &[cluster.address("kafka"), "read", &state]).ok();
}

#[test]
fn a_producer_goes_on_while_the_leader_is_killed() {
    let mut cluster = Cluster::start(1);
    let (mut producer, out) = start_until(
        &mut cluster.python_command("crash/kafka_steps.py", &["through", "t", "1000"]),
        "started",
    );
    cluster.restart_leader();
    let acknowledged: Vec<String> = out.lines().collect::<Result<_, _>>().expect("its output");
    assert!(producer.wait().expect("it ends").success(), "the producer gave up");
    assert_eq!(acknowledged.len(), 1000);
    let consumed = cluster.python("crash/kafka_steps.py", &["consume", "t", "g", "1000"]).ok();
    assert_eq!(consumed.stdout, numbers(0, 1000), "idempotent: each once, in order");
}

#[test]
fn kcat_reads_what_kcat_wrote_before_the_kill() {
    let mut cluster = Cluster::start(1);
    let kcat = kiln_tests::binary::program("kcat");
    let lines = numbers(0, 300);
    let file = cluster.dir().join("lines");
    std::fs::write(&file, &lines).expect("a file of lines");
    let broker = cluster.address("kafka").to_owned();
    let produce = ["-P", "-b", &broker, "-t", "k", "-X", "acks=all", "-l"];
    let _ = kiln_tests::run(cluster.command(&kcat.to_string_lossy()).args(produce).arg(&file)).ok();
    cluster.kill_everything();
    cluster.up();
    let consume = ["-C", "-b", &broker, "-t", "k", "-o", "beginning", "-e", "-q"];
    let read = kiln_tests::run(cluster.command(&kcat.to_string_lossy()).args(consume)).ok();
    assert_eq!(read.stdout, lines);
}

#[test]
fn persistent_messages_survive_in_order() {
    let mut cluster = Cluster::start(1);
    let _ = cluster.python("amqp/persistence.py", &["127.0.0.1", cluster.port("amqp"), "publish"]).ok();
    cluster.restart_leader();
    let _ = cluster.python("amqp/persistence.py", &["127.0.0.1", cluster.port("amqp"), "verify"]).ok();
}

#[test]
fn unacknowledged_messages_come_back_as_redelivered() {
    let mut cluster = Cluster::start(1);
    let script = "crash/amqp_steps.py";
    let _ = cluster.python(script, &["publish", "q", "0", "10"]).ok();
    let (mut holder, _out) =
        start_until(&mut cluster.python_command(script, &["hold", "q", "10"]), "holding");
    holder.kill().expect("a child can be killed");
    holder.wait().expect("it ends");
    assert_eq!(cluster.python(script, &["redelivered", "q", "10"]).ok().stdout, numbers(0, 10));
    cluster.restart_leader();
    let queues = cluster.kiln(&["amqp", "list", "queues", "--json"]).ok();
    let queue =
        queues.json().as_array().and_then(|all| all.iter().find(|queue| queue["name"] == "q").cloned());
    assert_eq!(
        queue.unwrap_or_default()["ready"].to_string().trim_matches('"'),
        "0",
        "what was acknowledged stays away: {queues}"
    );
}

/// The script goes on for 12 seconds; the kills are over before it looks back at what is there.
#[test]
fn librdkafka_goes_on_through_several_kills() {
    let mut cluster = Cluster::start(1);
    let mut script = cluster.python_command("kafka/survive.py", &[cluster.address("kafka"), "12"]);
    let mut running = script.spawn().expect("the script starts");
    for _ in 0..3 {
        std::thread::sleep(Duration::from_secs(2));
        cluster.restart_leader();
    }
    let ended = running.wait().expect("the script ends");
    assert!(ended.success(), "{}: {ended}", kiln_tests::process::shown(&script));
}

#[test]
fn a_node_that_is_killed_comes_back_and_runs_jobs() {
    let mut cluster = Cluster::start(3);
    cluster.kill_node(2);
    cluster.wait_ready();
    wait_until("all nodes run jobs again", || {
        let ran = cluster.flux(&["run", "-n3", "-N3", "hostname"]);
        (ran.code == 0 && ran.stdout.lines().count() == 3).then_some(())
    });
}

#[test]
fn jobs_that_ended_are_known_after_the_leader_was_killed() {
    let mut cluster = Cluster::start(2);
    let id = cluster.flux(&["submit", "sh", "-c", "exit 3"]).ok().stdout.trim().to_owned();
    let _ = cluster.flux(&["job", "attach", &id]).code(3);
    cluster.restart_leader();
    let _ = cluster.flux(&["job", "status", &id]).code(3);
    let next = cluster.flux(&["submit", "true"]).ok().stdout.trim().to_owned();
    assert_ne!(next, id, "a job id is never given twice");
}

#[test]
fn everything_comes_back_after_everything_was_killed() {
    let mut cluster = Cluster::start(2);
    let _ = cluster.python("crash/kafka_steps.py", &["produce", "t", "0", "10"]).ok();
    let _ = cluster.python("crash/amqp_steps.py", &["publish", "q", "0", "10"]).ok();
    cluster.kill_everything();
    cluster.up();
    assert_eq!(
        cluster.python("crash/kafka_steps.py", &["consume", "t", "g", "10"]).ok().stdout,
        numbers(0, 10)
    );
    assert_eq!(cluster.python("crash/amqp_steps.py", &["take", "q", "10"]).ok().stdout, numbers(0, 10));
    cluster.down();
}
