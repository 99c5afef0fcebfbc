//! Syslog from the programs that people have: logger, rsyslog, Python; and real logs through a rule.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use kiln_tests::{Cluster, Settings, binary, python, run, sample_log, wait_until};

const FLOWS: &str = r#"
[[flow]]
name = "all"
from = "syslog"
to = { topic = "all" }

[[flow]]
name = "failed"
from = "syslog"
where = 'message.contains("Failed password")'
to = { topic = "failed" }

[[flow]]
name = "refused"
from = "syslog"
where = 'message.contains("authentication failure")'
to = { topic = "refused" }
"#;

fn cluster() -> Cluster {
    Cluster::start_with(Settings::nodes(1).toml(FLOWS))
}

/// How many records a topic holds; a topic that is not there holds none.
fn records(cluster: &Cluster, topic: &str) -> i64 {
    let topics = cluster.kiln(&["topic", "list", "--json"]).ok().json();
    let found = topics.as_array().into_iter().flatten().find(|entry| entry["name"] == topic);
    let partitions = found.and_then(|entry| entry["partitions"].as_array()).into_iter().flatten();
    partitions
        .map(|partition| partition["end"].as_i64().unwrap_or(0) - partition["start"].as_i64().unwrap_or(0))
        .sum()
}

fn wait_for_records(cluster: &Cluster, topic: &str, count: i64) {
    wait_until(&format!("{count} records in {topic}"), || (records(cluster, topic) >= count).then_some(()));
    assert_eq!(records(cluster, topic), count, "no more than were sent");
}

/// The values of a topic.
fn values(cluster: &Cluster, topic: &str, count: i64) -> Vec<String> {
    wait_for_records(cluster, topic, count);
    let read = cluster.kiln(&["topic", "read", topic, "--count", &count.to_string()]).ok();
    read.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn logger_over_udp_and_tcp_in_each_format() {
    let cluster = cluster();
    let ways: [&[&str]; 6] = [
        &["-d", "--rfc5424"],
        &["-d", "--rfc3164"],
        &["-T", "--rfc5424"],
        &["-T", "--rfc3164"],
        &["-T", "--octet-count", "--rfc5424"],
        &["-T", "--octet-count", "--rfc3164"],
    ];
    for (n, way) in ways.iter().enumerate() {
        let mut logger = Command::new(binary::program("logger"));
        logger
            .args(["-n", "127.0.0.1", "-P", cluster.port("syslog"), "-t", "greeter", "-p", "auth.info"])
            .args(*way);
        let _ = run(logger.arg(format!("hello {n}"))).ok();
        wait_for_records(&cluster, "all", n as i64 + 1);
    }
    for (n, value) in values(&cluster, "all", ways.len() as i64).iter().enumerate() {
        assert!(value.contains("greeter") && value.ends_with(&format!("hello {n}")), "{value}");
    }
}

#[test]
fn pythons_handler_with_its_trailing_nul() {
    let cluster = cluster();
    let script = "import logging, logging.handlers as h, socket, sys\n\
                  for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):\n\
                  \x20 log = logging.getLogger(str(kind)); log.setLevel('INFO')\n\
                  \x20 log.addHandler(h.SysLogHandler(('127.0.0.1', int(sys.argv[1])), socktype=kind))\n\
                  \x20 log.info('one'); log.info('two')\n";
    let port = cluster.port("syslog").to_owned();
    let _ = run(Command::new(python::interpreter()).args(["-c", script, &port])).ok();
    for value in values(&cluster, "all", 4) {
        assert!(value.ends_with("one") || value.ends_with("two"), "{value:?}");
    }
}

/// rsyslog in the foreground with a configuration of its own; never the system's service.
struct Rsyslog(Child);

impl Rsyslog {
    fn start(dir: &Path, text: &str) -> Self {
        let config = dir.join("rsyslog.conf");
        std::fs::write(&config, text).expect("rsyslog's configuration");
        let mut command = Command::new(binary::program("rsyslogd"));
        command.arg("-n").arg("-f").arg(&config).arg("-i").arg(dir.join("rsyslogd.pid"));
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("rsyslogd starts"))
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rsyslog_delivers(action: impl Fn(&Cluster) -> String) {
    let cluster = cluster();
    let dir = cluster.dir();
    let input = dir.join("input.log");
    let lines: Vec<_> = (0..500).map(|n| format!("line {n}")).collect();
    std::fs::write(&input, lines.join("\n") + "\n").expect("a file of lines");
    let text = format!(
        "global(workDirectory=\"{dir}\")\nmodule(load=\"imfile\")\ninput(type=\"imfile\" file=\"{input}\" tag=\"filed\" readMode=\"0\")\n{action}\n",
        dir = dir.display(),
        input = input.display(),
        action = action(&cluster),
    );
    let _rsyslog = Rsyslog::start(&dir, &text);
    let values = values(&cluster, "all", 500);
    assert!(
        values[0].ends_with("line 0") && values[499].ends_with("line 499"),
        "{} ... {}",
        values[0],
        values[499]
    );
}

#[test]
fn rsyslog_over_tcp_with_octet_counting() {
    rsyslog_delivers(|cluster| {
        let port = cluster.port("syslog");
        format!(
            "action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" protocol=\"tcp\" TCP_Framing=\"octet-counted\" template=\"RSYSLOG_SyslogProtocol23Format\")"
        )
    });
}

#[test]
fn rsyslog_over_relp() {
    rsyslog_delivers(|cluster| {
        let port = cluster.port("syslog");
        format!(
            "module(load=\"omrelp\")\naction(type=\"omrelp\" target=\"127.0.0.1\" port=\"{port}\" template=\"RSYSLOG_SyslogProtocol23Format\")"
        )
    });
}

/// Sends a file's lines by logger, as RFC 3164 does.
fn replay(cluster: &Cluster, log: &Path) {
    let mut logger = Command::new(binary::program("logger"));
    logger.args([
        "-n",
        "127.0.0.1",
        "-P",
        cluster.port("syslog"),
        "-T",
        "--octet-count",
        "-t",
        "replay",
        "-f",
    ]);
    let _ = run(logger.arg(log)).ok();
}

#[test]
fn failed_passwords_of_a_real_log() {
    let Some(log) = sample_log("OpenSSH_2k.log") else { return };
    let cluster = cluster();
    replay(&cluster, &log);
    wait_for_records(&cluster, "all", 2000);
    wait_for_records(&cluster, "failed", 520);
}

#[test]
fn authentication_failures_of_a_real_log() {
    let Some(log) = sample_log("Linux_2k.log") else { return };
    let cluster = cluster();
    replay(&cluster, &log);
    wait_for_records(&cluster, "all", 2000);
    wait_for_records(&cluster, "refused", 490);
}

#[test]
fn a_rule_is_tried_on_past_lines() {
    let Some(log) = sample_log("OpenSSH_2k.log") else { return };
    let cluster = cluster();
    let tried =
        cluster.kiln(&["flow", "test", "failed", "--file", &log.to_string_lossy(), "--json"]).ok().json();
    assert_eq!(tried["matched"], 520, "{tried}");
    assert_eq!(tried["lines"], 2000, "{tried}");
}
