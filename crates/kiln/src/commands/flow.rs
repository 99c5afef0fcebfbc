//! `kiln flow`.

use std::io::{Read as _, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use kiln_config::Config;
use kiln_flow::core::Flow as Compiled;
use kiln_flow::syslog::Received;
use kiln_flow::tester::{self, Report};
use kiln_world::{Clock as _, RealClock};

use super::Usage;
use crate::api::client::get;
use crate::api::model::FlowStatus;
use crate::cli::Flow;
use crate::paths::DataDir;
use crate::settings;
use crate::table;
use crate::wiring::flows;

pub(super) async fn run(data: &DataDir, verb: Flow) -> anyhow::Result<ExitCode> {
    let Flow::List { json } = verb else { unreachable!("`flow test` needs no instance") };
    let flows: Vec<FlowStatus> = get(data, "/api/flows").await?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &flows)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    print_flows(&mut out, &flows)?;
    Ok(ExitCode::SUCCESS)
}

/// The counts at every hop.
pub(super) fn print_flows(out: &mut impl Write, flows: &[FlowStatus]) -> std::io::Result<()> {
    let row = |f: &FlowStatus| {
        let counts = [f.seen, f.matched, f.delivered, f.dead].map(|count| count.to_string());
        [f.name.clone(), f.from.clone(), f.to.clone()].into_iter().chain(counts).collect()
    };
    let rows: Vec<Vec<String>> = flows.iter().map(row).collect();
    table::write(out, &["FLOW", "FROM", "TO", "SEEN", "MATCHED", "DELIVERED", "DEAD"], &rows)
}

/// `kiln flow test`: tries a rule on past lines, without an instance.
pub(super) fn test(
    data: &DataDir,
    rule: &str,
    file: &Path,
    config: Option<&Path>,
    json: bool,
    samples: usize,
) -> anyhow::Result<ExitCode> {
    let flow = find(rule, &settings::to_be_tried(data, config)?.config)?;
    let text = read(file)?;
    let now = Received::at(RealClock::new().now());
    let report = tester::test(&flow, text.lines(), now, samples);
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print_report(&mut out, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The flow of that name; anything that is no name of a flow is a filter expression.
fn find(rule: &str, config: &Config) -> anyhow::Result<Compiled> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if config.flow.iter().any(|flow| flow.name == rule) {
        let chain = flows::chain(config)?;
        return chain
            .flows
            .into_iter()
            .find(|flow| flow.name() == rule)
            .context("the flow was there a moment ago");
    }
    if rule.chars().all(is_word) {
        let known: Vec<&str> = config.flow.iter().map(|flow| flow.name.as_str()).collect();
        let known = if known.is_empty() {
            "none are declared".to_owned()
        } else {
            format!("there are {}", known.join(", "))
        };
        return Err(Usage(format!(
            "there is no flow `{rule}` ({known}); name one, give --config FILE, or write a filter such as 'message.contains(\"{rule}\")'"
        ))
        .into());
    }
    tester::of_expression(rule).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| problem.message.clone()).collect();
        Usage(lines.join("\n")).into()
    })
}

/// Logs hold what programs wrote, which need not be UTF-8.
fn read(file: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).context("failed to read standard input")?;
    } else {
        bytes = std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn print_report(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    writeln!(out, "{} of {} lines match", report.matched, report.lines)?;
    for clause in report.misses.iter().filter(|clause| clause.lines > 0) {
        writeln!(out, "{:>7} stopped at  {}", clause.lines, clause.clause)?;
        for example in &clause.examples {
            let values: Vec<String> =
                example.values.iter().map(|(name, value)| format!("{name} = {value}")).collect();
            writeln!(out, "          line {}: {}", example.line, values.join(", "))?;
        }
    }
    for (reason, lines) in &report.dead {
        writeln!(out, "{lines:>7} to the dead-letter topic: {reason}")?;
    }
    for sample in &report.samples {
        writeln!(out, "line {}: {}", sample.line, sample.text)?;
        for (name, value) in &sample.fields {
            writeln!(out, "    {name} = {value}")?;
        }
        if let Some(command) = &sample.command {
            writeln!(out, "    would run: {}", command.join(" "))?;
        }
        if let Some(dead) = &sample.dead {
            writeln!(out, "    dead letter: {dead}")?;
        }
    }
    Ok(())
}
