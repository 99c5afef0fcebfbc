//! Creating, growing and deleting topics.

use super::configs::{FROM_DEFAULT, FROM_TOPIC};
use super::convert::{outcome, text};
use crate::broker::{AdminError, Broker, NewTopic, TopicInfo};
use crate::core::topic::{ConfigEntry, TopicConfig};
use crate::wire::ErrorCode;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use uuid::Uuid;

/// Creates topics one after the other.
pub(super) async fn create_topics(
    broker: &Broker,
    version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut topics = Vec::with_capacity(request.topics.len());
    for wanted in request.topics {
        let name = wanted.name.clone();
        let created = create_topic(broker, wanted, request.validate_only).await;
        let (error, message) = outcome(&created);
        let result = CreatableTopicResult::default().with_name(name).with_error_code(error.code());
        topics.push(match created {
            Ok(info) => describe_created(broker, version, result, &info),
            Err(_) => result.with_error_message(message),
        });
    }
    CreateTopicsResponse::default().with_topics(topics)
}

fn describe_created(
    broker: &Broker,
    version: i16,
    result: CreatableTopicResult,
    info: &TopicInfo,
) -> CreatableTopicResult {
    let config = |entry: ConfigEntry| {
        CreatableTopicConfigs::default()
            .with_name(text(entry.key))
            .with_config_source(if entry.is_own { FROM_TOPIC } else { FROM_DEFAULT })
            .with_value(Some(text(entry.value)))
    };
    let configs = info.config.describe(&broker.inner.settings.topics).into_iter().map(config).collect();
    let result = if version >= 7 { result.with_topic_id(Uuid::from_bytes(info.id)) } else { result };
    if version < 5 {
        return result;
    }
    result
        .with_num_partitions(info.partitions.len() as i32)
        .with_replication_factor(1)
        .with_configs(Some(configs))
}

async fn create_topic(
    broker: &Broker,
    wanted: CreatableTopic,
    is_trial: bool,
) -> Result<TopicInfo, AdminError> {
    let partitions = wanted_partitions(&wanted)?;
    if !matches!(wanted.replication_factor, -1 | 1) {
        return Err(AdminError::Replicas(i64::from(wanted.replication_factor)));
    }
    let mut config = TopicConfig::default();
    for setting in &wanted.configs {
        config.set(&setting.name, setting.value.as_deref())?;
    }
    let new = NewTopic { name: wanted.name.to_string(), partitions, config };
    if !is_trial {
        return broker.create_topic(new).await;
    }
    let count = broker.check_new(&new)?;
    if broker.topic(&new.name).is_some() {
        return Err(AdminError::TopicExists(new.name));
    }
    let none = crate::PartitionInfo { start: kiln_types::Offset(0), end: kiln_types::Offset(0), bytes: 0 };
    let partitions = vec![none; count as usize];
    Ok(TopicInfo { name: new.name, id: [0; 16], partitions, config: new.config, is_mounted: false })
}

/// The number of partitions: named, left to the broker (-1), or that of the replica assignment.
fn wanted_partitions(wanted: &CreatableTopic) -> Result<Option<u32>, AdminError> {
    if !wanted.assignments.is_empty() {
        if let Some(many) = wanted.assignments.iter().find(|of| of.broker_ids.len() != 1) {
            return Err(AdminError::Replicas(many.broker_ids.len() as i64));
        }
        return Ok(Some(wanted.assignments.len() as u32));
    }
    match wanted.num_partitions {
        -1 => Ok(None),
        count @ 1.. => Ok(Some(count as u32)),
        count => Err(AdminError::Partitions { wanted: i64::from(count), reason: "use 1 or more".into() }),
    }
}

/// Deletes topics by name, or from version 6 on also by id.
pub(super) async fn delete_topics(
    broker: &Broker,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| (Some(name), Uuid::nil()));
    let wanted: Vec<_> = if version < 6 {
        by_name.collect()
    } else {
        request.topics.into_iter().map(|topic| (topic.name, topic.topic_id)).collect()
    };
    let mut responses = Vec::with_capacity(wanted.len());
    for (name, id) in wanted {
        responses.push(delete_topic(broker, version, name, id).await);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete_topic(
    broker: &Broker,
    version: i16,
    name: Option<TopicName>,
    id: Uuid,
) -> DeletableTopicResult {
    let answer = DeletableTopicResult::default();
    let found = match &name {
        Some(name) => broker.topic(name),
        None => broker.topics().by_id(id.as_bytes()).cloned(),
    };
    let topic = match (found, name) {
        (Some(topic), _) => topic,
        (None, Some(name)) => {
            return answer.with_name(Some(name)).with_error_code(ErrorCode::UnknownTopicOrPartition.code());
        }
        (None, None) => return answer.with_topic_id(id).with_error_code(ErrorCode::UnknownTopicId.code()),
    };
    let (error, message) = outcome(&broker.delete_topic(&topic.name).await);
    let answer = if version >= 6 { answer.with_topic_id(Uuid::from_bytes(topic.id)) } else { answer };
    answer
        .with_name(Some(TopicName(text(topic.name.clone()))))
        .with_error_code(error.code())
        .with_error_message(message.filter(|_| version >= 5))
}

/// Grows topics.
pub(super) async fn create_partitions(
    broker: &Broker,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    for wanted in request.topics {
        let grown = grow(broker, &wanted, request.validate_only).await;
        let (error, message) = outcome(&grown);
        results.push(
            CreatePartitionsTopicResult::default()
                .with_name(wanted.name)
                .with_error_code(error.code())
                .with_error_message(message),
        );
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn grow(broker: &Broker, wanted: &CreatePartitionsTopic, is_trial: bool) -> Result<(), AdminError> {
    let count = u32::try_from(wanted.count).unwrap_or(0);
    if !is_trial {
        return broker.set_partitions(&wanted.name, count).await;
    }
    let topic = broker.topic(&wanted.name).ok_or_else(|| AdminError::NoTopic(wanted.name.to_string()))?;
    if count as usize > topic.partitions.len() {
        return Ok(());
    }
    let reason = format!("the topic has {} already", topic.partitions.len());
    Err(AdminError::Partitions { wanted: i64::from(wanted.count), reason })
}
