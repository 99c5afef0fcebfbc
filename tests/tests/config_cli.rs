//! What a person meets before anything runs: settings with mistakes, commands without an instance, exit codes.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use kiln_tests::{Cluster, Output, binary, run, wait_until};

/// `kiln ARGUMENTS` on an empty data directory.
fn kiln(dir: &tempfile::TempDir, arguments: &[&str]) -> Output {
    run(Command::new(binary::kiln())
        .args(arguments)
        .env("KILN_DATA", dir.path().join("data"))
        .current_dir(dir.path()))
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("kiln-").tempdir_in("/tmp").expect("a temporary directory")
}

#[test]
fn the_printed_default_is_good_and_says_so() {
    let dir = directory();
    let default = kiln(&dir, &["config", "default"]).ok();
    std::fs::write(dir.path().join("kiln.toml"), &default.stdout).expect("a file");
    let checked = kiln(&dir, &["config", "check", "kiln.toml"]).ok();
    checked.says("kiln.toml");
}

#[test]
fn every_mistake_is_named_with_its_line() {
    let dir = directory();
    let text = "[kafka]\nlissten = \"off\"\n[amqp]\nheartbeat = 5\n[[flow]]\nname = \"a\"\nfrom = \"syslog\"\nto = {}\n";
    std::fs::write(dir.path().join("bad.toml"), text).expect("a file");
    let checked = kiln(&dir, &["config", "check", "bad.toml"]).code(2);
    checked.says("bad.toml:2:1: kafka.lissten: unknown key; did you mean `listen`?");
    checked.says("bad.toml:4:13: amqp.heartbeat = 5: must be a duration");
    checked.says("bad.toml:8:1: flow.a.to: names no sink");
}

#[test]
fn a_filter_is_checked_before_it_runs() {
    let dir = directory();
    let text =
        "[[flow]]\nname = \"a\"\nfrom = \"syslog\"\nwhere = 'appname = \"x\"'\nto = { topic = \"t\" }\n";
    std::fs::write(dir.path().join("bad.toml"), text).expect("a file");
    let checked = kiln(&dir, &["config", "check", "bad.toml"]);
    assert_ne!(checked.code, 0, "{checked}");
    checked.says("==");
}

#[test]
fn settings_are_shown_with_their_origin() {
    let dir = directory();
    std::fs::create_dir(dir.path().join("data")).expect("a directory");
    std::fs::write(dir.path().join("data/kiln.toml"), "[kafka]\ndefault_partitions = 3\n").expect("a file");
    let mut command = Command::new(binary::kiln());
    command.args(["config", "show"]).env("KILN_DATA", dir.path().join("data")).env("KILN_AMQP_LISTEN", "off");
    let shown = run(&mut command).ok();
    let line = |key: &str| {
        shown
            .stdout
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_else(|| panic!("{key}: {shown}"))
            .to_owned()
    };
    assert!(line("kafka.default_partitions").contains("kiln.toml:2:1"));
    assert!(line("amqp.listen").contains("KILN_AMQP_LISTEN"));
    assert!(line("syslog.listen").ends_with("default"));
}

#[test]
fn up_refuses_wrong_settings_and_starts_nothing() {
    let dir = directory();
    kiln(&dir, &["up", "--set", "kafka.lissten=off"]).code(2).says("kafka.listen");
    kiln(&dir, &["up", "--kafka-listen", "nowhere"]).code(2).says("ADDRESS:PORT");
    kiln(&dir, &["up", "--nodes", "0"]).code(2).says("between 1 and");
    kiln(&dir, &["up", "--set", "kafka.listen"]).code(2).says("KEY=VALUE");
    kiln(&dir, &["up", "--config", "absent.toml"]).code(2).says("absent.toml");
    kiln(&dir, &["--data", &"x".repeat(100), "up"]).code(2).says("choose a shorter --data");
    kiln(&dir, &["demo", "--lines", "1", "--tasks", "2"]).code(2).says("--tasks 2");
    kiln(&dir, &["flow", "test", "apname == \"x\"", "--file", "-"]).code(2).says("did you mean `appname`?");
    kiln(&dir, &["status"]).code(3).says("kiln up");
}

