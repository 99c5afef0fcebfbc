//! `kiln topic`.

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use hyper::Method;

use super::{Usage, nobody_reads};
use crate::api::client::{change, escape, get};
use crate::api::model::{NewRecords, NewTopic, Record, Records, Topic as View};
use crate::cli::Topic;
use crate::paths::DataDir;
use crate::table;

/// Records asked for at a time.
const PAGE: u64 = 1000;
/// How long the instance holds a question at the end of a topic before it answers that nothing came.
const FOLLOW_MS: u64 = 1000;
/// Lines sent in one request, unless their bytes come first.
const LINES_PER_REQUEST: usize = 1000;
/// A request is sent once it has this many bytes of lines; a single longer line is a request of its own.
const BYTES_PER_REQUEST: usize = 1 << 20;

pub(super) async fn run(data: &DataDir, verb: Topic) -> anyhow::Result<ExitCode> {
    match verb {
        Topic::List { json } => list(data, json).await?,
        Topic::Create { name, partitions, configs } => {
            let configs = configs.iter().map(|pair| key_value(pair)).collect::<anyhow::Result<_>>()?;
            change(data, Method::POST, "/api/topics", &NewTopic { name, partitions, configs }).await?;
        }
        Topic::Delete { name } => {
            change(data, Method::DELETE, &format!("/api/topics/{}", escape(&name)), &()).await?;
        }
        Topic::Read { name, from, count, follow, json, partition } => {
            read(data, &name, partition, from, count.unwrap_or(u64::MAX), follow, json).await?;
        }
        Topic::Write { name } => write(data, &name).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn key_value(pair: &str) -> anyhow::Result<(String, String)> {
    let (key, value) =
        pair.split_once('=').ok_or_else(|| Usage(format!("--config {pair}: write it as KEY=VALUE")))?;
    Ok((key.to_owned(), value.to_owned()))
}

async fn list(data: &DataDir, json: bool) -> anyhow::Result<()> {
    let topics: Vec<View> = get(data, "/api/topics").await?;
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &topics)?;
        writeln!(out)?;
        return Ok(());
    }
    let rows: Vec<Vec<String>> = topics
        .iter()
        .flat_map(|t| t.partitions.iter().map(move |p| (t, p)))
        .map(|(t, p)| {
            let records = p.end - p.start;
            [
                t.name.clone(),
                p.partition.to_string(),
                p.start.to_string(),
                p.end.to_string(),
                records.to_string(),
                p.bytes.to_string(),
            ]
            .into()
        })
        .collect();
    table::write(&mut out, &["TOPIC", "PARTITION", "START", "END", "RECORDS", "BYTES"], &rows)?;
    Ok(())
}

async fn read(
    data: &DataDir,
    name: &str,
    partition: i32,
    from: String,
    count: u64,
    follow: bool,
    json: bool,
) -> anyhow::Result<()> {
    let mut from = from;
    let mut left = count;
    while left > 0 {
        let wait = if follow { FOLLOW_MS } else { 0 };
        let path = format!(
            "/api/topics/{}/records?partition={partition}&from={}&max={}&wait_ms={wait}",
            escape(name),
            escape(&from),
            left.min(PAGE)
        );
        let page: Records = get(data, &path).await?;
        print_records(&page.records, json)?;
        left -= (page.records.len() as u64).min(left);
        if page.records.is_empty() && (!follow || nobody_reads()) {
            return Ok(());
        }
        from = page.next.to_string();
    }
    Ok(())
}

fn print_records(records: &[Record], json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for record in records {
        if json {
            serde_json::to_writer(&mut out, record)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{}", record.value.as_deref().unwrap_or_default())?;
        }
    }
    Ok(out.flush()?)
}

async fn write(data: &DataDir, name: &str) -> anyhow::Result<()> {
    let path = format!("/api/topics/{}/records", escape(name));
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let values = some_lines(&mut lines).context("failed to read standard input")?;
        if values.is_empty() {
            return Ok(());
        }
        change(data, Method::POST, &path, &NewRecords { values }).await?;
    }
}

/// The lines of one request; none at the end.
fn some_lines(lines: &mut impl Iterator<Item = io::Result<String>>) -> io::Result<Vec<String>> {
    let (mut values, mut bytes) = (Vec::new(), 0);
    while values.len() < LINES_PER_REQUEST && bytes < BYTES_PER_REQUEST {
        let Some(line) = lines.next().transpose()? else { break };
        bytes += line.len();
        values.push(line);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_make_more_requests() {
        let line = |length: usize| Ok("x".repeat(length));
        let mut lines =
            [line(BYTES_PER_REQUEST - 1), line(1), line(BYTES_PER_REQUEST * 2), line(1)].into_iter();
        let mut next = || some_lines(&mut lines).unwrap().len();
        assert_eq!([next(), next(), next(), next()], [2, 1, 1, 0]);
        let mut many = std::iter::repeat_with(|| line(1)).take(LINES_PER_REQUEST + 1);
        assert_eq!(some_lines(&mut many).unwrap().len(), LINES_PER_REQUEST);
        assert_eq!(some_lines(&mut many).unwrap().len(), 1);
    }
}
