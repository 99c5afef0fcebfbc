//! `kiln tasks`: the recorder's table.

use std::collections::HashMap;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use super::nobody_reads;
use crate::api::client::get;
use crate::api::model::{Task, Tasks as Page};
use crate::cli::Tasks;
use crate::paths::DataDir;
use crate::table;

/// How often `--watch` asks.
const WATCH_EVERY: Duration = Duration::from_millis(250);
/// The columns of a row.
const HEAD: [&str; 10] =
    ["TASK", "NAME", "ISSUED", "LOGGED", "QUEUED", "STARTED", "COMPLETED", "AGENT", "STATUS", "LATENCY"];

pub(super) async fn run(data: &DataDir, arguments: &Tasks) -> anyhow::Result<ExitCode> {
    if arguments.watch {
        return watch(data, arguments).await;
    }
    let page = page(data, arguments).await?;
    let mut out = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &page.tasks)?;
        writeln!(out)?;
    } else {
        print(&mut out, &page)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn page(data: &DataDir, arguments: &Tasks) -> anyhow::Result<Page> {
    get(data, &format!("/api/tasks?max={}&failed={}", arguments.count, arguments.failed)).await
}

async fn watch(data: &DataDir, arguments: &Tasks) -> anyhow::Result<ExitCode> {
    let mut interrupts = signal(SignalKind::interrupt()).context("failed to listen for signals")?;
    let mut seen: HashMap<String, Task> = HashMap::new();
    loop {
        let page = tokio::select! {
            page = page(data, arguments) => page?,
            _ = interrupts.recv() => return Ok(ExitCode::SUCCESS),
        };
        let mut out = std::io::stdout().lock();
        for task in &page.tasks {
            if seen.get(&task.key) == Some(task) {
                continue;
            }
            if arguments.json {
                serde_json::to_writer(&mut out, task)?;
                writeln!(out)?;
            } else {
                writeln!(out, "{}", row(task).join("  "))?;
            }
        }
        out.flush()?;
        drop(out);
        seen = page.tasks.into_iter().map(|t| (t.key.clone(), t)).collect();
        if nobody_reads() {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            _ = interrupts.recv() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// The table and a line of totals.
pub(super) fn print(out: &mut impl Write, page: &Page) -> std::io::Result<()> {
    let rows: Vec<Vec<String>> = page.tasks.iter().map(row).collect();
    table::write(out, &HEAD, &rows)?;
    let t = &page.totals;
    writeln!(
        out,
        "{} issued, {} queued, {} completed ({} with a status other than 0), {} doubled; latency p50 {:.0} ms, p99 {:.0} ms",
        t.issued, t.queued, t.completed, t.failed, t.duplicated, t.latency_ms_p50, t.latency_ms_p99
    )
}

fn row(task: &Task) -> Vec<String> {
    let word = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    vec![
        task.key.clone(),
        task.task.clone(),
        clock(task.issued),
        clock(task.logged),
        clock(task.queued),
        clock(task.started),
        clock(task.completed),
        word(&task.agent),
        task.status.map_or_else(|| "-".to_owned(), |s| s.to_string()),
        task.latency_ms.map_or_else(|| "-".to_owned(), |ms| format!("{:.3}s", ms as f64 / 1000.0)),
    ]
}

/// Time of day in the local zone, to the millisecond.
fn clock(ms: Option<i64>) -> String {
    let instant = ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    instant.map_or_else(
        || "-".to_owned(),
        |t| t.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string(),
    )
}