#[test]
fn commands_without_an_instance_say_how_to_start_one() {
    let dir = directory();
    for arguments in [&["status"][..], &["down"], &["topic", "list"], &["tasks"], &["amqp", "list", "queues"]]
    {
        let output = kiln(&dir, arguments).code(3);
        assert!(output.stderr.starts_with("kiln: "), "{output}");
    }
    let _ = kiln(&dir, &["nonsense"]).code(2);
}

#[test]
fn help_names_every_verb() {
    let dir = directory();
    let help = kiln(&dir, &["--help"]).ok();
    for verb in ["up", "down", "status", "demo", "topic", "group", "amqp", "flow", "tasks", "config"] {
        help.says(&format!("\n  {verb} "));
    }
    kiln(&dir, &["up", "--help"]).ok().says("--kafka-listen");
}

#[test]
fn one_instance_per_data_directory() {
    let mut cluster = Cluster::start(1);
    let data = cluster.data();
    let mut elsewhere = cluster.command("kiln");
    elsewhere.env_remove("KILN_DATA").env("FLUX_URI", "local:///nowhere").arg("--data").arg(&data);
    assert_eq!(run(elsewhere.args(["flux", "run", "echo", "here"])).ok().stdout, "here\n");
    let second = cluster.kiln(&["up"]);
    assert_ne!(second.code, 0, "{second}");
    second.says("already runs");
    // The nodes of the first go on with its settings, also when they are started again.
    let kept = std::fs::read(cluster.data().join("run/config.json")).expect("the settings of the first");
    let _ = cluster.kiln(&["up", "--set", "kafka.default_partitions=7"]).code(1);
    assert!(
        kept == std::fs::read(cluster.data().join("run/config.json")).expect("the same"),
        "settings changed"
    );
    let status = cluster.status();
    assert_eq!(status["ready"], true);
    assert_eq!(status["nodes"].as_array().map(Vec::len), Some(1));
    for name in ["kafka", "amqp", "syslog", "console"] {
        assert!(!cluster.address(name).ends_with(":0"), "{name} has a real port: {status}");
    }
    cluster.down();
    let _ = cluster.kiln(&["status"]).code(3);
}

#[test]
fn up_detached_returns_when_it_is_ready() {
    let dir = directory();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(binary::kiln());
        command.args(arguments).env("KILN_DATA", dir.path().join("data")).current_dir(dir.path());
        for name in ["KAFKA", "AMQP", "SYSLOG", "CONSOLE"] {
            command.env(format!("KILN_{name}_LISTEN"), "127.0.0.1:0");
        }
        run(&mut command)
    };
    let up = command(&["up", "--nodes", "2", "--detach"]).ok();
    up.says("ready");
    up.says("kiln status");
    assert_eq!(command(&["status", "--json"]).ok().json()["ready"], true);
    let _ = command(&["down"]).ok();
    let _ = command(&["status"]).code(3);
}

#[test]
fn the_console_tells_health_and_metrics() {
    let cluster = Cluster::start(1);
    let get = |path: &str| {
        let script = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())";
        let url = format!("http://{}{path}", cluster.address("console"));
        run(cluster.command(&kiln_tests::python::interpreter().to_string_lossy()).args(["-c", script, &url]))
    };
    get("/health").ok().says("ok");
    get("/metrics").ok().says("# EOF");
    assert_eq!(get("/api/status").ok().json()["tasks"]["issued"], 0);
    let _ = get("/nothing").code(1);
    let answer = |request: &str| {
        let mut stream =
            std::net::TcpStream::connect(cluster.address("console")).expect("the console listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("it answers");
        String::from_utf8_lossy(&first).into_owned()
    };
    assert_eq!(answer("HEAD /health HTTP/1.1\r\nhost: k\r\n\r\n"), "HTTP/1.1 200");
    // Refused before its body has come.
    assert_eq!(
        answer("POST /api/topics HTTP/1.1\r\nhost: k\r\ncontent-length: 1000000\r\n\r\n"),
        "HTTP/1.1 403"
    );
}

