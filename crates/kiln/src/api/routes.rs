//! What each path answers.

mod amqp;
mod fs;
mod pools;
mod topics;
mod users;

use std::sync::Arc;
use std::time::Instant;

use hyper::Method;
use hyper::body::Bytes;
use kiln_auth::Auth;
use kiln_flow::Service;
use kiln_flow::recorder::{Ledger, Query, Row, Totals};
use kiln_jobs::broker::Jobs;
use kiln_jobs::proto::{JobState, Reply, Request};
use kiln_telemetry::Metrics;
use kiln_types::Timestamp;
use kiln_world::Clock;
use serde::Serialize;

use super::ask::{Ask, Fault};
use crate::fs::admin::Admin;

use super::model::{self, AmqpStatus, FlowStatus, FsStatus, JobsStatus, KafkaStatus, TaskTotals};

/// Rows of the recorder in one answer.
const TASKS_MAX: usize = 10_000;

/// The MIME type of nearly every answer.
const JSON: &str = "application/json";

/// An answer: its MIME type and its bytes.
pub(crate) type Answer = Result<(&'static str, Bytes), Fault>;

/// The services that the API speaks for.
pub(crate) struct Routes {
    /// When the leader started.
    pub started: Instant,
    /// Nodes that are meant to be there.
    pub nodes: u32,
    /// The event log.
    pub kafka: kiln_kafka::Broker,
    /// The message broker.
    pub amqp: kiln_amqp::Broker,
    /// Users.
    pub auth: Auth,
    /// The workload manager.
    pub jobs: Jobs,
    /// The flows.
    pub flow: Arc<Service>,
    /// The filesystems.
    pub fs: Admin,
    /// The recorder's rows.
    pub ledger: Ledger,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Routes {
    /// Answers one request.
    pub(crate) async fn answer(&self, ask: Ask) -> Answer {
        let segments = ask.segments()?;
        let path: Vec<&str> = segments.iter().map(String::as_str).collect();
        if ask.method != Method::GET {
            ask.owner_only()?;
        }
        match path.as_slice() {
            ["api", "topics", rest @ ..] => self.topics(&ask, rest).await,
            ["api", "groups", rest @ ..] => self.groups(&ask, rest).await,
            ["api", "amqp", rest @ ..] => self.broker(&ask, rest).await,
            ["api", "fs", rest @ ..] => self.filesystems(&ask, rest).await,
            ["api", "pools", rest @ ..] => self.pools(&ask, rest).await,
            ["api", "users" | "vhosts" | "permissions", ..] => self.accounts(&ask, &path[1..]).await,
            other => self.look(&ask, other).await,
        }
    }

    /// What can only be looked at.
    async fn look(&self, ask: &Ask, path: &[&str]) -> Answer {
        let known =
            matches!(path, ["health" | "metrics"] | ["api", "status" | "services" | "flows" | "tasks"]);
        if !known {
            return Err(no_route(ask));
        }
        ask.question()?;
        match path {
            ["health"] => self.health().await,
            ["metrics"] => self.metrics().await,
            ["api", "flows"] => json(&self.flows()),
            ["api", "tasks"] => self.tasks(ask),
            _ => json(&self.services().await?),
        }
    }

    /// Whether every node is there. A leader whose foundations fail ends at once, so that one which answers is well.
    async fn health(&self) -> Answer {
        let up = self.jobs_status().await?.nodes_up;
        let status = if up < self.nodes { "degraded" } else { "ok" };
        json(&serde_json::json!({ "status": status, "nodes_up": up, "nodes": self.nodes }))
    }

    async fn services(&self) -> Result<model::Services, Fault> {
        Ok(model::Services {
            uptime_s: self.started.elapsed().as_secs_f64(),
            kafka: self.kafka_status()?,
            amqp: self.amqp_status(),
            jobs: self.jobs_status().await?,
            flows: self.flows(),
            filesystems: self.filesystem_status().await?,
            tasks: totals(&self.ledger.totals().map_err(Fault::failed)?),
        })
    }

    fn kafka_status(&self) -> Result<KafkaStatus, Fault> {
        let topics = self.kafka.list_topics();
        let records = topics.iter().flat_map(|t| &t.partitions).map(|p| p.end.0 - p.start.0).sum();
        let groups = self.kafka.list_groups().map_err(Fault::failed)?.len();
        Ok(KafkaStatus { topics: topics.len(), records, groups })
    }

    fn amqp_status(&self) -> AmqpStatus {
        let queues = self.amqp.queues();
        AmqpStatus {
            ready: queues.iter().map(|q| q.ready as u64).sum(),
            unacked: queues.iter().map(|q| q.unacked as u64).sum(),
            queues: queues.len(),
            connections: self.amqp.connections().len(),
        }
    }

    async fn jobs_status(&self) -> Result<JobsStatus, Fault> {
        let ask = |request| async move { self.jobs.ask(&request).await.map_err(Fault::failed) };
        let (Reply::Nodes(nodes), Reply::Stats(stats)) =
            (ask(Request::Resources).await?, ask(Request::Stats).await?)
        else {
            return Err(Fault::failed("the job manager answered another question"));
        };
        let mut status = JobsStatus {
            nodes_up: nodes.iter().filter(|n| n.online).count() as u32,
            cores: nodes.iter().filter(|n| n.online && !n.excluded).map(|n| n.cores.len() as u32).sum(),
            ..JobsStatus::default()
        };
        for (state, count) in JobState::ALL.into_iter().zip(stats.states) {
            match state {
                JobState::Run | JobState::Cleanup => status.running += count,
                JobState::Inactive => status.inactive += count,
                _ => status.pending += count,
            }
        }
        status.inactive += stats.inactive_purged;
        Ok(status)
    }

    async fn filesystem_status(&self) -> Result<Vec<FsStatus>, Fault> {
        Ok(self.fs.list().await.map_err(Fault::failed)?.iter().map(FsStatus::of).collect())
    }

    fn flows(&self) -> Vec<FlowStatus> {
        let flow = |f: kiln_flow::FlowStatus| FlowStatus {
            name: f.name,
            from: f.from,
            to: f.to,
            seen: f.counts.seen,
            matched: f.counts.matched,
            delivered: f.counts.delivered,
            dead: f.counts.dead,
        };
        self.flow.flows().into_iter().map(flow).collect()
    }

    fn tasks(&self, ask: &Ask) -> Answer {
        let count = ask.parsed("max", 50_usize)?.min(TASKS_MAX);
        let failed = ask.parsed("failed", false)?;
        let query = Query { count, failed, ..Query::default() };
        let mut rows = self.ledger.list(query).map_err(Fault::failed)?;
        rows.reverse();
        let totals = totals(&self.ledger.totals().map_err(Fault::failed)?);
        json(&model::Tasks { tasks: rows.into_iter().map(task).collect(), totals })
    }

    /// The same counts as `/api/status`, as gauges taken at this moment.
    async fn metrics(&self) -> Answer {
        let services = self.services().await?;
        let metrics = Metrics::new();
        let set = |name, help, value: u64| metrics.gauge(name, help, &[]).set(value as i64);
        set("kiln_kafka_topics", "Topics", services.kafka.topics as u64);
        set("kiln_kafka_records", "Records held", services.kafka.records.unsigned_abs());
        set("kiln_kafka_groups", "Consumer groups", services.kafka.groups as u64);
        set("kiln_amqp_queues", "Queues", services.amqp.queues as u64);
        set("kiln_amqp_messages_ready", "Messages that wait for a consumer", services.amqp.ready);
        set(
            "kiln_amqp_messages_unacknowledged",
            "Messages delivered and not acknowledged",
            services.amqp.unacked,
        );
        set("kiln_amqp_connections", "Client connections", services.amqp.connections as u64);
        set("kiln_jobs_nodes_up", "Nodes that are connected", u64::from(services.jobs.nodes_up));
        set("kiln_jobs_pending", "Jobs that wait", services.jobs.pending);
        set("kiln_jobs_running", "Jobs that run", services.jobs.running);
        set("kiln_tasks_issued", "Tasks seen in the log", services.tasks.issued);
        set("kiln_tasks_completed", "Tasks that have ended", services.tasks.completed);
        set(
            "kiln_tasks_duplicated",
            "Tasks that ran to completion more than once",
            services.tasks.duplicated,
        );
        for flow in &services.flows {
            let hops = [
                ("seen", flow.seen),
                ("matched", flow.matched),
                ("delivered", flow.delivered),
                ("dead", flow.dead),
            ];
            for (hop, count) in hops {
                let labels = [("flow", flow.name.as_str()), ("hop", hop)];
                metrics.counter("kiln_flow_events", "Events at each hop of a flow", &labels).inc_by(count);
            }
        }
        self.filesystem_metrics(&metrics).await?;
        self.pool_metrics(&metrics).await;
        let intake = self.flow.intake();
        metrics.counter("kiln_syslog_lines", "Lines received", &[]).inc_by(intake.lines);
        metrics.counter("kiln_syslog_dropped", "Datagrams dropped", &[]).inc_by(intake.dropped);
        metrics.counter("kiln_syslog_truncated", "Lines cut", &[]).inc_by(intake.truncated);
        Ok((Metrics::CONTENT_TYPE, metrics.text().into()))
    }
}

fn totals(totals: &Totals) -> TaskTotals {
    let latency = |fraction| totals.latency.quantile(fraction).map_or(0.0, |d| d.as_secs_f64() * 1000.0);
    TaskTotals {
        issued: totals.issued,
        queued: totals.queued,
        started: totals.started,
        completed: totals.completed,
        failed: totals.failed,
        duplicated: totals.duplicated,
        latency_ms_p50: latency(0.5),
        latency_ms_p99: latency(0.99),
    }
}

fn task(row: Row) -> model::Task {
    let ms = |at: Option<Timestamp>| at.map(Timestamp::millis);
    model::Task {
        latency_ms: row.latency().map(|latency| latency.as_millis() as i64),
        key: row.id.to_string(),
        task: row.task,
        args: row.args.unwrap_or_default(),
        issued: ms(row.issued),
        logged: ms(row.logged),
        queued: ms(row.queued),
        started: ms(row.started),
        completed: ms(row.completed),
        agent: row.agent,
        job: row.job.map(|id| id.to_string()),
        status: row.status,
    }
}

/// An answer in JSON.
fn json(value: &impl Serialize) -> Answer {
    serde_json::to_vec(value).map(|bytes| (JSON, bytes.into())).map_err(Fault::failed)
}

/// An answer without content.
fn done() -> Answer {
    json(&serde_json::json!({}))
}

fn no_route(ask: &Ask) -> Fault {
    Fault::missing(format!(
        "there is no {} {}; see docs/api.md for what there is",
        ask.method,
        ask.uri.path()
    ))
}
