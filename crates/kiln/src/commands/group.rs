//! `kiln group`.

use std::io::Write as _;
use std::process::ExitCode;

use crate::api::client::{escape, get};
use crate::api::model::Group as View;
use crate::cli::Group;
use crate::paths::DataDir;
use crate::table;

pub(super) async fn run(data: &DataDir, verb: Group) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match verb {
        Group::List { json } => {
            let groups: Vec<View> = get(data, "/api/groups").await?;
            if json {
                serde_json::to_writer_pretty(&mut out, &groups)?;
                writeln!(out)?;
            } else {
                table::write(
                    &mut out,
                    &["GROUP", "STATE", "MEMBERS", "LAG"],
                    &groups.iter().map(summary).collect::<Vec<_>>(),
                )?;
            }
        }
        Group::Describe { name, json } => {
            let group: View = get(data, &format!("/api/groups/{}", escape(&name))).await?;
            if json {
                serde_json::to_writer_pretty(&mut out, &group)?;
                writeln!(out)?;
            } else {
                describe(&mut out, &group)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(group: &View) -> Vec<String> {
    let lag: i64 = group.offsets.iter().map(|o| o.lag).sum();
    vec![group.name.clone(), group.state.clone(), group.members.to_string(), lag.to_string()]
}

fn describe(out: &mut impl std::io::Write, group: &View) -> std::io::Result<()> {
    writeln!(out, "{}  {}  {} members", group.name, group.state, group.members)?;
    let offsets: Vec<Vec<String>> = group
        .offsets
        .iter()
        .map(|o| vec![o.topic.clone(), o.partition.to_string(), o.committed.to_string(), o.lag.to_string()])
        .collect();
    table::write(out, &["TOPIC", "PARTITION", "COMMITTED", "LAG"], &offsets)
}
