use super::*;

fn sources(text: &str) -> Sources {
    Sources { file: Some(TomlFile { path: "kiln.toml".into(), text: text.to_owned() }), ..Sources::default() }
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn flags_go_before_variables_before_the_file_before_defaults() {
    let mut all =
        sources("[kafka]\nlisten = \"127.0.0.1:1\"\ndefault_partitions = 3\n[amqp]\nlisten = \"off\"\n");
    all.env = vec![
        pair("KILN_KAFKA_LISTEN", "127.0.0.1:2"),
        pair("KILN_AMQP_LISTEN", "127.0.0.1:3"),
        pair("HOME", "/"),
    ];
    all.flags = vec![pair("kafka.listen", "127.0.0.1:0")];
    let loaded = load(&all).expect("sound settings");
    let effective = loaded.effective();
    let of = |key: &str| {
        effective.iter().find(|e| e.key == key).map(|e| (e.value.as_str(), e.origin.to_string())).expect(key)
    };
    assert_eq!(of("kafka.listen"), ("\"127.0.0.1:0\"", "--kafka-listen".to_owned()));
    assert_eq!(of("amqp.listen"), ("\"127.0.0.1:3\"", "KILN_AMQP_LISTEN".to_owned()));
    assert_eq!(of("kafka.default_partitions"), ("3", "kiln.toml:3:1".to_owned()));
    assert_eq!(of("syslog.listen"), ("\"127.0.0.1:5514\"", "default".to_owned()));
    assert_eq!(loaded.notes, Vec::<String>::new());
}

#[test]
fn an_unknown_key_is_named_with_its_place_and_the_nearest_right_one() {
    let text = "[kafka]\n  auto_create_topic = true\n[kafak]\nx = 1\n[syslog]\nheartbeat = \"5s\"\n";
    let problems = load(&sources(text)).expect_err("problems").to_string();
    let lines: Vec<_> = problems.lines().collect();
    assert_eq!(
        lines,
        [
            "kiln.toml:2:3: kafka.auto_create_topic: unknown key; did you mean `auto_create_topics`?",
            "kiln.toml:3:2: kafak: unknown key; did you mean `kafka`?",
            "kiln.toml:6:1: syslog.heartbeat: unknown key; did you mean `amqp.heartbeat`?",
        ]
    );
}

#[test]
fn a_key_outside_of_its_section_is_sent_home() {
    let problems = load(&sources("heartbeat = \"5s\"\n")).expect_err("a problem").to_string();
    assert_eq!(problems, "kiln.toml:1:1: heartbeat: this key belongs in a section; write it under [amqp]");
}

#[test]
fn a_wrong_type_names_the_value_and_the_right_type() {
    let problems = load(&sources(
        "[cluster]\nnodes = \"four\"\n[log]\nsegment_size = \"12 parsecs\"\n[kafka]\nlisten = 9092\n",
    ))
    .expect_err("problems");
    let text = problems.to_string();
    assert_eq!(problems.0.len(), 3, "{text}");
    assert!(
        text.contains(
            "kiln.toml:2:9: cluster.nodes = \"four\": must be a whole number, not a string; the default is 1"
        ),
        "{text}"
    );
    assert!(text.contains("kiln.toml:4:16: log.segment_size = \"12 parsecs\": must be a size"), "{text}");
    assert!(text.contains("kiln.toml:6:10: kafka.listen = 9092: must be ADDRESS:PORT"), "{text}");
}

#[test]
fn bad_variables_and_flags_are_named() {
    let all = Sources {
        env: vec![
            pair("KILN_CLUSTER_NODES", "many"),
            pair("KILN_KAFKA_LISTN", "127.0.0.1:0"),
            pair("KILN_LOG", "debug"),
        ],
        flags: vec![pair("kafka.lisen", "off")],
        ..Sources::default()
    };
    let text = load(&all).expect_err("problems").to_string();
    assert!(text.contains("KILN_CLUSTER_NODES: cluster.nodes = many: must be a whole number"), "{text}");
    assert!(text.contains("kafka.lisen = off: unknown key; did you mean `kafka.listen`?"), "{text}");
    let only_variables = Sources { env: all.env[1..].to_vec(), ..Sources::default() };
    assert_eq!(
        load(&only_variables).expect("notes only").notes,
        ["KILN_KAFKA_LISTN is no setting; did you mean KILN_KAFKA_LISTEN?"]
    );
}

#[test]
fn broken_toml_is_located() {
    let text = load(&sources("[kafka]\nlisten = 127.0.0.1:9092\n")).expect_err("a problem").to_string();
    assert!(text.starts_with("kiln.toml:2:"), "{text}");
    assert!(text.contains("not TOML"), "{text}");
}

#[test]
fn flows_and_tasks_report_each_mistake() {
    let text = r#"
[[flow]]
name = "a"
from = "sislog"
wher = "true"
to = { topik = "x", value = "fileds" }

[[flow]]
from = { topic = "x" }

[[task]]
name = "t"
command = "rm -rf {x}"
args = { x = { type = "strnig" } }
time_limit = "soon"
"#;
    let told = load(&sources(text)).expect_err("problems").to_string();
    for expected in [
        "kiln.toml:5:1: flow.a.wher: unknown key; did you mean `where`?",
        "kiln.toml:4:8: flow.a.from = \"sislog\": is no source",
        "kiln.toml:6:8: flow.a.to.topik: unknown key; did you mean `topic`?",
        "flow.a.to.value = \"fileds\": is no value; did you mean `fields`?",
        "flow[1].name: is missing",
        "flow[1].to: is missing",
        "kiln.toml:13:11: task.t.command = \"rm -rf {x}\": must be a list of strings",
        "task.t.args.x.type = \"strnig\": is no type; did you mean `string`?",
        "task.t.time_limit = \"soon\": must be a duration",
    ] {
        assert!(told.contains(expected), "{expected}\nin\n{told}");
    }
}

#[test]
fn columns_count_characters() {
    let text = load(&sources("[cluster]\nname = \"ƒƒ\"\n[\"ƒ\"]\n")).expect_err("a problem").to_string();
    assert!(text.starts_with("kiln.toml:3:2: ƒ"), "{text}");
}
