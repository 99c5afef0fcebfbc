use super::*;
use crate::syslog::{self, Message, Received};
use kiln_types::Timestamp;
use proptest::prelude::*;

const LINE: &str =
    r#"<86>1 2026-11-22T10:00:00Z web1 taskd 42 ID [x@1 user="root" n="17"] TASK t-1 checksum"#;

fn event() -> Message<'static> {
    syslog::parse(LINE, Received::at(Timestamp(0)))
}

fn passes(source: &str) -> Result<bool, EvalError> {
    Filter::compile(source, Schema::Syslog).unwrap_or_else(|e| panic!("{e}")).matches(&event())
}

fn refused(source: &str) -> String {
    Filter::compile(source, Schema::Syslog).expect_err(source).to_string()
}

#[test]
fn conditions_of_all_kinds() {
    for source in [
        r#"appname == "taskd" && severity <= 6 && message.matches("^TASK ")"#,
        r"severity == info && facility == authpriv",
        r#"severity in [5, 6] && hostname in ["web1", 'web2'] && !(procid in ["43"])"#,
        r#"sd["x@1"]["user"] == "root" && int(sd["x@1"]["n"]) + 3 == 20 && int(procid) - 2 == 40"#,
        r#"has(sd["x@1"]["n"]) && !has(sd["x@1"]["m"]) && !has(sd["y"]["n"])"#,
        r#"message.startsWith("TASK") && message.endsWith("sum") && message.contains(" t-") && size(message) == 17"#,
        r#"message.lowerAscii().startsWith("task t") && msgid.size() == 2 && raw.contains("<86>")"#,
        r#"timestamp >= timestamp("2026-11-22T10:00:00Z") && timestamp < timestamp("2026-11-23T00:00:00+01:00")"#,
        r#"hostname + ":" + procid == "web1:42""#,
        r"severity < err ? false : true",
        r#"(appname == "x") == (hostname == "y")"#,
        r#"message.matches(r"\d+ \w+$") && -1 < 0"#,
        r"false || true && true",
    ] {
        assert_eq!(passes(source), Ok(true), "{source}");
    }
}

#[test]
fn precedence_is_that_of_cel() {
    assert_eq!(passes("true || false && false"), Ok(true));
    assert_eq!(passes("!false && false"), Ok(false));
    assert_eq!(passes("1 + 1 == 2 && 3 - 1 - 1 == 1"), Ok(true));
    assert_eq!(passes("false ? false : false ? false : true"), Ok(true));
}

