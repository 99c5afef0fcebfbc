use super::*;
use crate::testing::demo_chain;
use kiln_types::Timestamp;

const LINES: &str = "\
<134>1 2026-11-22T10:00:00Z host taskd - - - TASK t-1 checksum path=/etc/hostname\r
<134>1 2026-11-22T10:00:00Z host sshd - - - Failed password\r

<135>1 2026-11-22T10:00:00Z host taskd - - - TASK t-2 checksum path=/x\r
<134>1 2026-11-22T10:00:00Z host taskd - - - TASK t-3 checksum path=x";

fn received() -> Received {
    Received::at(Timestamp(1_795_341_600_000_000))
}

#[test]
fn a_report_says_what_matches_why_not_and_what_would_run() {
    let chain = demo_chain();
    let report = test(&chain.flows[0], LINES.lines(), received(), 5);
    assert_eq!((report.lines, report.matched), (4, 2));
    let misses: Vec<_> = report.misses.iter().map(|miss| (miss.clause.as_str(), miss.lines)).collect();
    assert_eq!(
        misses,
        [(r#"appname == "taskd""#, 1), ("severity <= 6", 1), (r#"message.matches("^TASK ")"#, 0)]
    );
    let values = &report.misses[1].examples[0];
    assert_eq!((values.line, values.values[0].clone()), (3, ("severity".to_owned(), "7".to_owned())));
    let first = &report.samples[0];
    assert_eq!(first.fields["args"], "path=/etc/hostname");
    assert_eq!(first.command.as_deref(), Some(&["sha256sum".to_owned(), "/etc/hostname".to_owned()][..]));
    assert_eq!(first.record.as_ref().unwrap().0, "t-1");
    assert!(report.samples[1].dead.as_ref().unwrap().contains("no absolute path"));
    assert_eq!(report.dead.values().sum::<u64>(), 1);
}

#[test]
fn a_bare_expression_and_a_flow_over_records() {
    let flow = of_expression(r#"message.contains("password")"#).unwrap();
    assert_eq!(test(&flow, LINES.lines(), received(), 0).matched, 1);
    assert_eq!(of_expression("mesage == 1").unwrap_err()[0].key, "where");
    let chain = demo_chain();
    let report = test(&chain.flows[1], [r#"{"node":"any"}"#, "text"].into_iter(), received(), 1);
    assert_eq!((report.lines, report.matched, report.dead.len()), (2, 2, 1));
}