/// `kiln ARGUMENTS` with a standard output that nobody reads any more; its exit code and what it complains about.
fn unread(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, String) {
    let mut child = cluster.command("kiln");
    child.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("kiln starts");
    drop(child.stdout.take());
    let status = wait_until("it notices", || child.try_wait().expect("a child can be asked"));
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
    (status.code(), said)
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let cluster = Cluster::start(1);
    let _ = cluster.kiln(&["topic", "create", "t"]).ok();
    let ways: [&[&str]; 5] = [
        &["status"],
        &["topic", "list"],
        &["amqp", "purge", "kiln.tasks.any"],
        &["topic", "read", "t", "--follow"],
        &["tasks", "--watch"],
    ];
    for way in ways {
        assert_eq!(unread(&cluster, way), (Some(0), String::new()), "kiln {}", way.join(" "));
    }
}

#[test]
fn long_lines_become_records() {
    let cluster = Cluster::start(1);
    let _ = cluster.kiln(&["topic", "create", "t"]).ok();
    let mut write = cluster
        .command("kiln")
        .args(["topic", "write", "t"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kiln starts");
    let lines = format!("{}\n", "x".repeat(2000)).repeat(3000);
    write.stdin.take().expect("it is piped").write_all(lines.as_bytes()).expect("kiln reads");
    assert!(write.wait().expect("a child can be waited for").success());
    let topics = cluster.kiln(&["topic", "list", "--json"]).ok().json();
    let topic = topics.as_array().into_iter().flatten().find(|topic| topic["name"] == "t");
    assert_eq!(topic.expect("the topic")["partitions"][0]["end"], 3000);
}

#[test]
fn a_virtual_host_goes_with_what_is_in_it() {
    let cluster = Cluster::start(1);
    cluster.kiln(&["amqp", "vhost", "delete", "/"]).code(1).says("stays");
    let _ = cluster.kiln(&["amqp", "vhost", "add", "v"]).ok();
    let _ = cluster.kiln(&["amqp", "permission", "set", "guest", ".*", ".*", ".*", "--vhost", "v"]).ok();
    let script = "import pika, sys; h, p = sys.argv[1].split(':'); \
                  c = pika.BlockingConnection(pika.ConnectionParameters(h, int(p), 'v')); ch = c.channel(); \
                  ch.queue_declare('q', durable=True); ch.exchange_declare('e', durable=True); c.close()";
    let python = kiln_tests::python::interpreter();
    let _ =
        run(cluster.command(&python.to_string_lossy()).args(["-c", script, cluster.address("amqp")])).ok();
    let queues = || cluster.kiln(&["amqp", "list", "queues", "--vhost", "v", "--json"]).ok().json();
    assert_eq!(queues()[0]["name"], "q");
    let _ = cluster.kiln(&["amqp", "vhost", "delete", "v"]).ok();
    let _ = cluster.kiln(&["amqp", "vhost", "add", "v"]).ok();
    assert_eq!(queues().as_array().map(Vec::len), Some(0));
}

#[test]
fn after_a_killed_supervisor_ready_means_ready() {
    let dir = directory();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(binary::kiln());
        command.args(arguments).env("KILN_DATA", dir.path().join("data")).current_dir(dir.path());
        for name in ["KAFKA", "AMQP", "SYSLOG", "CONSOLE"] {
            command.env(format!("KILN_{name}_LISTEN"), "127.0.0.1:0");
        }
        run(&mut command)
    };
    let _ = command(&["up", "--nodes", "2", "--detach"]).ok();
    let supervisor = command(&["status", "--json"]).ok().json()["supervisor_pid"].as_i64().expect("a pid");
    kiln_tests::cluster::kill_and_wait(nix::unistd::Pid::from_raw(supervisor as i32));
    let _ = command(&["status"]).code(3);
    let _ = command(&["up", "--nodes", "2", "--detach"]).ok();
    let status = command(&["status"]);
    let down = command(&["down"]);
    let (_, _) = (status.ok(), down.ok());
}

#[test]
fn an_edited_rule_is_tried_before_the_instance_has_it() {
    let cluster = Cluster::start(1);
    std::fs::write(cluster.dir().join("log"), "<13>1 - - x - - - hello\n").expect("a log");
    let flow =
        "[[flow]]\nname = \"new\"\nfrom = \"syslog\"\nwhere = 'appname == \"x\"'\nto = { topic = \"t\" }\n";
    std::fs::write(cluster.data().join("kiln.toml"), flow).expect("kiln.toml");
    let log = cluster.dir().join("log");
    cluster.kiln(&["flow", "test", "new", "--file", &log.to_string_lossy()]).ok().says("1 of 1 lines match");
}
