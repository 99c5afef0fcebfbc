//! `/api/topics` and `/api/groups`.

use std::time::Duration;

use hyper::Method;
use kiln_kafka::{AdminError, Commit, NewTopic, OffsetError, TopicConfig, TopicInfo};
use kiln_log::batch::Record;
use kiln_types::Offset;

use super::{Answer, Routes, done, json, no_route};
use crate::api::ask::{Ask, Fault};
use crate::api::model;
use crate::wiring::topics::{batches, decode};

/// Records in one answer.
const RECORDS_MAX: usize = 10_000;
/// Bytes read from the log for one answer.
const PAGE_BYTES: usize = 4 << 20;
/// The longest that a question at the end of a topic is held.
const WAIT_MAX: Duration = Duration::from_secs(30);

impl Routes {
    pub(super) async fn topics(&self, ask: &Ask, rest: &[&str]) -> Answer {
        match (&ask.method, rest) {
            (&Method::GET, []) => json(&self.kafka.list_topics().iter().map(topic).collect::<Vec<_>>()),
            (&Method::POST, []) => self.create_topic(ask).await,
            (&Method::DELETE, [name]) => {
                self.kafka.delete_topic(name).await.map_err(admin_fault)?;
                done()
            }
            (&Method::GET, [name, "records"]) => self.read_records(ask, name).await,
            (&Method::POST, [name, "records"]) => self.write_records(ask, name).await,
            _ => Err(no_route(ask)),
        }
    }

    async fn create_topic(&self, ask: &Ask) -> Answer {
        let new: model::NewTopic = ask.json()?;
        let mut config = TopicConfig::default();
        for (key, value) in &new.configs {
            config.set(key, Some(value)).map_err(Fault::bad)?;
        }
        let partitions =
            u32::try_from(new.partitions).map_err(|_| Fault::bad("partitions must be 1 or more"))?;
        let new = NewTopic { name: new.name, partitions: Some(partitions), config };
        json(&topic(&self.kafka.create_topic(new).await.map_err(admin_fault)?))
    }

    async fn read_records(&self, ask: &Ask, name: &str) -> Answer {
        let partition: i32 = ask.parsed("partition", 0)?;
        let max = ask.parsed("max", 100_usize)?.min(RECORDS_MAX);
        let wait = Duration::from_millis(ask.parsed("wait_ms", 0)?).min(WAIT_MAX);
        if self.kafka.partition_count(name).is_none() {
            return Err(no_topic(name));
        }
        let mut marks = self.kafka.watch(name, partition).map_err(Fault::missing)?;
        let now = *marks.borrow_and_update();
        let from = match ask.query("from")?.as_deref() {
            None | Some("earliest") => now.start,
            Some("latest") => now.durable,
            Some(offset) => Offset(
                offset.parse().map_err(|_| Fault::bad("from must be `earliest`, `latest` or an offset"))?,
            ),
        };
        let from = from.max(now.start);
        if now.durable <= from {
            // Nothing in time is an answer too.
            let _ = tokio::time::timeout(wait, marks.wait_for(|m| m.durable > from)).await;
        }
        let empty = marks.borrow().durable <= from;
        let bytes = if empty {
            Vec::new()
        } else {
            self.kafka.read(name, partition, from, PAGE_BYTES).await.map_err(Fault::failed)?
        };
        let mut page = decode(&bytes, from);
        if page.records.len() > max {
            page.next = page.records[max].offset;
            page.records.truncate(max);
        }
        json(&model::Records { records: page.records.into_iter().map(record).collect(), next: page.next.0 })
    }

    async fn write_records(&self, ask: &Ask, name: &str) -> Answer {
        let new: model::NewRecords = ask.json()?;
        if self.kafka.partition_count(name).is_none() {
            return Err(no_topic(name));
        }
        let time_ms = self.clock.now().millis();
        let record =
            |value| Record { key: None, value: Some(String::as_bytes(value)), headers: &[], time_ms };
        let records: Vec<Record<'_>> = new.values.iter().map(record).collect();
        let mut last = None;
        for batch in batches(&records) {
            let placed = self.kafka.append_records(name, 0, batch).map_err(Fault::failed)?;
            last = Some(placed.last);
        }
        if let Some(last) = last {
            self.kafka.durable(name, 0, last).await.map_err(Fault::failed)?;
        }
        done()
    }

    async fn commit_offset(&self, ask: &Ask, group: &str) -> Answer {
        let model::CommitOffset { topic, partition, offset } = ask.json()?;
        let count = self.kafka.partition_count(&topic).ok_or_else(|| no_topic(&topic))?;
        if u32::try_from(partition).map_or(true, |partition| partition >= count) || offset < 0 {
            return Err(Fault::bad(format!("{topic} has no partition {partition} with an offset {offset}")));
        }
        let commit = Commit { topic, partition, offset, leader_epoch: -1, metadata: String::new() };
        self.kafka.commit(group, vec![commit]).await.map_err(|error| match error {
            OffsetError::Group(_) | OffsetError::Metadata(_) => Fault::bad(error),
            OffsetError::Store(_) | OffsetError::Read(_) => Fault::failed(error),
        })?;
        done()
    }

    pub(super) async fn groups(&self, ask: &Ask, rest: &[&str]) -> Answer {
        if let (&Method::POST, [group, "offsets"]) = (&ask.method, rest) {
            return self.commit_offset(ask, group).await;
        }
        ask.question()?;
        let groups = self.kafka.list_groups().map_err(Fault::failed)?;
        match rest {
            [] => json(&groups.iter().map(group).collect::<Vec<_>>()),
            [name] => match groups.iter().find(|g| g.name == *name) {
                Some(found) => json(&group(found)),
                None => Err(Fault::missing(format!("there is no group {name}; `kiln group list` shows all"))),
            },
            _ => Err(no_route(ask)),
        }
    }
}

fn no_topic(name: &str) -> Fault {
    Fault::missing(format!("there is no topic {name}; `kiln topic create {name}` makes it"))
}

fn admin_fault(error: AdminError) -> Fault {
    match error {
        AdminError::NoTopic(_) | AdminError::NoGroup(_) => Fault::missing(error),
        AdminError::Open(_) | AdminError::Remove(_) | AdminError::Store(_) => Fault::failed(error),
        _ => Fault::bad(error),
    }
}

fn topic(info: &TopicInfo) -> model::Topic {
    let partitions = info.partitions.iter().enumerate().map(|(n, p)| model::Partition {
        partition: n as i32,
        start: p.start.0,
        end: p.end.0,
        bytes: p.bytes,
    });
    model::Topic { name: info.name.clone(), partitions: partitions.collect() }
}

fn record(record: kiln_flow::ports::TopicRecord) -> model::Record {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    model::Record {
        offset: record.offset.0,
        time_ms: record.time.millis(),
        key: record.key.map(text),
        value: record.value.map(text),
        headers: record.headers.into_iter().map(|(name, value)| (name, text(value))).collect(),
    }
}

fn group(info: &kiln_kafka::GroupInfo) -> model::Group {
    model::Group {
        name: info.name.clone(),
        state: info.state.clone(),
        members: info.members,
        offsets: info
            .lags
            .iter()
            .map(|lag| model::GroupOffset {
                topic: lag.topic.clone(),
                partition: lag.partition,
                committed: lag.committed.0,
                lag: lag.records() as i64,
            })
            .collect(),
    }
}
