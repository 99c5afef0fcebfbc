use super::*;

fn argument(kind: ArgumentKind) -> ArgumentDefinition {
    ArgumentDefinition { kind, ..ArgumentDefinition::default() }
}

fn definition(command: &[&str], arguments: &[(&str, ArgumentDefinition)]) -> TaskDefinition {
    TaskDefinition {
        name: "t".to_owned(),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        arguments: arguments.iter().map(|(name, argument)| ((*name).to_owned(), argument.clone())).collect(),
        node: "any".to_owned(),
        time_limit: None,
    }
}

fn catalogue() -> Catalogue {
    let mut number = argument(ArgumentKind::Integer);
    (number.min, number.max, number.default) = (Some(1), Some(9), Some("3".to_owned()));
    let mut word = argument(ArgumentKind::String);
    word.pattern = Some("-?[a-z]+".to_owned());
    word.default = Some("w".to_owned());
    let mut task = definition(
        &["head", "-n{n}", "{path}", "{word}", "{text}"],
        &[
            ("n", number),
            ("path", argument(ArgumentKind::Path)),
            ("word", word),
            ("text", ArgumentDefinition { default: Some("x".to_owned()), ..argument(ArgumentKind::String) }),
            (
                "host",
                ArgumentDefinition { default: Some("any".to_owned()), ..argument(ArgumentKind::String) },
            ),
        ],
    );
    task.node = "{host}".to_owned();
    Catalogue::compile(&[task]).unwrap()
}

fn run(arguments: &str) -> Result<TaskRun, TaskError> {
    let catalogue = catalogue();
    catalogue.resolve(&catalogue.request("t-1", "t", arguments, Timestamp(0))?)
}

#[test]
fn values_stay_in_their_place() {
    let run = run(r#"path="/a b;$(c)" text="x \"y\" | z" n=2"#).unwrap();
    assert_eq!(run.argv, ["head", "-n2", "/a b;$(c)", "w", "x \"y\" | z"]);
    assert_eq!(run.host, None);
}

#[test]
fn the_node_may_come_from_an_argument() {
    assert_eq!(run("path=/ host=silicon2").unwrap().host.as_deref(), Some("silicon2"));
    assert_eq!(
        catalogue().request("t-1", "t", "path=/ host=silicon2", Timestamp(0)).unwrap().node,
        "silicon2"
    );
    assert_eq!(catalogue().request("t-1", "t", "path=/", Timestamp(0)).unwrap().node, "any");
}

#[test]
fn wrong_values_are_refused_with_a_reason() {
    for (arguments, reason) in [
        ("", "needs argument `path`"),
        ("path=etc", "no absolute path"),
        ("path=/a/../b", "climbs"),
        ("path=/a\u{1}", "control character"),
        ("path=/ n=10", "not between 1 and 9"),
        ("path=/ n=1x", "no whole number"),
        ("path=/ text=-rf", "begins with `-`"),
        ("path=/ word=W", "does not match"),
        ("path=/ what=1", "has no argument `what`"),
        ("path", "name=value"),
        ("path=/ path=/", "name=value"),
        ("path=\"/", "name=value"),
        ("path=\"/\"x", "name=value"),
    ] {
        let error = run(arguments).expect_err(arguments).to_string();
        assert!(error.contains(reason), "{arguments}: {error}");
    }
    assert_eq!(run("path=/ word=-w").unwrap().argv[3], "-w", "the pattern admits it");
    let long = format!("path=/{}", "x".repeat(5000));
    assert!(run(&long).unwrap_err().to_string().contains("longer than 4096"));
    let catalogue = catalogue();
    assert!(catalogue.request("t-1", "rm", "", Timestamp(0)).unwrap_err().to_string().contains("known: t"));
    assert_eq!(catalogue.request("t 1", "t", "path=/", Timestamp(0)), Err(TaskError::Id));
}

#[test]
fn requests_travel_as_json() {
    let catalogue = catalogue();
    let request = catalogue.request("t-1", "t", "path=/x", Timestamp(1_795_341_600_000_000)).unwrap();
    let json = serde_json::to_string(&request).unwrap();
    assert_eq!(
        json,
        r#"{"id":"t-1","task":"t","args":{"path":"/x"},"node":"any","issued":"2026-11-22T10:00:00.000000Z"}"#
    );
    assert_eq!(catalogue.read(json.as_bytes()).unwrap().0, request);
    let forged = json.replace("/x", "x");
    assert!(
        matches!(catalogue.read(forged.as_bytes()), Err(TaskError::BadArgument { .. })),
        "checked again where it is run"
    );
    assert!(matches!(catalogue.read(b"{}"), Err(TaskError::Malformed(_))));
}

#[test]
fn definitions_report_every_problem() {
    let mut bad = definition(&["{p}", "{q"], &[("p", argument(ArgumentKind::Path))]);
    bad.node = "{host}".to_owned();
    let bad_default = ArgumentDefinition { default: Some("x".to_owned()), ..argument(ArgumentKind::Integer) };
    let bad_pattern =
        ArgumentDefinition { pattern: Some("(".to_owned()), min: Some(1), ..argument(ArgumentKind::String) };
    bad.arguments.extend([("i".to_owned(), bad_default), ("s".to_owned(), bad_pattern)]);
    let problems = Catalogue::compile(&[bad, definition(&[], &[])]).unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|(_, key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        ["command", "command", "node", "args.i.default", "args.s.pattern", "args.s", "command", "name"]
    );
}
