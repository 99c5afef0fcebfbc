//! What a person meets before anything runs: settings with mistakes, commands without an instance, exit codes.

use std::process::Command;

use kiln_tests::{Cluster, Output, binary, run};

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
    let second = cluster.kiln(&["up"]);
    assert_ne!(second.code, 0, "{second}");
    second.says("already runs");
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
}
