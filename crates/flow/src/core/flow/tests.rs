use super::*;
use crate::core::definition::{ArgumentDefinition, ArgumentKind, Extract, TaskDefinition};
use crate::syslog::{Received, parse};
use kiln_types::Timestamp;

const TASK_LINE: &str =
    "<134>1 2026-11-22T10:00:00Z host taskd - - - TASK t-000042 checksum path=/etc/hostname";

fn catalogue() -> Arc<Catalogue> {
    let path = ArgumentDefinition { kind: ArgumentKind::Path, ..ArgumentDefinition::default() };
    let checksum = TaskDefinition {
        name: "checksum".to_owned(),
        command: vec!["sha256sum".to_owned(), "{path}".to_owned()],
        arguments: [("path".to_owned(), path)].into(),
        node: "any".to_owned(),
        time_limit: None,
    };
    Arc::new(Catalogue::compile(&[checksum]).unwrap())
}

fn tasks() -> Definition {
    Definition {
        name: "tasks".to_owned(),
        from: Source::Syslog,
        filter: Some(r#"appname == "taskd" && message.matches("^TASK ")"#.to_owned()),
        extract: Some(Extract {
            regex: Some(r"^TASK (?<id>\S+) (?<task>\S+)(?: (?<args>.*))?$".to_owned()),
            sd: None,
        }),
        to: Sink { topic: Some("tasks".to_owned()), key: Some("{id}".to_owned()), ..Sink::default() },
        dead_letter: None,
    }
}

fn take(definition: &Definition, line: &str) -> Batch {
    let flow = Flow::compile(definition, &catalogue()).unwrap_or_else(|found| panic!("{}", found[0]));
    let mut batch = Batch::default();
    flow.take_message(&parse(line, Received::at(Timestamp(0))), &mut batch);
    batch
}

fn reason(batch: &Batch) -> String {
    batch.dead.iter().next().expect("a dead letter").headers[1].1.clone()
}

#[test]
fn a_task_line_becomes_a_checked_request() {
    let batch = take(&tasks(), TASK_LINE);
    let record = batch.records.iter().next().unwrap();
    assert_eq!(record.key, Some(&b"t-000042"[..]));
    let request: TaskRequest = serde_json::from_slice(record.value).unwrap();
    assert_eq!(
        (request.task.as_str(), request.args["path"].as_str(), request.node.as_str()),
        ("checksum", "/etc/hostname", "any")
    );
    assert_eq!(request.issued, crate::syslog::parse_time("2026-11-22T10:00:00Z").unwrap());
    assert_eq!((batch.seen, batch.matched, batch.dead.len()), (1, 1, 0));
}

#[test]
fn what_the_catalogue_refuses_is_a_dead_letter_with_its_line() {
    for (tail, expected) in [
        ("rm path=/", "unknown task `rm`"),
        ("checksum", "needs argument `path`"),
        ("checksum path=x", "no absolute path"),
    ] {
        let line = TASK_LINE.replace("checksum path=/etc/hostname", tail);
        let batch = take(&tasks(), &line);
        assert!(batch.records.is_empty());
        assert!(reason(&batch).contains(expected), "{}", reason(&batch));
        assert_eq!(batch.dead.iter().next().unwrap().value, line.as_bytes());
    }
    let batch = take(&tasks(), "<134>1 - host taskd - - - TASK ");
    assert!(reason(&batch).contains("does not match"), "{}", reason(&batch));
}

#[test]
fn other_lines_leave_no_trace_and_undecided_ones_a_dead_letter() {
    let batch = take(&tasks(), "<134>1 - host sshd - - - TASK x");
    assert_eq!((batch.seen, batch.matched, batch.is_idle()), (1, 0, true));
    let mut definition = tasks();
    definition.filter = Some(r#"sd["a"]["b"] == "c""#.to_owned());
    let batch = take(&definition, TASK_LINE);
    assert!(reason(&batch).starts_with("where: the event has no sd"), "{}", reason(&batch));
}

#[test]
fn a_record_is_routed_by_the_node_of_its_request() {
    let definition = Definition {
        name: "route".to_owned(),
        from: Source::Topic("tasks".to_owned()),
        filter: None,
        extract: None,
        to: Sink {
            exchange: Some("kiln.tasks".to_owned()),
            routing_key: Some("{node}".to_owned()),
            ..Sink::default()
        },
        dead_letter: None,
    };
    let flow = Flow::compile(&definition, &catalogue()).unwrap();
    let mut batch = Batch::default();
    flow.take_record(
        &Record::new("tasks", b"t-1", br#"{"id":"t-1","node":"silicon2"}"#, Timestamp(5)),
        &mut batch,
    );
    flow.take_record(&Record::new("tasks", b"t-2", b"no json", Timestamp(6)), &mut batch);
    assert_eq!(batch.routes, ["silicon2"]);
    assert_eq!(batch.records.iter().next().unwrap().value, br#"{"id":"t-1","node":"silicon2"}"#);
    assert!(reason(&batch).contains("no field `node`"));
    assert_eq!(batch.dead.iter().next().unwrap().key, Some(&b"t-2"[..]));
}

#[test]
fn a_routing_key_that_is_too_long_is_one_dead_letter() {
    let to =
        Sink { exchange: Some("x".to_owned()), routing_key: Some("{message}".to_owned()), ..Sink::default() };
    let definition = Definition { filter: None, extract: None, to, ..tasks() };
    let batch = take(&definition, &format!("<13>1 - h a - - - {}", "k".repeat(256)));
    assert!(batch.routes.is_empty() && reason(&batch).contains("longer than 255"));
    assert_eq!(take(&definition, "<13>1 - h a - - - short").routes, ["short"]);
}

#[test]
fn fields_become_json_and_jobs_an_argument_vector() {
    let mut definition = tasks();
    definition.to.value = Some(ValueKind::Fields);
    definition.to.key = Some("{hostname}/{task}".to_owned());
    let batch = take(&definition, TASK_LINE);
    let record = batch.records.iter().next().unwrap();
    assert_eq!(record.key, Some(&b"host/checksum"[..]));
    assert_eq!(record.value, br#"{"args":"path=/etc/hostname","id":"t-000042","task":"checksum"}"#);

    definition.to = Sink { job: Some("{task}".to_owned()), ..Sink::default() };
    let batch = take(&definition, TASK_LINE);
    assert_eq!(batch.runs[0].argv, ["sha256sum", "/etc/hostname"]);
}

#[test]
fn structured_data_gives_fields() {
    let mut definition = tasks();
    definition.filter = None;
    definition.extract = Some(Extract { regex: None, sd: Some("kiln@32473".to_owned()) });
    definition.to.key = Some("{k}".to_owned());
    let batch = take(&definition, r#"<134>1 - h a - - [kiln@32473 k="v" x="\]"] m"#);
    assert_eq!(batch.records.iter().next().unwrap().key, Some(&b"v"[..]));
    assert_eq!(batch.records.iter().next().unwrap().value, br#"{"k":"v","x":"]"}"#);
    assert!(reason(&take(&definition, TASK_LINE)).contains("no structured data [kiln@32473"));
}

#[test]
fn definitions_report_every_problem() {
    let mut definition = tasks();
    definition.filter = Some("apname == \"x\"".to_owned());
    definition.to = Sink { topic: Some("t".to_owned()), key: Some("{idd}".to_owned()), ..Sink::default() };
    let mut second = tasks();
    second.extract = Some(Extract { regex: Some("no group".to_owned()), sd: None });
    second.to = Sink { topic: Some("t".to_owned()), file: Some("f".to_owned()), ..Sink::default() };
    let mut third = tasks();
    third.name = "other".to_owned();
    third.from = Source::Topic("t".to_owned());
    third.filter = None;
    third.extract = Some(Extract { regex: None, sd: Some("x".to_owned()) });
    third.to = Sink { syslog: Some("host".to_owned()), ..Sink::default() };
    let problems = compile(&[tasks(), definition, second, third], &catalogue()).unwrap_err();
    let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(keys, ["where", "to.key", "name", "extract.regex", "to", "name", "extract.sd", "to.syslog"]);
    assert!(problems[0].to_string().starts_with("flow.tasks.where: unknown variable `apname`"));
}
