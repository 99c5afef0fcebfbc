//! Settings of topics and of the broker: shown, and those of topics changed.

use super::convert::{outcome, text};
use crate::broker::{AdminError, Broker};
use crate::core::topic::{BadTopic, ConfigEntry, ConfigKind, TopicConfig};
use crate::wire::ErrorCode;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse as Altered;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use kafka_protocol::protocol::StrBytes;

/// Kinds of resources that have settings.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a setting's value comes from.
pub(super) const FROM_TOPIC: i8 = 1;
const FROM_BROKER: i8 = 4;
pub(super) const FROM_DEFAULT: i8 = 5;

/// What `IncrementalAlterConfigs` does with a setting (KIP-339).
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Settings of topics and of the broker.
pub(super) fn describe(broker: &Broker, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let with_synonyms = request.include_synonyms;
    let results =
        request.resources.into_iter().map(|resource| describe_resource(broker, resource, with_synonyms));
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe_resource(
    broker: &Broker,
    resource: DescribeConfigsResource,
    with_synonyms: bool,
) -> DescribeConfigsResult {
    let entries = match resource.resource_type {
        TOPIC => match broker.topic(&resource.resource_name) {
            Some(topic) => Ok(topic_entries(broker, &topic.config)),
            None => Err((ErrorCode::UnknownTopicOrPartition, "there is no such topic")),
        },
        BROKER => Ok(broker_entries(broker)),
        _ => Err((ErrorCode::InvalidRequest, "only topics and the broker have settings here")),
    };
    let answer = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name);
    let entries = match entries {
        Ok(entries) => entries,
        Err((error, message)) => {
            return answer
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_static_str(message)));
        }
    };
    let wanted = |key: &str| {
        let keys = resource.configuration_keys.as_ref();
        keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|wanted| &**wanted == key))
    };
    let configs = entries.into_iter().filter(|(entry, _)| wanted(entry.key));
    answer.with_configs(configs.map(|(entry, source)| describe_entry(entry, source, with_synonyms)).collect())
}

fn describe_entry(entry: ConfigEntry, source: i8, with_synonyms: bool) -> DescribeConfigsResourceResult {
    let synonym = || {
        DescribeConfigsSynonym::default()
            .with_name(text(entry.key))
            .with_value(Some(text(entry.value.clone())))
            .with_source(source)
    };
    let synonyms = if with_synonyms { vec![synonym()] } else { Vec::new() };
    DescribeConfigsResourceResult::default()
        .with_name(text(entry.key))
        .with_read_only(source == FROM_BROKER)
        .with_config_source(source)
        .with_config_type(entry.kind as i8)
        .with_synonyms(synonyms)
        .with_value(Some(text(entry.value)))
}

fn topic_entries(broker: &Broker, config: &TopicConfig) -> Vec<(ConfigEntry, i8)> {
    let entries = config.describe(&broker.inner.settings.topics).into_iter();
    entries.map(|entry| if entry.is_own { (entry, FROM_TOPIC) } else { (entry, FROM_DEFAULT) }).collect()
}

fn broker_entries(broker: &Broker) -> Vec<(ConfigEntry, i8)> {
    let settings = &broker.inner.settings;
    let fixed = |key, value, kind| ConfigEntry { key, value, is_own: true, kind };
    let int = |key, value: i64| fixed(key, value.to_string(), ConfigKind::Int);
    let auto = settings.auto_create_topics.to_string();
    let entries = vec![
        int("broker.id", i64::from(settings.node_id)),
        int("num.partitions", i64::from(settings.default_partitions)),
        int("default.replication.factor", 1),
        int("message.max.bytes", i64::from(settings.topics.batch_bytes_max)),
        int("socket.request.max.bytes", settings.request_bytes_max as i64),
        int("fetch.max.bytes", settings.fetch_bytes_max as i64),
        int("group.max.size", settings.group_members_max as i64),
        fixed("auto.create.topics.enable", auto, ConfigKind::Text),
    ];
    entries.into_iter().map(|entry| (entry, FROM_BROKER)).collect()
}

/// A setting and its new value; none for the default.
type Change = (StrBytes, Option<StrBytes>);

/// Why a resource is not changed: what the client is told.
type Refusal = (ErrorCode, Option<StrBytes>);

/// What is to be done to the settings of one resource.
struct Alteration {
    kind: i8,
    name: StrBytes,
    /// Whether settings that are not among the changes go back to their defaults.
    replaces: bool,
    changes: Vec<Change>,
    /// Whether it is only checked.
    is_trial: bool,
}

/// Replaces the settings of topics: what is not named goes back to its default.
pub(super) async fn alter(broker: &Broker, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let is_trial = request.validate_only;
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let changes = resource.configs.into_iter().map(|config| (config.name, config.value)).collect();
        let alteration = Alteration { kind, name: name.clone(), replaces: true, changes, is_trial };
        let (error, message) = alteration.apply(broker).await;
        responses.push(
            AlterConfigsResourceResponse::default()
                .with_resource_type(kind)
                .with_resource_name(name)
                .with_error_code(error.code())
                .with_error_message(message),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

/// Changes single settings of topics (KIP-339).
pub(super) async fn alter_some(
    broker: &Broker,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let is_trial = request.validate_only;
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let changes: Result<Vec<_>, _> = resource.configs.into_iter().map(one_change).collect();
        let (error, message) = match changes {
            Ok(changes) => {
                let alteration = Alteration { kind, name: name.clone(), replaces: false, changes, is_trial };
                alteration.apply(broker).await
            }
            Err(refusal) => refusal,
        };
        responses.push(
            Altered::default()
                .with_resource_type(kind)
                .with_resource_name(name)
                .with_error_code(error.code())
                .with_error_message(message),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn one_change(config: AlterableConfig) -> Result<Change, Refusal> {
    match (config.config_operation, config.value) {
        (SET, Some(value)) => Ok((config.name, Some(value))),
        (DELETE, _) => Ok((config.name, None)),
        (SET, None) => {
            Err(refusal(ErrorCode::InvalidRequest, "a setting cannot be set to nothing; delete it"))
        }
        _ => Err(refusal(ErrorCode::InvalidConfig, "no setting here is a list to add to or take from")),
    }
}

fn refusal(error: ErrorCode, message: &'static str) -> Refusal {
    (error, Some(StrBytes::from_static_str(message)))
}

impl Alteration {
    async fn apply(self, broker: &Broker) -> Refusal {
        match self.kind {
            TOPIC => {}
            BROKER => return refusal(ErrorCode::InvalidRequest, "the broker's settings are in its own file"),
            _ => return refusal(ErrorCode::InvalidRequest, "only topics have settings that can be changed"),
        }
        let altered = if self.is_trial {
            let topic = broker.changeable(&self.name);
            topic.and_then(|topic| self.change(&mut topic.config.clone()).map_err(AdminError::from))
        } else {
            let name = self.name.clone();
            broker.alter_topic(&name, move |config| self.change(config)).await
        };
        outcome(&altered)
    }

    fn change(&self, config: &mut TopicConfig) -> Result<(), BadTopic> {
        if self.replaces {
            *config = TopicConfig::default();
        }
        self.changes.iter().try_for_each(|(key, value)| config.set(key, value.as_deref()))
    }
}