#[test]
fn an_error_is_outweighed_on_either_side_and_otherwise_told() {
    let missing = r#"sd["x@1"]["m"] == "1""#;
    assert_eq!(passes(&format!("{missing} && false")), Ok(false));
    assert_eq!(passes(&format!("true || {missing}")), Ok(true));
    assert_eq!(passes(&format!("({missing}) || true")), Ok(true));
    assert_eq!(
        passes(&format!("true && {missing}")),
        Err(EvalError::Missing(r#"sd["x@1"]["m"]"#.to_owned()))
    );
    assert_eq!(passes("int(hostname) == 1"), Err(EvalError::NotANumber("web1".to_owned())));
    assert_eq!(passes("int(procid) + 9223372036854775807 > 0"), Err(EvalError::Overflow));
}

#[test]
fn errors_point_at_the_column() {
    assert_eq!(
        refused(r#"severity <= 5 && apname == "x""#),
        "unknown variable `apname` (line 1, column 18)\n  | severity <= 5 && apname == \"x\"\n  |                  ^^^^^^ did you mean `appname`?"
    );
    let error = Filter::compile("true &&\n  severity == \"err\"", Schema::Syslog).unwrap_err();
    assert_eq!((error.line, error.column), (2, 3));
    assert_eq!(error.help, "write err without quotes");
}

#[test]
fn each_mistake_has_its_message() {
    for (source, message) in [
        ("", "the condition ends here"),
        ("appname", "expected a condition, found a text"),
        ("appname == cron", "write \"cron\" for the text"),
        ("appname = \"x\"", "write `==`"),
        ("severity & 1", "write `&&`"),
        ("appname == \"x", "text without an end"),
        (r#"message.matches("\d")"#, "raw text"),
        (r#"message.matches("(")"#, "bad regular expression: unclosed group"),
        ("message.matches(appname)", "not a text in quotes"),
        ("message.includes(\"x\")", "unknown method `.includes`"),
        ("message.size", "is not called"),
        ("contains(message, \"x\")", "unknown function `contains`"),
        ("sd == \"x\"", "needs keys"),
        ("sd[\"x\"] == \"x\"", "1 keys where 2 are needed"),
        ("has(message)", "asks for a key"),
        ("severity in 5", "`in` needs a list"),
        ("[1] == [1]", "only after `in`"),
        ("99999999999999999999 == 1", "not a whole number"),
        ("timestamp > timestamp(\"yesterday\")", "not a time"),
        ("severity <= 5 severity", "unexpected text after"),
        ("(true", "expected `)`"),
        ("true < false", "have no order"),
        ("key == \"x\"", "unknown variable `key`"),
    ] {
        let text = refused(source);
        assert!(text.contains(message), "{source}: {text}");
    }
    assert!(refused(&"(".repeat(100)).contains("nested more than 64"));
    assert!(refused(&"!".repeat(10_000)).contains("nested more than 64"));
}

#[test]
fn explain_names_the_first_clause_that_failed() {
    let filter = Filter::compile(
        r#"appname == "taskd" && (severity <= 5 || hostname == "db") && true"#,
        Schema::Syslog,
    )
    .unwrap();
    let miss = filter.explain(&event()).unwrap();
    assert_eq!((miss.clause, miss.source.as_str()), (1, r#"(severity <= 5 || hostname == "db")"#));
    assert_eq!(
        miss.values,
        [("severity".to_owned(), "6".to_owned()), ("hostname".to_owned(), "\"web1\"".to_owned())]
    );
    assert_eq!(miss.error, None);
    let filter = Filter::compile(r#"sd["q"]["r"] == "1""#, Schema::Syslog).unwrap();
    assert!(filter.explain(&event()).unwrap().error.unwrap().contains(r#"no sd["q"]["r"]"#));
    assert_eq!(Filter::compile("true", Schema::Syslog).unwrap().explain(&event()), None);
}

#[test]
fn records_have_their_own_names() {
    let mut record =
        Record::new("tasks", b"t-1", br#"{"task":"checksum","args":{"n":7},"urgent":true}"#, Timestamp(0));
    record.headers.push(("reason".into(), "x".into()));
    let passes = |source: &str| {
        Filter::compile(source, Schema::Record).unwrap_or_else(|e| panic!("{e}")).matches(&record)
    };
    assert_eq!(passes(r#"key == "t-1" && topic == "tasks" && json["task"] == "checksum""#), Ok(true));
    assert_eq!(
        passes(r#"int(json["args"]["n"]) == 7 && json["urgent"] == "true" && headers["reason"] == "x""#),
        Ok(true)
    );
    assert_eq!(passes(r#"has(json["args"])"#), Ok(false), "a container is no text");
    assert!(Filter::compile("severity < 4", Schema::Record).is_err());
}

proptest! {
    #[test]
    fn no_source_panics(source in "\\PC{0,60}") {
        let _ = Filter::compile(&source, Schema::Syslog);
    }

    #[test]
    fn no_token_soup_panics(tokens in prop::collection::vec(
        "(appname|severity|sd|\\[|\\]|\"a\"|\\(|\\)|&&|!|==|in|\\.|contains|matches|,|\\?|:|é|r\"|int|has|5|-)", 0..24)) {
        if let Err(error) = Filter::compile(&tokens.join(" "), Schema::Syslog) {
            prop_assert!(error.to_string().contains('^'));
        }
        let _ = Filter::compile(&tokens.concat(), Schema::Syslog).map(|filter| filter.matches(&event()));
    }
}

#[test]
fn the_filters_of_the_guide_compile() {
    let guide = include_str!("../../../../docs/flows.md");
    let block = guide
        .split("```filter\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("a block of filters");
    assert!(block.lines().count() >= 5);
    for line in block.lines() {
        Filter::compile(line, Schema::Syslog).unwrap_or_else(|error| panic!("{error}"));
    }
    let shown = Filter::compile("severity <= 5 && apname == \"x\"", Schema::Syslog).unwrap_err().to_string();
    assert!(guide.contains(&shown), "the guide shows the error as it is");
}
