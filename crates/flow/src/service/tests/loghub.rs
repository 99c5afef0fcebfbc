//! Real logs, beside the project where they are at hand; their licence keeps them out of it.

use super::*;
use std::path::PathBuf;

/// One of the logs.
fn log(name: &str) -> Option<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/loghub");
    let found = std::fs::read(root.join(name)).ok();
    if found.is_none() {
        eprintln!("note: {name} is not at hand; not tested against it");
    }
    found
}

async fn records(log: &[u8], filter: &str) -> usize {
    let harness = start(chain(flow(filter, to_topic()))).await;
    let mut stream = TcpStream::connect(harness.tcp).await.unwrap();
    stream.write_all(log).await.unwrap();
    stream.shutdown().await.unwrap();
    let (world, service) = (harness.world, &harness.service);
    world.until_true(|| service.intake().lines >= 2000).await;
    assert_eq!(service.intake().lines, 2000);
    world.topic("all").len()
}

#[tokio::test]
async fn counts_of_real_logs() {
    for (name, text, expected) in [
        ("OpenSSH_2k.log", "Failed password", 520),
        ("OpenSSH_2k.log", "POSSIBLE BREAK-IN", 85),
        ("Linux_2k.log", "authentication failure", 490),
    ] {
        let Some(log) = log(name) else { return };
        let filter = format!("message.contains(\"{text}\")");
        assert_eq!(records(&log, &filter).await, expected, "{name} {text}");
    }
}

#[test]
fn fields_of_real_lines() {
    let Some(log) = log("OpenSSH_2k.log") else { return };
    let text = String::from_utf8_lossy(&log);
    let mut definition = flow(r#"appname == "sshd" && message.startsWith("Failed password")"#, to_topic());
    // E9 and E10 of the log's template file: for a user, and for an invalid user.
    let regex =
        r"^Failed password for (?:invalid user )?(?<user>.*) from (?<address>\S+) port (?<port>\d+) ssh2$";
    definition.extract = Some(Extract { regex: Some(regex.to_owned()), sd: None });
    let chain = chain(definition);
    let received = crate::syslog::Received::at(kiln_types::Timestamp(1_795_341_600_000_000));
    let report = crate::tester::test(&chain.flows[0], text.lines(), received, 2000);
    assert_eq!(report.lines, 2000);
    let addresses = report.samples.iter().filter(|sample| sample.fields.contains_key("address")).count();
    assert_eq!(report.matched as usize, addresses + report.dead.values().sum::<u64>() as usize);
    assert!(addresses >= 518, "{addresses} of {}: {:?}", report.matched, report.dead);
}

/// An event template of the log's authors (`Failed password for <*> from <*> port <*> ssh2`) as an anchored regular expression.
fn template(line: &str) -> Option<regex::Regex> {
    let (_, text) = line.split_once(',')?;
    let text = text.trim().trim_matches('"').replace("\"\"", "\"");
    let parts: Vec<String> = text.split("<*>").map(regex::escape).collect();
    regex::Regex::new(&format!("^{}$", parts.join(".*"))).ok()
}

/// The templates say where the message of each line begins: an oracle for the header's parser.
#[test]
fn every_message_is_one_of_the_templates() {
    // `combo  -- root[2421]: ROOT LOGIN ON tty2` has a tag that is none.
    for (name, unlike_max) in [("OpenSSH_2k.log", 0), ("Linux_2k.log", 1)] {
        let (Some(log), Some(templates)) = (log(name), log(&format!("{name}_templates.csv"))) else { return };
        let templates = String::from_utf8_lossy(&templates);
        let templates: Vec<_> = templates.lines().skip(1).filter_map(template).collect();
        let received = crate::syslog::Received::at(kiln_types::Timestamp(1_795_341_600_000_000));
        let text = String::from_utf8_lossy(&log);
        let unlike: Vec<_> = text
            .lines()
            .map(|line| crate::syslog::parse(line, received))
            .filter(|message| !templates.iter().any(|template| template.is_match(message.message.trim())))
            .collect();
        assert_eq!(
            unlike.len(),
            unlike_max,
            "{name}: {:#?}",
            unlike.iter().map(|m| m.raw).collect::<Vec<_>>()
        );
    }
}
