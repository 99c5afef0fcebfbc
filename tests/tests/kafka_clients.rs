//! Kafka's stock clients against the built binary: kafka-python, confluent-kafka (librdkafka) and kcat.

use kiln_tests::{Cluster, binary, run};

fn script(name: &str) {
    let cluster = Cluster::start(1);
    let _ = cluster.python(name, &[cluster.address("kafka")]).ok();
}

#[test]
fn kafka_python_consumes_in_a_group_that_rebalances() {
    script("kafka/kafka_python_group.py");
}

#[test]
fn confluent_kafka_is_idempotent_with_every_codec() {
    script("kafka/confluent_idempotent.py");
}

#[test]
fn confluent_kafka_administers_topics_and_groups() {
    script("kafka/confluent_admin.py");
}

#[test]
fn kafka_python_administers_topics() {
    script("kafka/kafka_python_admin.py");
}

#[test]
fn a_group_of_fifty_and_a_storm_of_joins_leave_nothing_behind() {
    const SECONDS: &str = "8";
    let cluster = Cluster::start(1);
    let leader = cluster.pid(0).expect("the leader runs").to_string();
    let _ = cluster.python("kafka/group_storm.py", &[cluster.address("kafka"), &leader, SECONDS]).ok();
}

#[test]
fn bytes_that_no_client_sends_harm_nobody() {
    let cluster = Cluster::start(1);
    let leader = cluster.pid(0).expect("the leader runs").to_string();
    let _ = cluster.python("kafka/hostile.py", &[cluster.address("kafka"), &leader]).ok();
    assert_eq!(cluster.pid(0).map(|pid| pid.to_string()), Some(leader), "the leader is the same process");
}

#[test]
fn kcat_lists_produces_and_consumes_in_a_group() {
    let cluster = Cluster::start(1);
    let kcat = binary::program("kcat").to_string_lossy().into_owned();
    let broker = cluster.address("kafka").to_owned();
    let run_kcat = |arguments: &[&str]| run(cluster.command(&kcat).args(["-b", &broker]).args(arguments));
    let file = cluster.dir().join("records");
    std::fs::write(&file, "a:1\nb:2\nc:3\n").expect("a file of records");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let _ = run_kcat(&["-P", "-t", "t", "-K:", "-z", codec, "-l", &file.to_string_lossy()]).ok();
    }
    run_kcat(&["-L"]).ok().says("topic \"t\" with 1 partitions");
    let all = run_kcat(&["-C", "-t", "t", "-o", "beginning", "-e", "-q", "-f", "%k=%s\\n"]).ok();
    assert_eq!(all.stdout, "a=1\nb=2\nc=3\n".repeat(5));
    let group = run_kcat(&["-G", "g", "-X", "auto.offset.reset=earliest", "-c", "15", "-q", "t"]).ok();
    assert_eq!(group.stdout.lines().count(), 15, "{group}");
    cluster.kiln(&["group", "list"]).ok().says("g");
}
