//! Records of a topic, from the committed offset on. The offset is committed after the sink has everything: at least once, and the key tells repeats.

use crate::backoff::{Backoff, Stopped};
use crate::core::Batch;
use crate::filter::Record;
use crate::ports::{Fetched, PortError, TopicRecord};
use crate::recorder::Offsets;
use crate::sinks::{Ports, Running};
use kiln_net::Shutdown;
use kiln_types::Offset;
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// About as much is read, decided and stored at once.
const READ_BYTES: usize = 1 << 20;
/// How long a read waits for the first record.
const READ_WAIT: Duration = Duration::from_secs(5);
/// How often a topic is asked whether it has more partitions than before.
const PARTITIONS_EVERY: Duration = Duration::from_secs(5);

/// Runs a flow over all partitions of its topic, also over those that are added later.
pub(crate) async fn run(
    running: Arc<Running>,
    topic: String,
    ports: Ports,
    offsets: Offsets,
    mut stop: Shutdown,
) -> Result<(), Stopped> {
    let mut pumps = JoinSet::new();
    let mut backoff = Backoff::new();
    let mut served = 0;
    loop {
        match ports.topics.partitions(&topic).await {
            Ok(partitions) => {
                for partition in served..partitions {
                    let place = Place { topic: topic.clone(), partition };
                    pumps.spawn(pump(running.clone(), place, ports.clone(), offsets.clone(), stop.clone()));
                }
                served = served.max(partitions);
                backoff.reset();
            }
            Err(error) => {
                tracing::warn!(flow = running.flow.name(), topic, %error, "the topic cannot be asked for its partitions");
                backoff.wait(&mut stop).await?;
                continue;
            }
        }
        tokio::select! {
            () = stop.wait() => break,
            () = tokio::time::sleep(PARTITIONS_EVERY) => {}
        }
    }
    while pumps.join_next().await.is_some() {}
    Ok(())
}

struct Place {
    topic: String,
    partition: u32,
}

async fn pump(
    running: Arc<Running>,
    place: Place,
    ports: Ports,
    offsets: Offsets,
    mut stop: Shutdown,
) -> Result<(), Stopped> {
    let mut backoff = Backoff::new();
    let mut batch = Batch::default();
    let mut next = loop {
        match offsets.committed(running.flow.name(), &place.topic, place.partition) {
            Ok(found) => break found.unwrap_or_default(),
            Err(error) => {
                tracing::error!(flow = running.flow.name(), %error, "the committed offset cannot be read; trying again");
                backoff.wait(&mut stop).await?;
            }
        }
    };
    loop {
        let fetched = match read(&ports, &place, next, &mut stop).await? {
            Ok(fetched) => fetched,
            Err(error) => {
                tracing::warn!(flow = running.flow.name(), topic = place.topic, %error, "the topic cannot be read; trying again");
                backoff.wait(&mut stop).await?;
                continue;
            }
        };
        backoff.reset();
        if fetched.next == next {
            continue;
        }
        for record in &fetched.records {
            running.flow.take_record(&view(&place.topic, record), &mut batch);
        }
        running.deliver(&mut batch, &ports, &mut stop).await?;
        next = fetched.next;
        while let Err(error) = offsets.commit(running.flow.name(), &place.topic, place.partition, next).await
        {
            tracing::warn!(flow = running.flow.name(), error, "the offset cannot be committed; trying again");
            backoff.wait(&mut stop).await?;
        }
    }
}

async fn read(
    ports: &Ports,
    place: &Place,
    from: Offset,
    stop: &mut Shutdown,
) -> Result<Result<Fetched, PortError>, Stopped> {
    tokio::select! {
        () = stop.wait() => Err(Stopped),
        fetched = ports.topics.read(&place.topic, place.partition, from, READ_BYTES, READ_WAIT) => Ok(fetched),
    }
}

fn view<'a>(topic: &'a str, record: &'a TopicRecord) -> Record<'a> {
    let key = record.key.as_deref().unwrap_or_default();
    let value = record.value.as_deref().unwrap_or_default();
    let mut view = Record::new(topic, key, value, record.time);
    let headers = record.headers.iter();
    view.headers =
        headers.map(|(name, value)| (Cow::Borrowed(name.as_str()), String::from_utf8_lossy(value))).collect();
    view
}
