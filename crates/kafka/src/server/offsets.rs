//! Offsets by time, of groups, and of leader epochs; deleting records.

use super::convert::storage_error;
use crate::broker::{Broker, LEADER_EPOCH, OffsetError, Partition, blocking};
use crate::core::group::Who;
use crate::machine::{Commit, OffsetRow};
use crate::wire::ErrorCode;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopics;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use kiln_log::ChangeError;
use kiln_types::Offset;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Special times of `ListOffsets` (`ListOffsetsRequest` of Kafka).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;

/// A time or an offset that there is none of.
const NONE: i64 = -1;

/// The first offset at or after a time, or one of the ends.
pub(super) async fn list(broker: &Broker, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let epoch = if version >= 4 { LEADER_EPOCH } else { NONE as i32 };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let answer = ListOffsetsPartitionResponse::default().with_partition_index(wanted.partition_index);
            let found = match broker.partition(&topic.name, wanted.partition_index) {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(_) if wanted.current_leader_epoch > LEADER_EPOCH => Err(ErrorCode::UnknownLeaderEpoch),
                Some(partition) => offset_at(partition, wanted.timestamp).await,
            };
            partitions.push(match found {
                Ok((offset, time)) => {
                    answer.with_offset(offset).with_timestamp(time).with_leader_epoch(epoch)
                }
                Err(error) => answer.with_error_code(error.code()).with_offset(NONE).with_timestamp(NONE),
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Offset and time of the first record of that time or later.
async fn offset_at(partition: Arc<Partition>, time: i64) -> Result<(i64, i64), ErrorCode> {
    let marks = partition.watermarks();
    match time {
        LATEST => Ok((marks.durable.0, NONE)),
        EARLIEST | EARLIEST_LOCAL => Ok((marks.start.0, NONE)),
        MAX_TIMESTAMP => {
            let newest = partition.log().segments().iter().map(|segment| segment.max_time_ms).max();
            search(partition, newest.unwrap_or(i64::MAX)).await
        }
        0.. => search(partition, time).await,
        _ => Ok((NONE, NONE)), // -5: tiered storage, of which there is none
    }
}

async fn search(partition: Arc<Partition>, time: i64) -> Result<(i64, i64), ErrorCode> {
    match blocking(move || partition.log().offset_at(time)).await {
        Ok(found) => Ok(found.map_or((NONE, NONE), |(offset, time)| (offset.0, time))),
        Err(error) => Err(storage_error(&error)),
    }
}

/// Where an epoch ends: there has only been one.
pub(super) fn for_leader_epoch(
    broker: &Broker,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let one =
            |wanted: &kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition| {
                let answer = EpochEndOffset::default().with_partition(wanted.partition);
                match broker.partition(&topic.topic, wanted.partition) {
                    None => answer.with_error_code(ErrorCode::UnknownTopicOrPartition.code()),
                    Some(_) if wanted.current_leader_epoch > LEADER_EPOCH => {
                        answer.with_error_code(ErrorCode::UnknownLeaderEpoch.code())
                    }
                    Some(_) if wanted.leader_epoch != LEADER_EPOCH => answer,
                    Some(partition) => answer
                        .with_leader_epoch(LEADER_EPOCH)
                        .with_end_offset(partition.watermarks().durable.0),
                }
            };
        let partitions = topic.partitions.iter().map(one).collect();
        topics.push(
            OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions),
        );
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

/// Stores a group's offsets, durably.
pub(super) async fn commit(broker: &Broker, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let who = Who {
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|id| id.to_string()),
        generation: request.generation_id_or_member_epoch,
    };
    let mut error = match broker.inner.groups.may_commit(&request.group_id, &who) {
        _ if !crate::machine::is_group_name(&request.group_id) => ErrorCode::InvalidGroupId,
        error => error,
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut commits = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let known = broker.partition(&topic.name, wanted.partition_index).is_some();
            let own = if known { ErrorCode::None } else { ErrorCode::UnknownTopicOrPartition };
            partitions.push((wanted.partition_index, own));
            if known {
                commits.push(Commit {
                    topic: topic.name.to_string(),
                    partition: wanted.partition_index,
                    offset: wanted.committed_offset,
                    leader_epoch: wanted.committed_leader_epoch,
                    metadata: wanted.committed_metadata.map(|text| text.to_string()).unwrap_or_default(),
                });
            }
        }
        topics.push((topic.name, partitions));
    }
    if error.is_none() {
        error = match broker.commit(&request.group_id, commits).await {
            Ok(()) => ErrorCode::None,
            Err(OffsetError::Group(_)) => ErrorCode::InvalidGroupId,
            Err(OffsetError::Metadata(_)) => ErrorCode::OffsetMetadataTooLarge,
            Err(error) => storage_error(&error),
        };
    }
    committed(topics, error)
}

fn committed(topics: Vec<(TopicName, Vec<(i32, ErrorCode)>)>, error: ErrorCode) -> OffsetCommitResponse {
    let partition = |(index, own): (i32, ErrorCode)| {
        let error = if error.is_none() { own } else { error };
        OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(error.code())
    };
    let topic = |(name, partitions): (TopicName, Vec<_>)| {
        let partitions = partitions.into_iter().map(partition).collect();
        OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions)
    };
    OffsetCommitResponse::default().with_topics(topics.into_iter().map(topic).collect())
}

