//! `kiln status`: one screen, or one JSON object.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{exit, say};
use crate::api::client;
use crate::api::model::{FsStatus, Services, Status};
use crate::paths::DataDir;
use crate::supervisor::{OFF, Picture, State};
use crate::table::{self, human_size};

/// Puts together what the supervisor and the leader know; `None` when nothing runs.
pub(crate) async fn gather(data: &DataDir) -> anyhow::Result<Option<Status>> {
    let Some(picture) = Picture::load(data)? else { return Ok(None) };
    let services = client::get::<Services>(data, "/api/services").await.ok();
    let ready =
        picture.ready() && services.as_ref().is_some_and(|s| s.jobs.nodes_up as usize == picture.nodes.len());
    Ok(Some(Status {
        ready,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        data: data.root().display().to_string(),
        supervisor_pid: picture.supervisor_pid,
        leader_pid: picture.nodes.first().and_then(|n| n.pid),
        flux_uri: format!("local://{}", data.broker_socket(0).display()),
        listeners: picture.listeners.unwrap_or_default(),
        nodes: picture.nodes,
        services,
    }))
}

pub(super) async fn run(data: &DataDir, json: bool) -> anyhow::Result<ExitCode> {
    let Some(status) = gather(data).await? else {
        if json {
            say(&serde_json::json!({ "ready": false, "running": false, "data": data.root() }).to_string())?;
        }
        eprintln!("kiln: no instance runs on {}; start one with `kiln up`", data.root().display());
        return Ok(ExitCode::from(exit::NOT_RUNNING));
    };
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, &status)?;
        writeln!(out)?;
    } else {
        print(&mut out, &status)?;
    }
    Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::from(exit::NOT_READY) })
}

fn print(out: &mut impl Write, status: &Status) -> io::Result<()> {
    let word = if status.ready { "ready" } else { "not ready" };
    writeln!(out, "kiln {}  {word}  {}", status.version, status.data)?;
    writeln!(out)?;
    let rows: Vec<Vec<String>> = status
        .nodes
        .iter()
        .map(|n| {
            let state = match n.state {
                State::Starting => "starting",
                State::Ready => "ready",
                State::Restarting => "restarting",
                State::Stopped => "stopped",
            };
            let pid = n.pid.map_or_else(|| "-".to_owned(), |p| p.to_string());
            vec![n.host.clone(), n.rank.to_string(), state.to_owned(), pid, n.restarts.to_string()]
        })
        .collect();
    table::write(out, &["NODE", "RANK", "STATE", "PID", "RESTARTS"], &rows)?;
    writeln!(out)?;
    let listeners = &status.listeners;
    let services = status.services.as_ref();
    let mut rows = vec![
        service("kafka", &listeners.kafka, services.map(kafka)),
        service("amqp", &listeners.amqp, services.map(amqp)),
        service("syslog", &listeners.syslog, services.map(flows)),
        console(&listeners.console),
        service("jobs", &status.flux_uri, services.map(jobs)),
        service("tasks", "", services.map(tasks)),
    ];
    for fs in services.into_iter().flat_map(|s| &s.filesystems) {
        rows.push(service("fs", &fs.name, Some(filesystem(fs))));
    }
    table::write(out, &["SERVICE", "LISTENS", "HOLDS"], &rows)
}

fn service(name: &str, listens: &str, holds: Option<String>) -> Vec<String> {
    vec![
        name.to_owned(),
        listens.to_owned(),
        holds.unwrap_or_else(|| "no answer: its node is being started again".to_owned()),
    ]
}

fn console(address: &str) -> Vec<String> {
    if address == OFF {
        return service("console", OFF, Some(String::new()));
    }
    service("console", &format!("http://{address}"), Some("/health /metrics /api/status".to_owned()))
}

fn kafka(s: &Services) -> String {
    format!("{} topics, {} records, {} groups", s.kafka.topics, s.kafka.records, s.kafka.groups)
}

fn amqp(s: &Services) -> String {
    let a = &s.amqp;
    format!(
        "{} queues, {} ready, {} unacknowledged, {} connections",
        a.queues, a.ready, a.unacked, a.connections
    )
}

fn flows(s: &Services) -> String {
    let seen: u64 = s.flows.iter().filter(|f| f.from == "syslog").map(|f| f.seen).max().unwrap_or(0);
    let dead: u64 = s.flows.iter().map(|f| f.dead).sum();
    format!("{} flows, {seen} lines, {dead} in dead-letter topics", s.flows.len())
}

fn jobs(s: &Services) -> String {
    let j = &s.jobs;
    format!(
        "{} nodes, {} cores; {} pending, {} running, {} ended",
        j.nodes_up, j.cores, j.pending, j.running, j.inactive
    )
}

fn filesystem(fs: &FsStatus) -> String {
    let FsStatus { name, targets, serving, files, clients, .. } = fs;
    let space = format!("{} of {} used", human_size(fs.used), human_size(fs.total));
    let well = if serving == targets {
        format!("{targets} targets")
    } else {
        format!("{serving} of {targets} targets served, see `kiln fs status {name}`")
    };
    format!("{well}; {files} files, {space}, {clients} clients")
}

fn tasks(s: &Services) -> String {
    let t = &s.tasks;
    format!("{} issued, {} completed, {} failed, {} doubled", t.issued, t.completed, t.failed, t.duplicated)
}
