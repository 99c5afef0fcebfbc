//! Kafka's stock clients against the built binary: every script of tests/python/kafka, and kcat.

use kiln_tests::{Cluster, binary, python, run};

#[test]
fn every_script() {
    let cluster = Cluster::start(1);
    let scripts = python::scripts("kafka");
    assert!(!scripts.is_empty(), "tests/python/kafka has no scripts");
    for script in scripts {
        let output = cluster.python(&script, &[]).ok();
        println!("{script}: good\n{}", output.stdout);
    }
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
