//! Doing what a flow decided. A sink that fails holds the flow back and is tried again; nothing is dropped.

mod file;
pub(crate) mod relp;
mod syslog;

use crate::QUEUED_HEADER;
use crate::backoff::{Backoff, Stopped};
use crate::core::{Batch, Counters, Flow, Outlet, RecordRef, SHORT_BYTES_MAX};
use crate::ports::{Exchanges, Jobs, PortError, Publish, Published, Topics};
use crate::syslog::format_time;
use kiln_net::Shutdown;
use kiln_world::Clock;
use std::path::PathBuf;
use std::sync::Arc;

/// The services behind the sinks.
#[derive(Clone)]
pub struct Ports {
    /// Topics, also for dead letters.
    pub topics: Arc<dyn Topics>,
    /// Exchanges.
    pub exchanges: Arc<dyn Exchanges>,
    /// Jobs.
    pub jobs: Arc<dyn Jobs>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Where relative paths of file sinks begin.
    pub files: PathBuf,
}

/// A flow with what it needs to run.
pub(crate) struct Running {
    pub(crate) flow: Flow,
    pub(crate) counters: Counters,
    sink: Sink,
}

/// Sinks that keep something open.
enum Sink {
    Port,
    File(file::FileSink),
    Syslog(syslog::SyslogSink),
}

impl Running {
    pub(crate) fn new(flow: Flow, ports: &Ports) -> Running {
        let sink = match flow.outlet() {
            Outlet::Topic { .. } | Outlet::Exchange { .. } | Outlet::Jobs { .. } => Sink::Port,
            Outlet::File(path) => Sink::File(file::FileSink::new(ports.files.join(path))),
            Outlet::Syslog(address) => Sink::Syslog(syslog::SyslogSink::new(address.clone())),
        };
        Running { flow, counters: Counters::default(), sink }
    }

    /// Stores the batch and empties it. `Ok` when everything of it is safe; otherwise it is to be given again later.
    pub(crate) async fn deliver(
        &self,
        batch: &mut Batch,
        ports: &Ports,
        stop: &mut Shutdown,
    ) -> Result<(), Stopped> {
        let taken = batch.records.len() as u64;
        let buried_before = batch.dead.len() as u64;
        if !batch.records.is_empty() {
            self.until_done(batch, ports, stop).await?;
        }
        if !batch.dead.is_empty() {
            self.until_buried(batch, ports, stop).await?;
        }
        let dead = batch.dead.len() as u64;
        let delivered = taken.saturating_sub(dead - buried_before);
        self.counters.stored(batch.seen, batch.matched, delivered, dead);
        batch.clear();
        Ok(())
    }

    async fn until_done(&self, batch: &mut Batch, ports: &Ports, stop: &mut Shutdown) -> Result<(), Stopped> {
        let mut backoff = Backoff::new();
        let dead = batch.dead.len();
        loop {
            match self.attempt(batch, ports, stop).await {
                Ok(()) => return Ok(()),
                Err(PortError::Refused(reason)) => {
                    let reason = format!("to: {reason}");
                    (0..batch.records.len()).for_each(|index| batch.bury(index, self.flow.name(), &reason));
                    return Ok(());
                }
                Err(PortError::Unavailable(reason)) => {
                    tracing::warn!(
                        flow = self.flow.name(),
                        reason,
                        "the sink fails; holding back and trying again"
                    );
                    self.counters.retried();
                    batch.dead.truncate(dead);
                    backoff.wait(stop).await?;
                }
            }
        }
    }

    async fn attempt(&self, batch: &mut Batch, ports: &Ports, stop: &mut Shutdown) -> Result<(), PortError> {
        match (&self.sink, self.flow.outlet()) {
            (Sink::File(sink), _) => sink.append(&batch.records).await,
            (Sink::Syslog(sink), _) => sink.send(&batch.records, stop).await,
            (Sink::Port, Outlet::Topic { topic, .. }) => ports.topics.append(topic, &batch.records).await,
            (Sink::Port, Outlet::Exchange { exchange, .. }) => self.publish(exchange, batch, ports).await,
            (Sink::Port, _) => self.submit(batch, ports).await,
        }
    }

    async fn publish(&self, exchange: &str, batch: &mut Batch, ports: &Ports) -> Result<(), PortError> {
        let headers = [(QUEUED_HEADER, format_time(ports.clock.now()))];
        let id = |record: RecordRef<'_>| {
            let key = record.key.filter(|key| key.len() <= SHORT_BYTES_MAX).unwrap_or_default();
            String::from_utf8_lossy(key).into_owned()
        };
        let ids: Vec<String> = batch.records.iter().map(id).collect();
        let each = batch.records.iter().zip(&batch.routes).zip(&ids);
        let messages: Vec<Publish<'_>> = each
            .map(|((record, routing_key), message_id)| Publish {
                routing_key,
                message_id,
                headers: &headers,
                body: record.value,
            })
            .collect();
        let published = ports.exchanges.publish(exchange, &messages).await?;
        let outcomes = published.iter().zip(&batch.routes).enumerate();
        let unroutable = outcomes.filter(|(_, (outcome, _))| **outcome == Published::Unroutable);
        let reason = |route: &str| format!("to: no queue of exchange {exchange} is bound for `{route}`");
        let lost: Vec<(usize, String)> =
            unroutable.map(|(index, (_, route))| (index, reason(route))).collect();
        for (index, reason) in lost {
            batch.bury(index, self.flow.name(), &reason);
        }
        Ok(())
    }

    async fn submit(&self, batch: &mut Batch, ports: &Ports) -> Result<(), PortError> {
        for index in 0..batch.runs.len() {
            let run = &batch.runs[index];
            match ports.jobs.submit(run).await {
                Ok(job) => tracing::debug!(flow = self.flow.name(), task = %run.id, %job, "submitted"),
                Err(PortError::Refused(reason)) => {
                    batch.bury(index, self.flow.name(), &format!("to: {reason}"));
                }
                Err(later) => return Err(later),
            }
        }
        Ok(())
    }

    async fn until_buried(&self, batch: &Batch, ports: &Ports, stop: &mut Shutdown) -> Result<(), Stopped> {
        let mut backoff = Backoff::new();
        while let Err(error) = ports.topics.append(self.flow.dead_letter(), &batch.dead).await {
            tracing::error!(flow = self.flow.name(), topic = self.flow.dead_letter(), %error, "dead letters cannot be stored; holding back");
            self.counters.retried();
            backoff.wait(stop).await?;
        }
        Ok(())
    }
}