/// A partition's committed offset: partition, row if there is one.
type Row = (i32, Option<OffsetRow>);

/// How far groups have read.
pub(super) fn fetch(broker: &Broker, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    if version >= 8 {
        let groups = request.groups.into_iter().map(|group| {
            let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
            match rows(broker, &group.group_id, group.topics) {
                Ok(topics) => answer.with_topics(topics.into_iter().map(topic_of_group).collect()),
                Err(error) => answer.with_error_code(error.code()),
            }
        });
        return OffsetFetchResponse::default().with_groups(groups.collect());
    }
    let wanted = request.topics.map(|topics| {
        let named = |topic: kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
            OffsetFetchRequestTopics::default()
                .with_name(topic.name)
                .with_partition_indexes(topic.partition_indexes)
        };
        topics.into_iter().map(named).collect()
    });
    match rows(broker, &request.group_id, wanted) {
        Ok(topics) => {
            OffsetFetchResponse::default().with_topics(topics.into_iter().map(topic_alone).collect())
        }
        Err(error) => OffsetFetchResponse::default().with_error_code(error.code()),
    }
}

/// A group's offsets in the wanted partitions, or in all that it has.
fn rows(
    broker: &Broker,
    group: &str,
    wanted: Option<Vec<OffsetFetchRequestTopics>>,
) -> Result<Vec<(TopicName, Vec<Row>)>, ErrorCode> {
    let Some(wanted) = wanted else {
        let mut topics: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for (topic, partition, row) in broker.committed_all(group).map_err(|error| storage_error(&error))? {
            topics.entry(topic).or_default().push((partition, Some(row)));
        }
        let named = |(name, rows)| (TopicName(StrBytes::from_string(name)), rows);
        return Ok(topics.into_iter().map(named).collect());
    };
    let mut topics = Vec::with_capacity(wanted.len());
    for topic in wanted {
        let mut found = Vec::with_capacity(topic.partition_indexes.len());
        for partition in topic.partition_indexes {
            let row = broker.committed_row(group, &topic.name, partition);
            found.push((partition, row.map_err(|error| storage_error(&error))?));
        }
        topics.push((topic.name, found));
    }
    Ok(topics)
}

fn topic_of_group((name, rows): (TopicName, Vec<Row>)) -> OffsetFetchResponseTopics {
    let partition = |(index, row): Row| {
        let row = row.unwrap_or_else(no_row);
        OffsetFetchResponsePartitions::default()
            .with_partition_index(index)
            .with_committed_offset(row.offset)
            .with_committed_leader_epoch(row.leader_epoch)
            .with_metadata(Some(StrBytes::from_string(row.metadata)))
    };
    OffsetFetchResponseTopics::default()
        .with_name(name)
        .with_partitions(rows.into_iter().map(partition).collect())
}

fn topic_alone((name, rows): (TopicName, Vec<Row>)) -> OffsetFetchResponseTopic {
    let partition = |(index, row): Row| {
        let row = row.unwrap_or_else(no_row);
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(row.offset)
            .with_committed_leader_epoch(row.leader_epoch)
            .with_metadata(Some(StrBytes::from_string(row.metadata)))
    };
    OffsetFetchResponseTopic::default()
        .with_name(name)
        .with_partitions(rows.into_iter().map(partition).collect())
}

/// What a group that never committed is told.
fn no_row() -> OffsetRow {
    OffsetRow {
        offset: NONE,
        leader_epoch: NONE as i32,
        metadata: String::new(),
        at: kiln_types::Timestamp::EPOCH,
    }
}

/// Moves the start of partitions.
pub(super) async fn delete_records(broker: &Broker, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in topic.partitions {
            let answer = DeleteRecordsPartitionResult::default().with_partition_index(wanted.partition_index);
            let moved = match broker.partition(&topic.name, wanted.partition_index) {
                None => Err(ErrorCode::UnknownTopicOrPartition),
                Some(partition) if partition.is_read_only() => Err(ErrorCode::PolicyViolation),
                Some(partition) => set_start(partition, wanted.offset).await,
            };
            partitions.push(match moved {
                Ok(start) => answer.with_low_watermark(start.0),
                Err(error) => answer.with_low_watermark(NONE).with_error_code(error.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// Deletes what is below `to`, or everything for -1; the first offset after that.
async fn set_start(partition: Arc<Partition>, to: i64) -> Result<Offset, ErrorCode> {
    let to = if to == LATEST { partition.watermarks().durable } else { Offset(to) };
    if to.0 < 0 {
        return Err(ErrorCode::OffsetOutOfRange);
    }
    match blocking(move || partition.log().set_start(to).map(|()| partition.watermarks().start)).await {
        Ok(start) => Ok(start),
        Err(ChangeError::OutOfRange { .. }) => Err(ErrorCode::OffsetOutOfRange),
        Err(error) => Err(storage_error(&error)),
    }
}
